//! Targets whose own structures are damaged, or whose memory goes away while it is read: soft errors, and as much as
//! could be read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::ffi::c_void;
use std::path::Path;

use cenotaph::dump::binaries::FileBinaries;
use cenotaph::dump::layout::utf16;
use cenotaph::dump::linux_writer::{self, Limits};
use cenotaph::dump::{Layout, unwind, writer};

mod subject;

use subject::Subject;

/// Not a test of its own: what a subject runs.
#[test]
fn run() {
    let Some(role) = subject::role() else { return };
    match &role[..] {
        "cyclic" => cyclic(),
        "headers" => DAMAGES.iter().for_each(|(name, at, bytes)| damaged(name, *at, bytes)),
        "vanishing" => vanishing(),
        "truncated" => truncated(),
        other => panic!("{other}"),
    }
    subject::serve()
}

/// What is written over the header of a library, by the library's name, offset and bytes.
const DAMAGES: [(&str, usize, &[u8]); 8] = [
    ("magic.so", 0, &[0; 4]),
    ("class.so", 4, &[1]),
    ("table.so", 32, &[0xff; 8]),
    ("count.so", 56, &[0xff; 2]),
    ("entry.so", 54, &[7, 0]),
    // The first program header: its place, address and lengths.
    ("segment.so", 64, &[0xff; 56]),
    ("address.so", 64 + 16, &[0xf0; 8]),
    ("whole.so", 16, &[0x5a; 1000]),
];

/// A library of the C library's, loaded from a copy.
fn load(path: &Path) -> *mut c_void {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|p| p.contains("libc.so")));
    std::fs::copy(libc.unwrap().replace("libc.so", "libm.so"), path).unwrap();
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a string; the library's constructors are those of the C library's own.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    // SAFETY: a library that is loaded and a name.
    let function = unsafe { libc::dlsym(handle, c"cos".as_ptr()) };
    // SAFETY: all-zero is a value of this structure of pointers.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: an address and a place for the answer.
    assert_ne!(unsafe { libc::dladdr(function, &mut found) }, 0);
    found.dli_fbase
}

fn damaged(name: &str, at: usize, bytes: &[u8]) {
    let folder = Box::leak(Box::new(tempfile::tempdir().unwrap()));
    let base = load(&folder.path().join(name));
    // SAFETY: the first page of a library of which nobody reads the header any more.
    unsafe {
        assert_eq!(libc::mprotect(base, 4096, libc::PROT_READ | libc::PROT_WRITE), 0);
        base.cast::<u8>().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
}

/// The dynamic linker's last entry leads back to the second one.
fn cyclic() {
    // SAFETY: a name; the answer is the linker's own structure.
    let debug = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_r_debug".as_ptr()) }.cast::<usize>();
    // SAFETY: `r_map` is the second word of it, `l_next` the fourth of an entry (<link.h>); the list ends with a null pointer,
    // and nobody loads a library any more.
    unsafe {
        let first = *debug.add(1) as *mut usize;
        let second = *first.add(3);
        let mut last = second as *mut usize;
        while *last.add(3) != 0 {
            last = *last.add(3) as *mut usize;
        }
        *last.add(3) = second;
    }
}

const PAGES: usize = 64;
const PAGE: usize = 4096;

/// Pages that another process, which shares this memory but is no thread, unmaps and maps again all the time. The
/// stack has pointers to them.
fn vanishing() {
    // SAFETY: fresh memory.
    let base = unsafe {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(std::ptr::null_mut(), PAGES * PAGE, protection, flags, -1, 0)
    };
    assert_ne!(base, libc::MAP_FAILED);
    let stack = Box::leak(vec![0u8; 64 << 10].into_boxed_slice());
    // SAFETY: a stack of its own, grown downwards; the function makes system calls only.
    let sibling = unsafe {
        let top = stack.as_mut_ptr().add(stack.len() - 64).cast();
        libc::clone(flicker, top, libc::CLONE_VM, base)
    };
    assert!(sibling > 0);
    let pointers: [usize; PAGES] = std::array::from_fn(|i| base as usize + i * PAGE + 2048);
    std::hint::black_box(&pointers);
    subject::serve()
}

extern "C" fn flicker(base: *mut c_void) -> i32 {
    // SAFETY: it ends with its parent; only its own pages are mapped and unmapped, and nobody touches what is in them.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            for i in 0..PAGES {
                let page = base.byte_add(i * PAGE);
                libc::munmap(page, PAGE);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                libc::mmap(page, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            }
        }
    }
}

/// A mapped file that has become shorter: its second page cannot be read.
fn truncated() {
    use std::os::fd::AsRawFd;
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * PAGE as u64).unwrap();
    // SAFETY: a file of two pages.
    let base = unsafe {
        let flags = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), 2 * PAGE, flags, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(base, libc::MAP_FAILED);
    file.set_len(PAGE as u64).unwrap();
    let pointers = [base as usize + PAGE - 8, base as usize + PAGE + 8];
    std::hint::black_box(&pointers);
    println!("BASE {:x}", base as usize);
    subject::serve()
}

#[test]
fn a_linkers_list_that_leads_back_to_itself_ends() {
    let mut subject = Subject::start("cyclic");
    let target = subject.stop();
    let linked = target.link_map();
    let note = linked.note.expect("a note");
    assert!(note.contains("leads back to itself"), "{note}");
    assert!(note.contains(&format!("{} entries", linked.entries.len())) && linked.entries.len() > 2);
    // The modules come from the mappings, so nothing is lost; minidump-writer follows the list, so ask it last.
    for entry in linked.entries.iter().filter(|entry| entry.name.starts_with('/')) {
        let path = std::fs::canonicalize(&entry.name).unwrap();
        assert!(target.modules.iter().any(|module| Path::new(&module.path) == path), "{}", entry.name);
    }
    let taken = linux_writer::write(target, Limits::default()).unwrap();
    assert!(Layout::parse(&taken.dump).unwrap().modules.len() >= linked.entries.len());
    subject.lives();
}

#[test]
fn a_damaged_header_costs_only_that_module() {
    let mut subject = Subject::start("headers");
    let target = subject.stop();
    for (name, ..) in DAMAGES {
        let index = target.modules.iter().position(|module| module.path.ends_with(name));
        let Some(index) = index else { continue };
        // Whatever is asked of it: an answer, which may be none.
        let _ = (target.symbol_in(index, "cos"), target.sections(index));
        let range = target.modules[index].range.clone();
        for address in [range.start, range.start + 0x1_0000, range.end - 1] {
            target.symbolize(address);
        }
    }
    let others = |name: &str| !DAMAGES.iter().any(|(damaged, ..)| name.ends_with(damaged));
    assert!(target.modules.iter().filter(|m| others(&m.path)).all(|m| !m.build_id.is_empty()));
    assert!(target.symbol("printf").is_some());
    let ours = linux_writer::write(target, Limits::default()).unwrap().dump;
    let theirs = writer::write(writer::Request::new(subject.pid(), subject.pid(), None)).unwrap();
    let modules = |dump: &[u8]| -> Vec<(u64, String)> {
        let layout = Layout::parse(dump).unwrap();
        let named = layout.modules.into_iter().map(|m| (m.base, utf16(&dump[m.name])));
        named.filter(|(_, name)| others(name) && !name.contains("libm.so")).collect()
    };
    assert_eq!(modules(&ours), modules(&theirs));
    subject.lives();
}

#[test]
fn memory_that_vanishes_while_it_is_read() {
    let mut subject = Subject::at_rest("vanishing");
    let mut frames = None;
    for _ in 0..50 {
        let taken = linux_writer::write(subject.stop(), Limits::default()).unwrap();
        let layout = Layout::parse(&taken.dump).unwrap();
        let trace = unwind::stack_trace(&taken.dump, &layout, &FileBinaries::new()).unwrap();
        assert!(trace.threads.iter().all(|thread| thread.frames.len() > 3));
        let count = trace.threads[0].frames.len();
        assert_eq!(*frames.get_or_insert(count), count);
    }
    subject.lives();
}

#[test]
fn a_mapped_file_that_became_shorter() {
    let mut subject = Subject::start("truncated");
    let target = subject.stop();
    let mapping =
        target.maps.iter().find(|m| !m.private && m.name.ends_with("(deleted)")).unwrap().range.clone();
    assert_eq!(target.memory().read(mapping.start, 2 * PAGE).len(), PAGE, "as far as it can be read");
    assert!(target.memory().read(mapping.start + PAGE as u64, 8).is_empty());
    let taken = linux_writer::write(target, Limits::default()).unwrap();
    let layout = Layout::parse(&taken.dump).unwrap();
    let held: Vec<_> =
        layout.memory.iter().map(|m| m.addresses()).filter(|m| mapping.contains(&m.start)).collect();
    println!("{held:x?}");
    assert!(held.iter().all(|range| range.end <= mapping.start + PAGE as u64));
    subject.lives();
}
