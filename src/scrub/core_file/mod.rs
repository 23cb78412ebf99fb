//! ELF core files, of any size: read once in pieces, written once in pieces, then looked through once more for pieces of what
//! was found. Holes stay holes.
//!
//! Only what the program headers name is copied. Notes: see [`notes`]. Memory: the same rules as a dump's, by segment.
#![forbid(unsafe_code)]

mod fields;
mod headers;
mod layout;
mod linker;
mod memory;
mod notes;
mod sparse;

use std::fs::File;
use std::ops::Range;

use self::layout::{Core, HEADER};
use self::notes::Facts;
use super::echoes::Echoes;
use super::edit::{Addresses, Editor};
use super::finder::{self, Edges};
use super::known::Known;
use super::receipt::{Place, Receipt};
use super::{MOST_CHANGES, Policy, arguments};
use crate::error::{Error, Result};
use crate::target::core_file::segments::malformed;
use crate::target::core_file::source::Source;

/// Bytes that are read at once.
const PIECE: u64 = 4 << 20;

/// Keys of the auxiliary vector (`<elf.h>`).
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
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
    copies: Option<Known>,
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
    let arguments = arguments(&core, &facts)?;
    let strings =
        core.memory(&input, arguments.start, (arguments.end - arguments.start).min(arguments::MOST));
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
            headers::elf(editor, self.core.section.is_some());
            Ok(())
        })?;
        self.piece(self.core.programs.clone(), receipt, |editor| {
            headers::programs(editor, self.input.len())
        })?;
        if let Some(section) = &self.core.section {
            self.piece(section.clone(), receipt, |editor| {
                headers::section(editor);
                Ok(())
            })?;
        }
        for gap in &self.core.gaps {
            let mut rest = gap.clone();
            while let Some(piece) = sparse::next_piece(&self.input, &rest) {
                rest.start = piece.end;
                self.piece(piece, receipt, |editor| {
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
        sparse::write(self.output, bytes, offset).map_err(|source| Error::System { call: "pwrite", source })
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

/// The strings that the kernel puts at the top of the first stack, between the random bytes that the vector names and the
/// program's file name (`fs/binfmt_elf.c`, `create_elf_tables`).
///
/// # Errors
/// If the vector does not lead to them: they would stay.
fn arguments(core: &Core, facts: &Facts) -> Result<Range<u64>> {
    let (Some(random), Some(name)) = (facts.auxv(arguments::AT_RANDOM), facts.auxv(arguments::AT_EXECFN))
    else {
        return Err(malformed(
            "its auxiliary vector (NT_AUXV) does not say where the command line and the environment are (AT_RANDOM, AT_EXECFN)",
        ));
    };
    let strings = random.saturating_add(16)..name;
    let inside = |range: &Range<u64>| range.start <= random && name < range.end;
    if strings.is_empty() || !core.loads.iter().any(|load| inside(&load.range)) {
        return Err(malformed(format!(
            "the command line and the environment are said to be at {:#x}..{:#x}, where it has no stack",
            strings.start, strings.end
        )));
    }
    Ok(strings)
}

/// What of the environment and the command line may stand elsewhere too.
fn copies(strings: &[u8], policy: &Policy) -> Result<Option<Known>> {
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
    Addresses::new(loads.chain(facts.files.all().iter().map(|file| file.start..file.end.saturating_add(1))))
}

#[cfg(test)]
mod tests;
