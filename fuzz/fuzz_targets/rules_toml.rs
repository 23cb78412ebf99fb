//! Any text as a file of rules, and the rest as text for them: refused with a line, or rules that search in linear time.
#![no_main]

use std::path::Path;

use cenotaph::scrub::{Policy, Receipt, rules_from_toml, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (file, words) = input;
    match rules_from_toml(file, Path::new("rules.toml")) {
        Err(error) => {
            assert!(error.to_string().contains("rules.toml:") || error.to_string().contains("limit"))
        }
        Ok(rules) => {
            let (mut scrubbed, mut receipt) = (words.to_owned(), Receipt::default());
            text(&mut scrubbed, &Policy { rules, ..Policy::default() }, &mut receipt);
            assert!(scrubbed.len() == words.len() || scrubbed.is_empty());
        }
    }
});
