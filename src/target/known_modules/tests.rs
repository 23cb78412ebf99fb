use std::ops::Range;

use super::*;
use crate::target::memory::Memory;
use crate::target::tests::own;
use crate::target::{AT_ENTRY, AT_SYSINFO_EHDR, modules};

/// Memory of this process that counts what is asked of it outside the vdso, which has no file.
struct Counted<'a>(&'a dyn Memory, u64, std::cell::Cell<usize>);

impl Memory for Counted<'_> {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let counts =
            |range: &&Range<u64>| !range.is_empty() && !(self.1..self.1 + 0x4000).contains(&range.start);
        self.2.set(self.2.get() + ranges.iter().filter(counts).count());
        self.0.read_ranges(ranges)
    }
}

fn module(path: &Path, build_id: &[u8]) -> (Module, FileId) {
    let metadata = path.metadata().unwrap();
    let head = Head {
        notes: Vec::new(),
        dynamic: Some(0x10_0100..0x10_0200),
        unwind: None,
        bias: 0x10_0000,
        end: 0x10_9000,
    };
    let module = Module {
        range: 0x10_0000..0x10_8000,
        path: path.to_str().unwrap().to_owned(),
        name: String::new(),
        build_id: build_id.to_vec(),
        deleted: false,
        head,
        own_name: Some("libx.so.1".to_owned()),
    };
    (module, FileId { device: metadata.dev(), inode: metadata.ino() })
}

/// The table is one for a process and for those that it forks, and so is what waits to be learnt: a test has both for itself only
/// in a process of its own. True there; elsewhere the test is run in one.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "CENOTAPH_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let test = format!("target::known_modules::tests::{test}");
    let mut own = std::process::Command::new(std::env::current_exe().unwrap());
    let output = own.args(["--exact", &test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    false
}

#[test]
fn what_one_dump_learns_the_next_one_knows() {
    if !is_alone("what_one_dump_learns_the_next_one_knows") {
        return;
    }
    share().unwrap();
    let target = own();
    let vdso = target.auxv(AT_SYSINFO_EHDR).unwrap_or(0);
    let memory = Counted(target.memory(), vdso, std::cell::Cell::default());
    let read = || {
        let (entry, vdso) = (target.auxv(AT_ENTRY), target.auxv(AT_SYSINFO_EHDR));
        let modules = modules::read(&memory, &target.maps, entry, vdso);
        (modules, memory.2.take())
    };
    let (first, many) = read();
    learn();
    let (second, few) = read();
    println!("{many} reads, then {few}");
    let file = std::fs::metadata(&first[0].path).unwrap();
    let id = target.maps.iter().find(|mapping| mapping.name == first[0].path).unwrap().file.unwrap();
    // Where the file system tells other numbers, nothing is known.
    let tells = (id.device, id.inode) == (file.dev(), file.ino());
    // What is mapped and no binary, such as the table itself and what other tests share, is looked at each time.
    let strangers = target.maps.iter().filter(|mapping| mapping.name.starts_with("/memfd:")).count();
    assert!(strangers >= 1 && many > few, "{few} of {many}, {strangers} strangers");
    let unknown: Vec<&str> = second
        .iter()
        .filter(|module| {
            let id = target.maps.iter().find(|mapping| mapping.name == module.path).and_then(|m| m.file);
            id.is_none_or(|id| lookup(&module.path, id, module.range.end - module.range.start).is_none())
        })
        .map(|module| module.path.as_str())
        .collect();
    assert!(
        if tells { few <= 2 * strangers } else { few == many },
        "{few} of {many}, {strangers} strangers, unknown: {unknown:?}"
    );
    let without_notes = |modules: &[Module]| {
        let bare = |module: &Module| {
            let mut module = module.clone();
            module.head.notes.clear();
            module
        };
        modules.iter().map(bare).collect::<Vec<_>>()
    };
    assert_eq!(without_notes(&first), without_notes(&second));
}

#[test]
fn what_the_files_say_is_what_memory_says() {
    if !is_alone("what_the_files_say_is_what_memory_says") {
        return;
    }
    share().unwrap();
    let target = own();
    let (entry, vdso) = (target.auxv(AT_ENTRY), target.auxv(AT_SYSINFO_EHDR));
    // What looking at this process has brought up.
    learn();
    assert_eq!(learn_of(target.pid, || true), 0, "somebody waits");
    learn_of(target.pid, || false);
    let with_table = modules::read(target.memory(), &target.maps, entry, vdso);
    let from = |address: u64, module: &Module| address.wrapping_sub(module.range.start);
    for module in &with_table {
        let Some(id) = target.maps.iter().find(|m| m.name == module.path).and_then(|m| m.file) else {
            continue;
        };
        let Some(known) = lookup(&module.path, id, module.range.end - module.range.start) else { continue };
        assert_eq!(known.build_id, module.build_id);
        assert_eq!(known.own_name, module.own_name);
        assert_eq!(known.head.bias, from(module.head.bias, module));
        // By memory alone, as when nothing is known.
        let head = crate::target::elf::head(&target.memory().read(module.range.start, 4096), &module.range);
        assert_eq!(Head { notes: Vec::new(), ..head.unwrap() }, known.head.moved(module.range.start));
    }
}

#[test]
fn a_file_that_changes_is_not_known_any_more() {
    if !is_alone("a_file_that_changes_is_not_known_any_more") {
        return;
    }
    share().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("binary");
    std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    let text = path.to_str().unwrap();
    let build_id = own().modules[0].build_id.clone();

    // Not learnt: another build id than the file's, and another file than the mapped one.
    let (wrong, id) = module(&path, &[9; 20]);
    assert!(confirmed(&wrong, id).is_none());
    let (right, id) = module(&path, &build_id);
    assert!(confirmed(&right, FileId { inode: id.inode + 1, ..id }).is_none());

    store(TABLE.get().unwrap(), &confirmed(&right, id).unwrap());
    let known = lookup(text, id, 0x8000).expect("learnt");
    assert_eq!((&known.build_id, known.own_name.as_deref()), (&build_id, Some("libx.so.1")));
    assert_eq!(known.head.clone().moved(0x10_0000), right.head);
    assert_eq!(lookup(text, id, 0x9000), None, "mapped otherwise");
    assert_eq!(lookup(text, FileId { inode: id.inode + 1, ..id }, 0x8000), None);

    // Another time of change, another length, another file under the path.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let time = path.metadata().unwrap().modified().unwrap();
    file.set_modified(time + std::time::Duration::from_nanos(1_000_000)).unwrap();
    assert_eq!(lookup(text, id, 0x8000), None);
    file.set_modified(time).unwrap();
    assert_eq!(lookup(text, id, 0x8000), Some(known));
    file.set_len(path.metadata().unwrap().len() + 1).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(lookup(text, id, 0x8000), None);
    std::fs::rename(&path, folder.path().join("old")).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    assert_eq!(lookup(text, id, 0x8000), None);
}

#[test]
fn a_slot_that_is_being_written_is_no_answer() {
    let table = SharedMemory::create(c"test", SLOTS * WORDS).unwrap();
    let mut words = [7; WORDS];
    words[1..5].copy_from_slice(&[1, 2, 3, 4]);
    let key = FileId { device: 1, inode: 2 };
    assert_eq!(load(&table, key), None);
    store(&table, &words);
    assert_eq!(load(&table, key).map(|words| words[5]), Some(7));
    assert_eq!(load(&table, FileId { inode: 3, ..key }), None);
    slot(&table, key)[0].fetch_add(1, Ordering::Relaxed);
    words[5] = 8;
    store(&table, &words);
    assert_eq!(load(&table, key), None, "its writer died");
    slot(&table, key)[0].fetch_add(1, Ordering::Relaxed);
    assert_eq!(load(&table, key).map(|words| words[5]), Some(7));
}
