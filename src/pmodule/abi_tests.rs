//! The header against its mirror: a C program prints where everything lies.

use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// Name in C, type here, members.
macro_rules! members {
    ($($c:literal $type:ident: $($field:ident)*;)*) => {
        [$((
            $c,
            size_of::<$type>(),
            vec![$((stringify!($field), offset_of!($type, $field))),*],
        )),*]
    };
}

/// A name and how large or where it is.
type Measure = (&'static str, usize);

fn mirrored() -> Vec<(&'static str, usize, Vec<Measure>)> {
    let all = members! {
        "text" Text: data length;
        "value" Value: kind reserved integer number text;
        "frame_filter" FrameFilter: module symbol faulting reserved;
        "thread" Thread: size id crashed signal name;
        "frame" Frame: size thread crashed number instruction offset module symbol;
        "region" Region: size stack_of address bytes length;
        "module" Module: size deleted start end path name build_id build_id_length;
        "map" Map: size permissions start end offset name;
        "crash" Crash: size signal code process thread has_address address;
        "reason" Reason: size cause signal code message location;
        "attribute" Attribute: size truncated key value;
        "breadcrumb" Breadcrumb: size level time_ms category message;
        "host" Host: size abi fail error read read_string read_register thread module map symbol symbolize crash reason
            attribute breadcrumb frame detail report region dump annotate set_attribute classify fingerprint add_memory
            blank_argument blank_environment keep_stack lower_detail blank_memory blank_register drop_stack veto;
        "" Pmodule: size abi name priority events redacts frame_filter_count frame_filters user attach thread frame
            region attributes detach scrub verdict;
    };
    all.into()
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

fn c_type(name: &str) -> String {
    if name.is_empty() { "cenotaph_pmodule".to_owned() } else { format!("cenotaph_pmodule_{name}") }
}

/// Compiles strictly and returns what the program prints.
fn run(compiler: &str, arguments: &[&str], source: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join("source.c"), folder.path().join("program"));
    std::fs::write(&file, source).unwrap();
    let built = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-I"])
        .arg(include())
        .arg(&file)
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(built.status.success(), "{compiler} {arguments:?}: {}", String::from_utf8_lossy(&built.stderr));
    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn structures_lie_alike_in_c_and_in_rust() {
    let mut lines = String::new();
    let mut expected = String::new();
    for (name, size, members) in mirrored() {
        let c = c_type(name);
        lines += &format!("printf(\"{c} %lu\\n\", (unsigned long)sizeof({c}));\n");
        expected += &format!("{c} {size}\n");
        for (member, offset) in members {
            lines += &format!("printf(\"{c}.{member} %lu\\n\", (unsigned long)offsetof({c}, {member}));\n");
            expected += &format!("{c}.{member} {offset}\n");
        }
    }
    let source = format!(
        "#include \"cenotaph_pmodule.h\"\n#include \"cenotaph_pmodule.h\"\n#include <stdio.h>\n\
         int main(void) {{\n{lines}return 0;\n}}\n"
    );
    assert_eq!(run("cc", &["-std=c99"], &source), expected);
    for standard in ["-std=c++98", "-std=c++20"] {
        assert_eq!(run("c++", &["-x", "c++", standard], &source), expected, "{standard}");
    }
}

#[test]
fn numbers_are_alike_in_c_and_in_rust() {
    use super::super::plugin::numbers;
    let mut cases: Vec<(String, i64)> = vec![("ABI".to_owned(), ABI.into())];
    let status = [
        ("OK", Status::Ok),
        ("NULL", Status::Null),
        ("INVALID", Status::Invalid),
        ("NOT_FOUND", Status::NotFound),
        ("SHORT", Status::Short),
        ("NOT_NOW", Status::NotNow),
        ("FAULT", Status::Fault),
        ("FAILED", Status::Failed),
    ];
    cases.extend(status.map(|(name, status)| (name.to_owned(), status as i64)));
    let kinds =
        [("BOOL", kind::BOOL), ("INTEGER", kind::INTEGER), ("NUMBER", kind::NUMBER), ("TEXT", kind::TEXT)];
    cases.extend(kinds.map(|(name, kind)| (name.to_owned(), kind.into())));
    cases.extend(numbers().into_iter().map(|(name, number)| (name, number.into())));
    let print =
        |(name, _): &(String, i64)| format!("printf(\"{name} %ld\\n\", (long)CENOTAPH_PMODULE_{name});\n");
    let lines: String = cases.iter().map(print).collect();
    let source = format!(
        "#include \"cenotaph_pmodule.h\"\n#include <stdio.h>\nint main(void) {{\n{lines}return 0;\n}}\n"
    );
    let expected: String = cases.iter().map(|(name, number)| format!("{name} {number}\n")).collect();
    assert_eq!(run("cc", &["-std=c99"], &source), expected);
    // Every constant of the header was compared, but those that only the module's side knows.
    let header = std::fs::read_to_string(include().join("cenotaph_pmodule.h")).unwrap();
    let constant = |line: &str| {
        let name = line.trim().strip_prefix("CENOTAPH_PMODULE_")?.split_once(" = ")?.0.to_owned();
        Some(name)
    };
    let missing: Vec<String> = header
        .lines()
        .filter_map(constant)
        .filter(|name| cases.iter().all(|(known, _)| known != name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The program in the header's first comment.
#[test]
fn the_example_of_the_header_compiles_as_strict_c_and_cxx() {
    let header = std::fs::read_to_string(include().join("cenotaph_pmodule.h")).unwrap();
    let code = |line: &str| line.strip_prefix(" *     ").map(str::to_owned);
    let lines: Vec<String> =
        header.lines().filter_map(code).filter(|line| !line.starts_with("cc ")).collect();
    assert!(lines.len() > 10);
    let source =
        format!("{}\nint main(void) {{ return cenotaph_pmodule_entry(1) == NULL; }}\n", lines.join("\n"));
    run("cc", &["-std=c99"], &source);
    run("c++", &["-x", "c++", "-std=c++11"], &source);
}
