//! Looking up the binaries of this process while it is well. Ordinary code: the dynamic linker takes its lock.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Mutex;

use super::module_table;
use crate::minimal_record::{BUILD_ID, MODULES, Module, NAME, fixed};

const PAGE: u64 = 4096;
/// The most bytes of a note segment that are looked at.
const MOST_NOTES: usize = 4096;
const NT_GNU_BUILD_ID: u32 = 3;
/// Shorter words would hide half of all libraries.
const SHORTEST_HIDDEN: usize = 3;

static REFRESHING: Mutex<()> = Mutex::new(());

/// Notes what is mapped now. Names for which `hide` says so are left out (the modules are not).
pub(crate) fn refresh(hide: &dyn Fn(&str) -> bool) {
    let _one_at_a_time = REFRESHING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut collector = Collector { modules: Vec::new(), hide };
    // SAFETY: `collect` gets the pointer to `collector`, which lives through the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut collector).cast()) };
    let mut found = collector.modules;
    found.sort_by_key(|module| module.code_start);
    found.dedup_by(|later, earlier| later.code_start < earlier.code_end);
    found.truncate(MODULES);
    module_table::publish(found.into_iter());
}

/// Takes the names away that hold `value`, from now on. Allocates nothing and, unless another thread does the same, takes
/// no system call.
pub(crate) fn hide(value: &str) {
    if value.len() < SHORTEST_HIDDEN {
        return;
    }
    let holds = |module: &Module| {
        let name = module.name.get(..usize::from(module.name_len)).unwrap_or_default();
        name.windows(value.len()).any(|part| part.eq_ignore_ascii_case(value.as_bytes()))
    };
    let _one_at_a_time = REFRESHING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let modules = module_table::modules();
    if modules.iter().any(holds) {
        let shown = |module: &Module| match holds(module) {
            true => Module { name: [0; NAME], name_len: 0, ..*module },
            false => *module,
        };
        module_table::publish(modules.iter().map(shown));
    }
}

struct Collector<'a> {
    modules: Vec<Module>,
    hide: &'a dyn Fn(&str) -> bool,
}

/// For dl_iterate_phdr(3).
extern "C" fn collect(information: *mut libc::dl_phdr_info, _: usize, collector: *mut c_void) -> c_int {
    // SAFETY: the linker's description and the collector given to it, both valid during the call.
    let (information, collector) = unsafe { (&*information, &mut *collector.cast::<Collector<'_>>()) };
    if let Some(module) = describe(information, collector.hide) {
        collector.modules.push(module);
    }
    0
}

fn describe(information: &libc::dl_phdr_info, hide: &dyn Fn(&str) -> bool) -> Option<Module> {
    if information.dlpi_phdr.is_null() {
        return None;
    }
    // SAFETY: the linker's own array of program headers.
    let headers =
        unsafe { std::slice::from_raw_parts(information.dlpi_phdr, usize::from(information.dlpi_phnum)) };
    let address = |offset: u64| information.dlpi_addr.wrapping_add(offset);
    let loads = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let start = loads().map(|load| address(load.p_vaddr)).min()? & !(PAGE - 1);
    let end_of = |load: &libc::Elf64_Phdr| address(load.p_vaddr).checked_add(load.p_memsz);
    let end = loads().filter_map(end_of).max()?.checked_next_multiple_of(PAGE)?;
    let code = loads().filter(|load| load.p_flags & libc::PF_X != 0).max_by_key(|load| load.p_memsz)?;
    let (code_start, code_end) =
        (address(code.p_vaddr) & !(PAGE - 1), end_of(code)?.checked_next_multiple_of(PAGE)?.min(end));
    let readable = |start: u64, length: usize| {
        loads().any(|load| {
            load.p_flags & libc::PF_R != 0
                && address(load.p_vaddr) <= start
                && start
                    .checked_add(length as u64)
                    .is_some_and(|end| end_of(load).is_some_and(|to| end <= to))
        })
    };
    let build_id = headers.iter().filter(|header| header.p_type == libc::PT_NOTE).find_map(|note| {
        let (at, length) = (address(note.p_vaddr), usize::try_from(note.p_memsz).ok()?.min(MOST_NOTES));
        if !readable(at, length) {
            return None;
        }
        // SAFETY: a note segment inside a loaded, readable segment of a binary that the linker has mapped.
        let notes = unsafe { std::slice::from_raw_parts(at as *const u8, length) };
        find_build_id(notes, usize::try_from(note.p_align).ok()?)
    });
    let build_id = build_id.unwrap_or_default();
    let name = base_name(information, start);
    let name = if hide(&name) { String::new() } else { name };
    Some(Module {
        start,
        end,
        code_start,
        code_end,
        build_id: fixed(build_id),
        build_id_len: build_id.len().min(BUILD_ID) as u8,
        name: fixed(name.as_bytes()),
        name_len: name.len().min(NAME) as u8,
    })
}

/// The linker has no name for the program itself, and no file for the vdso.
fn base_name(information: &libc::dl_phdr_info, start: u64) -> String {
    // SAFETY: always allowed.
    if unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } == start {
        return "linux-gate.so".to_owned();
    }
    let path = if information.dlpi_name.is_null() {
        String::new()
    } else {
        // SAFETY: the linker's NUL-terminated name.
        unsafe { CStr::from_ptr(information.dlpi_name) }.to_string_lossy().into_owned()
    };
    let path = if path.is_empty() {
        std::env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    } else {
        path
    };
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// NT_GNU_BUILD_ID among notes (elf(5)): lengths of name and description, kind, name, description, each aligned.
fn find_build_id(notes: &[u8], align: usize) -> Option<&[u8]> {
    let align = if align == 8 { 8 } else { 4 };
    let mut rest = notes;
    loop {
        let number = |at: usize| Some(u32::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        let (name, description, kind) = (number(0)? as usize, number(4)? as usize, number(8)?);
        let start = 12_usize.checked_add(name)?.checked_next_multiple_of(align)?;
        let end = start.checked_add(description)?;
        let found = rest.get(start..end)?;
        if kind == NT_GNU_BUILD_ID && rest.get(12..16) == Some(b"GNU\0") && !found.is_empty() {
            return Some(found);
        }
        rest = rest.get(end.checked_next_multiple_of(align)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_binaries() {
        use module_table::modules;
        refresh(&|name| name.starts_with("libm."));
        let names: Vec<String> = modules().iter().map(Module::name).collect();
        let own = std::env::current_exe().unwrap();
        let own = own.file_name().unwrap().to_str().unwrap();
        let here = knows_its_own_binaries as *const () as u64;
        let module =
            modules().iter().find(|module| (module.code_start..module.code_end).contains(&here)).unwrap();
        assert_eq!(module.name(), own[..own.len().min(NAME)]);
        let note = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(memchr::memmem::find(&note, module.build_id()).is_some() && module.build_id().len() == 20);
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with("libm.")), "{names:?}");
        assert!(modules().windows(2).all(|pair| pair[0].code_end <= pair[1].code_start));
        // In one test, as the table is one for the process.
        hide("LIBC.so");
        hide("li");
        let names: Vec<String> = modules().iter().map(Module::name).collect();
        assert!(!names.contains(&"libc.so.6".to_owned()) && names.contains(&String::new()), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
    }

    #[test]
    fn notes_that_lie_end() {
        let note = |name: u32, length: u32, kind: u32| {
            [&name.to_ne_bytes()[..], &length.to_ne_bytes(), &kind.to_ne_bytes(), b"GNU\0", &[5; 8]].concat()
        };
        assert_eq!(find_build_id(&note(4, 8, 3), 4), Some(&[5; 8][..]));
        assert_eq!(find_build_id(&[note(4, 8, 5), note(4, 8, 3)].concat(), 4), Some(&[5; 8][..]));
        for (name, length) in [(u32::MAX, 8), (4, u32::MAX), (4, 9), (u32::MAX, u32::MAX), (5, 0)] {
            assert_eq!(find_build_id(&note(name, length, 3), 4), None, "{name} {length}");
        }
        assert_eq!(find_build_id(&[0; 64], 8), None);
    }
}
