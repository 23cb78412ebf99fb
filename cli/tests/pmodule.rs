//! `cenotaph pmodule run` with the example pmodules in C and core files of the game that they are for, one made by gdb and,
//! where core files can be found, one by the kernel. The dumps are judged by the `minidump` crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use minidump::{Minidump, MinidumpException, MinidumpThreadList};
use serde_json::{Value, json};
use tempfile::TempDir;

const PASSWORD: &[u8] = b"tangerine lighthouse";
const VENDOR: &[u8] = b"walnut orchard";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn compile(arguments: &[&str], source: &Path, output: &Path) {
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
fn core() -> &'static Path {
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

fn module(name: &str, folder: &Path) -> PathBuf {
    let object = folder.join(name).with_extension("so");
    let source = root().join("examples/pmodules").join(name).with_extension("c");
    compile(&["-shared", "-fPIC"], &source, &object);
    object
}

fn run(module: &Path, core: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cenotaph"));
    command.args(["pmodule", "run"]).arg(module).arg(core).args(more).output().unwrap()
}

struct Ran {
    json: Value,
    dump: Vec<u8>,
    text: String,
}

impl Ran {
    fn holds(&self, text: &[u8]) -> bool {
        self.dump.windows(text.len()).any(|bytes| bytes == text)
    }
}

/// Runs one of the examples on each core file; it must succeed.
fn replayed(name: &str) -> Vec<Ran> {
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

/// Events with their calls.
fn calls(json: &Value) -> Vec<(String, u64)> {
    let events = json["cost"]["events"].as_array().unwrap().iter();
    events.map(|e| (e["event"].as_str().unwrap().to_owned(), e["calls"].as_u64().unwrap())).collect()
}

#[test]
fn the_password_is_gone() {
    for ran in replayed("redact_password") {
        assert!(!ran.holds(PASSWORD) && !ran.holds(b"tangerine") && ran.holds(VENDOR));
        let edits = ran.json["edits"].as_array().unwrap();
        let range = &edits[0]["blank-memory"];
        assert_eq!((edits.len(), range["end"].as_u64().unwrap() - range["start"].as_u64().unwrap()), (1, 64));
        assert_eq!(calls(&ran.json), [("attach".to_owned(), 1)]);
        assert!(ran.json["cost"]["reads"].as_u64().unwrap() > 0);
        assert!(
            ran.text.contains("redacts")
                && ran.text.contains("blank memory")
                && !ran.text.contains("tangerine")
        );
        // What is left is a dump like any other.
        let dump = Minidump::read(&ran.dump[..]).unwrap();
        let exception = dump.get_stream::<MinidumpException<'_>>().unwrap();
        assert_eq!(exception.raw.exception_record.exception_code, libc::SIGSEGV.unsigned_abs());
        assert_eq!(dump.get_stream::<MinidumpThreadList<'_>>().unwrap().threads.len(), 4);
    }
}

#[test]
fn the_state_is_noted() {
    for ran in replayed("game_state") {
        assert!(ran.holds(PASSWORD), "nobody redacted");
        let used = 4711 * 1024;
        let allocator = json!({ "allocations": 4711, "bytes_in_use": used, "bytes_at_most": used });
        let edits = ran.json["edits"].as_array().unwrap();
        assert_eq!(edits[0], json!({ "attribute": { "key": "game.level", "value": 12 } }));
        assert_eq!(edits[1], json!({ "attribute": { "key": "game.frame", "value": 4711 } }));
        let text = edits[2]["annotate"]["text"].as_str().unwrap();
        let state: Value = serde_json::from_str(text).unwrap();
        assert_eq!(state, json!({ "level": 12, "frame": 4711, "allocator": allocator }));
        assert_eq!(edits[4], json!({ "classifier": "much-memory" }));
        assert!(ran.json["cost"]["read_bytes"].as_u64().unwrap() >= 40);
        assert!(ran.text.contains("game.frame = 4711"));
    }
}

#[test]
fn the_librarys_stacks_are_gone() {
    for ran in replayed("drop_telemetry") {
        assert!(ran.holds(PASSWORD) && !ran.holds(VENDOR));
        let edits = ran.json["edits"].as_array().unwrap();
        assert_eq!(edits.len(), 3);
        // One frame of each thread is in the library; the filter keeps the others from it.
        assert_eq!(calls(&ran.json), [("frame".to_owned(), 3)]);
        let dropped: Vec<u64> = edits.iter().map(|edit| edit["drop-stack"].as_u64().unwrap()).collect();
        let dump = Minidump::read(&ran.dump[..]).unwrap();
        let memory = dump.get_memory().unwrap_or_default();
        let mut seen = 0;
        for thread in dump.get_stream::<MinidumpThreadList<'_>>().unwrap().threads {
            let stack = thread.stack_memory(&memory).map_or(0, |stack| stack.bytes().len());
            let is_dropped = dropped.contains(&thread.raw.thread_id.into());
            assert_eq!(stack == 0, is_dropped, "{}", thread.raw.thread_id);
            seen += usize::from(is_dropped);
        }
        assert_eq!(seen, 3);
    }
}

/// What the module sees in each event, replayed: the whole header, on a core file.
#[test]
fn failures_name_the_file_and_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let source = |name: &str, before: &str, fields: &str, attach: &str| {
        let text = format!(
            "#define _POSIX_C_SOURCE 200809L\n#include \"cenotaph_pmodule.h\"\n#include <stdlib.h>\n#include <unistd.h>\n\
             static int32_t attach(const cenotaph_pmodule_host *host, void *user) {{ (void)host; (void)user; {attach} }}\n\
             {before}\nstatic const cenotaph_pmodule table = {{ {fields}, CENOTAPH_PMODULE_LITERAL(\"x\"), \
             0, CENOTAPH_PMODULE_ON_ATTACH, 0, 0, NULL, NULL, attach, NULL, NULL, NULL, NULL, NULL, NULL, NULL }};\n\
             CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) {{ (void)abi; return &table; }}\n"
        );
        let (path, object) =
            (folder.path().join(name).with_extension("c"), folder.path().join(name).with_extension("so"));
        fs::write(&path, text).unwrap();
        compile(&["-shared", "-fPIC"], &path, &object);
        object
    };
    let good = "sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI";
    let hang = "__attribute__((constructor)) static void early(void) { for (;;) pause(); }";
    let writable = source("writable", "", good, "return 0;");
    fs::set_permissions(&writable, Permissions::from_mode(0o666)).unwrap();
    let grows = "char *volatile big = malloc((size_t)1 << 30); memset(big, 1, 64); return big[1];";
    let words = "return host->fail(host, cenotaph_pmodule_string(\"no luck today\"));";
    let cases = [
        (
            source("abi", "", "sizeof(cenotaph_pmodule), 7", "return 0;"),
            "is built for ABI 7, this version has 1",
        ),
        (writable, "is writable by others (mode 666)"),
        (source("hangs_early", hang, good, "return 0;"), "did not finish loading within 2 s"),
        (
            source("hangs", "", good, "volatile int on = 1; while (on) { } return 0;"),
            "did not end within 250 ms; it was in attach",
        ),
        (
            source("crashes", "", good, "*(volatile int *)user = 1; return 0;"),
            "killed by SIGSEGV in attach, at crashes.so+0x",
        ),
        (
            source("starts", "", good, "return execl(\"/bin/true\", \"true\", (char *)0);"),
            "used the system call execve, which pmodules may not: killed by SIGSYS in attach, at libc",
        ),
        (
            source("grows", "", good, grows),
            "killed by SIGSEGV, after memory beyond its 64 MiB was refused, in attach, at ",
        ),
        (
            source(
                "long_fail",
                "",
                good,
                "static char x[20000]; memset(x, 'x', sizeof x); \
                return host->fail(host, (cenotaph_pmodule_text){ x, sizeof x });",
            ),
            "xxxxxxxxxxxxxxxx",
        ),
        (
            source(
                "long_text",
                "",
                good,
                "static char x[20000]; memset(x, 'x', sizeof x); \
                return host->annotate(host, 0, (cenotaph_pmodule_text){ x, sizeof x });",
            ),
            "attach returned 2 (CENOTAPH_PMODULE_INVALID: the annotation has 20000 bytes, 16384 at most)",
        ),
        (
            source(
                "symbol",
                "",
                good,
                "return host->symbol(host, cenotaph_pmodule_string(\"\"), \
                cenotaph_pmodule_string(\"shop\"), NULL, NULL);",
            ),
            "no binary exports shop; link the program that has it with -Wl,--export-dynamic-symbol=shop",
        ),
        (
            source(
                "register",
                "",
                good,
                "return host->blank_register(host, 1, cenotaph_pmodule_string(\"rip\"));",
            ),
            "(CENOTAPH_PMODULE_NOT_FOUND: there is no thread 1)",
        ),
        (source("words", "", good, words), "no luck today"),
        (source("code", "", good, "return 3;"), "returned 3"),
        (folder.path().join("none.so"), "No such file"),
    ];
    for (module, expected) in cases {
        let output = run(&module, core(), &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.starts_with("cenotaph: ") && error.contains(expected), "{expected}: {error}");
        assert!(error.contains(module.to_str().unwrap()), "{error}");
    }
    let good = source("good", "", good, "return 0;");
    let text = folder.path().join("text");
    fs::write(&text, "no core file").unwrap();
    for (core, expected) in [(&text, "malformed core file"), (&folder.path().join("absent"), "No such file")]
    {
        let output = run(&good, core, &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(core.to_str().unwrap()) && error.contains(expected), "{error}");
    }
    assert!(run(&good, core(), &[]).status.success());
}

#[test]
fn what_a_module_prints_is_shown_and_a_debugger_sees_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prints.c");
    let text = "#include <stdio.h>\n#include <unistd.h>\n#include \"cenotaph_pmodule.h\"\n\
        static int32_t attach(const cenotaph_pmodule_host *host, void *user) {\n\
        (void)user; printf(\"out \"); fprintf(stderr, \"err\"); (void)host->keep_stack(host, 1);\n\
        return host->annotate(host, CENOTAPH_PMODULE_COMMENT, host->error(host));\n}\n\
        static const cenotaph_pmodule table = { sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, \
        CENOTAPH_PMODULE_LITERAL(\"prints\"), 0, CENOTAPH_PMODULE_ON_ATTACH, 0, 0, NULL, NULL, attach, NULL, NULL, NULL, \
        NULL, NULL, NULL, NULL };\n\
        CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) { (void)abi; return &table; }\n";
    fs::write(&path, text).unwrap();
    let object = path.with_extension("so");
    compile(&["-shared", "-fPIC"], &path, &object);
    for more in [&["--json", "-"][..], &["--json", "-", "--debug"]] {
        let output = run(&object, core(), more);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "out err", "{more:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        // What was refused is not in the list, and spoils nothing.
        assert_eq!(json["edits"].as_array().unwrap().len(), 1);
        assert_eq!(json["edits"][0]["annotate"]["text"], "there is no thread 1");
    }
    let output = run(core(), &object, &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("is a core file"), "{error}");
    let output = Command::new(env!("CARGO_BIN_EXE_cenotaph")).args(["pmodule", "--help"]).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("follow-fork-mode"));
}

#[test]
fn frames_without_a_filter_read_no_symbol_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.c");
    let text = "#include \"cenotaph_pmodule.h\"\n\
        static int32_t frame(const cenotaph_pmodule_host *host, void *user, const cenotaph_pmodule_frame *frame) {\n\
        (void)user; return host->annotate(host, CENOTAPH_PMODULE_COMMENT, frame->symbol);\n}\n\
        FILTERS\n\
        static const cenotaph_pmodule table = { sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, \
        CENOTAPH_PMODULE_LITERAL(\"frames\"), 0, CENOTAPH_PMODULE_ON_FRAME, 0, USED, NULL, NULL, NULL, \
        frame, NULL, NULL, NULL, NULL, NULL };\n\
        CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) { (void)abi; return &table; }\n";
    let filter = "static const cenotaph_pmodule_frame_filter filters[] = \
        { { { NULL, 0 }, CENOTAPH_PMODULE_LITERAL(\"__libc_start_main\"), 0, 0 } };";
    let all = text.replace("FILTERS", "").replace("USED", "0, NULL");
    let one = text.replace("FILTERS", filter).replace("USED", "1, filters");
    let [all, one] = [all, one].map(|text| {
        fs::write(&path, text).unwrap();
        let object = path.with_extension("so");
        compile(&["-shared", "-fPIC"], &path, &object);
        let output = run(&object, core(), &["--json", "-"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    });
    let words = |json: &Value| {
        json["edits"].as_array().unwrap().iter().map(|e| e["annotate"]["text"].clone()).collect::<Vec<_>>()
    };
    assert!(words(&all).len() > 4 && words(&all).iter().all(|symbol| symbol == ""), "{all}");
    assert_eq!(all["cost"]["reads"], 0);
    // By its name in the hash table: some entries, not the table.
    assert_eq!(words(&one), ["__libc_start_main"]);
    assert!((1..1 << 16).contains(&one["cost"]["read_bytes"].as_u64().unwrap()), "{}", one["cost"]);
}

#[test]
fn a_veto_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veto.c");
    let text = "#include \"cenotaph_pmodule.h\"\n\
        static int32_t verdict(const cenotaph_pmodule_host *host, void *user) {\n\
        (void)user; return host->veto(host, cenotaph_pmodule_string(\"a developer's build\"));\n}\n\
        static const cenotaph_pmodule table = { sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, \
        CENOTAPH_PMODULE_LITERAL(\"veto\"), 0, CENOTAPH_PMODULE_ON_VERDICT, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, \
        NULL, NULL, NULL, verdict };\n\
        CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) { (void)abi; return &table; }\n";
    fs::write(&path, text).unwrap();
    let object = path.with_extension("so");
    compile(&["-shared", "-fPIC"], &path, &object);
    let output = run(&object, core(), &["--json", "-"]);
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["veto"], "a developer's build");
    assert_eq!((&json["report"], &json["failure"]), (&Value::Null, &Value::Null));
    assert_eq!(calls(&json), [("verdict".to_owned(), 1)]);
    let output = run(&object, core(), &["--dump", folder.path().join("dump").to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && error.contains("not written: the report has no dump"),
        "{error}"
    );
}

/// What was there before is replaced whole, and nobody else's file is written to.
#[test]
fn outputs_are_for_this_user_and_inputs_stay() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let module = module("game_state", folder.path());
    let (json, dump, other) = (place("json"), place("dump"), place("other"));
    fs::write(&dump, "of an earlier run").unwrap();
    fs::set_permissions(&dump, Permissions::from_mode(0o644)).unwrap();
    fs::write(&other, "somebody's").unwrap();
    std::os::unix::fs::symlink(&other, &json).unwrap();
    let to = |json: &Path, dump: &Path| {
        let more = ["--json", json.to_str().unwrap(), "--dump", dump.to_str().unwrap()].map(str::to_owned);
        move |core: &Path, module: &Path| {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            run(module, core, &more)
        }
    };
    let output = to(&json, &dump)(core(), &module);
    assert!(output.status.success(), "{output:?}");
    for path in [&json, &dump] {
        let found = fs::symlink_metadata(path).unwrap();
        assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o600, "{path:?} {found:?}");
    }
    assert_eq!(fs::read(&other).unwrap(), b"somebody's");
    assert!(fs::read(&dump).unwrap().starts_with(b"MDMP"));

    let copy = place("core");
    fs::copy(core(), &copy).unwrap();
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    let before = (bytes(&copy), bytes(&module));
    for (json, dump) in [(&json, &copy), (&module, &dump)] {
        let output = to(json, dump)(&copy, &module);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("would be lost"), "{output:?}");
        assert_eq!((bytes(&copy), bytes(&module)), before);
    }

    // A pipe that nobody writes to: it would wait for ever.
    let pipe = place("pipe");
    let path = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: a path that ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cenotaph"));
    let mut child = command.args(["pmodule", "run"]).arg(&module).arg(&pipe).spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if std::time::Instant::now() > end {
            child.kill().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(1));
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().contains(".part")));
}

#[test]
fn the_command_line_is_checked() {
    let cases: [&[&str]; 6] = [
        &["pmodule"],
        &["pmodule", "walk"],
        &["pmodule", "run"],
        &["pmodule", "run", "a.so"],
        &["pmodule", "run", "a.so", "core", "more"],
        &["pmodule", "run", "a.so", "core", "--odd"],
    ];
    for arguments in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_cenotaph")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}
