//! Planted values lie where they were planted, and nowhere else in the victim's memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use support::{Memory, Stopped, crasher, occurrences, victim};

/// Values that occur in no other test, as whole or by 8-byte windows.
const STACK: &str = "stk-Quirin.Ahlefeldt@mail.example";
const STACK_WIDE: &str = "sw-Xanthippe-Oyelaran";
const HEAP_SLOT: &str = "hps-Zebulon-Marchbanks";
const HEAP_REGISTER: &str = "hpr-Thelonius-Vansittart";
const REGISTER: &str = "rgs-Wilhelmina-Fitzgibbon";
const ENV: &str = "env-Cuthbert-Ollerenshaw";
const ARG: &str = "--arg-Peregrine-Wolstenholme";
const THREAD: &str = "thr-Isambard-K";

fn plant() -> String {
    format!(
        r#"[{{"value":"{STACK}","place":"stack"}},
            {{"value":"{STACK_WIDE}","place":"stack","encoding":"utf16le","phase":3}},
            {{"value":"{STACK_WIDE}","place":"stack","encoding":"utf32le","phase":6}},
            {{"value":"{HEAP_SLOT}","place":"heap","pointer":"stack","encoding":"utf16le"}},
            {{"value":"{HEAP_REGISTER}","place":"heap","pointer":"register","phase":5}},
            {{"value":"{REGISTER}","place":"register"}},
            {{"value":"{ENV}","place":"env"}},
            {{"value":"{ENV}","place":"env","key":"HOME"}},
            {{"value":"{ARG}","place":"arg"}},
            {{"value":"{THREAD}","place":"thread-name"}},
            {{"value":"attribute without an SDK","place":"attribute","key":"user"}}]"#
    )
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf32(text: &str) -> Vec<u8> {
    text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect()
}

/// The victim with the plant file above, and the file, which must outlive its start.
fn planted(way: &str) -> (Command, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(plant().as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (victim(crasher(), &["--threads", "2", "--heap-mib", "1", "--plant", &path, way]), file)
}

/// Checks all places that memory shows, and that no piece of 8 characters of any value is elsewhere.
fn check_memory(memory: &Memory, stack_pointer: Option<usize>) {
    let mut allowed = Vec::new();
    let mut expect = |needle: &[u8], mapping: &str, times: usize| -> Vec<usize> {
        let found = memory.find(needle);
        let text = String::from_utf8_lossy(needle).into_owned();
        assert_eq!(found.len(), times, "{text:?} at {found:x?}");
        for &address in &found {
            assert_eq!(memory.mapping(address), mapping, "{text:?}");
            allowed.push(address..address + needle.len());
        }
        found
    };
    let stack = [
        expect(STACK.as_bytes(), "[stack]", 1),
        expect(&utf16(STACK_WIDE), "[stack]", 1),
        expect(&utf32(STACK_WIDE), "[stack]", 1),
    ];
    assert_eq!(stack.each_ref().map(|found| found[0] % 16), [0, 3, 6]);
    if let Some(stack_pointer) = stack_pointer {
        assert!(stack.iter().all(|found| found[0] >= stack_pointer), "dead stack");
    }
    let heap = expect(&utf16(HEAP_SLOT), "[heap]", 1)[0];
    let slots = memory.find(&heap.to_le_bytes());
    assert!(slots.iter().any(|&slot| memory.mapping(slot) == "[stack]" && Some(slot) >= stack_pointer));
    expect(HEAP_REGISTER.as_bytes(), "[heap]", 1);
    expect(REGISTER.as_bytes(), "", 0);
    expect(THREAD.as_bytes(), "", 0);
    let variables = expect(ENV.as_bytes(), "[stack]", 2);
    assert!(variables.iter().all(|at| memory.environment.contains(at)));
    let arguments = expect(ARG.as_bytes(), "[stack]", 1);
    assert!(memory.arguments.contains(&arguments[0]));

    for value in [STACK, STACK_WIDE, HEAP_SLOT, HEAP_REGISTER, REGISTER, ENV, ARG, THREAD] {
        // Windows of 8 characters: 8 bytes of UTF-32 are two letters, which libc's tables hold too.
        for (encoded, unit) in [(value.as_bytes().to_vec(), 1), (utf16(value), 2), (utf32(value), 4)] {
            for window in encoded.windows(8 * unit) {
                for at in memory.find(window) {
                    assert!(
                        allowed.iter().any(|range| range.start <= at && at + window.len() <= range.end),
                        "a piece of {value:?} lies at {at:#x} in {:?}",
                        memory.mapping(at)
                    );
                }
            }
        }
    }
}

#[test]
fn dying_by_an_instruction() {
    let (command, _file) = planted("null");
    let stopped = Stopped::at(command, &[libc::SIGSEGV]);
    let memory = stopped.memory();
    let registers = stopped.registers();
    check_memory(&memory, usize::try_from(registers.rsp).ok());

    let block = memory.find(HEAP_REGISTER.as_bytes())[0] as u64;
    let general = [
        registers.rbx,
        registers.r12,
        registers.r13,
        registers.r14,
        registers.r15,
        registers.rdx,
        registers.rsi,
    ];
    assert_eq!(general[0], block, "the pointer comes first, as in the plant file");
    let bytes: Vec<u8> = general[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(bytes.starts_with(REGISTER.as_bytes()), "{bytes:x?}");
    assert!(stopped.vector_registers().starts_with(REGISTER.as_bytes()));
    // The pointer must be nowhere else that a dump would follow it from.
    assert!(memory.find(&block.to_le_bytes()).iter().all(|&at| memory.mapping(at) != "[stack]"));
}

#[test]
fn registers_of_every_other_way_that_can_hold_them() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"[{{"value":"{REGISTER}","place":"register"}}]"#).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    for (way, signal) in [
        ("bus", libc::SIGBUS),
        ("ill", libc::SIGILL),
        ("fpe", libc::SIGFPE),
        ("trap", libc::SIGTRAP),
        ("sys", libc::SIGSYS),
        ("two-threads", libc::SIGSEGV),
    ] {
        let stopped = Stopped::at(victim(crasher(), &["--plant", &path, way]), &[signal]);
        let registers = stopped.registers();
        let general =
            [registers.rbx, registers.r12, registers.r13, registers.r14].map(u64::to_le_bytes).concat();
        assert!(general.starts_with(REGISTER.as_bytes()), "{way}: {general:x?}");
        assert!(stopped.vector_registers().starts_with(REGISTER.as_bytes()), "{way}");
        assert_eq!(stopped.memory().find(REGISTER.as_bytes()), [], "{way}");
    }
}

#[test]
fn waiting_for_commands() {
    let (mut command, _file) = planted("none");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    check_memory(&Memory::of(child.id()), None);
    let names: Vec<String> = std::fs::read_dir(format!("/proc/{}/task", child.id()))
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
        .collect();
    assert!(names.contains(&format!("{THREAD}\n")), "{names:?}");
    assert!(names.contains(&"crasher\n".to_owned()), "executing itself changed the name: {names:?}");
    child.stdin.take().unwrap().write_all(b"exit\n").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn dying_in_another_thread() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"[{{"value":"{STACK}","place":"stack"}}]"#).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    // Main and the second thread each hold it when either faults.
    let stopped = Stopped::at(victim(crasher(), &["--plant", &path, "two-threads"]), &[libc::SIGSEGV]);
    let memory = stopped.memory();
    let found = memory.find(STACK.as_bytes());
    assert_eq!(found.iter().filter(|&&at| memory.mapping(at) == "[stack]").count(), 1, "{found:x?}");
}

#[test]
fn refuses_what_a_place_cannot_hold() {
    for (entry, way) in [
        (r#"{"value":"v","place":"env","encoding":"utf16le"}"#, "null"),
        (r#"{"value":"v","place":"register"}"#, "abort"),
        (r#"{"value":"longer than fifteen","place":"thread-name"}"#, "null"),
        (r#"{"value":"v","place":"thread-name"}"#, "null"),
        (r#"{"value":"v","place":"attribute","encoding":"utf32le"}"#, "null"),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "[{entry}]").unwrap();
        let output = victim(crasher(), &["--plant", file.path().to_str().unwrap(), way]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{entry} {way}");
    }
    let long = "x".repeat(89);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"[{{"value":"{long}","place":"register"}}]"#).unwrap();
    let output = victim(crasher(), &["--plant", file.path().to_str().unwrap(), "null"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "12 general registers");
}

#[test]
fn the_search_finds() {
    assert_eq!(occurrences(b"abcabcab", b"abcab"), [0, 3]);
    assert_eq!(occurrences(b"aaaa", b"aa"), [0, 1, 2]);
    assert_eq!(occurrences(b"", b"aa"), []);
}
