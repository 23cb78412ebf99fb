//! Nothing that was planted leaves, or is written: values of every kind, in every place and encoding that can hold them,
//! are searched for in every byte that the processes wrote and that the collector received.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "support/cells.rs"]
mod cells;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/needles.rs"]
mod needles;
#[path = "../src/plant.rs"]
#[allow(dead_code, reason = "the program's own")]
mod plant;
#[path = "support/processes.rs"]
mod processes;
#[path = "support/random.rs"]
mod random;
#[path = "support/scene.rs"]
mod scene;
mod support;
#[path = "support/written.rs"]
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cells::Cell;
use cenotaph::dump::Layout;
use cenotaph::spool::container;
use cenotaph::spool::key::LocalKey;
use needles::Needles;
use plant::Place;
use random::random;
use scene::{Collector, Live, Scene, attachment_of, dump_of, wait_for};
use serde_json::Value;
use written::{Watch, Written};

/// What a victim had planted, and its memory before scrubbing.
struct Crash {
    /// The report's id.
    id: String,
    cells: Vec<Cell>,
    raw: Vec<u8>,
}

/// One test's place, with its watch: everything that is written is kept.
struct Stage {
    scene: Scene,
    collector: Collector,
    watch: Option<Watch>,
    plants: usize,
    /// Containers that were copied while they were held.
    held: BTreeSet<Written>,
}

impl Stage {
    fn new() -> Self {
        let scene = Scene::new();
        fs::create_dir(scene.path("work")).unwrap();
        let collector = scene.collector("collected");
        let watch = Watch::start(&[scene.path("work"), scene.path("tmp"), scene.path("home")]);
        println!("files are watched by {}", watch.way);
        Self { scene, collector, watch: Some(watch), plants: 0, held: BTreeSet::new() }
    }

    /// A victim with everything that a known value is known from, in the watched folder.
    fn victim(&self, options: &[&str], way: &str) -> Command {
        let mut command = self.scene.bare(way);
        let work = self.scene.path("work");
        command.arg("--spool").arg(work.join("spool")).arg("--log").arg(work.join("log"));
        command.args(["--secret", kinds::SECRET]).args(options);
        command.env("USER", kinds::USER).env("HOME", kinds::HOME).env("HOSTNAME", kinds::HOST);
        command
    }

    /// Lets a victim with planted values make a report.
    fn crash(&mut self, cells: Vec<Cell>, options: &[&str], way: &str) -> Crash {
        let before = self.spooled().len();
        self.plants += 1;
        let file = self.scene.path(&format!("plant-{}.json", self.plants));
        fs::write(&file, cells::plant_file(&cells)).unwrap();
        let threads = 2 + cells.iter().filter(|cell| cell.place == Place::ThreadName).count();
        let mut command = self.victim(options, way);
        command.arg("--plant").arg(&file).args(["--threads", &threads.to_string()]);
        let (_, said) = self.scene.run(command);
        let mut complaints = said.lines().filter(|line| line.starts_with("crasher: "));
        assert!(complaints.all(|line| line == "crasher: a panic was asked for"), "{way}: {said}");
        self.scene.wait_end();
        let spooled = self.spooled();
        assert_eq!(spooled.len(), before + 1, "{way}: {:?}", self.log());
        self.copy_held();
        let id = spooled.last().unwrap().clone();
        Crash { raw: self.scene.raw(&id), id, cells }
    }

    fn copy_held(&mut self) {
        let pending = fs::read_dir(self.scene.path("work").join("spool/pending")).unwrap();
        for path in pending.map(|entry| entry.unwrap().path()) {
            // One that is being delivered may be gone.
            self.held.extend(fs::read(&path).ok().map(|bytes| Written { path, bytes }));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scene.path("work").join("log")).unwrap_or_default()
    }

    /// The ids of the reports that were committed, in that order.
    fn spooled(&self) -> Vec<String> {
        let lines = self.log();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let spooled = lines.filter(|line| line["event"] == "spooled");
        spooled.map(|line| line["report"].as_str().unwrap().to_owned()).collect()
    }

    /// Agrees, and has everything that is held delivered.
    fn deliver(&self, kind: &str, reports: u64) {
        let options = self.collector.options(kind);
        let mut command = self.victim(&["--consent", "granted"], "none");
        command.args(options);
        let mut live = Live::start(command);
        wait_for("all reports", || (self.collector.server().seen().accepted >= reports).then_some(()));
        live.say("exit");
        live.end();
        self.scene.wait_end();
    }

    /// Everything that was written or received, by name, with the containers opened.
    fn everything(&mut self) -> Vec<(String, Vec<u8>)> {
        let watch = self.watch.take().unwrap();
        let certain = watch.is_certain;
        let mut written = watch.end();
        // Written by this process; but a child that another test's thread was starting meanwhile may have closed it last.
        written.retain(|file| !file.path.to_string_lossy().contains("/plant-"));
        let names: BTreeSet<&Path> = written.iter().map(|file| file.path.as_path()).collect();
        for name in &names {
            println!("written: {}", name.strip_prefix(self.scene.path("")).unwrap_or(name).display());
        }
        let has = |text: &str| names.iter().any(|name| name.to_string_lossy().contains(text));
        assert!(has("/spool/pending/") && has("/work/log"), "the watch saw: {names:?}");
        written.extend(std::mem::take(&mut self.held));
        let mut all = self.opened(&written, certain);
        all.extend(written.into_iter().map(|file| (file.path.display().to_string(), file.bytes)));
        all.extend(received(&self.collector.dir));
        all
    }

    /// The parts of every container that is among the files.
    fn opened(&self, written: &BTreeSet<Written>, certain: bool) -> Vec<(String, Vec<u8>)> {
        let key = LocalKey::from_file(&self.scene.path("work").join("spool/key")).unwrap();
        let mut parts = BTreeMap::new();
        for file in written.iter().filter(|file| file.bytes.starts_with(b"CENOTAPH")) {
            // A copy that was taken while it was being written is no container yet.
            let Ok(header) = container::header(&file.bytes) else { continue };
            for part in container::open(&file.bytes, &key).unwrap() {
                parts.insert(format!("container {} {:?}", header.id, part.kind), part.bytes);
            }
        }
        let containers = parts.keys().filter(|name| name.ends_with("Receipt")).count();
        let made = self.spooled().len();
        println!("{containers} of {made} containers were seen whole, and opened");
        // Where files can be missed, those of reports that were delivered at once may be among them.
        assert!(containers == made || (!certain && containers * 2 >= made), "{containers} of {made}");
        parts.into_iter().collect()
    }
}

/// Every file in the collector's folder (headers, raw and decoded bodies, parts), and the raw bodies once more, decompressed
/// here.
fn received(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push((format!("name of {}", path.display()), path.as_os_str().as_encoded_bytes().to_vec()));
            all.extend(received(&path));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        if path.file_name().is_some_and(|name| name == "body") {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
            assert!(plain.len() > bytes.len(), "the body was compressed");
            all.push((format!("{}, decompressed", path.display()), plain));
        }
        all.push((path.display().to_string(), bytes));
    }
    all
}

/// Every window of every value, in every encoding.
fn needles() -> Needles {
    Needles::new(kinds::all().into_iter().flat_map(|kind| {
        let secrets: BTreeSet<String> = kind.forms.into_iter().map(|form| form.secret).collect();
        secrets.into_iter().flat_map(move |secret| {
            cells::ENCODINGS.map(|(encoding, name, _)| {
                let bytes = cells::encode(&secret, encoding);
                let unit = bytes.len() / secret.len();
                (format!("{} {name}", kind.name), bytes, unit)
            })
        })
    }))
}

fn search(needles: &Needles, all: &[(String, Vec<u8>)]) -> usize {
    let (mut leaks, mut bytes) = (Vec::new(), 0);
    for (name, content) in all {
        bytes += content.len();
        for found in needles.find(content).into_iter().filter(|found| !in_json_number(content, found.offset))
        {
            let around = found.offset.saturating_sub(32)..(found.offset + 64).min(content.len());
            let piece = String::from_utf8_lossy(&content[around]);
            let place = place_in_dump(content, found.offset).unwrap_or_default();
            leaks.push(format!("{} at {:#x} of {name}{place}: {piece:?}", found.label, found.offset));
        }
    }
    println!("searched {} files and parts, {bytes} bytes, for {} windows", all.len(), needles.count());
    leaks.truncate(20);
    assert!(leaks.is_empty(), "{leaks:#?}");
    bytes
}

/// Whether the window there is digits within a number of a JSON text. The reports hold hundreds of addresses of 14 and 15
/// digits, so that eight of some card's digits are in one of them every few hundred runs. What was planted is text, which is
/// in quotes, and a card has 16 digits.
fn in_json_number(bytes: &[u8], window: usize) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits(&bytes[window..]) < needles::WINDOW {
        return false;
    }
    let start = window - bytes[..window].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let end = window + digits(&bytes[window..]);
    let is_behind = |before: &[u8]| before.ends_with(b"\":");
    end - start <= 15 && is_behind(&bytes[..start]) && matches!(bytes.get(end), Some(b',' | b'}'))
}

/// What lies at that offset, if the bytes are a dump.
fn place_in_dump(bytes: &[u8], offset: usize) -> Option<String> {
    let layout = Layout::parse(bytes).ok()?;
    let memory = layout.memory.iter().find(|memory| memory.bytes.contains(&offset));
    let stack = |address| layout.threads.iter().any(|thread| thread.stack.address == address);
    let memory = memory.map(|memory| {
        let kind = if stack(memory.address) { "stack" } else { "memory" };
        format!(" ({kind} from {:#x}, byte {:#x})", memory.address, offset - memory.bytes.start)
    });
    let context = || layout.threads.iter().find(|thread| thread.context.contains(&offset));
    memory.or_else(|| context().map(|thread| format!(" (registers of thread {})", thread.id)))
}

/// The receipt of each crash's report, as it arrived, against the memory before scrubbing.
fn check_receipts(crashes: &[Crash], requests: &[PathBuf], needles: &Needles) {
    let mut missing = Vec::new();
    for Crash { id, cells, raw } in crashes {
        let of_this = |request: &&PathBuf| request.to_string_lossy().ends_with(id);
        let request = requests.iter().find(of_this).expect("each report arrived");
        let attachment = attachment_of(request);
        assert_eq!(attachment["report"]["detail"], "minidump", "{}", attachment["report"]["notes"]);
        assert!(dump_of(request).len() >= raw.len(), "behind it are annotations");
        assert!(!needles.find(raw).is_empty(), "the search finds what was not scrubbed");
        cells::check(cells, raw, &attachment, needles, &mut missing);
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

fn in_registers(cell: &Cell) -> bool {
    matches!(cell.place, Place::Register | Place::HeapRegister)
}

#[test]
fn values_can_be_told_from_everything_else() {
    let needles = needles();
    for kind in kinds::all() {
        for form in &kind.forms {
            for (encoding, ..) in cells::ENCODINGS {
                for text in [&form.before, &form.after] {
                    let text = cells::encode(text, encoding);
                    assert_eq!(needles.find(&text), [], "{} {encoding:?}", kind.name);
                }
                let found = needles.find(&cells::encode(&form.text(), encoding));
                let characters = form.secret.len() - needles::WINDOW + 1;
                assert!(found.len() >= characters, "{} {encoding:?}", kind.name);
            }
        }
    }
}

#[test]
fn digits_of_addresses_are_no_piece_of_a_value() {
    let at = |text: &str| in_json_number(text.as_bytes(), text.find("17023664").unwrap());
    assert!(at(r#"{"base":140170236642048,"size":4096}"#) && at(r#"{"address":94517023664128}"#));
    assert!(!at(r#"{"base":4539578170236640,"size":4096}"#), "a card's length");
    assert!(!at(r#"{"value":"539578170236640","size":4096}"#), "a text");
    assert!(!at("card: 140170236642048,") && !at(r#"{"base":140170236642048.5}"#) && !at("17023664"));
}

#[test]
fn memory_and_texts() {
    let (cells, not) = cells::table(&mut random());
    let kinds: BTreeSet<&str> = cells.iter().map(|cell| cell.kind).collect();
    assert!(kinds.len() >= 15, "{kinds:?}");
    println!("{} kinds, {} cells; these cannot be planted:", kinds.len(), cells.len());
    not.iter().for_each(|(cell, kinds)| println!("  n/a {cell}: {}", kinds.join(", ")));
    let cells: Vec<Cell> = cells.into_iter().filter(|cell| !in_registers(cell)).collect();
    let needles = needles();
    let mut stage = Stage::new();
    let mut crashes = Vec::new();
    let options = stage.collector.options("crashpad");
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["--consent", "granted"]);
    for way in ["null", "panic"] {
        // Held, as nobody has agreed yet.
        crashes.push(stage.crash(cells.clone(), &[], way));
    }
    for way in ["abort", "capture"] {
        // Delivered at once, with what was held.
        crashes.push(stage.crash(cells.clone(), &options, way));
    }
    let requests = stage.collector.wait_accepted(4);
    let all = stage.everything();
    search(&needles, &all);
    check_receipts(&crashes, &requests, &needles);
}

#[test]
fn registers() {
    let (cells, _) = cells::table(&mut random());
    let cells: Vec<Cell> = cells.into_iter().filter(in_registers).collect();
    let needles = needles();
    let mut stage = Stage::new();
    let mut crashes = Vec::new();
    for batch in cells::register_batches(cells) {
        // Nobody has agreed yet: reports are held, sealed, and sent together afterwards.
        crashes.push(stage.crash(batch, &[], "null"));
        if crashes.len() % 20 == 0 {
            // Before the spool's quota takes the oldest.
            stage.deliver("backtrace", crashes.len() as u64);
        }
    }
    println!("{} victims", crashes.len());
    stage.deliver("backtrace", crashes.len() as u64);
    let requests = stage.collector.requests();
    let all = stage.everything();
    search(&needles, &all);
    check_receipts(&crashes, &requests, &needles);
    assert!(stage.scene.check_dumps() >= crashes.len(), "what was sent was compared with its receipts");
}

#[test]
fn for_children() {
    let (cells, _) = cells::table(&mut random());
    let cells: Vec<Cell> = cells.into_iter().filter(|cell| !in_registers(cell)).collect();
    let needles = needles();
    let mut stage = Stage::new();
    let mut options = stage.collector.options("crashpad");
    options.extend(["--audience", "child", "--consent", "granted"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let crash = stage.crash(cells, &options, "null");
    assert!(!needles.find(&crash.raw).is_empty());
    let requests = stage.collector.wait_accepted(1);
    let report = &attachment_of(&requests[0])["report"];
    assert_eq!(report["detail"], "pointers");
    let crumbs = report["breadcrumbs"].as_array().unwrap();
    assert!(crumbs.iter().all(|crumb| crumb["message"] == ""), "{crumbs:?}");
    search(&needles, &stage.everything());
}

/// A program that lies in a person's folder: its path is in the module list, the link map, the memory map, the
/// auxiliary vector.
#[test]
fn the_programs_own_path() {
    let needles = needles();
    let mut stage = Stage::new();
    let secret =
        kinds::all().into_iter().find(|kind| kind.name == "user-path").unwrap().forms[0].secret.clone();
    // Not where the watch is: the copy below is the test's own writing, and a program holds every pair of letters.
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("home").join(&secret).join("bin");
    fs::create_dir_all(&folder).unwrap();
    // By this process, whose writing the watches leave out.
    fs::copy(support::crasher(), folder.join("crasher")).unwrap();
    let plain = stage.victim(&["--consent", "granted"], "null");
    let mut command = Command::new(folder.join("crasher"));
    command.args(plain.get_args()).env_clear();
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.args(stage.collector.options("crashpad")).stderr(std::process::Stdio::piped());
    stage.scene.named(&mut command);
    stage.scene.run(command);
    let requests = stage.collector.wait_accepted(1);
    stage.scene.wait_end();
    let attachment = attachment_of(&requests[0]);
    let raw = stage.scene.raw(attachment["report"]["id"].as_str().unwrap());
    let entries = attachment["receipt"]["entries"].as_array().unwrap();
    let said = |place: &str| entries.iter().any(|e| e["place"] == place && e["rule"] == "user-path");
    assert!(said("module-path") && said("text-stream"), "{entries:?}");
    assert!(!needles.find(&raw).is_empty());
    search(&needles, &stage.everything());
}

#[test]
fn the_watch_sees_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch::start(&[folder.path().to_path_buf()]);
    let root = watch.is_certain;
    let run = |script: &str| {
        let status = Command::new("/bin/sh").args(["-c", script]).current_dir(folder.path()).status();
        assert!(status.unwrap().success());
    };
    run("mkdir new; printf kept > new/kept");
    if root {
        run("printf removed > removed; rm removed");
    } else {
        // Removed when it has been seen: that it may be missed otherwise is what the other way is for.
        run("printf removed > removed");
    }
    let written = watch.end();
    for text in ["kept", "removed"] {
        assert!(written.iter().any(|file| file.bytes == text.as_bytes()), "{text}: {written:?}");
    }
}
