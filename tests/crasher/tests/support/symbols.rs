//! Breakpad symbol files, as `dump_syms` writes them, from what binutils says of a program: functions by `nm`, lines by `objdump`.
//! Format: docs/symbol_files.md of Breakpad.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use minidump::{Minidump, MinidumpModuleList, Module as _};

/// Puts the symbols of `program`, which `dump` names as a module, where `simple_symbol_supplier` of `folder` looks. If there are
/// names of `sources`, only they have lines: a large program has millions.
pub(crate) fn write(folder: &Path, program: &Path, dump: &[u8], sources: &[&str]) {
    let dump = Minidump::read(dump).unwrap();
    let modules = dump.get_stream::<MinidumpModuleList>().unwrap();
    let name = program.file_name().unwrap().to_str().unwrap();
    let module = modules.iter().find(|module| module.code_file().ends_with(&format!("/{name}")));
    let module = module.unwrap_or_else(|| panic!("{name} is a module"));
    let id = module.debug_identifier().unwrap().breakpad().to_string();
    let debug_file = module.debug_file().unwrap();
    let leaf = debug_file.rsplit('/').next().unwrap();
    let place = folder.join(leaf).join(&id);
    if place.exists() {
        return;
    }
    fs::create_dir_all(&place).unwrap();
    let text = text(program, &format!("MODULE Linux x86_64 {id} {leaf}\n"), sources);
    fs::write(place.join(format!("{leaf}.sym")), text).unwrap();
}

fn text(program: &Path, head: &str, sources: &[&str]) -> String {
    let functions = functions(program);
    let (lines, files) = lines(program, sources);
    let mut text = head.to_owned();
    let mut numbers: Vec<(&String, &usize)> = files.iter().collect();
    numbers.sort_by_key(|(_, number)| **number);
    for (file, number) in numbers {
        writeln!(text, "FILE {number} {file}").unwrap();
    }
    for (&start, (size, name)) in &functions {
        writeln!(text, "FUNC {start:x} {size:x} 0 {name}").unwrap();
        let within: Vec<_> = lines.range(start..start + size).collect();
        for (at, (address, (line, file))) in within.iter().enumerate() {
            let end = within.get(at + 1).map_or(start + size, |(next, _)| **next);
            writeln!(text, "{address:x} {:x} {line} {file}", end - *address).unwrap();
        }
    }
    text
}

/// Size and name by address.
fn functions(program: &Path) -> BTreeMap<u64, (u64, String)> {
    let said = run(Command::new("nm").args(["-C", "-S", "--defined-only"]).arg(program));
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let function = |line: &str| {
        let mut fields = line.splitn(4, ' ');
        let (address, size) = (number(fields.next()?)?, number(fields.next()?)?);
        let is_code = matches!(fields.next()?, "t" | "T" | "w" | "W" | "u" | "i");
        (is_code && size > 0).then_some((address, (size, fields.next()?.to_owned())))
    };
    said.lines().filter_map(function).collect()
}

/// Line and number of the file by address; the files' numbers.
fn lines(program: &Path, sources: &[&str]) -> (BTreeMap<u64, (u64, usize)>, BTreeMap<String, usize>) {
    let (mut lines, mut files) = (BTreeMap::new(), BTreeMap::new());
    let objdump =
        Command::new("objdump").arg("--dwarf=decodedline").arg(program).stdout(Stdio::piped()).spawn();
    // All of them if there is no name. Of what was compiled in the root directory objdump says more than that.
    let mut wanted = Command::new("grep");
    wanted
        .args(["-E", &format!("^([^ ]*/)?({})", sources.join("|"))])
        .stdin(objdump.expect("binutils").stdout.unwrap());
    // "ways.cpp     12     0x1139     x": a line that is no number ends a sequence.
    for line in run(&mut wanted).lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(file), Some(line), Some(address)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let file = file.rsplit('/').next().unwrap_or(file);
        let address = address.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if let (Ok(line), Some(address)) = (line.parse(), address) {
            let number = files.len();
            let number = *files.entry(file.to_owned()).or_insert(number);
            lines.insert(address, (line, number));
        }
    }
    (lines, files)
}

fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::null()).output().expect("binutils");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
