//! A process to be stopped, killed and damaged.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cenotaph::target::{Request, Target};

/// In the environment of a subject: what it does.
const ROLE: &str = "CENOTAPH_TARGET_SUBJECT";

/// This very program, run once more. Killed when dropped.
pub(crate) struct Subject(pub(crate) Child);

impl Subject {
    pub(crate) fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "run", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line.contains("SUBJECT")).expect("the subject's announcement");
        Self(child)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// As [`start`](Self::start), and every thread has come to where it waits: the first one for what it is asked.
    pub(crate) fn at_rest(role: &str) -> Self {
        let subject = Self::start(role);
        // Its announcement comes before it waits. A pipe with room lets nobody wait, so sleeping means that.
        until("a subject at rest", || subject.states().iter().all(|&state| state == 'S'));
        subject
    }

    pub(crate) fn stop(&self) -> Target {
        Target::stop(Request::new(self.pid(), self.pid(), None)).unwrap()
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: two numbers.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// State letter of each thread.
    pub(crate) fn states(&self) -> Vec<char> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let state = |stat: String| stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
            .map(state)
            .collect()
    }

    pub(crate) fn tracers(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let status =
            |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line =
            |text: String| text.lines().find_map(|l| Some(l.strip_prefix("TracerPid:")?.trim().to_owned()));
        tasks.filter_map(|task| line(status(task.unwrap()))).collect()
    }

    /// It answers what it is asked.
    pub(crate) fn lives(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        let mut answer = [0];
        self.0.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"!");
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

static COUNTED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: i32) {
    COUNTED.fetch_add(1, Ordering::SeqCst);
}

/// What this process is to be, if it is a subject.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Announces itself and answers until its parent is gone.
pub(crate) fn serve() -> ! {
    // SAFETY: the handler counts and does nothing else.
    unsafe { libc::signal(libc::SIGRTMIN(), count as extern "C" fn(i32) as libc::sighandler_t) };
    println!("SUBJECT");
    let mut input = std::io::stdin().lock();
    let mut asked = [0];
    while input.read(&mut asked).unwrap() == 1 {
        match asked {
            [b'#'] => std::io::stdout().write_all(&COUNTED.load(Ordering::SeqCst).to_le_bytes()).unwrap(),
            _ => std::io::stdout().write_all(b"!").unwrap(),
        }
        std::io::stdout().flush().unwrap();
    }
    std::process::exit(0);
}

/// Waits for something that comes by itself.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}
