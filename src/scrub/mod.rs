//! Removing personal data from a parsed dump and from text, in place and at the same length.
#![deny(unsafe_code)]

mod aliases;
mod arguments;
mod contexts;
mod core_file;
mod cut_off;
mod echoes;
mod edges;
mod edit;
mod finder;
mod frames;
mod known;
mod layers;
mod malloc_chunks;
mod maps;
mod outside;
mod own;
mod places;
mod pointers;
pub mod receipt;
mod rules;
mod runs;
mod saved_registers;
#[allow(unsafe_code, reason = "intrinsics")]
mod simd;
mod structures;
mod texts;
mod trigrams;
mod wishes;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use own::validate as validate_rules;
pub use own::{Check, Rule, rules_from_file, rules_from_toml};
pub use receipt::{Entry, Place, Receipt, Scrubbed, Tally};
pub use wishes::Wish;

use crate::dump::Layout;
use crate::error::{Error, Result};
use crate::report::Report;

/// Changes of one dump, at most: a receipt is held in memory, and reported.
const MOST_CHANGES: usize = 1 << 22;

/// What is to be removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Policy {
    /// How much memory stays: the level of stacks, and [`Level::Drop`] for other memory if it is [`Level::Pointers`].
    pub level: Level,
    /// Levels of single places, where they differ from [`Policy::level_of`]'s.
    #[serde(default)]
    pub places: BTreeMap<Place, Level>,
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
    /// Rules of the application's own.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What others want blanked, each with the rule that receipts name.
    pub wishes: Vec<(String, Vec<Wish>)>,
}

/// What happens to a place. Each level removes what the ones before it remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Level {
    /// Only known values and what was wished for go.
    Keep,
    /// Patterns go, too.
    #[default]
    Pattern,
    /// Besides, memory keeps aligned words that point into a module or a stack, and small integers of either sign, and no
    /// others; stacks nothing below their pointer. On a 32-bit machine, where text may look like a pointer, a printable word must
    /// follow a call instruction that the dump holds, or lie where frame pointers lead; four small integers in a row that
    /// are printable characters are text. Of a register that is neither small nor points anywhere nothing is left. What is text
    /// by its nature goes whole.
    Pointers,
    /// Everything goes; of a module's path not the base name, of registers not what unwinding starts from.
    Drop,
}

impl std::str::FromStr for Level {
    type Err = Error;

    /// By its name: "keep", "pattern", "pointers", "drop".
    fn from_str(name: &str) -> Result<Self> {
        [("keep", Self::Keep), ("pattern", Self::Pattern), ("pointers", Self::Pointers), ("drop", Self::Drop)]
            .into_iter()
            .find_map(|(known, level)| (known == name).then_some(level))
            .ok_or_else(|| Error::InvalidConfig {
                field: "level",
                reason: "a level is keep, pattern, pointers or drop".to_owned(),
            })
    }
}

impl Policy {
    /// The level of a place: what [`places`](Self::places) say; else [`level`](Self::level) for memory, `Drop` for the environment and
    /// for what nobody understands, `Pattern` for the rest.
    pub fn level_of(&self, place: Place) -> Level {
        match (self.places.get(&place), place) {
            (_, Place::Unclaimed) => Level::Drop,
            (Some(level), _) => *level,
            (None, Place::Environment) => Level::Drop,
            (None, Place::Heap) if self.level == Level::Pointers => Level::Drop,
            (None, Place::Heap | Place::Stack) => self.level,
            (None, _) => Level::Pattern,
        }
    }

    /// See [`Receipt::policy`].
    fn version(&self) -> String {
        let settings = (ENGINE, &self.level, &self.places, &self.rules);
        let text = serde_json::to_vec(&settings).unwrap_or_default();
        let mut version = receipt::hexadecimal(&Sha256::digest(&text));
        version.truncate(16);
        version
    }

    fn check(&self) -> Result<()> {
        match self.places.get(&Place::Unclaimed) {
            None | Some(Level::Drop) => Ok(()),
            Some(_) => Err(Error::InvalidConfig {
                field: "level",
                reason: "what nobody understands (unclaimed) is always dropped".to_owned(),
            }),
        }
    }
}

/// Checks levels of places without using them.
///
/// # Errors
/// [`Error::InvalidConfig`] for one that a place cannot have.
pub(crate) fn validate_levels(places: &BTreeMap<Place, Level>) -> Result<()> {
    Policy { places: places.clone(), ..Policy::default() }.check()
}

/// Version of the rules, written into receipts.
pub const ENGINE: u32 = 8;

/// A policy, compiled. Making one is the only part of scrubbing that allocates for the policy, so it can be done
/// long before a crash.
///
/// One is for one report: it remembers the values that it met, and [`Entry::alias`]es number those that it removed, the same in all that
/// it scrubs. So [`dump`](Self::dump) takes `&mut self`. A clone is for another report and numbers anew, under a key of its own: keep
/// one that has scrubbed nothing, which threads may share (it is `Send` and `Sync`), and clone it for each report.
///
/// ```no_run
/// use cenotaph::dump::Layout;
/// use cenotaph::scrub::{Engine, Policy, Receipt, Rule};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let known = vec!["alice".to_owned()];
/// let rules = vec![Rule::new("player-id", "PLR-([0-9]{8,16})")];
/// let fresh = Engine::new(&Policy { known, rules, ..Policy::default() })?;
///
/// let mut bytes = std::fs::read("crash.dmp")?;
/// let layout = Layout::parse(&bytes)?;
/// let mut receipt = Receipt::default();
/// fresh.clone().dump(&mut bytes, &layout, &mut receipt)?;
/// receipt.describe(&bytes, receipt.entries.len());
/// std::fs::write("scrubbed.dmp", &bytes)?;
/// receipt.verify(&std::fs::File::open("scrubbed.dmp")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Engine {
    policy: Policy,
    known: known::Known,
    echoes: echoes::Echoes,
    aliases: aliases::Shared,
    /// See [`Receipt::policy`].
    version: String,
}

impl Engine {
    /// Compiles `policy`.
    ///
    /// # Errors
    /// [`Error::Limit`] for too many or too long known values,
    /// [`Error::InvalidConfig`] for a rule that is none.
    pub fn new(policy: &Policy) -> Result<Self> {
        rules::prepare();
        let mut echoes = echoes::Echoes::default();
        policy.known.iter().for_each(|value| echoes.learn(value.as_bytes()));
        policy.check()?;
        let own = own::OwnRules::new(&policy.rules)?;
        Ok(Self {
            known: known::Known::new(&policy.known)?.with(own),
            policy: policy.clone(),
            echoes,
            aliases: aliases::Shared::default(),
            version: policy.version(),
        })
    }

    /// Remembers the values in a report's texts, so that [`dump`](Self::dump) finds pieces of them too.
    pub fn learn(&mut self, report: &Report) {
        texts::learn(report, &self.known, &mut self.echoes);
    }

    fn sign(&self, receipt: &mut Receipt) {
        receipt.engine = ENGINE;
        receipt.policy.clone_from(&self.version);
    }

    fn means(&self) -> texts::Means<'_> {
        texts::Means {
            known: &self.known,
            echoes: &self.echoes,
            policy: &self.policy,
            aliases: &self.aliases,
        }
    }

    /// See [`dump`]. The values found are remembered, and pieces of them blanked here and in a later
    /// [`report`](Self::report).
    ///
    /// # Errors
    /// As [`dump`].
    pub fn dump(&mut self, bytes: &mut [u8], layout: &Layout, receipt: &mut Receipt) -> Result<()> {
        self.sign(receipt);
        let mut aliases = self.aliases.lock();
        let first = receipt.entries.len();
        places::scrub(
            &mut edit::Editor::naming(bytes, receipt, &mut aliases),
            layout,
            &self.policy,
            &self.known,
            &mut self.echoes,
        )?;
        match receipt.entries.len().saturating_sub(first) > MOST_CHANGES {
            true => Err(Error::Limit { what: "the number of changes in a minidump", limit: MOST_CHANGES }),
            false => Ok(()),
        }
    }

    /// See [`core_file`]. The values found are remembered, as with [`dump`](Self::dump).
    ///
    /// # Errors
    /// As [`core_file`].
    pub fn core_file(&mut self, input: &File, output: &File, receipt: &mut Receipt) -> Result<()> {
        self.sign(receipt);
        core_file::scrub(input, output, &self.policy, &self.known, &mut self.echoes, receipt)
    }

    /// See [`report`].
    pub fn report(&self, report: &mut Report, receipt: &mut Receipt) {
        self.sign(receipt);
        texts::scrub(report, &self.means(), receipt);
    }
}

/// Scrubs a dump in place. The length stays; the result still parses and unwinds the same. Linear in the dump's
/// length. `layout` must be that of `bytes`.
///
/// The receipt has the entries afterwards, but does not name the dump: call [`Receipt::describe`] with the bytes as they leave, or
/// [`Receipt::verify`] and `cenotaph receipt verify` have nothing to compare with.
///
/// # Errors
/// Anything that could not be scrubbed with certainty (an unknown CPU, a context that is too short, a policy beyond the
/// limits). The bytes must then not be used: the caller steps down to a stack trace.
pub fn dump(bytes: &mut [u8], layout: &Layout, policy: &Policy, receipt: &mut Receipt) -> Result<()> {
    Engine::new(policy)?.dump(bytes, layout, receipt)
}

/// Copies an ELF core file of a 64-bit x86 process, scrubbed, into `output`, which must be empty and open for reading and
/// writing. The length stays; what nothing in the file refers to becomes zero, in a sparse file where the system has those. A
/// debugger finds the same threads, frames and binaries in it as before. At [`Level::Pointers`] it shows of
/// variables only pointers and small integers, and nothing of the heap; at [`Level::Drop`] stacks are empty too, and of each thread's
/// frames only the innermost one is left. The places that have levels are registers, exception, stack and heap.
///
/// The file is read in pieces of 4 MiB: memory is needed for those and for the receipt, whatever its size. Time is linear.
///
/// # Errors
/// [`Error::InvalidConfig`] for a rule or a level that is none, [`Error::Malformed`] for a file that is no such core file, is cut short or contradicts itself,
/// [`Error::Limit`] for more than 4 Mi changes, [`Error::System`] if a file cannot be
/// read or written. What was written must then be thrown away.
pub fn core_file(input: &File, output: &File, policy: &Policy, receipt: &mut Receipt) -> Result<()> {
    Engine::new(policy)?.core_file(input, output, receipt)
}

/// Blanks more in a dump that was scrubbed, by the rule `rule`.
///
/// # Errors
/// [`Error::Malformed`] if the dump has not all of it. What it has is blanked all the same.
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

/// Scrubs a text that is to go into a report. There are no aliases in it, which would be those of no report. If `policy` is beyond its limits nothing is left of it.
pub fn text(text: &mut String, policy: &Policy, receipt: &mut Receipt) {
    match Engine::new(policy) {
        Ok(engine) => {
            let engine = Engine { aliases: aliases::Shared::off(), ..engine };
            texts::scrub_text(text, &engine.means(), Place::Annotation, receipt);
        }
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
#[path = "../../tests/support/byte_diff.rs"]
mod byte_diff;
#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests;
