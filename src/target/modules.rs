//! The binaries that a process has mapped, read from its memory in three batches.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::elf::{self, Head};
use super::known_modules;
use super::mapped_files::MappedFiles;
use super::maps::{FileId, Mapping};
use super::memory::Memory;

/// How the vdso is called: Breakpad's name for it, since the kernel's is no path.
pub const VDSO: &str = "linux-gate.so";
/// What the kernel puts behind the path of a file that is no more.
pub(super) const DELETED: &str = " (deleted)";
/// Smaller mappings are no binaries.
const SMALLEST: u64 = 4096;
/// The largest page size that binaries are laid out for (`-z max-page-size`).
const LARGEST_HOLE: u64 = 2 << 20;
/// The most modules; large programs have some hundred.
const MOST: usize = 1 << 13;

/// The most modules that are learnt in advance: half of the slots that there are.
const MOST_LEARNT: usize = 1 << 9;

/// A binary in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its addresses, gaps that the dynamic linker reserved included.
    pub range: Range<u64>,
    /// Path of the file that is mapped; [`VDSO`] for the vdso.
    pub path: String,
    /// The path with the binary's own name (DT_SONAME) in the place of the file's, which is what symbols are found by.
    pub name: String,
    /// NT_GNU_BUILD_ID; empty if it has none in memory.
    pub build_id: Vec<u8>,
    /// The file was deleted, replaced, or never had a name (memfd).
    pub deleted: bool,
    /// What its header said.
    pub(super) head: Head,
    /// DT_SONAME.
    pub(super) own_name: Option<String>,
}

/// The modules among `maps`, the program itself first. `entry` and `vdso` are AT_ENTRY and AT_SYSINFO_EHDR.
pub(super) fn read(
    memory: &dyn Memory,
    maps: &[Mapping],
    entry: Option<u64>,
    vdso: Option<u64>,
) -> Vec<Module> {
    let mut groups = groups(maps, vdso);
    // Readers take the first module for the program.
    let main = entry.and_then(|entry| groups.iter().position(|group| group.range.contains(&entry)));
    if let Some(main) = main {
        groups.swap(0, main);
    }
    groups.retain(Group::may_be_module);
    groups.truncate(MOST);
    let mut modules: Vec<Option<Module>> = groups.iter().map(Group::known).collect();
    let unknown = groups.into_iter().zip(0..).filter(|(_, i)| modules.get(*i).is_some_and(Option::is_none));
    for (i, module) in read_groups(memory, unknown.map(|(group, i)| (i, group)).collect()) {
        if let Some(place) = modules.get_mut(i) {
            *place = Some(module);
        }
    }
    modules.into_iter().flatten().collect()
}

/// Learns what the files of the modules among `maps` say, as reading a process's memory would, but from the files alone and
/// without stopping anybody. `is_wanted` is asked before each; when it says yes the others are left.
pub(super) fn learn(maps: &[Mapping], is_wanted: impl Fn() -> bool) {
    let files = MappedFiles::new(maps);
    let groups = groups(maps, None).into_iter().filter(Group::may_be_module).take(MOST_LEARNT);
    for group in groups.filter(|group| group.whole_file().is_some() && group.known().is_none()) {
        if is_wanted() {
            return;
        }
        read_groups(&files, vec![(0, group)]);
    }
}

/// The modules among numbered groups, by their memory.
fn read_groups(memory: &dyn Memory, groups: Vec<(usize, Group)>) -> Vec<(usize, Module)> {
    if groups.is_empty() {
        return Vec::new();
    }
    let begin = |group: &Group| group.range.start..group.range.end.min(group.range.start + elf::HEAD);
    let pages = memory.read_ranges(&groups.iter().map(|(_, group)| begin(group)).collect::<Vec<_>>());
    let found: Vec<(usize, Group, Head)> = groups
        .into_iter()
        .zip(&pages)
        .filter_map(|((i, group), page)| elf::head(page, &group.range).map(|head| (i, group, head)))
        .collect();

    let notes = found.iter().flat_map(|(_, _, head)| head.notes.iter().map(|(range, _)| range.clone()));
    let dynamics = found.iter().map(|(_, _, head)| head.dynamic.clone().unwrap_or(0..0));
    let mut parts = memory.read_ranges(&notes.chain(dynamics).collect::<Vec<_>>());
    let dynamics = parts.split_off(parts.len().saturating_sub(found.len()));
    let names = found.iter().zip(&dynamics);
    let names = names.map(|((_, group, _), dynamic)| elf::name(dynamic, &group.range).unwrap_or(0..0));
    let names = memory.read_ranges(&names.collect::<Vec<_>>());

    let mut notes = parts.into_iter();
    found
        .into_iter()
        .zip(names)
        .map(|((i, group, head), name)| {
            let own: Vec<_> = head.notes.iter().zip(notes.by_ref()).collect();
            let build_id = own.iter().find_map(|((_, align), bytes)| elf::build_id(bytes, *align));
            let file = group.whole_file();
            let module = group.into_module(elf::text(&name), build_id.unwrap_or_default(), head);
            if let Some(file) = file {
                known_modules::remember(&module, file);
            }
            (i, module)
        })
        .collect()
}

/// Mappings of one file that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    range: Range<u64>,
    name: String,
    offset: u64,
    executable: bool,
    deleted: bool,
    file: Option<FileId>,
    /// Where in the file its last mapping ends.
    file_end: u64,
    /// A mapping without a name, without permissions and without an offset: a gap that the linker reserved.
    gap: bool,
}

impl Group {
    fn new(mapping: &Mapping, vdso: Option<u64>) -> Self {
        let kept = mapping.name.strip_suffix(DELETED);
        let (mut name, deleted) = (kept.unwrap_or(&mapping.name).to_owned(), kept.is_some());
        let mut offset = mapping.offset;
        if !name.contains('/') && vdso == Some(mapping.range.start) {
            (name, offset) = (VDSO.to_owned(), 0);
        }
        let gap = mapping.offset == 0 && is_reserved(mapping) && name.is_empty();
        let (range, executable, file) = (mapping.range.clone(), mapping.executable, mapping.file);
        let file_end = mapping.offset.saturating_add(range.end - range.start);
        Self { range, name, offset, executable, deleted, file, file_end, gap }
    }

    /// Whether there may be an ELF header at its start. Names in brackets are the kernel's: heap, stacks, counters.
    fn may_be_module(&self) -> bool {
        !self.name.is_empty()
            && !self.name.starts_with('[')
            && (self.offset == 0 || self.executable)
            && self.range.end - self.range.start >= SMALLEST
            && !(self.name.starts_with("/dev/")
                && !self.name.starts_with("/dev/shm/")
                && !self.name.starts_with("/dev/zero"))
    }

    /// Whether `next`, the mapping that follows, is more of the same file behind addresses that are not mapped at all. lld
    /// leaves a page out where a segment's alignment crosses one; the kernel maps programs without filling that in.
    fn goes_on_behind_a_hole(&self, next: &Self) -> bool {
        let hole = next.range.start.saturating_sub(self.range.end);
        self.name.contains('/')
            && self.name == next.name
            && (1..=LARGEST_HOLE).contains(&hole)
            && next.offset != 0
            && next.offset <= self.file_end
            && next.offset.saturating_add(SMALLEST) >= self.file_end
    }

    /// The file, if the mapping begins with it and it is still there.
    fn whole_file(&self) -> Option<FileId> {
        self.file.filter(|_| self.offset == 0 && !self.deleted && self.name.starts_with('/'))
    }

    /// The module by what an earlier dump learnt of its file.
    fn known(&self) -> Option<Module> {
        let length = self.range.end - self.range.start;
        let known = known_modules::lookup(&self.name, self.whole_file()?, length)?;
        Some(self.clone().into_module(known.own_name, known.build_id, known.head.moved(self.range.start)))
    }

    fn into_module(self, own_name: Option<String>, build_id: Vec<u8>, head: Head) -> Module {
        let name = match &own_name {
            None => self.name.clone(),
            // A library inside an archive (Android): its name behind the archive's.
            Some(own) if self.executable && self.offset != 0 => joined(Path::new(&self.name).join(own)),
            Some(own) => joined(Path::new(&self.name).with_file_name(own)),
        };
        Module { range: self.range, path: self.name, name, build_id, deleted: self.deleted, head, own_name }
    }
}

fn joined(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

fn is_reserved(mapping: &Mapping) -> bool {
    !mapping.readable && !mapping.writable && !mapping.executable && mapping.private
}

/// Mappings of one file in a row are one; so are the reserved gaps among them and behind them (Breakpad's rules, by which
/// symbol servers know a module's size). Breakpad ends a module at a hole; here it goes on behind one.
fn groups(maps: &[Mapping], vdso: Option<u64>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for mapping in maps {
        let new = Group::new(mapping, vdso);
        if let Some(last) = groups.last_mut().filter(|last| last.goes_on_behind_a_hole(&new)) {
            last.range.end = new.range.end;
            last.file_end = new.file_end;
            last.executable |= new.executable;
            continue;
        }
        if let Some(last) = groups.last_mut()
            && last.range.end == new.range.start
        {
            if !new.name.is_empty() && new.name == last.name {
                last.range.end = new.range.end;
                last.file_end = new.file_end;
                last.executable |= new.executable;
                continue;
            }
            let behind = last.executable && last.name.contains('/') && is_reserved(mapping);
            if behind && (new.offset == 0 || new.offset == last.range.end) {
                last.range.end = new.range.end;
                continue;
            }
        }
        if let [.., before, gap] = &mut groups[..]
            && gap.gap
            && before.name.contains('/')
            && before.name == new.name
            && (before.range.end, gap.range.end) == (gap.range.start, new.range.start)
        {
            before.range.end = new.range.end;
            before.file_end = new.file_end;
            before.executable |= new.executable;
            groups.pop();
            continue;
        }
        groups.push(new);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::tests::line;
    use crate::target::memory::Live;

    #[test]
    fn what_belongs_together() {
        type Case<'a> = (&'a [&'a str], &'a [(u64, u64, &'a str)]);
        let cases: &[Case<'_>] = &[
            (
                &[
                    "1000-2000 r--p 0 /a",
                    "2000-3000 r-xp 1000 /a",
                    "3000-4000 rw-p 2000 /a",
                    "4000-5000 rw-p 0 ",
                ],
                &[(0x1000, 0x4000, "/a"), (0x4000, 0x5000, "")],
            ),
            // A gap inside, a gap behind, and memory that only looks like one.
            (
                &["1000-2000 r--p 0 /a", "2000-3000 ---p 0 ", "3000-4000 r-xp 0 /a", "4000-5000 ---p 0 "],
                &[(0x1000, 0x5000, "/a")],
            ),
            (
                &["1000-2000 r--p 0 /a", "2000-3000 ---p 0 ", "3000-4000 r-xp 0 /b"],
                &[(0x1000, 0x2000, "/a"), (0x2000, 0x3000, ""), (0x3000, 0x4000, "/b")],
            ),
            (
                &["1000-2000 r-xp 0 /a (deleted)", "3000-4000 r--p 0 /a"],
                &[(0x1000, 0x2000, "/a"), (0x3000, 0x4000, "/a")],
            ),
            // A hole where nothing is mapped: more of the file goes on behind it, another copy of it begins anew.
            (
                &["1000-3000 r--p 0 /a", "4000-6000 r-xp 2000 /a", "6000-7000 rw-p 3000 /a"],
                &[(0x1000, 0x7000, "/a")],
            ),
            (
                &["1000-3000 r--p 0 /a", "4000-6000 r-xp 1000 /a", "7000-8000 r--p 0 /a"],
                &[(0x1000, 0x6000, "/a"), (0x7000, 0x8000, "/a")],
            ),
            (
                &["1000-3000 r--p 0 /a", "4000-6000 r-xp 5000 /a"],
                &[(0x1000, 0x3000, "/a"), (0x4000, 0x6000, "/a")],
            ),
            (&["7000-9000 r-xp 0 [vdso]"], &[(0x7000, 0x9000, VDSO)]),
            (&[], &[]),
        ];
        for (lines, expected) in cases {
            let maps: Vec<Mapping> = lines.iter().map(|text| line(text)).collect();
            let groups = groups(&maps, Some(0x7000));
            let found: Vec<_> = groups.iter().map(|g| (g.range.start, g.range.end, &g.name[..])).collect();
            assert_eq!(&found[..], *expected, "{lines:?}");
        }
        let deleted = groups(&[line("1000-2000 r-xp 0 /memfd:x (deleted)")], None).remove(0);
        assert!(deleted.deleted && deleted.may_be_module());
        for odd in ["1000-2000 r--p 0 [heap]", "1000-2000 rw-s 0 /dev/dri/card0", "1000-2000 rw-p 1000 /a"] {
            assert!(!groups(&[line(odd)], None).remove(0).may_be_module(), "{odd}");
        }
    }

    #[test]
    fn names_of_libraries() {
        let group = |text: &str| groups(&[line(text)], None).remove(0);
        let name = |text: &str, own: Option<&str>| {
            group(text).into_module(own.map(str::to_owned), vec![], Head::default()).name
        };
        assert_eq!(name("1000-2000 r--p 0 /lib/libx.so.1.2", Some("libx.so.1")), "/lib/libx.so.1");
        assert_eq!(name("1000-2000 r--p 0 /lib/libx.so.1.2", None), "/lib/libx.so.1.2");
        assert_eq!(name("1000-2000 r-xp 5000 /a.apk", Some("libx.so")), "/a.apk/libx.so");
    }

    #[test]
    fn its_own_modules() {
        let maps = super::super::maps::parse(&std::fs::read("/proc/self/maps").unwrap());
        let entry = crate::target::auxv(&std::fs::read("/proc/self/auxv").unwrap(), 9);
        let vdso = crate::target::auxv(&std::fs::read("/proc/self/auxv").unwrap(), 33);
        let modules = read(&Live::new(std::process::id() as libc::pid_t), &maps, entry, vdso);
        assert_eq!(modules[0].path, std::env::current_exe().unwrap().to_str().unwrap());
        assert!(modules.iter().any(|module| module.name.ends_with("/libc.so.6")));
        assert!(modules.iter().any(|module| module.path == VDSO && module.name == "linux-vdso.so.1"));
        assert!(modules.iter().all(|module| !module.build_id.is_empty()), "{modules:x?}");
    }
}
