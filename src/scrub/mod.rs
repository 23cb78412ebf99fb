//! Removing personal data from a parsed dump and from text, in place and at the same length.
#![deny(unsafe_code)]

mod contexts;
mod core_file;
mod echoes;
mod edges;
mod edit;
mod finder;
mod frames;
mod known;
mod layers;
mod maps;
mod places;
mod pointers;
pub mod receipt;
mod rules;
mod runs;
#[allow(unsafe_code, reason = "intrinsics")]
mod simd;
mod texts;
mod trigrams;
mod wishes;

use std::fs::File;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use receipt::{Entry, Place, Receipt, Tally};
pub use wishes::Wish;

use crate::dump::Layout;
use crate::error::Result;
use crate::report::Report;

/// What is to be removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Policy {
    /// How much memory stays.
    pub level: Level,
    /// Values that must not leave: user name, home directory, host name, what the application registered.
    pub known: Vec<String>,
    /// Addresses of the argv and envp strings at the top of the main thread's stack
    /// (`arg_start`..`env_end` of `/proc/PID/stat`), when known.
    pub arguments: Option<Range<u64>>,
    /// The argv strings themselves, each with a zero character behind, if the dump has no stream of them. They may be
    /// anywhere: programs copy them about.
    pub argument_strings: String,
    /// The same for the envp strings.
    pub environment_strings: String,
    /// What others want blanked, each with the rule that receipts name.
    pub wishes: Vec<(String, Vec<Wish>)>,
}

/// What happens to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Patterns and known values are blanked.
    #[default]
    Pattern,
    /// Besides, stack words that point neither into a module nor into a stack and are no small integers are blanked,
    /// and so is all memory that is not a stack.
    Pointers,
}

/// Version of the rules, written into receipts.
pub const ENGINE: u32 = 1;

/// A policy, compiled. Making one is the only part of scrubbing that allocates for the policy, so it can be done
/// long before a crash; it may be shared between threads.
#[derive(Debug, Clone)]
pub struct Engine {
    policy: Policy,
    known: known::Known,
    echoes: echoes::Echoes,
}

impl Engine {
    /// Compiles `policy`.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) for too many or too long known values.
    pub fn new(policy: &Policy) -> Result<Self> {
        rules::prepare();
        let mut echoes = echoes::Echoes::default();
        policy.known.iter().for_each(|value| echoes.learn(value.as_bytes()));
        Ok(Self { known: known::Known::new(&policy.known)?, policy: policy.clone(), echoes })
    }

    /// Remembers the values in a report's texts, so that [`dump`](Self::dump) finds pieces of them too.
    pub fn learn(&mut self, report: &Report) {
        texts::learn(report, &self.known, &mut self.echoes);
    }

    /// See [`dump`]. The values found are remembered, and pieces of them blanked here and in a later
    /// [`report`](Self::report).
    ///
    /// # Errors
    /// As [`dump`].
    pub fn dump(&mut self, bytes: &mut [u8], layout: &Layout, receipt: &mut Receipt) -> Result<()> {
        receipt.engine = ENGINE;
        places::scrub(
            &mut edit::Editor::new(bytes, receipt),
            layout,
            &self.policy,
            &self.known,
            &mut self.echoes,
        )
    }

    /// See [`core_file`]. The values found are remembered, as with [`dump`](Self::dump).
    ///
    /// # Errors
    /// As [`core_file`].
    pub fn core_file(&mut self, input: &File, output: &File, receipt: &mut Receipt) -> Result<()> {
        receipt.engine = ENGINE;
        core_file::scrub(input, output, &self.policy, &self.known, &mut self.echoes, receipt)
    }

    /// See [`report`].
    pub fn report(&self, report: &mut Report, receipt: &mut Receipt) {
        receipt.engine = ENGINE;
        texts::scrub(report, &self.known, &self.echoes, receipt);
    }
}

/// Scrubs a dump in place. The length stays; the result still parses and unwinds the same. Linear in the dump's
/// length. `layout` must be that of `bytes`.
///
/// # Errors
/// Anything that could not be scrubbed with certainty (an unknown CPU, a context that is too short, a policy beyond the
/// limits). The bytes must then not be used: the caller steps down to a stack trace.
pub fn dump(bytes: &mut [u8], layout: &Layout, policy: &Policy, receipt: &mut Receipt) -> Result<()> {
    Engine::new(policy)?.dump(bytes, layout, receipt)
}

/// Copies an ELF core file of a 64-bit x86 process, scrubbed, into `output`, which must be empty and open for reading and
/// writing. The length stays; what nothing in the file refers to becomes zero, in a sparse file where the system has those. A
/// debugger finds the same threads, frames and binaries in it as before.
///
/// The file is read in pieces of 4 MiB: memory is needed for those and for the receipt, whatever its size. Time is linear.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) for a file that is no such core file, is cut short or contradicts itself,
/// [`Error::Limit`](crate::Error::Limit) for more than 4 Mi changes, [`Error::System`](crate::Error::System) if a file cannot be
/// read or written. What was written must then be thrown away.
pub fn core_file(input: &File, output: &File, policy: &Policy, receipt: &mut Receipt) -> Result<()> {
    Engine::new(policy)?.core_file(input, output, receipt)
}

/// Blanks more in a dump that was scrubbed, by the rule `rule`.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) if the dump has not all of it. What it has is blanked all the same.
pub fn blank(
    bytes: &mut [u8],
    layout: &Layout,
    rule: &str,
    wishes: &[Wish],
    receipt: &mut Receipt,
) -> Result<()> {
    match wishes::apply(&mut edit::Editor::new(bytes, receipt), layout, rule, wishes) {
        None => Ok(()),
        Some(_) => Err(crate::Error::malformed("wish", "something that the dump does not have")),
    }
}

/// Enters into `receipt` what a dump has of memory that was zeroed before it came into the dump, by the rule `rule`.
pub fn hidden(layout: &Layout, rule: &str, ranges: &[std::ops::Range<u64>], receipt: &mut Receipt) {
    wishes::hidden(layout, rule, ranges, receipt);
}

/// What a report notes if not all copies of blanked memory were sought.
pub const NOT_ALL_SOUGHT: &str =
    "not all copies of memory that was blanked were sought: it is too much, or holds too many texts";

/// The texts in memory that is to be blanked: add them to [`Policy::known`] so that their copies go too. A dump may have
/// those and not the memory itself: a field that nothing points to. Pieces of up to 4 KiB count from 4 characters on, else
/// from 6. There are 256 texts at most; the second value tells whether those are all.
pub fn texts_of<'a>(memory: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    wishes::texts(memory)
}

/// Scrubs a text that is to go into a report. If `policy` is beyond its limits nothing is left of it.
pub fn text(text: &mut String, policy: &Policy, receipt: &mut Receipt) {
    match Engine::new(policy) {
        Ok(engine) => texts::scrub_text(text, &engine.known, &engine.echoes, Place::Annotation, receipt),
        Err(_) => text.clear(),
    }
}

/// Scrubs every text of a report: values of attributes, breadcrumbs, panic message and location, the words given to
/// `capture`, thread names, annotations. Keys, notes and module names stay.
///
/// If `policy` is beyond its limits, all these texts are emptied instead, and a note says so.
pub fn report(report: &mut Report, policy: &Policy, receipt: &mut Receipt) {
    match Engine::new(policy) {
        Ok(mut engine) => {
            engine.learn(report);
            engine.report(report, receipt);
        }
        Err(error) => texts::empty(report, &error),
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests;
