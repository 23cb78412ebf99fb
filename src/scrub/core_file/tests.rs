mod costs;
mod hidden;
mod holes;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::error::Result;
use crate::scrub::byte_diff::assert_equals_receipt;
use crate::scrub::{Level, Place, Policy, Receipt, core_file};

const STACK: u64 = 0x7ffe_0000_0000;
const HEAP: u64 = 0x5555_0000_0000;
/// Behind the header and room for eight program headers.
const BODY: usize = 64 + 8 * 56;

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn note(kind: u32, contents: &[u8]) -> Vec<u8> {
    let header: Vec<u8> =
        [5, contents.len() as u32, kind].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut note = [&header, b"CORE\0\0\0\0".as_slice(), contents].concat();
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

fn notes() -> Vec<u8> {
    let mut status = vec![0; 336];
    status[112 + 19 * 8..][..8].copy_from_slice(&(STACK + 64).to_le_bytes());
    status[112 + 14 * 8..][..8].copy_from_slice(b"alice@ex");
    let mut process = vec![0; 136];
    process[40..44].copy_from_slice(b"game");
    process[56..75].copy_from_slice(b"game --user=alice.s");
    let files = [words(&[1, 4096, 0x40_0000, 0x40_1000, 0]), b"/home/alice/bin/game\0".to_vec()].concat();
    let auxv = words(&[25, STACK + 0x200, 31, STACK + 0x300, 0, 0]);
    [note(1, &status), note(3, &process), note(2, &[b'x'; 512]), note(6, &auxv), note(0x4649_4c45, &files)]
        .concat()
}

/// Segments: type, flags, address, and bytes.
fn core(segments: &[(u32, u32, u64, &[u8])]) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
    header.extend(words(&[0, 64, 0]));
    header.extend(b"\0\0\0\0\x40\0\x38\0");
    header.extend((segments.len() as u16).to_le_bytes());
    header.extend(b"\x40\0\0\0\0\0");
    let mut body = Vec::new();
    for (kind, flags, address, bytes) in segments {
        let (offset, length) = ((BODY + body.len()) as u64, bytes.len() as u64);
        let memory = if *kind == 1 { length } else { 0 };
        header.extend(words(&[
            u64::from(*kind) | u64::from(*flags) << 32,
            offset,
            *address,
            0,
            length,
            memory,
            1,
        ]));
        body.extend_from_slice(bytes);
    }
    header.resize(BODY, 0);
    [header, body].concat()
}

fn file(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn scrubbed(bytes: &[u8], level: Level) -> Result<(Vec<u8>, Receipt)> {
    scrubbed_by(bytes, &Policy { level, known: vec!["wilhelmina".into()], ..Policy::default() })
}

fn scrubbed_by(bytes: &[u8], policy: &Policy) -> Result<(Vec<u8>, Receipt)> {
    let (output, mut receipt) = (file(&[]), Receipt::default());
    core_file(&file(bytes), &output, policy, &mut receipt)?;
    let mut after = vec![0; output.metadata().unwrap().len() as usize];
    output.read_exact_at(&mut after, 0).unwrap();
    assert_equals_receipt("a core file built by hand", bytes, &after, &receipt);
    Ok((after, receipt))
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

fn stack() -> Vec<u8> {
    let mut stack = vec![0; 0x400];
    stack[0x80..0x96].copy_from_slice(b"from bob@example.org\0\0");
    stack[0x220..0x240].copy_from_slice(b"game\0TOKEN=zq7vxkwjhgq2-qwpzmb\0\0");
    stack[0x300..0x305].copy_from_slice(b"game\0");
    stack
}

#[test]
fn notes_and_memory_lose_what_is_of_a_person() {
    let (stack, mut heap) = (stack(), vec![1; 4096]);
    heap[100..118].copy_from_slice(b"zq7vxkwjhgq2-qwpzm");
    heap[118] = b'b';
    heap[200..210].copy_from_slice(b"Wilhelmina");
    let mut bytes = core(&[(4, 0, 0, &notes()), (1, 6, STACK, &stack), (1, 6, HEAP, &heap)]);
    bytes.extend(b"behind everything");
    for level in [Level::Pattern, Level::Pointers] {
        let (after, receipt) = scrubbed(&bytes, level).unwrap();
        for text in ["alice", "bob@", "zq7vxkwj", "ilhelmin", "behind", "xxxx"] {
            assert!(has(&bytes, text) || text == "ilhelmin", "{text}");
            assert!(!has(&after, text), "{text} at {level:?}");
        }
        assert!(has(&after, "/bin/game"), "the path's other parts stay");
        for place in [Place::Registers, Place::Environment, Place::ModulePath, Place::Unclaimed, Place::Heap]
        {
            assert!(receipt.entries.iter().any(|entry| entry.place == place), "{place} at {level:?}");
        }
    }
}

#[test]
fn notes_have_the_levels_of_their_places() {
    let mut stack = stack();
    stack[0x300..0x304].fill(1);
    let bytes = core(&[(4, 0, 0, &notes()), (1, 6, STACK, &stack)]);
    let at = |place, level| {
        let policy = Policy { places: [(place, level)].into(), ..Policy::default() };
        scrubbed_by(&bytes, &policy).unwrap().0
    };
    for (place, level, text, expected) in [
        (Place::ModulePath, Level::Pattern, "/bin/game", true),
        (Place::ModulePath, Level::Drop, "/bin/game", false),
        (Place::ModulePath, Level::Keep, "/home/alice/bin/game", true),
        (Place::Environment, Level::Drop, "game --user", false),
        (Place::Environment, Level::Pattern, "game --user=alice.s", true),
        (Place::ThreadName, Level::Pattern, "\0game\0\0", true),
        (Place::ThreadName, Level::Drop, "\0game\0\0", false),
    ] {
        assert_eq!(has(&at(place, level), text), expected, "{place}={level:?}: {text:?}");
    }
}

#[test]
fn a_value_across_two_pieces_is_found() {
    let stack = stack();
    for before in [40, 10, 0] {
        let mut heap = vec![0xff; (4 << 20) + 4096];
        let at = (4 << 20) - before;
        heap[at..at + 22].copy_from_slice(b"carol.lee@example.org ");
        let bytes = core(&[(4, 0, 0, &notes()), (1, 6, STACK, &stack), (1, 6, HEAP, &heap)]);
        let (after, _) = scrubbed(&bytes, Level::Pattern).unwrap();
        for piece in ["carol", "lee@", "example"] {
            assert!(!has(&after, piece), "{piece}, {before} before the edge");
        }
    }
}

#[test]
fn what_contradicts_itself_is_refused_with_a_reason() {
    let (stack, notes) = (stack(), notes());
    let whole = core(&[(4, 0, 0, &notes), (1, 6, STACK, &stack)]);
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let with_vector = |vector: &[u64]| {
        let notes = [note(1, &[0; 336]), note(6, &words(vector))].concat();
        core(&[(4, 0, 0, &notes), (1, 6, STACK, &stack)])
    };
    let first_load = 64 + 56;
    let cases = [
        ("empty", Vec::new(), "shorter than an ELF header"),
        ("cut", whole[..whole.len() - 1].to_vec(), "past its end"),
        ("cut in its table", whole[..100].to_vec(), "outside it"),
        ("no core", changed(16, &[2]), "no core file"),
        ("another machine", changed(18, &[40]), "x86_64"),
        ("overlap in the file", changed(first_load + 8, &(BODY as u64 + 4).to_le_bytes()), "overlap"),
        ("over the header", changed(first_load + 8, &0u64.to_le_bytes()), "overlap"),
        ("wraps around", changed(first_load + 8, &u64::MAX.to_le_bytes()), ""),
        ("oversized", changed(first_load + 32, &words(&[1 << 46, 1 << 46])), ""),
        ("a note that is too long", changed(BODY + 4, &u32::MAX.to_le_bytes()), "its note 0"),
        (
            "no thread",
            core(&[(4, 0, 0, &note(6, &words(&[25, 1, 0, 0]))), (1, 6, STACK, &stack)]),
            "no thread",
        ),
        ("no random bytes", with_vector(&[31, STACK + 0x300, 0, 0]), "AT_RANDOM"),
        (
            "strings the wrong way round",
            with_vector(&[25, STACK + 0x300, 31, STACK + 0x200, 0, 0]),
            "no stack",
        ),
        ("strings elsewhere", with_vector(&[25, HEAP, 31, HEAP + 0x100, 0, 0]), "no stack"),
        ("no vector", core(&[(4, 0, 0, &note(1, &[0; 336])), (1, 6, STACK, &stack)]), "NT_AUXV"),
        (
            "a short status",
            core(&[(4, 0, 0, &[note(1, &[0; 300]), notes.clone()].concat()), (1, 6, STACK, &stack)]),
            "300 bytes instead of 336",
        ),
        (
            "more files than there are",
            core(&[(4, 0, 0, &[notes.clone(), note(0x4649_4c45, &words(&[u64::MAX, 4096]))].concat())]),
            "NT_FILE",
        ),
        (
            "words behind the files",
            core(&[(
                4,
                0,
                0,
                &[notes.clone(), note(0x4649_4c45, &[&words(&[0, 4096])[..], b"abcd"].concat())].concat(),
            )]),
            "behind its names",
        ),
    ];
    for (what, bytes, reason) in cases {
        let error = scrubbed(&bytes, Level::Pattern).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("core file") && error.contains(reason), "{what}: {error}");
    }
    scrubbed(&whole, Level::Pattern).unwrap();
}

#[test]
fn a_linker_list_that_leads_back_to_itself_ends() {
    // Program headers at the heap's start: one PT_DYNAMIC at HEAP + 0x100, whose DT_DEBUG is at HEAP + 0x200.
    let mut heap = vec![0; 0x1000];
    let mut put = |at: usize, value: &[u64]| heap[at..at + value.len() * 8].copy_from_slice(&words(value));
    put(0, &[2, 0, HEAP + 0x100]);
    put(0x100, &[21, HEAP + 0x200, 0, 0]);
    put(0x208, &[HEAP + 0x300]);
    put(0x300, &[0, HEAP + 0x400, 0, HEAP + 0x300, 0]);
    heap[0x400..0x420].copy_from_slice(b"/home/alice/lib/libalice.so\0\0\0\0\0");
    let auxv = note(6, &words(&[3, HEAP, 5, 1, 25, STACK + 0x200, 31, STACK + 0x300, 0, 0]));
    let notes = [note(1, &[0; 336]), auxv].concat();
    let bytes = core(&[(4, 0, 0, &notes), (1, 6, STACK, &stack()), (1, 6, HEAP, &heap)]);
    let output = file(&[]);
    let policy = Policy { level: Level::Pointers, known: vec!["alice".into()], ..Policy::default() };
    let mut receipt = Receipt::default();
    core_file(&file(&bytes), &output, &policy, &mut receipt).unwrap();
    let mut after = vec![0; bytes.len()];
    output.read_exact_at(&mut after, 0).unwrap();
    assert_equals_receipt("a core file with a link map", &bytes, &after, &receipt);
    assert!(has(&after, "/lib/libalice.so") && !has(&after, "/home/alice"), "base names stay, users do not");
}
