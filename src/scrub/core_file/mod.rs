//! ELF core files, of any size: read once in pieces, written once in pieces, then looked through once more for pieces of what
//! was found.
//!
//! Only what the program headers name is copied. Notes: see [`notes`]. Memory: the same rules as a dump's, by segment.
#![forbid(unsafe_code)]

mod layout;
mod linker;
mod memory;
mod notes;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use self::layout::{Core, HEADER};
use self::notes::Facts;
use super::Policy;
use super::echoes::Echoes;
use super::edit::{Addresses, Editor};
use super::finder::{self, Edges};
use super::known::Known;
use super::receipt::{Place, Receipt};
use crate::error::{Error, Result};
use crate::target::core_file::segments::malformed;
use crate::target::core_file::source::Source;

/// Changes of one core file, at most: a receipt is held in memory.
const MOST_CHANGES: usize = 1 << 22;
/// Bytes that are read at once.
const PIECE: u64 = 4 << 20;
/// Bytes of argv and envp that are looked at; the kernel's limit is 6 MiB (a quarter of the stack, `execve(2)`).
const MOST_ARGUMENTS: u64 = 8 << 20;

/// Keys of the auxiliary vector (`<elf.h>`).
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;

/// Everything that is known while a core file is scrubbed.
struct Job<'a> {
    input: Source,
    output: &'a File,
    core: Core,
    facts: Facts,
    policy: &'a Policy,
    known: &'a Known,
    /// What the environment and the command line hold.
    copies: Known,
    /// What a pointer may point to.
    mapped: Addresses,
    /// Addresses of argv's and envp's strings.
    arguments: Range<u64>,
    linker: linker::Kept,
    /// How large the receipt may become.
    most_changes: usize,
}

/// See [`super::core_file`].
pub(super) fn scrub(
    input: &File,
    output: &File,
    policy: &Policy,
    known: &Known,
    echoes: &mut Echoes,
    receipt: &mut Receipt,
) -> Result<()> {
    let failed = |action| move |source| Error::System { call: action, source };
    let input = input.try_clone().and_then(Source::new).map_err(failed("fstat"))?;
    let core = Core::read(&input)?;
    let notes = notes::all(&input, &core.notes)?;
    let facts = notes::facts(&input, &notes)?;
    output.set_len(input.len()).map_err(failed("ftruncate"))?;
    let arguments = arguments(&facts);
    let strings = core.memory(&input, arguments.start, (arguments.end - arguments.start).min(MOST_ARGUMENTS));
    let job = Job {
        policy,
        copies: copies(&strings, policy)?,
        mapped: mapped(&core, &facts),
        linker: linker::find(&core, &input, &facts),
        output,
        known,
        core,
        facts,
        input,
        arguments,
        most_changes: receipt.entries.len().saturating_add(MOST_CHANGES),
    };
    finder::learn(echoes, &strings, &finder::in_memory(&strings, Edges::Whole, known));
    job.structure(receipt)?;
    for note in &notes {
        job.piece(note.whole.clone(), receipt, |editor| {
            notes::edit(editor, note, &job.mapped, known, policy)
        })?;
    }
    memory::scrub(&job, echoes, receipt)
}

impl Job<'_> {
    /// Copies the headers and names in the receipt what is left out of the file.
    fn structure(&self, receipt: &mut Receipt) -> Result<()> {
        self.piece(0..HEADER, receipt, |editor| {
            // Padding of the identification; the section headers, which no reader of core files needs.
            editor.zero(9..16, Place::Unclaimed, "gap");
            if !self.core.has_section {
                editor.zero(40..48, Place::Unclaimed, "section-headers");
                editor.zero(58..64, Place::Unclaimed, "section-headers");
            }
            Ok(())
        })?;
        for table in &self.core.tables {
            self.piece(table.clone(), receipt, |_| Ok(()))?;
        }
        for gap in &self.core.gaps {
            for start in (gap.start..gap.end).step_by(PIECE as usize) {
                self.piece(start..gap.end.min(start + PIECE), receipt, |editor| {
                    editor.zero(0..editor.bytes().len(), Place::Unclaimed, "gap");
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Copies a range of the file, edited.
    fn piece(
        &self,
        range: Range<u64>,
        receipt: &mut Receipt,
        edit: impl FnOnce(&mut Editor<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = self.read(&range)?;
        self.edit(&mut bytes, range.start, receipt, edit)?;
        self.write(&bytes, range.start)
    }

    /// Edits `bytes`, which stand at `offset` in the file.
    fn edit(
        &self,
        bytes: &mut [u8],
        offset: u64,
        receipt: &mut Receipt,
        edit: impl FnOnce(&mut Editor<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut local = Receipt::default();
        edit(&mut Editor::new(bytes, &mut local))?;
        if receipt.entries.len().saturating_add(local.entries.len()) > self.most_changes {
            return Err(Error::Limit { what: "the number of changes in a core file", limit: MOST_CHANGES });
        }
        for mut entry in local.entries {
            entry.offset = entry.offset.saturating_add(offset);
            receipt.push(entry);
        }
        Ok(())
    }

    fn read(&self, range: &Range<u64>) -> Result<Vec<u8>> {
        let bytes = self.input.exactly(range.start, range.end - range.start);
        bytes.ok_or_else(|| {
            malformed(format!("it cannot be read at {:#x}, or changes while it is", range.start))
        })
    }

    /// What was written so far.
    fn written(&self) -> Result<Source> {
        let output = self.output.try_clone().and_then(Source::new);
        output.map_err(|source| Error::System { call: "fstat", source })
    }

    /// Zeros are there already.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if is_zero(bytes) {
            return Ok(());
        }
        self.output.write_all_at(bytes, offset).map_err(|source| Error::System { call: "pwrite", source })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

/// The strings that the kernel puts at the top of the first stack, between the random bytes that the vector names and the
/// program's file name (`fs/binfmt_elf.c`, `create_elf_tables`).
fn arguments(facts: &Facts) -> Range<u64> {
    match (facts.auxv(AT_RANDOM), facts.auxv(AT_EXECFN)) {
        (Some(random), Some(name)) if random < name => random.saturating_add(16)..name,
        _ => 0..0,
    }
}

/// What of the environment and the command line may stand elsewhere too.
fn copies(strings: &[u8], policy: &Policy) -> Result<Known> {
    let is_name = |name: &[u8]| name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_variable = |text: &&[u8]| {
        text.iter().position(|&byte| byte == b'=').is_some_and(|at| at > 0 && is_name(&text[..at]))
    };
    let (variables, arguments): (Vec<&[u8]>, Vec<&[u8]>) =
        strings.split(|&byte| byte == 0).partition(is_variable);
    let with = |own: Vec<&[u8]>, beside: &str| [&own.join(&0), beside.as_bytes()].join(&0);
    Known::copies(&with(variables, &policy.environment_strings), &with(arguments, &policy.argument_strings))
}

fn mapped(core: &Core, facts: &Facts) -> Addresses {
    let loads = core.loads.iter().map(|load| load.range.clone());
    // A return address may lie just behind a module.
    Addresses::new(loads.chain(facts.files.iter().map(|file| file.start..file.end.saturating_add(1))))
}

#[cfg(test)]
mod tests;
