//! Shared objects for a victim to map, so that it has as many modules as a program of some size.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;

/// One function and some data: what the smallest library of a real program has, with build id, symbols and tables.
const SOURCE: &str =
    "int crash_latency_state = 1;\nint crash_latency_module(int x) { return x + crash_latency_state; }\n";

/// The objects, in a folder that is removed with this value.
#[derive(Debug)]
pub(crate) struct Modules {
    dir: tempfile::TempDir,
}

impl Modules {
    /// Builds `count` objects with `cc`, each with its own name and build id.
    pub(crate) fn build(count: usize, dir: &Path) -> Result<Self, Failure> {
        let modules =
            Self { dir: tempfile::Builder::new().prefix("crash-latency-modules-").tempdir_in(dir)? };
        if count == 0 {
            return Ok(modules);
        }
        let telemetry = modules.dir.path().join(TELEMETRY);
        cc(Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-pthread", "-Wl,--build-id", "-o"])
            .arg(&telemetry)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pmodules/telemetry.c")))?;
        let (source, object) = (modules.dir.path().join("module.c"), modules.dir.path().join("module.o"));
        std::fs::write(&source, SOURCE)?;
        cc(Command::new("cc").args(["-c", "-O2", "-fPIC", "-o"]).arg(&object).arg(&source))?;
        for number in 0..count {
            let path = module(modules.dir.path(), number);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            cc(Command::new("cc")
                .args(["-shared", "-Wl,--build-id", &format!("-Wl,-soname,{name}"), "-o"])
                .arg(&path)
                .arg(&object))?;
        }
        Ok(modules)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// The library of the example pmodules' game, by the name that they look for.
const TELEMETRY: &str = "libtelemetry.so";
/// Threads of its own.
const TELEMETRY_THREADS: usize = 3;

/// Loads the game's library and has it start its threads, if there is one and there are to be `threads` that allow it.
/// Returns how many.
pub(crate) fn start_telemetry(dir: &Path, threads: usize) -> Result<usize, Failure> {
    let path = dir.join(TELEMETRY);
    if threads <= TELEMETRY_THREADS || !path.exists() {
        return Ok(0);
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated path and name; the library has no initialisers, and its function this type.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        let start =
            if library.is_null() { library } else { libc::dlsym(library, c"telemetry_start".as_ptr()) };
        if start.is_null() {
            return Err(format!("{} cannot be used", path.to_string_lossy()).into());
        }
        let start = std::mem::transmute::<*mut libc::c_void, extern "C" fn(libc::c_int)>(start);
        start(TELEMETRY_THREADS as libc::c_int);
    }
    Ok(TELEMETRY_THREADS)
}

/// Loads objects of `dir` until this process has `wanted` modules; 0 leaves it as it is. For the rest of its life.
pub(crate) fn load(dir: &Path, wanted: usize) -> Result<(), Failure> {
    for number in 0..wanted.saturating_sub(mapped()?) {
        let path = CString::new(module(dir, number).as_os_str().as_bytes())?;
        // SAFETY: a NUL-terminated path; the object has no initialisers.
        if unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) }.is_null() {
            return Err(format!("dlopen refuses {}", path.to_string_lossy()).into());
        }
    }
    Ok(())
}

/// Files of which this process has code mapped, and the vdso.
fn mapped() -> Result<usize, Failure> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let code = maps
        .lines()
        .filter(|line| line.contains(" r-xp "))
        .filter_map(|line| line.split_ascii_whitespace().nth(5));
    let files = code.filter(|name| name.starts_with('/') || *name == "[vdso]");
    Ok(files.collect::<std::collections::BTreeSet<_>>().len())
}

fn module(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("libcrash_latency_{number}.so"))
}

fn cc(command: &mut Command) -> Result<(), Failure> {
    let run = command.stdin(Stdio::null()).output();
    let output =
        run.map_err(|error| format!("cc cannot be run ({error}); install a C compiler, or use --modules 0"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cc failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}
