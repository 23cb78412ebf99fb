//! The signal's description in a core file: the kernel's own word on what killed the process.

use super::verdict::Seen;

// elf(5); NT_SIGINFO is "SIGI" (linux/elf.h).
const PROGRAM_HEADER: usize = 56;
const PT_NOTE: u32 = 4;
const NT_SIGINFO: u32 = 0x5349_4749;

/// Reads it from a 64-bit little-endian core file. `None` if there is none.
pub(crate) fn siginfo(core: &[u8]) -> Option<Seen> {
    if !core.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = usize::try_from(u64_at(core, 32)?).ok()?;
    let count = u16::from_le_bytes(core.get(56..58)?.try_into().ok()?);
    for index in 0..usize::from(count) {
        let header = core.get(headers.checked_add(index * PROGRAM_HEADER)?..)?;
        if u32_at(header, 0)? == PT_NOTE {
            let start = usize::try_from(u64_at(header, 8)?).ok()?;
            let length = usize::try_from(u64_at(header, 32)?).ok()?;
            return in_notes(core.get(start..start.checked_add(length)?)?);
        }
    }
    None
}

fn in_notes(mut notes: &[u8]) -> Option<Seen> {
    loop {
        let name = usize::try_from(u32_at(notes, 0)?).ok()?.next_multiple_of(4);
        let length = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let description = notes.get(12usize.checked_add(name)?..)?;
        if kind == NT_SIGINFO {
            return Some(Seen {
                signal: u32_at(description, 0)?.cast_signed(),
                code: u32_at(description, 8)?.cast_signed(),
                address: u64_at(description, 16)?,
            });
        }
        notes = description.get(length.next_multiple_of(4)..)?;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Vec<u8> {
        let note = |kind: u32, description: &[u8]| {
            let mut note = Vec::new();
            note.extend(5u32.to_le_bytes());
            note.extend((description.len() as u32).to_le_bytes());
            note.extend(kind.to_le_bytes());
            note.extend(b"CORE\0\0\0\0");
            note.extend(description);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let mut siginfo = vec![0; 128];
        siginfo[0] = 11;
        siginfo[8..12].copy_from_slice(&(-6i32).to_le_bytes());
        siginfo[16] = 0x10;
        let notes = [note(1, b"seven b"), note(NT_SIGINFO, &siginfo)].concat();
        let mut core = vec![0; 64 + PROGRAM_HEADER];
        core[..6].copy_from_slice(b"\x7fELF\x02\x01");
        core[32] = 64;
        core[56] = 1;
        core[64] = 4;
        core[72] = 64 + PROGRAM_HEADER as u8;
        core[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        core.extend(notes);
        core
    }

    #[test]
    fn finds_the_note_behind_others() {
        assert_eq!(siginfo(&core()), Some(Seen { signal: 11, code: -6, address: 0x10 }));
    }

    #[test]
    fn a_cut_file_has_none() {
        let core = core();
        for length in 0..core.len() - 104 {
            assert_eq!(siginfo(&core[..length]), None);
        }
    }
}
