//! An application built with `panic=abort`, and the check of what comes of its panics. In a build that unwinds it says so and
//! checks nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use cenotaph::privacy::ConsentPolicy;
use cenotaph::report::{Reason, Report};
use cenotaph::spool::{LocalKey, PartKind, Spool, container};
use cenotaph::{Config, ReleaseAt};

const SIGABRT: i32 = 6;

fn main() {
    cenotaph::monitor_entry();
    if cfg!(panic = "unwind") {
        println!("not built with panic=abort: nothing to check; use --profile panic-abort");
        return;
    }
    match (env::var_os("FOLDER"), env::var("WAY")) {
        (Some(folder), Ok(way)) => application(Path::new(&folder), &way),
        _ => check(),
    }
}

fn check() {
    for (way, message) in
        [("main", "on the main thread"), ("thread", "on another thread"), ("drop", "the first of two")]
    {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .env("FOLDER", folder.path())
            .env("WAY", way)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGABRT), "{way}: {said}");
        let items = Spool::new(folder.path()).list().unwrap();
        assert_eq!(items.len(), 1, "{way}: one report: {said}");
        let key = LocalKey::load(folder.path()).unwrap().unwrap();
        let bytes = fs::read(&items[0].path).unwrap();
        let part = container::read_part(&bytes, PartKind::Report, &key).unwrap().unwrap();
        let report: Report = serde_json::from_slice(&part.bytes).unwrap();
        let Reason::Panic { message: found, .. } = &report.reason else {
            panic!("{way}: {:?}", report.reason)
        };
        assert_eq!(found, message);
        let crashed = &report.stack_trace.threads[0];
        assert!(crashed.crashed && crashed.frames.len() >= 5, "{way}: {crashed:?}");
        println!("{way}: one report, SIGABRT");
    }
}

fn application(folder: &Path, way: &str) {
    let config = Config::new("panic-abort", "1").spool(folder).consent(ConsentPolicy::NotRequired);
    let guard = config.release_at(ReleaseAt::Spooled).linger(Duration::ZERO).install().unwrap();
    match way {
        "main" => panic!("on the main thread"),
        "thread" => drop(std::thread::spawn(|| panic!("on another thread")).join()),
        "drop" => {
            let _second = PanicsWhenDropped;
            panic!("the first of two");
        }
        other => panic!("{other}"),
    }
    drop(guard);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("never reached: nothing unwinds");
    }
}
