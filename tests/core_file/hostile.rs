//! Core files that are cut short or lie: an error that says where, or less; no panic, and no more memory than the file.

use std::io::Write;

use cenotaph::target::Target;

/// A core file in memory, built by hand.
struct Core {
    /// Program headers: type, flags, offset, address, bytes in the file, bytes in memory.
    segments: Vec<[u64; 6]>,
    body: Vec<u8>,
}

const BODY: u64 = 0x1000;

impl Core {
    fn new() -> Self {
        Self { segments: Vec::new(), body: Vec::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = BODY + self.body.len() as u64;
        self.body.extend_from_slice(bytes);
        at
    }

    fn notes(&mut self, notes: &[u8]) {
        let at = self.put(notes);
        self.segments.push([4, 0, at, 0, notes.len() as u64, 0]);
    }

    fn load(&mut self, address: u64, bytes: &[u8]) {
        let at = self.put(bytes);
        self.segments.push([1, 6, at, address, bytes.len() as u64, bytes.len() as u64]);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(16, 0);
        for half in [4u16, 62] {
            header.extend(half.to_le_bytes());
        }
        header.extend(1u32.to_le_bytes());
        for word in [0u64, 64, 0] {
            header.extend(word.to_le_bytes());
        }
        header.extend(0u32.to_le_bytes());
        for half in [64, 56, self.segments.len() as u16, 64, 0, 0] {
            header.extend(half.to_le_bytes());
        }
        for [kind, flags, offset, address, held, length] in &self.segments {
            header.extend([*kind as u32, *flags as u32].iter().flat_map(|half| half.to_le_bytes()));
            header
                .extend([*offset, *address, 0, *held, *length, 1].iter().flat_map(|word| word.to_le_bytes()));
        }
        header.resize(header.len().max(BODY as usize), 0);
        [header, self.body.clone()].concat()
    }
}

fn note(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note: Vec<u8> = [5, contents.len() as u32, kind].iter().flat_map(|n| n.to_le_bytes()).collect();
    note.extend(b"CORE\0\0\0\0");
    note.extend(contents);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

fn status(id: u32) -> Vec<u8> {
    let mut status = vec![0; 336];
    status[12] = 11;
    status[32..36].copy_from_slice(&id.to_le_bytes());
    // The stack pointer, the 20th of the registers.
    status[112 + 19 * 8..][..8].copy_from_slice(&0x7000_0100u64.to_le_bytes());
    note(1, &status)
}

fn files(entries: &[(u64, u64, u64, &str)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [entries.len() as u64, 4096].iter().flat_map(|n| n.to_le_bytes()).collect();
    for (start, end, page, _) in entries {
        bytes.extend([start, end, page].iter().flat_map(|n| n.to_le_bytes()));
    }
    entries.iter().for_each(|(.., name)| bytes.extend([name.as_bytes(), b"\0"].concat()));
    note(0x4649_4c45, &bytes)
}

fn read(bytes: &[u8]) -> Result<Target, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Target::from_core(file.path()).map_err(|error| error.to_string())
}

fn small() -> Core {
    let mut core = Core::new();
    core.notes(&[status(7), status(8)].concat());
    core.load(0x7000_0000, &[5; 0x400]);
    core
}

#[test]
fn what_is_no_core_file_is_an_error_that_says_why() {
    let good = small().bytes();
    read(&good).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut other = good.clone();
        other[at..at + bytes.len()].copy_from_slice(bytes);
        other
    };
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let cases: [(&[u8], &str); 9] = [
        (b"", "shorter"),
        (&good[..63], "shorter"),
        (b"MDMP and a lot of other bytes that make no ELF header, as many as it would take", "no 64-bit"),
        (&with(4, &[1]), "no 64-bit"),
        (&own, "e_type"),
        (&with(18, &[183]), "e_machine"),
        (&with(54, &[32]), "e_phentsize"),
        (&with(32, &u64::MAX.to_le_bytes()), "0xffffffffffffffff lie outside"),
        (&with(56, &[0]), "no thread"),
    ];
    for (bytes, expected) in cases {
        let error = read(bytes).err().expect(expected);
        assert!(error.contains("core file") && error.contains(expected), "{error}");
    }
    let mut without_memory = Core::new();
    without_memory.notes(&status(7));
    assert!(read(&without_memory.bytes()).err().unwrap().contains("no memory"));
    assert!(Target::from_core("/nonexistent").err().unwrap().to_string().contains("/nonexistent"));
    assert!(Target::from_core("/dev/zero").err().unwrap().to_string().contains("regular"));
}

#[test]
fn what_lies_is_left_out_and_named() {
    type Case = (&'static str, fn(&mut Core));
    let cases: [Case; 7] = [
        ("cut short", |core| core.segments.push([1, 4, 0x1_0000, 0x9000_0000, u64::MAX, u64::MAX >> 1])),
        ("overlap", |core| core.segments.push([1, 4, 0x1000, 0x7000_0010, 8, 8])),
        ("wrap around", |core| core.segments.push([1, 4, 0x1000, u64::MAX - 8, 64, 64])),
        ("cut short", |core| core.segments.push([4, 0, 0x1000, 0, 1 << 40, 0])),
        ("claims", |core| core.notes(&[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0])),
        ("wrong size", |core| core.notes(&note(1, &[0; 335]))),
        ("wrong size", |core| core.notes(&note(0x4649_4c45, &u64::MAX.to_le_bytes().repeat(5)))),
    ];
    for (i, (expected, change)) in cases.into_iter().enumerate() {
        let mut core = small();
        change(&mut core);
        let target = read(&core.bytes()).unwrap();
        assert!(target.notes.iter().any(|note| note.contains(expected)), "{i}: {:?}", target.notes);
        assert_eq!(target.threads.len(), 2, "{i}");
        assert_eq!(target.memory().read(0x7000_0000, 1 << 20), [5; 0x400], "{i}");
    }
}

#[test]
fn mapped_files_name_mappings_where_they_overlap() {
    let mut core = Core::new();
    core.notes(
        &[
            status(7),
            files(&[
                (0x7000_1000, 0x7000_3000, 1, "/a"),
                (0x6fff_f000, 0x7000_0800, 0, "/b"),
                (0x8000_0000, 0x8000_1000, 9, "/c"),
                (0x7000_2000, 0x7000_4000, 1, "/overlaps"),
            ]),
        ]
        .concat(),
    );
    core.load(0x7000_0000, &[5; 0x2000]);
    let target = read(&core.bytes()).unwrap();
    let found: Vec<_> =
        target.maps.iter().map(|m| (m.range.start, m.range.end, m.offset, &m.name[..], m.writable)).collect();
    let expected = [
        (0x6fff_f000, 0x7000_0000, 0, "/b", false),
        (0x7000_0000, 0x7000_0800, 0x1000, "/b", true),
        (0x7000_0800, 0x7000_1000, 0, "", true),
        (0x7000_1000, 0x7000_2000, 0x1000, "/a", true),
        (0x7000_2000, 0x7000_3000, 0x2000, "/a", false),
        (0x8000_0000, 0x8000_1000, 0x9000, "/c", false),
    ];
    assert_eq!(found, expected);
}

#[test]
fn cut_anywhere_and_changed_anywhere() {
    let mut core = small();
    core.notes(
        &[files(&[(0x7000_0000, 0x7000_1000, 0, "/bin/true")]), note(6, &9u64.to_le_bytes().repeat(8))]
            .concat(),
    );
    let whole = core.bytes();
    for length in (0..whole.len()).rev().step_by(41) {
        let _ = read(&whole[..length]);
    }
    for at in (0..0x140).chain(BODY as usize..whole.len()).step_by(3) {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        let _ = read(&changed);
    }
}
