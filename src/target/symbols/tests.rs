use super::*;
use crate::target::tests::own;

#[test]
fn hashes() {
    // From the formats' own examples: the empty name, and names of the C library.
    assert_eq!((gnu_hash(b""), gnu_hash(b"printf"), gnu_hash(b"exit")), (0x1505, 0x156b_2bb8, 0x7c96_7e3f));
    assert_eq!(
        (system_v_hash(b""), system_v_hash(b"printf"), system_v_hash(b"exit")),
        (0, 0x0779_05a6, 0x0006_cf04)
    );
}

#[test]
fn what_the_linker_finds() {
    let target = own();
    for name in [c"printf", c"environ", c"memcpy", c"realpath", c"pthread_create", c"stdout", c"_rtld_global"]
    {
        let text = name.to_str().unwrap();
        let found = target.symbol(text).expect(text);
        assert_eq!(target.symbol_in(found.module, text), Some(found.clone()));
        let module = &target.modules[found.module].range;
        assert!(module.contains(&found.address) || found.address < module.end + (64 << 10), "{text}");
        let kind = if matches!(text, "environ" | "stdout" | "_rtld_global") {
            SymbolKind::Object
        } else {
            SymbolKind::Function
        };
        assert_eq!(found.kind, kind, "{text}");
        // Indirect functions have the address of what chooses them, and versions that a plain name does not mean exist.
        let (symbol, offset) = target.symbolize(found.address + found.size / 2).expect(text);
        assert_eq!((symbol.address, offset), (found.address, found.size / 2), "{text} and {}", symbol.name);
    }
    assert_eq!(target.symbol("a name that nobody has"), None);
    assert_eq!(target.symbol(""), None);
    assert_eq!(target.symbol_in(usize::MAX, "printf"), None);
    assert_eq!(target.symbolize(0), None);
    let vdso = target.modules.iter().position(|module| module.path == crate::target::VDSO).unwrap();
    let clock = target.symbol_in(vdso, "__vdso_clock_gettime").unwrap();
    assert_eq!(target.symbolize(clock.address + 1).map(|(_, offset)| offset), Some(1));
    assert_eq!(target.symbolize(target.modules[vdso].range.start), None, "the ELF header");
}

/// A module whose bytes are given, with dynamic sections made up.
struct Fake(Vec<u8>);

const BASE: u64 = 0x10_0000;

impl Memory for Fake {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let read = |range: &Range<u64>| {
            assert!(range.end - range.start <= 1 << 23, "{range:x?}");
            let start = usize::try_from(range.start.checked_sub(BASE)?).ok()?;
            let end = usize::try_from(range.end.checked_sub(BASE)?).ok()?.min(self.0.len());
            Some(self.0.get(start..end)?.to_vec())
        };
        ranges.iter().map(|range| read(range).unwrap_or_default()).collect()
    }
}

/// One symbol "abc" with a System V hash table of one bucket, and a GNU one.
fn module() -> (Fake, Vec<u8>) {
    let mut bytes = vec![0; 0x1000];
    let mut put = |at: usize, numbers: &[u32]| {
        numbers
            .iter()
            .enumerate()
            .for_each(|(i, n)| bytes[at + i * 4..][..4].copy_from_slice(&n.to_le_bytes()));
    };
    // Symbol 1: name 1, a global function, section 1, value 0x800, size 0x20.
    put(0x100 + 24, &[1, 0x0001_0012, 0x800, 0, 0x20, 0]);
    put(0x200, &[1, 2, 1, 0, 0]);
    put(0x300, &[1, 1, 1, 6, u32::MAX, u32::MAX, 1, gnu_hash(b"abc") | 1]);
    bytes[0x400..0x405].copy_from_slice(b"\0abc\0");
    let dynamic = [
        (DT_SYMTAB, 0x100),
        (DT_HASH, 0x200),
        (DT_GNU_HASH, 0x300),
        (DT_STRTAB, BASE + 0x400),
        (DT_STRSZ, 5),
        (0, 0),
    ];
    let dynamic =
        dynamic.iter().flat_map(|(tag, value): &(u64, u64)| [tag.to_le_bytes(), value.to_le_bytes()]);
    (Fake(bytes), dynamic.flatten().collect())
}

fn tables(memory: &Fake, dynamic: &[u8]) -> Option<Tables> {
    Tables::new(memory, dynamic, BASE..BASE + 0x1000, BASE..BASE + 0x1000, BASE)
}

#[test]
fn both_kinds_of_table() {
    let (memory, dynamic) = module();
    let expected = Entry { name: 1, address: BASE + 0x800, size: 0x20, kind: SymbolKind::Function };
    let mut old = dynamic.clone();
    old[32] = 0;
    old[32..40].copy_from_slice(&99u64.to_le_bytes());
    for dynamic in [dynamic, old] {
        let tables = tables(&memory, &dynamic).unwrap();
        assert_eq!(tables.lookup(&memory, "abc"), Some((expected, 1)));
        assert_eq!((tables.lookup(&memory, "ab"), tables.lookup(&memory, "abcd")), (None, None));
        assert_eq!((tables.count(&memory), tables.all(&memory)), (Some(2), vec![expected]));
    }
}

#[test]
fn tables_that_lie() {
    let (memory, dynamic) = module();
    // A chain that bites its tail.
    let (mut cyclic, mut old) = (Fake(memory.0.clone()), dynamic.clone());
    old[32..40].copy_from_slice(&99u64.to_le_bytes());
    cyclic.0[0x20c + 4..][..4].copy_from_slice(&1u32.to_le_bytes());
    assert_eq!(tables(&cyclic, &old).unwrap().lookup(&cyclic, "abd"), None);
    // Everything that is read, changed in every way that one byte can be.
    for at in (0x118..0x130).chain(0x200..0x214).chain(0x300..0x320).chain(0x400..0x405) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = Fake(memory.0.clone());
            damaged.0[at] = value;
            for dynamic in [&dynamic, &old] {
                let Some(tables) = tables(&damaged, dynamic) else { continue };
                let found = tables.lookup(&damaged, "abc");
                assert!(found.is_none_or(|(entry, _)| tables.module.contains(&entry.address)));
                tables.all(&damaged);
            }
        }
    }
    for at in 0..dynamic.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = dynamic.clone();
            damaged[at] = value;
            if let Some(tables) = tables(&memory, &damaged) {
                tables.lookup(&memory, "abc");
                tables.all(&memory);
            }
        }
    }
}
