//! Any text as a report's file name: there is one way to write each.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(name) = cenotaph::fuzzing::spool_name(text) {
        assert_eq!(name, text);
    }
});
