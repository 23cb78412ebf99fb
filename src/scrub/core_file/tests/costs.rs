//! Time that grows with the file, not with its parts times each other.

use super::*;

/// Below the kernel's limit of mappings.
const SEGMENTS: u64 = 60_000;
const FILES: u64 = 200_000;
const THREADS: u64 = 5_000;

/// Were each segment compared with each mapped file and each thread, this would take minutes.
#[test]
fn many_segments_files_and_threads_are_not_multiplied() {
    let mapped = |index: u64| (1 << 40) + index * 0x2000;
    let ranges = (0..FILES).flat_map(|index| [mapped(index), mapped(index) + 0x1000, 0]);
    let files = [words(&[FILES, 4096]), words(&ranges.collect::<Vec<_>>()), vec![0; FILES as usize]].concat();
    let mut all = [notes(), note(0x4649_4c45, &files)].concat();
    for thread in 0..THREADS {
        let mut status = vec![0; 336];
        status[112 + 19 * 8..][..8].copy_from_slice(&(mapped(thread) + 0x1800).to_le_bytes());
        all.extend(note(1, &status));
    }
    // What holds nothing needs no room: only a header.
    let mut bytes = core(&[(4, 0, 0, &all), (1, 6, STACK, &stack())]);
    let table = bytes.len() as u64;
    let two = bytes[64..64 + 2 * 56].to_vec();
    bytes.extend(two);
    for index in 0..SEGMENTS {
        bytes.extend(words(&[1 | 4 << 32, 0, (1 << 46) + index * 0x1000, 0, 0, 0x1000, 1]));
    }
    bytes[32..40].copy_from_slice(&table.to_le_bytes());
    bytes[56..58].copy_from_slice(&(SEGMENTS as u16 + 2).to_le_bytes());
    for level in [Level::Pattern, Level::Pointers] {
        let (input, output) = (file(&bytes), file(&[]));
        let policy = Policy { level, ..Policy::default() };
        core_file(&input, &output, &policy, &mut Receipt::default()).unwrap();
        assert_eq!(output.metadata().unwrap().len(), bytes.len() as u64);
    }
}
