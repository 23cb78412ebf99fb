//! Pmodules on crashes of real processes: what good ones ask for is done, and what bad ones do costs only their own result.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/scene.rs"]
mod scene;
mod support;
#[path = "support/tap.rs"]
mod tap;

use scene::{Ending, Scene, attachment_of, dump_of};
use serde_json::Value;
use tap::Tap;

/// What came of a crash with pmodules.
struct Came {
    /// `cenotaph.json`.
    json: Value,
    /// The dump that was sent: for a stack trace a synthetic one.
    dump: Vec<u8>,
    /// The dump before scrubbing.
    raw: Vec<u8>,
    log: Vec<Value>,
}

impl Came {
    fn report(&self) -> &Value {
        &self.json["report"]
    }

    fn notes(&self) -> Vec<&str> {
        self.report()["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect()
    }

    /// Pmodule and text of every annotation.
    fn annotations(&self) -> Vec<(&str, &str)> {
        let list = self.report()["annotations"].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|a| (a["pmodule"].as_str().unwrap(), a["text"].as_str().unwrap())).collect()
    }

    fn detail(&self) -> &str {
        self.report()["detail"].as_str().unwrap()
    }
}

/// A SIGSEGV of a victim with these pmodules, until its report arrived.
fn crash(pmodules: &[&str], options: &[&str]) -> Came {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let mut all = collector.options("crashpad");
    for pmodule in pmodules {
        all.extend(["--pmodule".to_owned(), (*pmodule).to_owned()]);
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut command = scene.victim(&all, "null");
    command.args(["--consent", "granted"]).args(options);
    let tap = Tap::on(&mut command);
    let (ending, said) = scene.run(command);
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
    let requests = collector.wait_accepted(1);
    let raw = tap.read();
    scene.wait_end();
    assert_eq!(requests.len(), 1);
    Came { json: attachment_of(&requests[0]), dump: dump_of(&requests[0]), raw, log: scene.log() }
}

/// Time enough on any machine; what misbehaves by taking its time gets less.
const PATIENT: [&str; 2] = ["--pmodule-ms", "20000"];
const SHORT: [&str; 2] = ["--pmodule-ms", "300"];

#[test]
fn a_pmodule_annotates_a_crash_and_its_text_is_scrubbed() {
    let came = crash(&["annotate"], &PATIENT);
    assert_eq!(
        came.annotations(),
        [
            ("annotate", "1 threads"),
            ("annotate", "written by ***************"),
            ("annotate", "the \u{1f525} is on"),
            ("annotate", r#"{"mail":"***************","n":7}"#),
        ],
        "{:?}",
        came.notes()
    );
    let levels: Vec<_> =
        came.report()["annotations"].as_array().unwrap().iter().map(|a| a["level"].clone()).collect();
    assert_eq!(levels, ["comment", "warning", "critical", "json"]);
    assert_eq!(came.detail(), "minidump");
}
