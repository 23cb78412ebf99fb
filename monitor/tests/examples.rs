//! The example pmodules in C, built by the C compiler, loaded by the helper program, on crashes of the game that they are
//! for. The dumps are judged by the `minidump` crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/crasher/tests/support/applications.rs"]
mod applications;
mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use applications::Watched;
use cenotaph::report::{AnnotationLevel, AttributeValue, Detail, Report};
use cenotaph::spool::PartKind;
use minidump::{Minidump, MinidumpThreadList};
use support::{build, build_game, build_source, directory, helper, parts, reports, shared_directory};

/// What the player typed (game.c), and what the library of somebody else holds (telemetry.c).
const PASSWORD: &[u8] = b"tangerine lighthouse";
const VENDOR: &[u8] = b"walnut orchard";

struct Crash {
    report: Report,
    dump: Option<Vec<u8>>,
}

impl Crash {
    fn holds(&self, text: &[u8]) -> bool {
        self.dump.as_ref().unwrap().windows(text.len()).any(|bytes| bytes == text)
    }

    /// Bytes of each thread's stack, the crashed one's first.
    fn stacks(&self) -> Vec<usize> {
        let dump = Minidump::read(self.dump.as_deref().unwrap()).unwrap();
        let threads = dump.get_stream::<MinidumpThreadList<'_>>().unwrap();
        let memory = dump.get_memory().unwrap_or_default();
        let crashed = self.report.stack_trace.threads.iter().find(|thread| thread.crashed).unwrap().id;
        let length = |id: u32| {
            let thread = threads.get_thread(id).unwrap();
            thread.stack_memory(&memory).map_or(0, |stack| stack.bytes().len())
        };
        let others = threads.threads.iter().map(|thread| thread.raw.thread_id).filter(|id| *id != crashed);
        std::iter::once(crashed).chain(others).map(length).collect()
    }
}

/// With Cenotaph in it; built once.
fn game() -> &'static Path {
    static GAME: OnceLock<PathBuf> = OnceLock::new();
    GAME.get_or_init(|| build_game(shared_directory(), true))
}

/// The game crashes with these plug-ins.
fn crash(folder: &Path, plugins: &[PathBuf]) -> Crash {
    let spool = folder.join("spool");
    let mut command = Command::new(game());
    let watched = Watched::on(command.arg(&spool).arg(helper()).args(plugins));
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
    let mut reports = reports(&spool);
    assert_eq!(reports.len(), 1);
    let dump = parts(&spool, PartKind::Minidump).remove(0);
    assert_eq!(watched.check(&spool), usize::from(dump.is_some()), "dumps compared with their receipts");
    Crash { report: reports.remove(0), dump }
}

#[test]
fn without_them_everything_is_there() {
    let folder = directory();
    let crash = crash(folder.path(), &[]);
    assert!(crash.holds(PASSWORD) && crash.holds(VENDOR));
    let stacks = crash.stacks();
    assert_eq!(stacks.len(), 4);
    assert!(stacks.iter().all(|&stack| stack > 0), "{stacks:?}");
    assert!(crash.report.annotations.is_empty() && crash.report.attributes.is_empty());
    assert!(!crash.report.notes.iter().any(|note| note.contains("pmodule")), "{:?}", crash.report.notes);
}

#[test]
fn together_they_do_what_they_say() {
    let folder = directory();
    let build = |name| build(&format!("examples/pmodules/{name}.c"), folder.path());
    let plugins = ["redact_password", "game_state", "drop_telemetry"].map(build);
    let crash = crash(folder.path(), &plugins);
    let report = &crash.report;
    assert_eq!(report.detail, Detail::Minidump, "{:?}", report.notes);
    assert!(!crash.holds(PASSWORD) && !crash.holds(b"tangerine") && !crash.holds(VENDOR));
    let stacks = crash.stacks();
    assert!(stacks[0] > 0 && stacks[1..] == [0, 0, 0], "{stacks:?}");
    // Their frames are there all the same.
    assert!(report.stack_trace.threads.iter().all(|thread| thread.frames.len() >= 3));

    let attribute = |key: &str| report.attributes.iter().find(|a| a.key == key).map(|a| a.value.clone());
    assert_eq!(attribute("game.level"), Some(AttributeValue::Integer(12)));
    assert_eq!(attribute("game.frame"), Some(AttributeValue::Integer(4711)));
    let [json, warning] = &report.annotations[..] else { panic!("{:?}", report.annotations) };
    assert_eq!((json.pmodule.as_str(), json.level), ("game-state", AnnotationLevel::Json));
    let state: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    let used = 4711 * 1024;
    let allocator = serde_json::json!({ "allocations": 4711, "bytes_in_use": used, "bytes_at_most": used });
    assert_eq!(state, serde_json::json!({ "level": 12, "frame": 4711, "allocator": allocator }));
    assert_eq!(
        (warning.level, warning.text.as_str()),
        (AnnotationLevel::Warning, "the game holds more than 4 MiB")
    );
    assert_eq!(report.classifiers, ["much-memory"]);

    let receipt = parts(&folder.path().join("spool"), PartKind::Receipt).remove(0).unwrap();
    let receipt = String::from_utf8(receipt).unwrap();
    // The field itself is in no dump, since nothing points to it; the copy on the stack was found by its text.
    assert!(receipt.contains(r#"{"place":"stack","rule":"known-value","encoding":"utf-8""#), "{receipt}");
}

#[test]
fn one_of_them_alone_does_only_its_own() {
    let folder = directory();
    let crash = crash(folder.path(), &[build("examples/pmodules/drop_telemetry.c", folder.path())]);
    assert!(crash.holds(PASSWORD) && !crash.holds(VENDOR));
    assert!(crash.report.annotations.is_empty());
}

/// What cannot be loaded may have been to remove something: the report holds no memory, and says why.
#[test]
fn plugins_that_cannot_be_loaded_step_the_report_down() {
    let hangs = "__attribute__((constructor)) static void early(void) { for (;;) pause(); }";
    let entry = "CENOTAPH_PMODULE_EXPORT const cenotaph_pmodule *cenotaph_pmodule_entry(uint32_t abi)";
    let abi = format!(
        "static const cenotaph_pmodule table = {{ sizeof(cenotaph_pmodule), 99, {{ \"x\", 1 }}, 0, 1, 0, 0, \
         NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }};\n{entry} {{ (void)abi; return &table; }}"
    );
    let cases = [
        ("hangs", hangs, "did not finish loading within 2 s"),
        ("other_abi", abi.as_str(), "is built for ABI 99, this version has 1"),
    ];
    for (name, body, expected) in cases {
        let folder = directory();
        let source = format!("#include \"cenotaph_pmodule.h\"\n#include <unistd.h>\n{body}\n");
        let object = build_source(&source, &folder.path().join(format!("{name}.so")));
        let crash = crash(folder.path(), &[object]);
        assert!(crash.dump.is_none(), "{name}");
        let notes = crash.report.notes.join("\n");
        assert!(notes.contains(expected) && notes.contains(&format!("{name}.so")), "{notes}");
        assert_eq!(crash.report.detail, Detail::StackTrace);
        assert!(crash.report.stack_trace.threads[0].frames.len() >= 3);
    }
}

/// The password's place is known for one layout: another one is a failure, and failing closed.
#[test]
fn another_layout_steps_the_report_down() {
    let folder = directory();
    let source =
        std::fs::read_to_string(support::root().join("examples/pmodules/redact_password.c")).unwrap();
    let header = std::fs::read_to_string(support::root().join("examples/pmodules/game.h")).unwrap();
    std::fs::write(folder.path().join("game.h"), header.replace("char name[32]", "char name[40]")).unwrap();
    let object = build_source(&source, &folder.path().join("redact_password.so"));
    let crash = crash(folder.path(), &[object]);
    assert!(crash.dump.is_none());
    let notes = crash.report.notes.join("\n");
    assert!(notes.contains("redact-password") && notes.contains("another size"), "{notes}");
}

/// The Makefile that a reader would use builds all of it.
#[test]
fn the_makefile_builds_what_it_says() {
    let folder = directory();
    let (root, pmodules) = (support::root(), folder.path().join("examples/pmodules"));
    std::fs::create_dir_all(&pmodules).unwrap();
    std::os::unix::fs::symlink(root.join("include"), folder.path().join("include")).unwrap();
    for file in std::fs::read_dir(root.join("examples/pmodules")).unwrap().flatten() {
        std::fs::copy(file.path(), pmodules.join(file.file_name())).unwrap();
    }
    let library = support::static_library();
    let library = format!("LIB={}", library.parent().unwrap().display());
    let output =
        Command::new("make").args(["all", "reported", &library]).current_dir(&pmodules).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    for made in ["redact_password.so", "game_state.so", "drop_telemetry.so", "game", "game_reported"] {
        assert!(pmodules.join(made).exists(), "{made}");
    }
}
