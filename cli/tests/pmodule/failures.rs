//! What a user of `cenotaph pmodule run` sees who made a mistake, and what is written where.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::game::{compile, core, module, run};

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
