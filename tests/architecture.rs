//! Holds the borders of ARCHITECTURE.md: who may know whom, where `unsafe` may stand, what a handler may reach.
#![allow(clippy::unwrap_used, reason = "test code may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each stage may use of this crate. `client` and `monitor` wire everything and may use anything.
const BORDERS: &[(&str, &[&str])] = &[
    ("sys", &["error"]),
    ("target", &["error", "memory_protocol", "sys"]),
    ("private_file", &["error"]),
    ("privacy", &["error", "private_file"]),
    ("blackbox", &["error", "privacy", "report", "sys"]),
    ("capture", &["error", "generation", "memory_protocol", "minimal_record", "protocol", "sys"]),
    ("dump", &["error", "minimal_record", "report", "target"]),
    ("minimal_record", &["error"]),
    ("origin", &["error", "report", "target"]),
    ("pmodule", &["dump", "error", "report", "sys", "target"]),
    // Of `target` the reader of core files.
    ("scrub", &["dump", "error", "report", "target"]),
    ("spool", &["error", "private_file", "report"]),
    ("upload", &["config", "error", "privacy", "report", "scrub", "spool"]),
];

/// Where `unsafe` may stand; every other file forbids it.
const UNSAFE: &[&str] = &[
    "allocator.rs",
    "capture/",
    "pmodule/abi.rs",
    "pmodule/plugin/",
    "private_file/",
    "protocol.rs",
    "scrub/simd.rs",
    "sys/",
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_path_buf(), text));
            }
        }
    }
    assert!(files.len() > 50, "the sources were not found");
    files
}

/// The code of a file without its tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .map(|line| line.split("//").next().unwrap_or(""))
}

/// Every `name` in `crate::name`.
fn used(text: &str) -> BTreeSet<String> {
    code(text)
        .flat_map(|line| line.match_indices("crate::").map(move |(at, word)| &line[at + word.len()..]))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| name.starts_with(|c: char| c.is_lowercase()))
        .collect()
}

#[test]
fn stages_do_not_know_their_neighbours() {
    let mut seen = 0;
    for (path, text) in sources() {
        let file = path.to_str().unwrap();
        if file.contains("tests") {
            continue;
        }
        for (stage, allowed) in BORDERS {
            if file.starts_with(&format!("{stage}/")) {
                seen += 1;
                for name in used(&text) {
                    assert!(name == *stage || allowed.contains(&name.as_str()), "{file} uses crate::{name}");
                }
            }
        }
    }
    assert!(seen > 40);
}

#[test]
fn unsafe_is_forbidden_where_it_is_not_needed() {
    for (path, text) in sources() {
        let file = path.to_str().unwrap();
        if file.contains("tests") {
            continue;
        }
        let has_unsafe = code(&text).any(|line| line.contains("unsafe {") || line.contains("unsafe impl"));
        if has_unsafe {
            assert!(UNSAFE.iter().any(|place| file.starts_with(place)), "{file} has unsafe code");
        } else if !UNSAFE.iter().any(|place| file.starts_with(place)) {
            let inherited = path.parent().is_some_and(|parent| {
                let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(parent);
                [module.join("mod.rs"), module.with_extension("rs")].iter().any(|module| {
                    std::fs::read_to_string(module).is_ok_and(|text| text.contains("#![forbid(unsafe_code)]"))
                })
            });
            let items = code(&text).any(|line| line.contains("fn "));
            assert!(
                ["forbid", "deny"].iter().any(|word| text.contains(&format!("#![{word}(unsafe_code)]")))
                    || inherited
                    || !items,
                "{file} lacks #![forbid(unsafe_code)]"
            );
        }
    }
}

/// No allocation, no lock, no formatting, no panic in what a handler reaches.
#[test]
fn the_handler_holds_its_contract() {
    const FORBIDDEN: &[&str] = &[
        "Vec",
        "Box",
        "String",
        "format!",
        "vec!",
        "Mutex",
        "RwLock",
        ".lock()",
        "println",
        "unwrap()",
        "expect(",
        "panic!",
        "thread_local",
        "to_vec",
        "to_owned",
        "std::env",
        "std::fs",
        "OnceLock",
        "Arc<",
        "assert",
    ];
    const REACHED: &[&str] = &[
        "capture/handler.rs",
        "capture/last_words.rs",
        "capture/limits.rs",
        "capture/own_stack.rs",
        "capture/memory_server.rs",
        "capture/module_table.rs",
        "capture/relaunch.rs",
        "capture/secret_ranges.rs",
        "capture/signal_safe.rs",
        "generation.rs",
        "memory_protocol.rs",
        "minimal_record/mod.rs",
        "sys/detach.rs",
        "sys/errno.rs",
        "sys/sharing_child.rs",
    ];
    for file in REACHED {
        let (_, text) = sources().into_iter().find(|(path, _)| path == Path::new(file)).unwrap();
        for line in code(&text) {
            for word in FORBIDDEN {
                assert!(!line.contains(word), "{file}: {word} in `{}`", line.trim());
            }
        }
    }
}
