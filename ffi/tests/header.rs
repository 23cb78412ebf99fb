//! The committed header is the one that the sources make.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// In the order of the header.
const SOURCES: [&str; 5] = ["status.rs", "options.rs", "client.rs", "watch.rs", "memory.rs"];

#[test]
fn the_header_is_what_the_sources_make() {
    let made = header();
    let path = committed();
    if std::env::var_os("CENOTAPH_REGENERATE").is_some() {
        std::fs::write(&path, &made).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let present = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let differs = made.lines().zip(present.lines()).enumerate().find(|(_, (made, present))| made != present);
    assert!(
        made == present,
        "{} is out of date, first at {differs:?}; run this test with CENOTAPH_REGENERATE=1",
        path.display()
    );
}

/// C programs compare these; they must be those of the package.
#[test]
fn the_version_is_that_of_the_package() {
    let made = macros();
    let value = |name: &str| {
        let line = format!("#define CENOTAPH_VERSION_{name} ");
        let found: Vec<&str> = made.lines().filter_map(|l| l.strip_prefix(&line)).collect();
        assert_eq!(found.len(), 1, "CENOTAPH_VERSION_{name}");
        found[0].to_owned()
    };
    let parts = [value("MAJOR"), value("MINOR"), value("PATCH")];
    assert_eq!(parts.join("."), env!("CARGO_PKG_VERSION"));
    assert_eq!(value("STRING"), format!("\"{}\"", env!("CARGO_PKG_VERSION")));
    let [major, minor, patch] = parts.map(|part| part.parse::<u32>().unwrap());
    assert_eq!(value("NUMBER"), (major * 1_000_000 + minor * 1_000 + patch).to_string());
    // SAFETY: static and NUL-terminated.
    let library = unsafe { std::ffi::CStr::from_ptr(cenotaph_ffi::client::cenotaph_version()) };
    assert_eq!(library.to_str().unwrap(), env!("CARGO_PKG_VERSION"));
}

/// A source file that exports something and is missing from [`SOURCES`] would be missing from the header.
#[test]
fn every_exporting_source_is_in_the_header() {
    let mut exporting: Vec<String> = std::fs::read_dir(package().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && std::fs::read_to_string(path).unwrap().contains("no_mangle)]\n"))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    exporting.sort_unstable();
    assert_eq!(exporting, ["client.rs", "memory.rs", "options.rs", "watch.rs"]);
    assert!(exporting.iter().all(|name| SOURCES.contains(&name.as_str())));
}

fn header() -> String {
    let config = cbindgen::Config::from_file(package().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config).with_after_include(macros());
    let sources =
        SOURCES.iter().fold(builder, |builder, name| builder.with_src(package().join("src").join(name)));
    let mut bytes = Vec::new();
    sources.generate().unwrap().write(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn macros() -> String {
    let part = |text: &str| text.parse::<u32>().unwrap();
    let [major, minor, patch] = [
        part(env!("CARGO_PKG_VERSION_MAJOR")),
        part(env!("CARGO_PKG_VERSION_MINOR")),
        part(env!("CARGO_PKG_VERSION_PATCH")),
    ];
    format!(
        r#"
/* The version of this header. cenotaph_version() is that of the library. */
#define CENOTAPH_VERSION_MAJOR {major}
#define CENOTAPH_VERSION_MINOR {minor}
#define CENOTAPH_VERSION_PATCH {patch}
#define CENOTAPH_VERSION_NUMBER {number}
#define CENOTAPH_VERSION_STRING "{version}"

/* Define CENOTAPH_STATIC to link the static library on Windows. */
#if defined(_WIN32) && !defined(CENOTAPH_STATIC)
#define CENOTAPH_API __declspec(dllimport)
#elif defined(__GNUC__)
#define CENOTAPH_API __attribute__((visibility("default")))
#else
#define CENOTAPH_API
#endif"#,
        number = major * 1_000_000 + minor * 1_000 + patch,
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn committed() -> PathBuf {
    package().join("../include/cenotaph.h")
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
