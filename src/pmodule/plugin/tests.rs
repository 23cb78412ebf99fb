//! C modules in this process, called event by event; a child that stands still is what they see.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::super::abi::{self, ABI, FrameFilter, Text};
use super::super::{
    Blank, Blanks, DumpView, Edit, Edits, Event, FrameEvent, Noted, Pmodule, RegionEvent, Veto,
};
use super::instance::Plugin;
use super::table::Table;
use super::*;
use crate::dump::{Layout, synthetic};
use crate::report::{
    AnnotationLevel, Attribute, AttributeValue, Breadcrumb, Detail, Fingerprint, Frame, Level, Module,
    Reason, Report, ReportId, StackTrace, Thread, Trust,
};
use crate::target::{Request, Target};

fn built(name: &str, folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let object = folder.join(name).with_extension("so");
    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-g", "-shared", "-fPIC", "-I"])
        .arg(root.join("include"))
        .arg(root.join("tests/pmodules").join(name))
        .arg("-o")
        .arg(&object)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    object
}

/// A process that sleeps until it is dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let mut command = Command::new("/bin/sleep");
        command.arg0("sleep").arg("1000").stdin(Stdio::null());
        let sleeper = Self(command.spawn().unwrap());
        // Until it sleeps in the kernel its binary may not be in place yet.
        let path = format!("/proc/{}/syscall", sleeper.0.id());
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let sleeps = |text: String| ["230 ", "35 "].iter().any(|call| text.starts_with(call));
        while !std::fs::read_to_string(&path).is_ok_and(sleeps) {
            assert!(std::time::Instant::now() < limit, "it does not come to sleep");
            std::thread::yield_now();
        }
        sleeper
    }

    fn stop(&self) -> Target {
        let pid = self.0.id().cast_signed();
        Target::stop(Request::new(pid, pid, None)).unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn reason() -> Reason {
    Reason::Panic { message: "boom".into(), location: "main.rs:1:2".into(), thread: "main".into() }
}

fn attributes() -> Vec<Attribute> {
    vec![
        Attribute { key: "level".into(), value: "castle".into(), truncated: true },
        Attribute { key: "lives".into(), value: AttributeValue::Integer(-3), truncated: false },
    ]
}

fn breadcrumbs() -> Vec<Breadcrumb> {
    let (category, message) = ("net".into(), "slow".into());
    vec![Breadcrumb { time_ms: 17, level: Level::Warning, category, message, truncated: false }]
}

fn frame() -> Frame {
    Frame { instruction: 0x1234, module: Some(0), offset: 0x34, trust: Trust::Context }
}

fn stack_trace() -> StackTrace {
    StackTrace {
        modules: vec![Module { name: "libx.so".into(), build_id: "aa".into(), base: 0x1200, size: 0x1000 }],
        threads: vec![Thread { id: 12, name: None, crashed: true, frames: vec![frame()] }],
    }
}

fn report() -> Report {
    Report {
        id: ReportId([1; 16]),
        time_ms: 1,
        application: "game".into(),
        version: "1".into(),
        environment: "test".into(),
        reason: reason(),
        detail: Detail::Pointers,
        attributes: attributes(),
        breadcrumbs: breadcrumbs(),
        stack_trace: stack_trace(),
        fingerprint: Fingerprint::default(),
        device_id: None,
        origin: None,
        repeats: Vec::new(),
        annotations: Vec::new(),
        classifiers: Vec::new(),
        notes: Vec::new(),
        stages_ms: std::collections::BTreeMap::new(),
        stages_bytes: std::collections::BTreeMap::new(),
    }
}

/// The module checks what it is told, and fails with the line that was not so. A process of its own: other tests look at the
/// modules of this one.
#[test]
fn every_function_in_every_event() {
    const ALONE: &str = "CENOTAPH_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "pmodule::plugin::tests::every_function_in_every_event";
        let output = Command::new(own).args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let object = built("every_call.c", folder.path());
    let table = load(&File::open(object).unwrap()).unwrap();
    let description = table.description.clone();
    assert_eq!(
        (description.name.as_str(), description.priority, description.redacts),
        ("every-call", -5, true)
    );
    assert_eq!(description.events.len(), 8);
    let filter = |module: Option<&str>, symbol: Option<&str>, faulting| super::super::FrameFilter {
        module: module.map(str::to_owned),
        symbol: symbol.map(str::to_owned),
        faulting,
    };
    assert_eq!(description.frames, [filter(Some("libx"), None, true), filter(None, Some("read"), false)]);

    let mut plugin = Plugin::new(table);
    assert_eq!(plugin.describe(), description);
    let sleeper = Sleeper::start();
    let target = sleeper.stop();
    let mut edits = Edits::default();
    plugin.attach(&target, &mut edits).unwrap();
    let found: Vec<Edit> = edits.iter().cloned().collect();
    let note = |level, text: &str| Edit::Annotate { level, text: text.to_owned() };
    let set = |key: &str, value| Edit::Attribute { key: key.to_owned(), value };
    let expected = [
        note(AnnotationLevel::Comment, "a remark"),
        note(AnnotationLevel::Warning, ""),
        note(AnnotationLevel::Critical, "c"),
        note(AnnotationLevel::Json, "{\"a\":1}"),
        set("bool", AttributeValue::Bool(true)),
        set("integer", AttributeValue::Integer(-7)),
        set("number", AttributeValue::Float(0.5)),
        set("text", "words".into()),
        Edit::Classifier("oom".into()),
        Edit::FingerprintComponent("part".into()),
        Edit::AddMemory(4096..4112),
        Edit::BlankArgument(1),
        Edit::BlankEnvironment("HOME".into()),
        Edit::KeepStack(5),
        Edit::LowerDetail(Detail::Pointers),
        Edit::BlankMemory(256..264),
        Edit::BlankRegister { thread: 5, register: "xmm3".into() },
        Edit::DropStack(6),
        Edit::Veto(Veto { reason: "test build".into() }),
    ];
    assert_eq!(found, expected);

    let mut edits = Edits::default();
    plugin.thread(&target, &target.threads[0], &mut edits).unwrap();
    let event = FrameEvent {
        thread: 12,
        crashed: true,
        number: 3,
        frame: &frame(),
        module: Some("libx.so"),
        symbol: None,
    };
    plugin.frame(&target, &event, &mut edits).unwrap();
    let region = RegionEvent { address: 0x5000, bytes: b"abcd", stack_of: Some(12) };
    plugin.region(&target, &region, &mut edits).unwrap();
    assert!(edits.is_empty());
    let (reason, attributes, breadcrumbs) = (reason(), attributes(), breadcrumbs());
    let noted = Noted { reason: &reason, attributes: &attributes, breadcrumbs: &breadcrumbs };
    plugin.attributes(&noted, &mut edits).unwrap();
    assert_eq!(edits.iter().collect::<Vec<_>>(), [&note(AnnotationLevel::Comment, "seen")]);
    let failure = plugin.detach(&target, &mut edits).unwrap_err();
    assert_eq!(failure.0, "its callback for detach returned 42");

    let dump = synthetic::write(&stack_trace(), &reason, 1).unwrap();
    let layout = Layout::parse(&dump).unwrap();
    let mut blanks = Blanks::default();
    plugin.scrub(&DumpView::new(&dump, &layout), &mut blanks).unwrap();
    let blanks: Vec<Blank> = blanks.iter().cloned().collect();
    assert!(matches!(&blanks[0], Blank::Memory(range) if range.end - range.start == 8), "{blanks:?}");
    assert_eq!(blanks[1..], [Blank::Register { thread: 12, register: "rax".into() }, Blank::Stack(12)]);

    assert_eq!(plugin.verdict(&report()).unwrap(), Some(Veto { reason: "seen enough".into() }));
    // Words for a failure: a report with another number of frames.
    let mut other = report();
    other.stack_trace.threads[0].frames.clear();
    let failure = plugin.verdict(&other).unwrap_err();
    assert!(failure.0.starts_with("line ") && failure.0.contains("host->frame"), "{failure}");
}

/// Outside of an event there is nothing to call.
#[test]
fn no_event_no_answer() {
    let text = Text::lend("x");
    let host =
        host::during(&host::Call::new(host::Sees::Report(&report()), host::Wishes::veto()), |host| host);
    // SAFETY: the host's own table, which is static, with a text that lives.
    unsafe {
        assert_eq!(((*host).annotate)(host, 0, text), abi::Status::NotNow as i32);
        assert_eq!(((*host).fail)(host, text), abi::Status::Failed as i32);
        assert_eq!(((*host).error)(host).length, 0);
    }
}

#[test]
fn tables_that_are_refused() {
    unsafe extern "C" fn event(_: abi::HostPointer, _: *mut std::ffi::c_void) -> i32 {
        0
    }
    let good = abi::Pmodule {
        size: size_of::<abi::Pmodule>() as u32,
        abi: ABI,
        name: Text::lend("good"),
        priority: 0,
        events: 1,
        redacts: 0,
        frame_filter_count: 0,
        frame_filters: std::ptr::null(),
        user: std::ptr::null_mut(),
        attach: Some(event),
        thread: None,
        frame: None,
        region: None,
        attributes: None,
        detach: None,
        scrub: None,
        verdict: None,
    };
    let long = "x".repeat(65);
    let filters = [FrameFilter { module: Text::lend("m"), symbol: Text::EMPTY, faulting: 0, reserved: 0 }];
    let far = Text { data: std::ptr::dangling(), length: usize::MAX };
    let odd = Text { data: b"\xff".as_ptr().cast(), length: 1 };
    let bad_filter = [FrameFilter { module: far, ..filters[0] }];
    let cases: &[(abi::Pmodule, &str)] = &[
        (abi::Pmodule { abi: 2, ..good }, "is built for ABI 2, this version has 1"),
        (abi::Pmodule { size: 12, abi: 7, ..good }, "is built for ABI 7"),
        (abi::Pmodule { size: 0, abi: 7, ..good }, "its table has 0 bytes"),
        (abi::Pmodule { size: good.size - 1, ..good }, "set `size` to sizeof(cenotaph_pmodule)"),
        (abi::Pmodule { name: Text::EMPTY, ..good }, "its name is NULL or empty"),
        (
            abi::Pmodule { name: Text { data: std::ptr::null(), length: 5 }, ..good },
            "its name is NULL or empty",
        ),
        (abi::Pmodule { name: Text::lend(&long), ..good }, "its name has 65 bytes, 64 at most"),
        (abi::Pmodule { name: far, ..good }, "64 at most"),
        (abi::Pmodule { name: odd, ..good }, "not UTF-8"),
        (abi::Pmodule { name: Text::lend("No Name"), ..good }, "lower-case"),
        (abi::Pmodule { events: 0, ..good }, "wants no event"),
        (
            abi::Pmodule { events: 2, ..good },
            "wants CENOTAPH_PMODULE_ON_THREAD, but its callback `thread` is NULL",
        ),
        (abi::Pmodule { events: 257, ..good }, "this version does not know (bits 0x100)"),
        (abi::Pmodule { frame_filter_count: 1, ..good }, "1 frame filters at NULL"),
        (abi::Pmodule { frame_filter_count: 65, frame_filters: filters.as_ptr(), ..good }, "64 at most"),
        (abi::Pmodule { frame_filter_count: 1, frame_filters: bad_filter.as_ptr(), ..good }, "256 at most"),
    ];
    for (table, expected) in cases {
        // SAFETY: a whole table, whose texts live; those that state a wild length are refused unread.
        let why = unsafe { Table::read(table) }.err().unwrap_or_default();
        assert!(why.contains(expected), "{expected}: {why}");
    }
    // SAFETY: NULL is allowed.
    assert!(unsafe { Table::read(std::ptr::null()) }.err().unwrap().contains("returned NULL"));
    let good =
        abi::Pmodule { frame_filter_count: 1, frame_filters: filters.as_ptr(), size: good.size + 64, ..good };
    // SAFETY: nothing behind the known end is read, whatever the size.
    let read = unsafe { Table::read(&raw const good) }.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(
        (read.description.name.as_str(), &read.description.events[..]),
        ("good", &[Event::Attach][..])
    );
    assert_eq!(read.description.frames.len(), 1);
}
