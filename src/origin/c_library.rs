//! The message with which glibc ends a process: assert, the stack protector, checked functions, malloc.
//!
//! glibc keeps it for core dumps in `__abort_msg` (`struct abort_msg_s`: the size of the whole, then text; since 2.12),
//! exported under the version GLIBC_PRIVATE. Where that name is missing nothing is guessed.
#![forbid(unsafe_code)]

use crate::report::Origin;
use crate::target::Target;

/// The longest message that is read. An assertion holds a path and an expression.
const MOST: u32 = 4096;
/// Bytes of the size before the text.
const SIZE: u64 = 4;

/// What glibc said, if it did.
pub(super) fn message(target: &Target) -> Option<String> {
    let variable = target.symbol("__abort_msg")?;
    let memory = target.memory();
    let at = memory.read_pointer(variable.address).filter(|&at| at != 0)?;
    let size = memory.read_u32(at)?.checked_sub(SIZE as u32)?.min(MOST);
    let text = memory.read_string(at.checked_add(SIZE)?, usize::try_from(size).ok()?)?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Sorts a message by its words (glibc 2.31 to 2.42). Only assert's are translated; one in another language is still a message.
pub(super) fn classify(message: &str) -> Origin {
    const HEAP: [&str; 15] = [
        "free():",
        "malloc():",
        "realloc():",
        "calloc():",
        "double free",
        "munmap_chunk():",
        "mremap_chunk():",
        "malloc_consolidate():",
        "corrupted size",
        "corrupted double-linked list",
        "malloc: ",
        "tcache",
        "malloc(): ",
        "sysmalloc",
        "break adjusted to free malloc space",
    ];
    let message = message.to_owned();
    if message.contains("stack smashing detected") {
        Origin::StackSmashing { message }
    } else if HEAP.iter().any(|start| message.starts_with(start)) {
        Origin::HeapCorruption { message }
    } else if message.starts_with("*** ") {
        // "*** buffer overflow detected ***", "*** %n in writable segment detected ***", "*** longjmp causes ..."
        Origin::Fortify { message }
    } else if message.contains("Assertion `") {
        Origin::Assertion { message }
    } else {
        Origin::LibraryMessage { message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_glibcs_words() {
        for (message, name) in [
            ("*** stack smashing detected ***: terminated", "stack-smashing"),
            ("*** buffer overflow detected ***: terminated", "fortify"),
            ("*** %n in writable segment detected ***", "fortify"),
            ("free(): double free detected in tcache 2", "heap-corruption"),
            ("malloc(): unaligned tcache chunk detected", "heap-corruption"),
            ("double free or corruption (!prev)", "heap-corruption"),
            ("corrupted size vs. prev_size", "heap-corruption"),
            ("munmap_chunk(): invalid pointer", "heap-corruption"),
            ("game: src/level.c:12: load: Assertion `level != 0' failed.", "assertion"),
            ("jeu: src/level.c:12: load: L'assertion « level » a échoué.", "library-message"),
            ("The futex facility returned an unexpected error code.", "library-message"),
        ] {
            let origin = classify(message);
            assert_eq!((origin.name(), origin.text()), (name, Some(message)));
        }
    }
}
