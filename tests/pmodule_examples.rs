//! The example pmodules in Rust: on a crash of the game in Rust, which is this very program, and on a core file of the game in
//! C, whose globals have the same layout. The dumps are judged by the `minidump` crate.
//!
//! No test harness: a replay forks, which takes a process with a single thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../examples/pmodules/drop_telemetry.rs"]
mod drop_telemetry;
#[path = "../examples/pmodules/game.rs"]
mod game;
#[path = "../examples/pmodules/game_state.rs"]
mod game_state;
#[path = "../examples/pmodules/redact_password.rs"]
mod redact_password;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cenotaph::pmodule::{Edit, Limits, Registered};
use cenotaph::privacy::ConsentPolicy;
use cenotaph::report::{AnnotationLevel, AttributeValue, Detail, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use cenotaph::target::Target;
use cenotaph::{Config, ReleaseAt, Replayed};
use drop_telemetry::DropTelemetry;
use game_state::NoteGameState;
use minidump::{Minidump, MinidumpThreadList};
use redact_password::RedactPassword;

const PASSWORD: &[u8] = b"tangerine lighthouse";
const VENDOR: &[u8] = b"walnut orchard";
/// The folder of the game that this process is to play.
const GAME: &str = "PMODULE_EXAMPLES_GAME";

fn main() {
    let folder = std::env::var_os(GAME).map(PathBuf::from);
    if folder.as_deref().is_some_and(is_plain) {
        cenotaph::monitor_entry();
    }
    cenotaph::monitor_entry_with(vec![
        Registered::of(RedactPassword),
        Registered::of(NoteGameState),
        Registered::of(DropTelemetry::default()),
    ]);
    if let Some(folder) = folder {
        return play(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    compile(&["-shared", "-fPIC"], "telemetry.c", &folder.path().join("libtelemetry.so"));
    a_live_crash(folder.path());
    println!("a live crash ... ok");
    without_them(folder.path());
    println!("a live crash without them ... ok");
    a_core_file(folder.path());
    println!("a core file ... ok");
}

fn config(folder: &Path) -> Config {
    Config::new("game", "1")
        .spool(folder.join("spool"))
        .consent(ConsentPolicy::AskFirst)
        .release_at(ReleaseAt::Spooled)
        .deadline(std::time::Duration::from_secs(100))
}

/// Whether the game has no pmodules.
fn is_plain(folder: &Path) -> bool {
    folder.join("plain").exists()
}

fn play(folder: &Path) {
    let mut config = config(folder);
    if !is_plain(folder) {
        config = config.pmodule(RedactPassword).pmodule(NoteGameState).pmodule(DropTelemetry::default());
    }
    let _guard = config.install().unwrap();
    game::play(Some(&folder.join("libtelemetry.so")));
}

/// The game crashes; its report and its dump.
fn crash(folder: &Path) -> (Report, Vec<u8>) {
    let output = Command::new(std::env::current_exe().unwrap()).env(GAME, folder).output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
    let spool = folder.join("spool");
    let items = Spool::new(&spool).list().unwrap();
    assert_eq!(items.len(), 1);
    let (bytes, key) =
        (std::fs::read(&items[0].path).unwrap(), LocalKey::from_file(&spool.join("key")).unwrap());
    let part = |kind| container::read_part(&bytes, kind, &key).unwrap().map(|part| part.bytes.clone());
    let report: Report = serde_json::from_slice(&part(PartKind::Report).unwrap()).unwrap();
    assert_eq!(report.detail, Detail::Minidump, "{:?}", report.notes);
    std::fs::remove_dir_all(&spool).unwrap();
    (report, part(PartKind::Minidump).unwrap())
}

fn holds(dump: &[u8], text: &[u8]) -> bool {
    dump.windows(text.len()).any(|bytes| bytes == text)
}

/// How many threads have a stack in the dump.
fn stacks(dump: &[u8]) -> (usize, usize) {
    let dump = Minidump::read(dump).unwrap();
    let threads = dump.get_stream::<MinidumpThreadList<'_>>().unwrap();
    let memory = dump.get_memory().unwrap_or_default();
    let stack = |thread: &minidump::MinidumpThread<'_>| {
        thread.stack_memory(&memory).is_some_and(|stack| !stack.bytes().is_empty())
    };
    (threads.threads.iter().filter(|thread| stack(thread)).count(), threads.threads.len())
}

fn a_live_crash(folder: &Path) {
    let (report, dump) = crash(folder);
    assert!(!holds(&dump, PASSWORD) && !holds(&dump, b"tangerine") && !holds(&dump, VENDOR));
    assert_eq!(stacks(&dump), (1, 4));
    let attribute = |key: &str| report.attributes.iter().find(|a| a.key == key).map(|a| a.value.clone());
    assert_eq!(attribute("game.level"), Some(AttributeValue::Integer(12)));
    assert_eq!(attribute("game.frame"), Some(AttributeValue::Integer(4711)));
    let [json, warning] = &report.annotations[..] else { panic!("{:?}", report.annotations) };
    assert_eq!((json.level, warning.level), (AnnotationLevel::Json, AnnotationLevel::Warning));
    let state: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!(state["allocator"]["bytes_in_use"], 4711 * 1024);
    assert_eq!(report.classifiers, ["much-memory"]);
    // The frames of the threads whose stacks are gone are there all the same.
    assert!(report.stack_trace.threads.iter().all(|thread| thread.frames.len() >= 3));
}

/// What shows that the test above tests something.
fn without_them(folder: &Path) {
    std::fs::write(folder.join("plain"), "").unwrap();
    let (report, dump) = crash(folder);
    assert!(holds(&dump, PASSWORD) && holds(&dump, VENDOR));
    assert_eq!(stacks(&dump), (4, 4));
    assert!(report.annotations.is_empty() && report.classifiers.is_empty());
}

fn a_core_file(folder: &Path) {
    let place = folder.display().to_string();
    let (find, load) = (format!("-L{place}"), format!("-Wl,-rpath,{place}"));
    let program = folder.join("game");
    compile(&["-rdynamic", &find, &load, "-ltelemetry"], "game.c", &program);
    let gdb = Command::new("gdb")
        .args(["-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "run", "-ex"])
        .arg("generate-core-file core")
        .arg(&program)
        .current_dir(folder)
        .output()
        .expect("gdb");
    assert!(folder.join("core").exists(), "{gdb:?}");
    let replay = |registered: Registered| {
        let core = Target::from_core(folder.join("core")).unwrap();
        let replay = cenotaph::replay(core, &registered, Limits::default()).unwrap();
        let edits: Vec<Edit> = replay.inspected.unwrap().result.unwrap().iter().cloned().collect();
        let Replayed::Report { report, dump, .. } = replay.outcome else { panic!("{:?}", replay.outcome) };
        (edits, report, dump.unwrap(), replay.cost)
    };
    let (edits, _, dump, cost) = replay(Registered::of(RedactPassword));
    assert!(matches!(&edits[..], [Edit::BlankMemory(range)] if range.end - range.start == 64), "{edits:?}");
    assert!(!holds(&dump, b"tangerine") && holds(&dump, VENDOR));
    assert!(cost.reads > 0 && cost.read_bytes > 0 && cost.events[0].calls == 1, "{cost:?}");

    let (_, report, dump, _) = replay(Registered::of(NoteGameState));
    let state: serde_json::Value = serde_json::from_str(&report.annotations[0].text).unwrap();
    assert_eq!((&state["level"], &state["frame"]), (&12.into(), &4711.into()));
    assert_eq!(report.classifiers, ["much-memory"]);
    assert!(holds(&dump, PASSWORD));

    let (edits, _, dump, cost) = replay(Registered::of(DropTelemetry::default()));
    assert_eq!((edits.len(), stacks(&dump)), (3, (1, 4)));
    assert_eq!(cost.events[0].calls, 3);
    assert!(!holds(&dump, VENDOR) && holds(&dump, PASSWORD));
}

fn compile(arguments: &[&str], source: &str, output: &Path) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pmodules");
    let (before, after): (Vec<&str>, Vec<&str>) =
        arguments.iter().copied().partition(|argument| !argument.starts_with("-l"));
    let built = Command::new("cc")
        .args(["-std=c99", "-O2", "-g", "-Wall", "-Wextra", "-pedantic", "-Werror", "-pthread"])
        .args(before)
        .arg(examples.join(source))
        .arg("-o")
        .arg(output)
        .args(after)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
