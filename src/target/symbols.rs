//! Symbols that binaries export, from their own memory: names to addresses by the hash tables that the dynamic linker
//! uses, addresses to names by a scan.
//!
//! Formats: System V gABI (symbol table, hash table), and glibc's `elf/dl-lookup.c` for the GNU hash table. All of it lies
//! in memory that a dying process may have overwritten: nothing is followed outside its module, and what makes no
//! sense counts as absent.
#![forbid(unsafe_code)]

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::elf::{self, DT_GNU_HASH, DT_HASH, DT_STRSZ, DT_STRTAB, DT_SYMTAB, DT_VERSYM};
use super::memory::{Memory, length};
use super::{Module, Target};

/// The most symbols of a module that are looked at; large libraries export some ten thousand.
const MOST: u64 = 1 << 18;
/// The most symbols of one name's chain; they have a handful.
const LONGEST_CHAIN: u32 = 1 << 12;
/// The longest name that is read; mangled ones can be long.
const LONGEST_NAME: usize = 4096;
/// Bytes of a symbol table's entry.
const ENTRY: u64 = 24;
/// Section numbers: of nothing, and of a value that is no address in the module.
const UNDEFINED: u16 = 0;
const ABSOLUTE: u16 = 0xfff1;
/// In the version table: not the one that a plain name means.
const HIDDEN: u16 = 0x8000;

/// An exported symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// As the binary has it: mangled.
    pub name: String,
    /// Where it is.
    pub address: u64,
    /// Its length in bytes; 0 if the binary does not say.
    pub size: u64,
    /// Function or object.
    pub kind: SymbolKind,
    /// Index into [`Target::modules`].
    pub module: usize,
}

/// What a symbol stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data: a global variable.
    Object,
    /// The binary does not say.
    Unknown,
}

impl Target {
    /// The first module's export of that name, in the order of [`Target::modules`]: the program's own before a library's.
    ///
    /// A library exports its globals unless it is told not to; a program none unless it is told to. In C: link it with
    /// `-Wl,--export-dynamic-symbol=NAME`, for each one. In Rust: `#[unsafe(no_mangle)] pub static`, the same argument of the linker from
    /// `build.rs` (`println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=NAME")`), and code that uses it.
    /// `-rdynamic` exports everything: that works too, and makes [`symbolize`](Self::symbolize) slow.
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        (0..self.modules.len()).find_map(|module| self.symbol_in(module, name))
    }

    /// The export of a module, by its index. Of several versions the one that a plain name means.
    pub fn symbol_in(&self, module: usize, name: &str) -> Option<Symbol> {
        let exports = self.exports(module)?;
        let (entry, _) = exports.tables.as_ref()?.lookup(self.memory(), name)?;
        Some(Symbol {
            name: name.to_owned(),
            address: entry.address,
            size: entry.size,
            kind: entry.kind,
            module,
        })
    }

    /// The export that `address` lies in, and how far behind its start. A symbol without a size reaches to the next one.
    /// The first question about a module reads its whole symbol table: a program with 75 000 symbols takes some 2 MB and 20 ms.
    pub fn symbolize(&self, address: u64) -> Option<(Symbol, u64)> {
        // Zero-initialized data lies behind the file's mappings.
        let below = self.modules.iter().enumerate().filter(|(_, module)| module.range.start <= address);
        let (module, _) = below.max_by_key(|(_, module)| module.range.start)?;
        let exports = self.exports(module)?;
        let tables = exports.tables.as_ref()?;
        let all = exports.ascending.get_or_init(|| tables.all(self.memory()));
        let after = all.partition_point(|entry| entry.address <= address);
        let entry = all.get(after.checked_sub(1)?)?;
        let offset = address - entry.address;
        let name = tables.name(self.memory(), entry.name)?;
        let Entry { address, size, kind, .. } = *entry;
        (size == 0 || offset < size).then_some((Symbol { name, address, size, kind, module }, offset))
    }

    fn exports(&self, index: usize) -> Option<Rc<Exports>> {
        let module = self.modules.get(index)?;
        if let Some(known) = self.symbols.0.borrow().get(&index) {
            return Some(known.clone());
        }
        let behind =
            self.modules.iter().map(|other| other.range.start).filter(|&start| start > module.range.start);
        let tables = Tables::read(self.memory(), module, behind.min().unwrap_or(u64::MAX));
        let exports = Rc::new(Exports { tables, ascending: OnceCell::new() });
        self.symbols.0.borrow_mut().insert(index, exports.clone());
        Some(exports)
    }
}

/// What is known of modules already, by their index.
#[derive(Debug, Default)]
pub(super) struct Cache(RefCell<HashMap<usize, Rc<Exports>>>);

#[derive(Debug)]
struct Exports {
    tables: Option<Tables>,
    /// All of them by address, once one was asked for by its address.
    ascending: OnceCell<Vec<Entry>>,
}

/// An entry of the symbol table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    name: u32,
    address: u64,
    size: u64,
    kind: SymbolKind,
}

/// Where a module's tables are, as addresses in the process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tables {
    /// What the file is mapped at: tables lie here.
    module: Range<u64>,
    /// With zero-initialized data: symbols lie here.
    image: Range<u64>,
    bias: u64,
    symbols: u64,
    names: Range<u64>,
    versions: Option<u64>,
    hash: Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    /// Counts, first symbol, filter, buckets, chains.
    Gnu { buckets: u32, first: u32, filter: Filter, table: u64, chains: u64 },
    /// Counts of buckets and of symbols, buckets, chains.
    SystemV { buckets: u32, symbols: u32, table: u64, chains: u64 },
}

/// A Bloom filter of 64-bit words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filter {
    at: u64,
    words: u32,
    shift: u32,
}

impl Tables {
    /// Those of a module behind which the next one begins at `next`.
    fn read(memory: &dyn Memory, module: &Module, next: u64) -> Option<Self> {
        let range = module.range.clone();
        let head = &module.head;
        let dynamic = head.dynamic.clone()?;
        let dynamic = memory.read(dynamic.start, length(&dynamic));
        let image = range.start..head.end.min(next).max(range.end);
        Self::new(memory, &dynamic, range, image, head.bias)
    }

    fn new(
        memory: &dyn Memory,
        dynamic: &[u8],
        module: Range<u64>,
        image: Range<u64>,
        bias: u64,
    ) -> Option<Self> {
        let value = |wanted| elf::entries(dynamic).find(|(tag, _)| *tag == wanted).map(|(_, value)| value);
        // glibc makes these absolute; other linkers, and the kernel for the vdso, do not.
        let place = |value: u64| {
            let address = if module.contains(&value) { value } else { value.wrapping_add(bias) };
            module.contains(&address).then_some(address)
        };
        let names = place(value(DT_STRTAB)?)?;
        let names = names..names.saturating_add(value(DT_STRSZ)?).min(module.end);
        let gnu = value(DT_GNU_HASH).and_then(place).and_then(|at| Hash::gnu(memory, at));
        let hash =
            gnu.or_else(|| value(DT_HASH).and_then(place).and_then(|at| Hash::system_v(memory, at)))?;
        let (symbols, versions) = (place(value(DT_SYMTAB)?)?, value(DT_VERSYM).and_then(place));
        Some(Self { module, image, bias, symbols, names, versions, hash })
    }

    /// The symbol of that name, with its number.
    fn lookup(&self, memory: &dyn Memory, name: &str) -> Option<(Entry, u32)> {
        let mut hidden = None;
        let candidates = match self.hash {
            Hash::Gnu { .. } => self.gnu_chain(memory, gnu_hash(name.as_bytes()))?,
            Hash::SystemV { .. } => self.system_v_chain(memory, system_v_hash(name.as_bytes()))?,
        };
        for number in candidates {
            let Some(entry) = self.entry(memory, number) else { continue };
            if !self.is_called(memory, entry.name, name) {
                continue;
            }
            let version = self.versions.and_then(|at| self.inside(at, u64::from(number) * 2, 2));
            if version.and_then(|at| memory.read_u16(at)).is_some_and(|version| version & HIDDEN != 0) {
                hidden = hidden.or(Some((entry, number)));
            } else {
                return Some((entry, number));
            }
        }
        hidden
    }

    /// Numbers of the symbols with this hash.
    fn gnu_chain(&self, memory: &dyn Memory, hash: u32) -> Option<Vec<u32>> {
        let Hash::Gnu { buckets, first, filter, table, chains } = self.hash else { return None };
        let word = self.inside(filter.at, u64::from(hash / 64 % filter.words) * 8, 8)?;
        let bits = 1 << (hash % 64) | 1u64 << ((hash >> filter.shift) % 64);
        if memory.read_u64(word)? & bits != bits {
            return None;
        }
        let mut number = memory.read_u32(self.inside(table, u64::from(hash % buckets) * 4, 4)?)?;
        let mut found = Vec::new();
        for _ in 0..LONGEST_CHAIN {
            let link = u64::from(number.checked_sub(first)?);
            let other = memory.read_u32(self.inside(chains, link * 4, 4)?)?;
            if other | 1 == hash | 1 {
                found.push(number);
            }
            if other & 1 != 0 {
                break;
            }
            number = number.checked_add(1)?;
        }
        Some(found)
    }

    fn system_v_chain(&self, memory: &dyn Memory, hash: u32) -> Option<Vec<u32>> {
        let Hash::SystemV { buckets, table, chains, .. } = self.hash else { return None };
        let mut number = memory.read_u32(self.inside(table, u64::from(hash % buckets) * 4, 4)?)?;
        let mut found = Vec::new();
        // A chain that bites its tail ends with this bound.
        while number != 0 && found.len() < LONGEST_CHAIN as usize {
            found.push(number);
            number = memory.read_u32(self.inside(chains, u64::from(number) * 4, 4)?)?;
        }
        Some(found)
    }

    fn entry(&self, memory: &dyn Memory, number: u32) -> Option<Entry> {
        let at = self.inside(self.symbols, u64::from(number) * ENTRY, ENTRY)?;
        self.parse(&memory.read(at, ENTRY as usize))
    }

    /// `st_name`, `st_info`, `st_other`, `st_shndx`, `st_value`, `st_size`. `None` for what is not defined here, or no
    /// place in memory.
    fn parse(&self, entry: &[u8]) -> Option<Entry> {
        let name = u32::from_le_bytes(*entry.first_chunk()?);
        let (info, section) = (*entry.get(4)?, u16::from_le_bytes(*entry.get(6..)?.first_chunk()?));
        let value = u64::from_le_bytes(*entry.get(8..)?.first_chunk()?);
        let size = u64::from_le_bytes(*entry.get(16..)?.first_chunk()?);
        let kind = match info & 0xf {
            0 => SymbolKind::Unknown,
            1 | 5 => SymbolKind::Object,
            // Plain, and chosen when the program starts: the address is that of what chooses.
            2 | 10 => SymbolKind::Function,
            _ => return None,
        };
        let address = value.wrapping_add(self.bias);
        let here = section != UNDEFINED && section != ABSOLUTE && self.image.contains(&address);
        here.then_some(Entry { name, address, size, kind })
    }

    fn is_called(&self, memory: &dyn Memory, offset: u32, name: &str) -> bool {
        let Some(at) = self.names.start.checked_add(offset.into()) else { return false };
        let length = name.len() as u64 + 1;
        if at.checked_add(length).is_none_or(|end| end > self.names.end) {
            return false;
        }
        let bytes = memory.read(at, name.len() + 1);
        bytes.split_last() == Some((&0, name.as_bytes()))
    }

    fn name(&self, memory: &dyn Memory, offset: u32) -> Option<String> {
        let at = self.names.start.checked_add(offset.into()).filter(|at| self.names.contains(at))?;
        let most = usize::try_from(self.names.end - at).unwrap_or(usize::MAX).min(LONGEST_NAME);
        memory.read_string(at, most).filter(|name| !name.is_empty())
    }

    /// All symbols by address; of several at one address the one with the largest size.
    fn all(&self, memory: &dyn Memory) -> Vec<Entry> {
        let count = self.count(memory).unwrap_or(0).min(MOST);
        let end = self.symbols.saturating_add(count * ENTRY).min(self.module.end);
        let table = memory.read(self.symbols, (end - self.symbols) as usize);
        let mut all: Vec<Entry> =
            table.chunks_exact(ENTRY as usize).filter_map(|entry| self.parse(entry)).collect();
        all.sort_by_key(|entry| (entry.address, std::cmp::Reverse(entry.size)));
        all.dedup_by_key(|entry| entry.address);
        all
    }

    /// How many symbols there are: the old table says so, the GNU one by the end of its last chain.
    fn count(&self, memory: &dyn Memory) -> Option<u64> {
        match self.hash {
            Hash::SystemV { symbols, .. } => Some(symbols.into()),
            Hash::Gnu { buckets, first, table, chains, .. } => {
                let length = u64::from(buckets).min(MOST) * 4;
                let heads = memory.read(self.inside(table, 0, length)?, length as usize);
                let heads = heads.as_chunks().0.iter().map(|head| u32::from_le_bytes(*head));
                let mut last = heads.max().filter(|&last| last >= first)?;
                let start = self.inside(chains, u64::from(last - first) * 4, 4)?;
                let rest = (self.module.end - start).min(u64::from(LONGEST_CHAIN) * 4);
                for link in memory.read(start, rest as usize).as_chunks().0 {
                    last = last.checked_add(1)?;
                    if u32::from_le_bytes(*link) & 1 != 0 {
                        break;
                    }
                }
                Some(last.into())
            }
        }
    }

    /// `start + offset`, if `length` bytes there lie in the module.
    fn inside(&self, start: u64, offset: u64, length: u64) -> Option<u64> {
        let at = start.checked_add(offset)?;
        (at >= self.module.start && at.checked_add(length)? <= self.module.end).then_some(at)
    }
}

impl Hash {
    fn gnu(memory: &dyn Memory, at: u64) -> Option<Self> {
        let header = memory.read_bytes(at, 16)?;
        let [buckets, first, words, shift] = numbers(&header)?;
        let filter = Filter { at: at.checked_add(16)?, words, shift: shift % 32 };
        let table = filter.at.checked_add(u64::from(words) * 8)?;
        let chains = table.checked_add(u64::from(buckets) * 4)?;
        (buckets > 0 && words > 0).then_some(Self::Gnu { buckets, first, filter, table, chains })
    }

    fn system_v(memory: &dyn Memory, at: u64) -> Option<Self> {
        let header = memory.read_bytes(at, 8)?;
        let [buckets, symbols] = numbers(&header)?;
        let table = at.checked_add(8)?;
        let chains = table.checked_add(u64::from(buckets) * 4)?;
        (buckets > 0).then_some(Self::SystemV { buckets, symbols, table, chains })
    }
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let numbers: Vec<u32> = bytes.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect();
    numbers.try_into().ok()
}

/// By D. J. Bernstein: times 33, plus the byte.
fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, &byte| hash.wrapping_mul(33).wrapping_add(byte.into()))
}

/// The gABI's, figure 5-13.
fn system_v_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, &byte| {
        let hash = (hash << 4).wrapping_add(byte.into());
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

#[cfg(test)]
mod tests;
