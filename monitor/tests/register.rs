//! `plugin::register` with real files and real processes. It forks, which takes a process with a single thread: so there
//! is no test harness, and all cases run in `main`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use cenotaph::pmodule::runner::{Scene, Session};
use cenotaph::pmodule::{Description, Event, Limits, plugin};
use cenotaph::report::Reason;
use cenotaph::target::{Request, Target};
use support::{build, build_source, directory};

type Case = (&'static str, fn(&Path));

fn main() {
    let cases: &[Case] = &[
        ("a good one", good),
        ("refused by its file", refused_by_its_file),
        ("refused by what it is", refused_by_what_it_is),
        ("constructors that misbehave", constructors_that_misbehave),
        ("what was checked is what is loaded", what_was_checked_is_loaded),
        ("one that changed in place fails closed", one_that_changed_in_place_fails_closed),
    ];
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, case) in cases.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|w| name.contains(w))) {
        let folder = directory();
        case(folder.path());
        println!("{name} ... ok");
    }
}

/// A module of one event; `more` stands in front of its table, which is `fields`.
fn source(more: &str, fields: &str) -> String {
    format!(
        "#include \"cenotaph_pmodule.h\"\n#include <stdlib.h>\n#include <unistd.h>\n\
         static int32_t attach(const cenotaph_pmodule_host *host, void *user) {{\n\
         (void)host; (void)user; return 0;\n}}\n{more}\n\
         static const cenotaph_pmodule table = {{ {fields}, \
         0, CENOTAPH_PMODULE_ON_ATTACH, 0, 0, NULL, NULL, attach, NULL, NULL, NULL, NULL, NULL, NULL, NULL }};\n\
         CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi) {{\n\
         (void)abi; return &table;\n}}\n"
    )
}

const GOOD: &str = "sizeof(cenotaph_pmodule), CENOTAPH_PMODULE_ABI, CENOTAPH_PMODULE_LITERAL(\"good\")";

fn refusal(path: &Path) -> String {
    plugin::register(path)
        .map(|registered| format!("{registered:?} was registered"))
        .unwrap_or_else(|e| e.to_string())
}

fn good(folder: &Path) {
    let object = build_source(&source("", GOOD), &folder.join("good.so"));
    let registered = plugin::register(&object).unwrap();
    assert_eq!(registered.description, Description::new("good").on(Event::Attach));
    assert_eq!(registered.make().unwrap().describe(), registered.description);
    let every = build("tests/pmodules/every_call.c", folder);
    assert_eq!(plugin::register(&every).unwrap().description.name, "every-call");
}

fn refused_by_its_file(folder: &Path) {
    let object = build_source(&source("", GOOD), &folder.join("good.so"));
    let named = |why: &str, path: &Path, expected: &str| {
        assert!(why.starts_with("configuration `plugin`: "), "{why}");
        assert!(why.contains(path.to_str().unwrap()) && why.contains(expected), "{expected}: {why}");
    };
    let relative = Path::new("good.so");
    named(&refusal(relative), relative, "relative path; give an absolute one");
    named(&refusal(folder), folder, "is a directory");
    named(&refusal(&folder.join("none.so")), &folder.join("none.so"), "No such file");
    named(&refusal(Path::new("/dev/zero")), Path::new("/dev/zero"), "no regular file");
    for mode in [0o777, 0o666, 0o775] {
        fs::set_permissions(&object, Permissions::from_mode(mode)).unwrap();
        named(&refusal(&object), &object, "is writable by others");
    }
    fs::set_permissions(&object, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    named(&refusal(&object), folder, "is writable by others");
    fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    let link = folder.join("link.so");
    symlink(&object, &link).unwrap();
    assert!(plugin::register(&link).is_ok());
    if std::os::unix::fs::chown(&object, Some(12345), None).is_ok() {
        named(&refusal(&link), &object, "belongs to user 12345");
    }
}

fn refused_by_what_it_is(folder: &Path) {
    let text = folder.join("text.so");
    fs::write(&text, "no library").unwrap();
    fs::set_permissions(&text, Permissions::from_mode(0o644)).unwrap();
    let why = refusal(&text);
    assert!(why.contains("text.so: cannot be loaded: ") && !why.contains("/proc/self/fd"), "{why}");
    let empty =
        build_source("int unrelated(void);\nint unrelated(void) { return 1; }\n", &folder.join("empty.so"));
    assert!(
        refusal(&empty).contains("exports no function cenotaph_pmodule_entry; mark it"),
        "{}",
        refusal(&empty)
    );
    let null = "#include \"cenotaph_pmodule.h\"\nCENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t \
                abi) { (void)abi; return NULL; }\n";
    assert!(refusal(&build_source(null, &folder.join("null.so"))).contains("cannot work with ABI 1"));
    let cases = [
        (
            "sizeof(cenotaph_pmodule), 2, CENOTAPH_PMODULE_LITERAL(\"good\")",
            "is built for ABI 2, this version has 1",
        ),
        ("16, 1, CENOTAPH_PMODULE_LITERAL(\"good\")", "its table has 16 bytes"),
        ("sizeof(cenotaph_pmodule), 1, { NULL, 9 }", "its name is NULL"),
        ("sizeof(cenotaph_pmodule), 1, { \"x\", 70 }", "its name has 70 bytes, 64 at most"),
        ("sizeof(cenotaph_pmodule), 1, CENOTAPH_PMODULE_LITERAL(\"Bad Name\")", "lower-case letters"),
    ];
    for (number, (fields, expected)) in cases.into_iter().enumerate() {
        let object = build_source(&source("", fields), &folder.join(format!("bad{number}.so")));
        let why = refusal(&object);
        assert!(why.contains(object.to_str().unwrap()) && why.contains(expected), "{expected}: {why}");
    }
}

fn constructors_that_misbehave(folder: &Path) {
    let constructor =
        |body: &str| format!("__attribute__((constructor)) static void early(void) {{ {body} }}");
    let begun = Instant::now();
    let cases = [
        ("crash", "*(volatile int *)8 = 1;", "was killed by SIGSEGV"),
        ("abort", "abort();", "was killed by SIGABRT"),
        ("exit", "_exit(0);", "exited with code 0"),
        ("exit3", "exit(3);", "exited with code 3"),
        ("hang", "for (;;) pause();", "did not finish loading within 2 s"),
        ("spin", "for (volatile int i = 0;; ++i) {}", "did not finish loading within 2 s"),
        // Its child holds the other end of the socket.
        ("fork", "if (fork() == 0) { for (;;) pause(); } _exit(7);", "did not finish loading within 2 s"),
        // It goes on without the socket.
        ("close", "for (int fd = 3; fd < 64; ++fd) close(fd); for (;;) pause();", "was killed by SIGKILL"),
        ("lie", "for (int fd = 3; fd < 64; ++fd) (void)!write(fd, \"nonsense\", 8);", "sent something else"),
    ];
    for (name, body, expected) in cases {
        let object = build_source(&source(&constructor(body), GOOD), &folder.join(format!("{name}.so")));
        let why = refusal(&object);
        assert!(why.contains(expected) && why.contains(name), "{name}: {why}");
    }
    // Only that it came to an end: each is given 2 s.
    assert!(begun.elapsed() < Duration::from_secs(120));
    // Nobody is left, not even the one that a constructor forked and that has another parent by now.
    scene_is_empty();
    let status = fs::read_to_string("/proc/self/task/self/children").unwrap_or_default();
    assert!(status.trim().is_empty(), "{status}");
}

/// Waits until no process but this one has this program's image: whoever is killed may take a moment to go.
fn scene_is_empty() {
    let ours = fs::read_link("/proc/self/exe").unwrap();
    let others = || {
        let ids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let ids = ids.filter(|id| id.parse::<u32>().is_ok_and(|id| id != std::process::id()));
        let same = |id: &String| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == ours);
        ids.filter(same).collect::<Vec<_>>()
    };
    let end = Instant::now() + Duration::from_secs(60);
    while !others().is_empty() {
        assert!(Instant::now() < end, "{:?}", others());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn what_was_checked_is_loaded(folder: &Path) {
    let object = build_source(&source("", GOOD), &folder.join("good.so"));
    let registered = plugin::register(&object).unwrap();
    // Another file under its name, and then none.
    let evil = build_source(
        &source("__attribute__((constructor)) static void early(void) { _exit(9); }", GOOD),
        &folder.join("evil.so"),
    );
    fs::rename(evil, &object).unwrap();
    assert_eq!(registered.make().unwrap().describe().name, "good");
    fs::remove_file(&object).unwrap();
    assert_eq!(registered.make().unwrap().describe().name, "good");
    assert!(refusal(&object).contains("No such file"));
}

/// Neither description says that it redacts: nobody knows what a third one says.
fn one_that_changed_in_place_fails_closed(folder: &Path) {
    let object = build_source(&source("", GOOD), &folder.join("good.so"));
    let other = build_source(&source("", &GOOD.replace("good", "other")), &folder.join("other.so"));
    let registered = [plugin::register(&object).unwrap()];
    fs::write(&object, fs::read(&other).unwrap()).unwrap();
    let mut sleeper = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = sleeper.id().cast_signed();
    let mut target = Target::stop(Request::new(pid, pid, None)).unwrap();
    let patient = Duration::from_secs(60);
    let limits = Limits { inspect: patient, all: patient, ..Limits::default() };
    let reason = Reason::Requested { reason: String::new() };
    let mut scene =
        Scene { regions: Vec::new(), trace: None, reason: &reason, attributes: Vec::new(), breadcrumbs: &[] };
    let ran =
        Session::new(&registered, limits, &[]).inspect(&mut target, &mut scene, Instant::now() + patient);
    drop(target);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let why = ran[0].result.as_ref().unwrap_err();
    assert!(ran[0].fails_closed && why.text.contains("otherwise than when it was probed"), "{ran:?}");
}
