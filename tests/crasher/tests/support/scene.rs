//! A place for one test: a folder with a spool, a log and a collector, victims that can be told from everyone else's
//! on the machine, and waiting with a deadline. Whatever a test is about, at its end the dump of every report that arrived, or is in
//! the spool, is compared with the one before scrubbing and the receipt.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "sent.rs"]
pub(crate) mod sent;
#[path = "tap.rs"]
mod tap;

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cenotaph::report::Report;
use cenotaph::scrub::Receipt;
use cenotaph_cli::collect::{Fail, Options, Server};
use serde_json::Value;
use tap::Tap;

use super::processes::{self, Part, Process};
pub(crate) use super::support::ending::Ending;

/// No wait of any test is longer. Nothing is concluded from how long something took.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(5);

/// Calls `probe` until it has something.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(POLL);
    }
}

/// One test's place. Dropping it ends every process of its victims.
pub(crate) struct Scene {
    folder: tempfile::TempDir,
    /// `argv[0]` of the victims, and so of their monitors.
    name: String,
    tap: Tap,
    /// Folders of collectors.
    collected: RefCell<Vec<PathBuf>>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("cnt-").tempdir().unwrap();
        for name in ["tmp", "home"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let name = format!("victim-{}-{number}", std::process::id());
        Self { folder, name, tap: Tap::new(), collected: RefCell::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.path("spool")
    }

    /// A collector in this process, that keeps what it gets in `folder`.
    pub(crate) fn collector(&self, folder: &str) -> Collector {
        self.collector_at(folder, "127.0.0.1:0", None)
    }

    /// The same at a certain address, or with failing answers first.
    pub(crate) fn collector_at(&self, folder: &str, address: &str, fail: Option<Fail>) -> Collector {
        let dir = self.path(folder);
        let options = Options { listen: address.parse().unwrap(), dir: dir.clone(), fail };
        self.collected.borrow_mut().push(dir.clone());
        Collector { server: Some(Server::start(&options, |_| {}).unwrap()), dir }
    }

    /// A victim with this scene's spool and log. `options` come before `way`.
    pub(crate) fn victim(&self, options: &[&str], way: &str) -> Command {
        self.victim_of(super::support::crasher(), options, way)
    }

    /// The same of another program than the crasher that was built.
    pub(crate) fn victim_of(&self, program: &Path, options: &[&str], way: &str) -> Command {
        let mut command = self.bare_of(program, way);
        command.arg("--spool").arg(self.spool()).arg("--log").arg(self.path("log")).args(options);
        command
    }

    /// A victim without any option.
    pub(crate) fn bare(&self, way: &str) -> Command {
        self.bare_of(super::support::crasher(), way)
    }

    fn bare_of(&self, program: &Path, way: &str) -> Command {
        let mut command = self.dumping(program, way);
        no_core(&mut command);
        command
    }

    /// The same, and it may leave a core file.
    pub(crate) fn dumping(&self, program: &Path, way: &str) -> Command {
        let mut command = Command::new(program);
        command.arg0(&self.name).arg(way).env_clear().current_dir("/").stdin(Stdio::null());
        command.env("TMPDIR", self.path("tmp")).env("HOME", self.path("home"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.tap.give(&mut command);
        command
    }

    /// Makes another program one of this scene's victims.
    pub(crate) fn named(&self, command: &mut Command) {
        command.arg0(&self.name);
        no_core(command);
        self.tap.give(command);
    }

    /// The dump of a report that was made, before scrubbing.
    pub(crate) fn raw(&self, report: &str) -> Vec<u8> {
        self.tap.of(report.parse().unwrap())
    }

    /// Runs a victim to its end and returns how it ended and what it said on standard error.
    pub(crate) fn run(&self, mut command: Command) -> (Ending, String) {
        let output = command.output().unwrap();
        (output.status.into(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Every process that runs under this scene's name: victims and all of Cenotaph's.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::named(&self.name)
    }

    /// The processes of Cenotaph's that play `part`.
    pub(crate) fn playing(&self, part: Part, supervisor: i32, victim: i32) -> Vec<i32> {
        processes::playing(&self.processes(), part, supervisor, victim)
    }

    /// Waits until nothing of Cenotaph's runs any more.
    pub(crate) fn wait_end(&self) {
        wait_for("the end of all processes", || self.processes().is_empty().then_some(()));
    }

    /// Ends everything that still runs under this scene's name.
    pub(crate) fn end(&self) {
        wait_for("all processes to be ended", || {
            let left = self.processes();
            left.iter().for_each(|process| processes::kill(process.pid));
            left.is_empty().then_some(())
        });
    }

    /// See [`sent`]: of every report that is in the spool or arrived. Returns how many had a dump.
    pub(crate) fn check_dumps(&self) -> usize {
        let mut checked = sent::check_spool(&self.tap, &self.spool());
        for request in self.collected.borrow().iter().flat_map(|folder| requests(folder)) {
            // One that was refused may not be whole.
            let Ok(attachment) = fs::read(request.join("cenotaph.json")) else { continue };
            let Ok(attachment) = serde_json::from_slice::<Value>(&attachment) else { continue };
            let report: Report = serde_json::from_value(attachment["report"].clone()).unwrap();
            let receipt: Receipt = serde_json::from_value(attachment["receipt"].clone()).unwrap();
            checked += usize::from(sent::check(&self.tap, &report, Some(&dump_of(&request)), &receipt));
        }
        checked
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        // The last line may be half there.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits for a line of the log.
    pub(crate) fn wait_log(&self, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.log().into_iter().find(|line| accept(line)) {
                return line;
            }
            assert!(Instant::now() < deadline, "no line about {what} in the log: {:#?}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Waits for a line whose event has this name.
    pub(crate) fn wait_event(&self, event: &str) -> Value {
        self.wait_log(event, |line| line["event"] == event)
    }

    /// The report files of a state of the spool ("pending"), half-written ones too.
    pub(crate) fn reports(&self, state: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.spool().join(state)) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
    }

    /// Those of all states.
    pub(crate) fn all_reports(&self) -> Vec<PathBuf> {
        ["pending", "sending", "rejected"].iter().flat_map(|state| self.reports(state)).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.processes().iter().for_each(|process| processes::kill(process.pid));
        if !std::thread::panicking() {
            self.check_dumps();
        }
    }
}

/// No core file, whatever the machine's settings.
pub(crate) fn no_core(command: &mut Command) {
    // SAFETY: setrlimit(2) is async-signal-safe and reads a value on the stack.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if libc::setrlimit(libc::RLIMIT_CORE, &raw const none) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// A running collector and its folder.
pub(crate) struct Collector {
    server: Option<Server>,
    /// Where it keeps what it gets.
    pub(crate) dir: PathBuf,
}

impl Collector {
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// `--ca` and `--destination` for a victim.
    pub(crate) fn options(&self, kind: &str) -> Vec<String> {
        let url = format!("https://{}/submit", self.server().address());
        let url = if kind == "backtrace" {
            format!("https://{}/u/t/minidump", self.server().address())
        } else {
            url
        };
        let ca = self.server().authority().to_str().unwrap().to_owned();
        vec!["--ca".to_owned(), ca, "--destination".to_owned(), format!("{kind}={url}")]
    }

    /// One folder for each request, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<PathBuf> {
        requests(&self.dir)
    }

    /// Waits until `count` requests have been accepted, and returns their folders.
    pub(crate) fn wait_accepted(&self, count: u64) -> Vec<PathBuf> {
        wait_for("an accepted report", || (self.server().seen().accepted >= count).then_some(()));
        self.requests()
    }

    /// Closes the port.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// The request folders in a collector's folder.
pub(crate) fn requests(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    folders.sort();
    folders
}

/// The one file of a request's folder that ends in `.dmp`.
pub(crate) fn dump_of(request: &Path) -> Vec<u8> {
    let dumps: Vec<PathBuf> = fs::read_dir(request)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dmp"))
        .collect();
    assert_eq!(dumps.len(), 1, "{dumps:?}");
    fs::read(&dumps[0]).unwrap()
}

/// A request's `cenotaph.json`.
pub(crate) fn attachment_of(request: &Path) -> Value {
    serde_json::from_slice(&fs::read(request.join("cenotaph.json")).unwrap()).unwrap()
}

/// A victim that takes commands (the way `none`).
pub(crate) struct Live {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
}

impl Live {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let errors = child.stderr.take().unwrap();
        let mut live = Self { child, input, output, errors };
        assert_eq!(live.line(), "ready");
        live
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Gives a command and returns the answer.
    pub(crate) fn say(&mut self, command: &str) -> String {
        self.tell(command);
        self.line()
    }

    /// Gives a command that has no answer.
    pub(crate) fn tell(&mut self, command: &str) {
        self.input.as_mut().unwrap().write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    /// Waits for its end. The second is what it said on standard error.
    pub(crate) fn end(mut self) -> (Ending, String) {
        self.input = None;
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            self.errors.read_to_string(&mut said).map(|_| said)
        });
        let status = wait_for("the victim's end", || self.child.try_wait().unwrap());
        (status.into(), said.join().unwrap().unwrap())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            self.errors.read_to_string(&mut said).unwrap();
            panic!("the victim said nothing more on standard output; on standard error: {said}");
        }
        line.trim_end().to_owned()
    }
}
