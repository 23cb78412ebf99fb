//! The headers of a core file: what no debugger needs goes, as anything may hide in it.
#![forbid(unsafe_code)]

use super::fields;
use crate::error::Result;
use crate::scrub::edit::Editor;
use crate::scrub::receipt::Place;
use crate::target::core_file::segments::{ENTRY, PT_LOAD, PT_NOTE, malformed, narrow, word};

/// The ELF header. Its section headers nobody needs but for the number of program headers.
pub(super) fn elf(editor: &mut Editor<'_>, has_section: bool) {
    fields::check(editor, 0, fields::ELF);
    if has_section {
        fields::check(editor, 0, fields::SECTION_IN_ELF);
    } else {
        editor.zero(40..48, Place::Unclaimed, "section-headers");
        editor.zero(58..64, Place::Unclaimed, "section-headers");
    }
}

/// The section header that holds the number of program headers.
pub(super) fn section(editor: &mut Editor<'_>) {
    fields::check(editor, 0, fields::SECTION);
}

/// The table of program headers of a file of `length` bytes. Those that are neither memory nor notes become empty ones
/// (PT_NULL).
///
/// # Errors
/// If one has more bytes in the file than in memory: it cannot be told what they are.
pub(super) fn programs(editor: &mut Editor<'_>, length: u64) -> Result<()> {
    let entry = ENTRY as usize;
    for start in (0..editor.bytes().len() / entry).map(|index| index * entry) {
        let bytes = &editor.bytes()[start..start + entry];
        let (kind, offset, held, memory) =
            (narrow(bytes, 0), word(bytes, 8), word(bytes, 32), word(bytes, 40));
        let known = match kind {
            PT_LOAD if memory > 0 && held > memory => {
                return Err(malformed(format!(
                    "its segment {} has {held:#x} bytes in the file and {memory:#x} in memory",
                    start / entry
                )));
            }
            PT_LOAD if memory > 0 => fields::LOAD,
            PT_NOTE => fields::NOTE,
            _ => {
                editor.zero(start..start + entry, Place::Unclaimed, "gap");
                continue;
            }
        };
        fields::check(editor, start, known);
        // Where nothing lies any number would do.
        if held == 0 && offset > length {
            editor.zero(start + 8..start + 16, Place::Unclaimed, "gap");
        }
    }
    Ok(())
}
