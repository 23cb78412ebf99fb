//! A dump with text wherever no reader looks.
use minidump_common::format as md;
use scroll::ctx::SizeWith;

use super::*;
use crate::scrub::{self, Policy, Receipt};

/// A file of streams, each with `A` wherever no reader looks.
struct File {
    bytes: Vec<u8>,
    streams: Vec<(u32, Vec<u8>)>,
}

/// Letters are filler, numbers are written as so many bytes.
fn built(parts: &[(u64, usize)]) -> Vec<u8> {
    parts.iter().flat_map(|&(value, length)| value.to_le_bytes().into_iter().cycle().take(length)).collect()
}

const A: u64 = u64::from_le_bytes(*b"AAAAAAAA");

impl File {
    fn new() -> Self {
        Self { bytes: Vec::new(), streams: Vec::new() }
    }

    fn stream(mut self, kind: u32, parts: &[(u64, usize)]) -> Self {
        self.streams.push((kind, built(parts)));
        self
    }

    fn write(mut self) -> Vec<u8> {
        let count = self.streams.len() as u64 + 1;
        self.bytes = built(&[(0x504d_444d, 4), (0xa793, 4), (count, 4), (32, 4), (A, 4), (7, 4), (A, 8)]);
        let mut at = 32 + count * 12 + 12;
        self.bytes.extend(built(&[(0, 4), (A, 8)]));
        for (kind, bytes) in &self.streams {
            self.bytes.extend(built(&[((*kind).into(), 4), (bytes.len() as u64, 4), (at, 4)]));
            at += bytes.len() as u64;
        }
        self.bytes.extend(built(&[(8, 4), (u64::from_le_bytes(*b"l\0i\0b\0c\0"), 8)]));
        self.streams.iter().for_each(|(_, bytes)| self.bytes.extend(bytes));
        self.bytes
    }
}

fn everything() -> Vec<u8> {
    let version: Vec<(u64, usize)> = std::iter::once((0xfeef_04bd, 4)).chain([(A, 4); 12]).collect();
    let base = [(0x40_0000, 8), (0x1000, 4), (A, 4), (7, 4), (NAME, 4)];
    let ends = [(0, 8), (A, 24)];
    let modules: Vec<(u64, usize)> =
        [&[(2, 4), (A, 4)], &base[..], &version, &ends, &base, &[(A, 52)], &ends].concat();
    // Everything refers to this name, behind the directory.
    const NAME: u64 = 32 + 12 * 13;
    File::new()
        .stream(kind::SYSTEM_INFO, &[(9, 2), (1, 6), (A, 16), (NAME, 4), (1, 2), (A, 2), (A, 24)])
        .stream(kind::THREAD_LIST, &[(1, 4), (A, 4), (77, 4), (A, 12), (A, 8), (0x7000, 8), (0, 8), (0, 8)])
        .stream(kind::MODULE_LIST, &modules)
        .stream(kind::MEMORY_LIST, &[(1, 4), (A, 4), (0x7000, 8), (0, 8)])
        .stream(
            kind::EXCEPTION,
            &[(77, 4), (A, 4), (11, 4), (1, 4), (A, 8), (0x40_0010, 8), (A, 8), (0, 120), (0, 8)],
        )
        .stream(kind::HANDLE_DATA, &[(20, 4), (40, 4), (1, 4), (A, 8), (A, 8), (NAME, 4), (0, 4), (A, 24)])
        .stream(
            kind::UNLOADED_MODULE_LIST,
            &[(16, 4), (28, 4), (1, 4), (A, 4), (0x50_0000, 8), (64, 4), (A, 4), (7, 4), (NAME, 4), (A, 4)],
        )
        .stream(
            kind::MEMORY_INFO_LIST,
            &[
                (24, 4),
                (56, 4),
                (1, 8),
                (A, 8),
                (0x7000, 8),
                (0x7000, 8),
                (A, 8),
                (0x1000, 8),
                (0x1000, 4),
                (A, 4),
                (A, 4),
                (A, 12),
            ],
        )
        .stream(kind::THREAD_NAMES, &[(1, 4), (A, 4), (77, 4), (NAME, 8)])
        .stream(kind::CRASHPAD_INFO, &[(A, 4), (7, 16), (9, 16), (0, 8), (0, 8)])
        .stream(kind::LINUX_AUXV, &[(3, 8), (0x40_0040, 8), (A, 16), (6, 8), (4096, 8), (A, 4)])
        .stream(kind::LINUX_DSO_DEBUG, &[(1, 4), (0, 4), (0, 4), (A, 8), (0x40_0000, 8), (A, 8), (A, 40)])
        .write()
}

#[test]
fn what_no_reader_knows_goes_and_the_rest_stays() {
    let before = everything();
    let layout = Layout::parse(&before).unwrap();
    let (mut bytes, mut receipt) = (before.clone(), Receipt::default());
    scrub::dump(&mut bytes, &layout, &Policy::default(), &mut receipt).unwrap();
    assert_eq!(receipt.discrepancy(&before, &bytes), None);
    let left: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, run)| *run == b"AAAA").map(|(at, _)| at).collect();
    assert_eq!(left, [0; 0]);
    let after = Layout::parse(&bytes).unwrap();
    let of = |layout: &Layout| {
        let threads: Vec<u32> = layout.threads.iter().map(|thread| thread.id).collect();
        let modules: Vec<_> = layout.modules.iter().map(|module| module.addresses()).collect();
        (
            threads,
            modules,
            layout.mapped.len(),
            layout.strings.clone(),
            layout.exception.as_ref().map(|e| e.address),
        )
    };
    assert_eq!(of(&layout), of(&after));
    assert_eq!((after.modules.len(), after.strings.len(), after.thread_names.len()), (2, 3, 1));
}

#[test]
fn what_a_number_is() {
    let mapped = Addresses::new(std::iter::once(0x6161_6161_6161..0x6161_6161_6170));
    for (bytes, is_text) in [
        (&b"\x61\x4a\0\0"[..], false),
        (b"abcd", true),
        (b"\0\0abcd\0\0", true),
        (b"aaaaaa\0\0", false),
        (b"aaaaab\0\0", true),
        (b"\0abc\0\0\0\0", false),
    ] {
        assert_eq!(is_text_in(bytes, &mapped), is_text, "{bytes:?}");
    }
}

#[test]
fn processors() {
    for (processor, own, left) in [
        (
            9,
            b"GenuineIntel\x01\x02\x03\x04abcd\x05\x06\x07\x08",
            b"GenuineIntel\x01\x02\x03\x04\0\0\0\0\x05\x06\x07\x08",
        ),
        (
            9,
            b"alice.t.b.23\x01\x02\x03\x04\0\0\0\0\x05\x06\x07\x08",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\x03\x04\0\0\0\0\x05\x06\x07\x08",
        ),
        (
            12,
            b"GenuineIntel\x01\x02\x03\x04\0\0\0\0\x05\x06\x07\x08",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\x03\x04\0\0\0\0\x05\x06\x07\x08",
        ),
    ] {
        let mut bytes = [&[0; 32][..], own].concat();
        processor_of(&mut bytes, processor);
        assert_eq!(&bytes[32..], left, "{processor}");
    }
}

fn processor_of(bytes: &mut [u8], number: u16) {
    processor(&mut Editor::new(bytes, &mut Receipt::default()), 0, number);
}

/// The sizes of the format crate, of which each table's fields must stay inside.
#[test]
fn tables_fit_their_structures() {
    let sizes = [
        (kind::THREAD_LIST, 4, md::MINIDUMP_THREAD::size_with(&scroll::LE)),
        (kind::MODULE_LIST, 4, md::MINIDUMP_MODULE::size_with(&scroll::LE)),
        (kind::MEMORY_LIST, 4, md::MINIDUMP_MEMORY_DESCRIPTOR::size_with(&scroll::LE)),
        (kind::MEMORY64_LIST, 16, md::MINIDUMP_MEMORY_DESCRIPTOR64::size_with(&scroll::LE)),
        (kind::EXCEPTION, md::MINIDUMP_EXCEPTION_STREAM::size_with(&scroll::LE), 0),
        (kind::SYSTEM_INFO, md::MINIDUMP_SYSTEM_INFO::size_with(&scroll::LE), 0),
        (kind::HANDLE_DATA, 16, md::MINIDUMP_HANDLE_DESCRIPTOR::size_with(&scroll::LE)),
        (kind::UNLOADED_MODULE_LIST, 12, md::MINIDUMP_UNLOADED_MODULE::size_with(&scroll::LE)),
        (kind::MEMORY_INFO_LIST, 16, md::MINIDUMP_MEMORY_INFO::size_with(&scroll::LE)),
        (kind::THREAD_NAMES, 4, md::MINIDUMP_THREAD_NAME::size_with(&scroll::LE)),
        (kind::CRASHPAD_INFO, md::MINIDUMP_CRASHPAD_INFO::size_with(&scroll::LE), 0),
    ];
    let end = |fields: &[Field]| {
        let mut end = 0;
        for field in fields {
            let (Kept(at, length) | Number(at, length)) = *field;
            assert!(at >= end, "ascending");
            end = at + length;
        }
        end
    };
    assert_eq!(STRUCTURES.len(), sizes.len());
    for structure in STRUCTURES {
        let (_, header, entry) = sizes.iter().find(|(kind, ..)| *kind == structure.kind).unwrap();
        assert!(end(structure.header) <= *header && end(structure.entry) <= *entry, "{:#x}", structure.kind);
        if let Shape::Counted(size) | Shape::Counted64(size) = structure.shape {
            assert_eq!(size, *entry, "{:#x}", structure.kind);
        }
    }
}
