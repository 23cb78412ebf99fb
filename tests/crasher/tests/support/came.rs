//! A crash with pmodules, and what came of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;

use super::scene::{Ending, Scene, attachment_of, dump_of};

/// What came of a crash with pmodules.
pub(crate) struct Came {
    /// `cenotaph.json`.
    pub(crate) json: Value,
    /// The dump that was sent: for a stack trace a synthetic one.
    pub(crate) dump: Vec<u8>,
    /// The dump before scrubbing.
    pub(crate) raw: Vec<u8>,
    pub(crate) log: Vec<Value>,
}

impl Came {
    pub(crate) fn report(&self) -> &Value {
        &self.json["report"]
    }

    pub(crate) fn notes(&self) -> Vec<&str> {
        self.report()["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect()
    }

    /// Pmodule and text of every annotation.
    pub(crate) fn annotations(&self) -> Vec<(&str, &str)> {
        let list = self.report()["annotations"].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|a| (a["pmodule"].as_str().unwrap(), a["text"].as_str().unwrap())).collect()
    }

    pub(crate) fn detail(&self) -> &str {
        self.report()["detail"].as_str().unwrap()
    }
}

/// A SIGSEGV of a victim with these pmodules, until its report arrived.
pub(crate) fn crash(pmodules: &[&str], options: &[&str]) -> Came {
    let scene = Scene::new();
    let collector = scene.collector("collected");
    let mut all = collector.options("crashpad");
    for pmodule in pmodules {
        all.extend(["--pmodule".to_owned(), (*pmodule).to_owned()]);
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut command = scene.victim(&all, "null");
    command.args(["--consent", "granted"]).args(options);
    let (ending, said) = scene.run(command);
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV), "{said}");
    let requests = collector.wait_accepted(1);
    scene.wait_end();
    assert_eq!(requests.len(), 1);
    let json = attachment_of(&requests[0]);
    let raw = scene.raw(json["report"]["id"].as_str().unwrap());
    Came { json, dump: dump_of(&requests[0]), raw, log: scene.log() }
}

/// Reads a dump with the `minidump` crate.
pub(crate) fn parsed(dump: &[u8]) -> minidump::Minidump<'_, &[u8]> {
    minidump::Minidump::read(dump).unwrap()
}

/// Address and bytes of all memory in a dump.
pub(crate) fn memory(dump: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let dump = parsed(dump);
    let list = dump.get_stream::<minidump::MinidumpMemoryList<'_>>().unwrap();
    list.iter().map(|memory| (memory.base_address, memory.bytes.to_vec())).collect()
}

/// The alias that `rule` gave in `text`, with `*` up to the `length` of the value: which number it has depends on what else there was.
pub(crate) fn alias(rule: &str, text: &str, length: usize) -> String {
    let start = text.find(&format!("[{rule}#")).expect(text);
    let end = start + text[start..].find(']').expect(text) + 1;
    format!("{:*<length$}", &text[start..end])
}
