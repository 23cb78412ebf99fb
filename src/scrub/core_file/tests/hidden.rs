//! Text that is hidden in the numbers of a core file's metadata: in every header, at every byte of it.

use super::*;
use crate::scrub::Engine;

/// Nothing that a rule would know.
const MARKER: &[u8; 8] = b"qzvxkwjh";
/// As many bytes of it as no number may go on holding: an address has 6.
const PIECE: usize = 7;
const PROCESS: u32 = 3;
const FILES: u32 = 0x4649_4c45;
/// What the kernel's core files of x86-64 have in it; the addresses are mapped.
const VECTOR: [u64; 38] = [
    33,
    0x7fff_1000,
    51,
    3632,
    16,
    0xbfeb_fbff,
    6,
    4096,
    17,
    100,
    3,
    0x40_0040,
    4,
    56,
    5,
    13,
    7,
    0,
    8,
    0,
    9,
    0x40_0100,
    11,
    1000,
    12,
    1000,
    23,
    0,
    25,
    STACK + 0x200,
    26,
    2,
    31,
    STACK + 0x300,
    15,
    STACK + 0x200,
    0,
    0,
];

fn named(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
    let numbers = [name.len() as u32, contents.len() as u32, kind];
    let mut note: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for part in [name, contents] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

fn status(id: u32) -> Vec<u8> {
    let mut status = vec![0; 336];
    let mut put = |at: usize, bytes: &[u8]| status[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &11u32.to_le_bytes());
    put(12, &11u16.to_le_bytes());
    put(32, &[id, 1, id, id].map(u32::to_le_bytes).concat());
    for (index, value) in [
        (4, STACK + 0x100),
        (15, u64::MAX),
        (16, 0x40_0100),
        (17, 0x33),
        (18, 0x1_0246),
        (19, STACK + 64),
        (20, 0x2b),
        (21, HEAP + 64),
    ] {
        put(112 + index * 8, &value.to_le_bytes());
    }
    put(328, &1u32.to_le_bytes());
    note(1, &status)
}

/// The notes, and which parts of them are text: looked at by rules, which do not know the marker.
fn all_notes() -> (Vec<u8>, Vec<Range<usize>>) {
    let mut process = vec![0, b'R', 0, 0];
    process.extend([0; 4]);
    process.extend(words(&[0x40_0600, 1000 << 32 | 1000, 1 << 32 | 77, 77 << 32 | 77]));
    process.resize(136, 0);
    process[40..44].copy_from_slice(b"game");
    process[56..68].copy_from_slice(b"game --fast\0");
    let mut signal = vec![0; 128];
    signal[0] = 11;
    signal[8] = 1;
    signal[16..24].copy_from_slice(&0x10u64.to_le_bytes());
    let table = words(&[2, 4096, 0x40_0000, 0x40_1000, 0, 0x50_0000, 0x50_2000, 3]);
    let files = [table, b"/opt/bin/game\0/opt/lib/libgame.so\0".to_vec()].concat();
    let mut state = vec![7; 832];
    state[464..472].copy_from_slice(&7u64.to_le_bytes());
    let (mut all, mut texts) = (Vec::new(), Vec::new());
    for (one, text) in [
        (status(77), 0..0),
        (note(PROCESS, &process), 40..136),
        (note(0x5349_4749, &signal), 0..0),
        (note(6, &words(&VECTOR)), 0..0),
        (note(FILES, &files), 16 + 48..files.len()),
        (note(2, &[7; 512]), 0..0),
        (named(b"LINUX\0", 0x202, &state), 0..0),
        (status(78), 0..0),
        (named(b"GDB\0", 0xff00_0000, b"<target version=\"1.0\"/>\0"), 0..0),
        (named(b"VENDOR\0", 7, b"whatever it means"), 0..0),
    ] {
        texts.push(all.len() + 20 + text.start..all.len() + 20 + text.end);
        all.extend(one);
    }
    all.extend([0; 8]);
    texts.retain(|text| !text.is_empty());
    (all, texts)
}

/// A core file, the parts of it that are no memory, and those of them that are text.
fn whole() -> (Vec<u8>, Vec<Range<usize>>, Vec<Range<usize>>) {
    let (notes, texts) = all_notes();
    let stack = stack();
    let bytes = core(&[
        (4, 0, 0, &notes),
        (1, 6, STACK, &stack),
        (1, 6, HEAP, &[1; 256]),
        (1, 5, 0x40_0000, &[]),
        (0, 0, 0, &[]),
        (0x6474_e551, 6, 0, &[]),
    ]);
    let behind = BODY + notes.len();
    let texts = texts.into_iter().map(|text| BODY + text.start..BODY + text.end).collect();
    (bytes, vec![0..behind], texts)
}

/// The same with as many program headers as stand in a section header.
fn with_section() -> (Vec<u8>, Vec<Range<usize>>, Vec<Range<usize>>) {
    let (mut bytes, _, texts) = whole();
    let count = u32::from(bytes[56]);
    let section = bytes.len();
    bytes[56..58].fill(0xff);
    bytes[40..48].copy_from_slice(&(section as u64).to_le_bytes());
    bytes[60] = 1;
    bytes.extend([0; 64]);
    bytes[section + 32] = 1;
    bytes[section + 44..section + 48].copy_from_slice(&count.to_le_bytes());
    let parts = vec![0..64, section..section + 64];
    (bytes, parts, texts)
}

/// Plants the marker at each place of `parts` one after another; where it stays, and how many of the places are refused.
fn sweep(
    core: &(Vec<u8>, Vec<Range<usize>>, Vec<Range<usize>>),
    policy: &Policy,
    piece: usize,
    except: &[Range<usize>],
) -> (Vec<usize>, usize) {
    let (bytes, parts, _) = core;
    let (input, output, engine) = (file(bytes), file(&[]), Engine::new(policy).unwrap());
    let scrubbed = |what: &[u8]| {
        output.set_len(0).unwrap();
        input.write_all_at(what, 0).unwrap();
        let mut receipt = Receipt::default();
        engine.clone().core_file(&input, &output, &mut receipt).ok()?;
        let mut after = vec![0; what.len()];
        output.read_exact_at(&mut after, 0).unwrap();
        assert_eq!(receipt.discrepancy(what, &after), None);
        Some(after)
    };
    scrubbed(bytes).expect("as it is it can be scrubbed");
    let (mut stays, mut refused, mut planted) = (Vec::new(), 0, bytes.clone());
    for at in parts.iter().flat_map(|part| part.start..part.end - 7) {
        if except.iter().any(|text| text.start < at + 8 && at < text.end) {
            continue;
        }
        let place = at..at + 8;
        planted[place.clone()].copy_from_slice(MARKER);
        match scrubbed(&planted) {
            Some(after) => {
                if MARKER.windows(piece).any(|piece| memchr::memmem::find(&after, piece).is_some()) {
                    stays.push(at);
                }
            }
            None => refused += 1,
        }
        planted[place.clone()].copy_from_slice(&bytes[place]);
    }
    (stays, refused)
}

#[test]
fn no_number_hides_text() {
    for (what, core) in [("whole", whole()), ("with a section header", with_section())] {
        for level in [Level::Pattern, Level::Pointers] {
            let (stays, refused) = sweep(&core, &Policy { level, ..Policy::default() }, PIECE, &core.2);
            assert_eq!(stays, [0; 0], "{what} at {level:?}: where it stays");
            // The sweep is worth nothing if most of it is refused.
            let places: usize = core.1.iter().map(ExactSizeIterator::len).sum();
            assert!(refused * 3 < places * 2, "{what}: {refused} of {places} refused");
        }
    }
}

#[test]
fn text_is_searched_for_known_values_at_every_byte() {
    let core = whole();
    let known = vec![String::from_utf8(MARKER.to_vec()).unwrap()];
    // A mapped file's base name is nobody's value.
    let names = core.2.last().unwrap().clone();
    let (stays, _) = sweep(&core, &Policy { known, ..Policy::default() }, MARKER.len(), &[names]);
    assert_eq!(stays, [0; 0]);
}
