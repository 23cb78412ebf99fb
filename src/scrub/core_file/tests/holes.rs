//! Core files with holes.

use std::os::unix::fs::MetadataExt;

use super::*;

const MIB: u64 = 1 << 20;

/// A core file whose heap has `length` bytes, of which only `parts` are written.
fn with_heap(length: u64, parts: &[(u64, &[u8])]) -> (File, u64) {
    let mut bytes = core(&[(4, 0, 0, &notes()), (1, 6, STACK, &stack()), (1, 6, HEAP, &[])]);
    let heap = (bytes.len() as u64).next_multiple_of(4096);
    let header = 64 + 2 * 56;
    bytes[header + 8..header + 16].copy_from_slice(&heap.to_le_bytes());
    bytes[header + 32..header + 48].copy_from_slice(&words(&[length, length]));
    let file = file(&bytes);
    file.set_len(heap + length).unwrap();
    for (at, part) in parts {
        file.write_all_at(part, heap + at).unwrap();
    }
    (file, heap)
}

fn scrub_into(input: &File, level: Level) -> (File, Receipt) {
    let (output, mut receipt) = (file(&[]), Receipt::default());
    let policy = Policy { level, ..Policy::default() };
    core_file(input, &output, &policy, &mut receipt).unwrap();
    assert_eq!(output.metadata().unwrap().len(), input.metadata().unwrap().len());
    (output, receipt)
}

fn kept(file: &File, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Read whole, and written whole, this would take an hour, and the disk.
#[test]
fn a_tebibyte_of_holes_is_not_read() {
    let places = [300 << 30, 700 << 30, (1 << 40) - 4096];
    let parts: [(u64, &[u8]); 3] = [
        (places[0], b"to dave.miller@example.org, who"),
        // A piece of the environment.
        (places[1], b"it is zq7vxkwjhgq2-qwpzm"),
        (places[2], b"just some words"),
    ];
    let (input, heap) = with_heap(1 << 40, &parts);
    let (output, receipt) = scrub_into(&input, Level::Pattern);
    assert_eq!(kept(&output, heap + places[0], 31), b"to ***********************, who");
    assert!(!has(&kept(&output, heap + places[1], 64), "zq7vxkwj"));
    assert_eq!(kept(&output, heap + places[2], 15), b"just some words");
    assert!(receipt.entries.iter().any(|entry| entry.offset == heap + places[0] + 3));
    let room = |file: &File| file.metadata().unwrap().blocks() * 512;
    assert!(room(&output) <= room(&input) + MIB, "{} of {}", room(&output), room(&input));
}

#[test]
fn holes_and_zeros_are_the_same() {
    let page: Vec<u8> = b"mail carol.lee@example.org or ".iter().copied().cycle().take(4096).collect();
    let length = 12 * MIB;
    let parts: Vec<(u64, &[u8])> =
        [0, 5 * 4096, MIB, 3 * MIB - 9, 4 * MIB - 4096, 9 * MIB + 100, length - 4096]
            .into_iter()
            .map(|at| (at, &page[..]))
            .collect();
    let mut dense = vec![0; length as usize];
    parts.iter().for_each(|(at, part)| dense[*at as usize..][..part.len()].copy_from_slice(part));
    let (sparse, heap) = with_heap(length, &parts);
    let (whole, _) = with_heap(length, &[(0, &dense)]);
    for level in [Level::Pattern, Level::Pointers] {
        let [(a, receipt), (b, same)] = [&sparse, &whole].map(|file| scrub_into(file, level));
        let all = (heap + length) as usize;
        let differ = kept(&a, 0, all).iter().zip(kept(&b, 0, all)).position(|(a, b)| *a != b);
        assert_eq!(differ, None, "{level:?}: where they differ");
        assert_eq!(receipt.discrepancy(&kept(&sparse, 0, all), &kept(&a, 0, all)), None);
        assert_eq!(same.discrepancy(&kept(&whole, 0, all), &kept(&b, 0, all)), None);
        assert!(!has(&kept(&a, 0, all), "carol"));
        // What was written as zeros leaves as a hole.
        assert!(b.metadata().unwrap().blocks() < whole.metadata().unwrap().blocks() / 2);
    }
}

#[test]
fn what_nobody_claims_is_left_out_of_a_sparse_file_too() {
    let (input, heap) = with_heap(MIB, &[]);
    input.set_len(1 << 40).unwrap();
    input.write_all_at(b"behind everything", 1 << 39).unwrap();
    let (output, receipt) = scrub_into(&input, Level::Pattern);
    assert_eq!(kept(&output, 1 << 39, 17), [0; 17]);
    let gap = receipt.entries.iter().find(|entry| entry.offset >= heap).unwrap();
    assert_eq!((gap.offset, gap.length), (1 << 39, 17));
}
