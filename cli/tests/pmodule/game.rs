//! The game that the example pmodules are for: its core files, and what a pmodule makes of them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn compile(arguments: &[&str], source: &Path, output: &Path) {
    let (before, after): (Vec<&str>, Vec<&str>) =
        arguments.iter().copied().partition(|argument| !argument.starts_with("-l"));
    let built = Command::new("cc")
        .args(["-std=c99", "-O2", "-g", "-Wall", "-Wextra", "-pedantic", "-Werror", "-pthread"])
        .arg(format!("-I{}", root().join("include").display()))
        .args(before)
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(after)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// The game's core files, made once, gone when the tests end.
struct Cores {
    folder: TempDir,
    gdb: PathBuf,
    /// The one that the kernel wrote, or why there is none.
    kernel: Result<PathBuf, String>,
}

fn cores() -> &'static Cores {
    static CORES: OnceLock<Cores> = OnceLock::new();
    extern "C" fn remove() {
        if let Some(cores) = CORES.get() {
            let _ = fs::remove_dir_all(cores.folder.path());
        }
    }
    CORES.get_or_init(|| {
        // SAFETY: a function that touches nothing that ends before it.
        unsafe { libc::atexit(remove) };
        let folder = tempfile::tempdir().unwrap();
        let examples = root().join("examples/pmodules");
        compile(&["-shared", "-fPIC"], &examples.join("telemetry.c"), &folder.path().join("libtelemetry.so"));
        let place = folder.path().display().to_string();
        let (find, load) = (format!("-L{place}"), format!("-Wl,-rpath,{place}"));
        let game = folder.path().join("game");
        compile(&["-rdynamic", &find, &load, "-ltelemetry"], &examples.join("game.c"), &game);
        Cores { gdb: gdb_core(&game, &place), kernel: kernel_core(&game, &place), folder }
    })
}

/// Made by gdb.
pub(crate) fn core() -> &'static Path {
    &cores().gdb
}

fn gdb_core(game: &Path, folder: &str) -> PathBuf {
    let gdb = Command::new("gdb")
        .args(["-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "run", "-ex"])
        .arg("generate-core-file by-gdb")
        .arg(game)
        .current_dir(folder)
        .output()
        .expect("gdb");
    let core = Path::new(folder).join("by-gdb");
    assert!(core.exists(), "{gdb:?}");
    core
}

/// Nothing is changed on the machine to have one.
fn kernel_core(game: &Path, folder: &str) -> Result<PathBuf, String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if !pattern.starts_with("core") || pattern.contains('/') {
        return Err(format!("core files go to {}", pattern.trim_end()));
    }
    let mut command = Command::new(game);
    // SAFETY: getrlimit(2) and setrlimit(2) are plain system calls that use a value on the stack.
    unsafe {
        command.current_dir(folder).pre_exec(|| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            Ok(())
        });
    }
    let ended = command.output().unwrap();
    if !ended.status.core_dumped() {
        return Err(format!("the kernel wrote no core file: {}", ended.status));
    }
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let core = files.find(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"core"));
    Ok(core.expect("a core file where the game ran"))
}

pub(crate) fn module(name: &str, folder: &Path) -> PathBuf {
    let object = folder.join(name).with_extension("so");
    let source = root().join("examples/pmodules").join(name).with_extension("c");
    compile(&["-shared", "-fPIC"], &source, &object);
    object
}

pub(crate) fn run(module: &Path, core: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cenotaph"));
    command.args(["pmodule", "run"]).arg(module).arg(core).args(more).output().unwrap()
}

pub(crate) struct Ran {
    pub(crate) json: Value,
    pub(crate) dump: Vec<u8>,
    pub(crate) text: String,
}

impl Ran {
    pub(crate) fn holds(&self, text: &[u8]) -> bool {
        self.dump.windows(text.len()).any(|bytes| bytes == text)
    }
}

/// Runs one of the examples on each core file; it must succeed.
pub(crate) fn replayed(name: &str) -> Vec<Ran> {
    let cores = cores();
    let kernel = cores.kernel.as_ref().inspect_err(|why| {
        let _ = writeln!(std::io::stderr(), "the kernel's core file: n/a, {why}");
    });
    [Some(&cores.gdb), kernel.ok()].into_iter().flatten().map(|core| replayed_on(name, core)).collect()
}

fn replayed_on(name: &str, core: &Path) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let (json, dump) = (folder.path().join("json"), folder.path().join("dump"));
    let more = ["--json", json.to_str().unwrap(), "--dump", dump.to_str().unwrap()];
    let output = run(&module(name, folder.path()), core, &more);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(fs::metadata(&dump).unwrap().permissions().mode() & 0o777, 0o600);
    Ran {
        json: serde_json::from_slice(&fs::read(&json).unwrap()).unwrap(),
        dump: fs::read(&dump).unwrap(),
        text: String::from_utf8(output.stdout).unwrap(),
    }
}
