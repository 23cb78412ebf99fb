//! Writes inputs to start from into `corpus/TARGET/`: real ones where random bytes would not get past the first check.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`. Needs a C compiler, as libFuzzer does.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cenotaph::dump::binaries::{UnwindSections, sections_of};
use cenotaph::dump::{synthetic, writer};
use cenotaph::report::{Frame, Module, Reason, ReportId, StackTrace, Thread, Trust};
use cenotaph::spool::{LocalKey, Part, PartKind, container};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let dumps = [real_dump()?, synthetic_dump()?];
    for dump in &dumps {
        seed("minidump", dump)?;
        seed("scrub", dump)?;
    }
    tables()?;
    core_file()?;
    seed("rules_toml", b"[[rule]]\nname = \"player-id\"\npattern = 'PLR-([0-9]{8})'\ncontext = [\"player\"]\ncheck = [\"luhn\"]\n")?;
    for container in containers()? {
        seed("container", &[&[0, 0, 0], container.as_slice()].concat())?;
    }
    seed("container", b"\x81\x40\x01a report and a dump, to be sealed")?;
    messages()?;
    blackbox()?;
    minimal_record()?;
    let record =
        [b"CNCONST1".as_slice(), &[1, 1, 0, 0], &[0; 4], &1u64.to_le_bytes(), &2u64.to_le_bytes()].concat();
    seed("consent_record", &[&[1], record.as_slice()].concat())?;
    seed("spool_name", b"01020304-0506-4708-890a-0b0c0d0e0f10-3-1700000000123-1f.ceno")?;
    replies()?;
    requests()
}

fn seed(target: &str, bytes: &[u8]) -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir)?;
    let path = (0..).map(|n| dir.join(format!("seed-{n}"))).find(|path| !path.exists());
    let path: PathBuf = path.ok_or("no free name")?;
    Ok(fs::write(path, bytes)?)
}

/// Of a process whose environment holds what a scrubber looks for, and nothing of this machine's.
fn real_dump() -> Result<Vec<u8>> {
    let mut child = Command::new("/bin/cat")
        .env_clear()
        .envs([
            ("HOME", "/home/marguerite"),
            ("MAIL", "marguerite@example.org"),
            ("CARD", "4111 1111 1111 1111"),
        ])
        .env("AUTH", "Bearer abcdef0123456789abcdef0123456789")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // When the line has come back it sits in its read.
    child.stdin.as_mut().ok_or("no pipe")?.write_all(b"x\n")?;
    std::io::Read::read_exact(child.stdout.as_mut().ok_or("no pipe")?, &mut [0; 2])?;
    let pid = i32::try_from(child.id())?;
    let dump = writer::write(writer::Request::new(pid, pid, None));
    child.kill()?;
    child.wait()?;
    Ok(dump?)
}

fn synthetic_dump() -> Result<Vec<u8>> {
    let frame =
        |offset| Frame { instruction: 0x40_0000 + offset, module: Some(0), offset, trust: Trust::Unwound };
    let thread = |id| Thread {
        id,
        name: Some("marguerite".into()),
        crashed: id == 1,
        frames: (1..4).map(|i| frame(0x100 * i)).collect(),
    };
    let module = Module { name: "game".into(), build_id: "ce07af01".into(), base: 0x40_0000, size: 0x1_0000 };
    let trace = StackTrace { modules: vec![module], threads: vec![thread(1), thread(2)] };
    Ok(synthetic::write(&trace, &Reason::Signal { number: 11, code: 1, address: Some(0) }, 1)?)
}

/// A small binary with the build id that the target asks for, and its unwind tables.
fn tables() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (source, binary) = (dir.path().join("a.c"), dir.path().join("a.so"));
    fs::write(
        &source,
        "int f(int x) { volatile int y[9] = {x}; return y[x % 9]; }\nint g(int x) { return f(x) + f(x + 1); }\n",
    )?;
    let id = "ce07af01".repeat(5);
    let built = Command::new("cc")
        .args([
            "-shared",
            "-nostdlib",
            "-fPIC",
            "-Os",
            "-fasynchronous-unwind-tables",
            "-Wl,-z,noseparate-code",
        ])
        .args([format!("-Wl,--build-id=0x{id}"), "-s".into(), "-o".into()])
        .args([&binary, &source])
        .status()?;
    if !built.success() {
        return Err(format!("cc failed: {built}").into());
    }
    let binary = fs::read(binary)?;
    seed("elf", &binary)?;
    let sections: UnwindSections =
        sections_of(&*binary, &[0xce, 7, 0xaf, 1].repeat(5)).ok_or("no sections in it")?;
    let (index, table) = (sections.eh_frame_hdr.unwrap_or_default(), sections.eh_frame.unwrap_or_default());
    let split = u8::try_from(index.len() * 256 / (index.len() + table.len()).max(1) + 1)?;
    for which in [0, 8, 12, 28] {
        seed("eh_frame", &[&[which, 0x10, split], &*index, &*table].concat())?;
    }
    Ok(())
}

/// Two threads, a mapped file, an auxiliary vector and a stack.
fn core_file() -> Result<()> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let note = |kind: u32, contents: &[u8]| {
        let header: Vec<u8> =
            [5, contents.len() as u32, kind].iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut note = [&header, b"CORE\0\0\0\0".as_slice(), contents].concat();
        note.resize(note.len().next_multiple_of(4), 0);
        note
    };
    let status = |id: u32| {
        let mut status = vec![0; 336];
        status[12] = 11;
        status[32..36].copy_from_slice(&id.to_le_bytes());
        status[112 + 16 * 8..][..8].copy_from_slice(&0x7000_1000u64.to_le_bytes());
        status[112 + 19 * 8..][..8].copy_from_slice(&0x7000_0100u64.to_le_bytes());
        note(1, &status)
    };
    let mut process = vec![0; 136];
    process[24] = 7;
    process[40..44].copy_from_slice(b"game");
    let mut signal = words(&[11, 1, 0x1230]);
    signal.resize(128, 0);
    let files = [words(&[1, 4096, 0x7000_1000, 0x7000_3000, 0]), b"/bin/true\0".to_vec()].concat();
    let notes = [
        status(7),
        note(3, &process),
        note(0x5349_4749, &signal),
        note(2, &[7; 512]),
        note(6, &words(&[9, 0x7000_1000, 25, 0x7000_0200, 31, 0x7000_0300, 0, 0])),
        note(0x4649_4c45, &files),
        status(8),
    ]
    .concat();
    let true_file = fs::read("/bin/true")?;
    let page = true_file.get(..4096).ok_or("a short program")?;
    let (at, length) = (64 + 3 * 56, notes.len() as u64);
    let mut core = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
    core.extend(words(&[0, 64, 0]));
    core.extend(b"\0\0\0\0\x40\0\x38\0\x03\0\x40\0\0\0\0\0");
    core.extend(words(&[4, at, 0, 0, length, 0, 4]));
    core.extend(words(&[1 | 6 << 32, at + length, 0x7000_0000, 0, 0x400, 0x1000, 1]));
    core.extend(words(&[1 | 5 << 32, at + length + 0x400, 0x7000_1000, 0, 0x1000, 0x2000, 1]));
    let core = [&core, &notes, [5; 0x400].as_slice(), page].concat();
    seed("core_scrub", &core)?;
    seed("core_file", &core)
}

fn containers() -> Result<Vec<Vec<u8>>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("key");
    // The key of the target.
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(&[7; 32])?;
    let key = LocalKey::from_file(&path)?;
    let part = |kind, text: &str| Part { kind, bytes: text.as_bytes().to_vec() };
    let parts =
        [part(PartKind::Report, "{}"), part(PartKind::StackTrace, "MDMP"), part(PartKind::Minidump, "MDMP")];
    let sealed = container::seal(ReportId([9; 16]), 1, &parts, &key)?.bytes;
    let less = container::without_part(&sealed, PartKind::Minidump)?;
    Ok(vec![sealed, less])
}

fn messages() -> Result<()> {
    let header = |kind: u32| {
        [b"CENOMSG\x01".as_slice(), &kind.to_le_bytes(), &7u32.to_le_bytes(), &[1; 8], &[2; 8], &[3; 16]]
            .concat()
    };
    let context = vec![0; size_of::<crash_context::CrashContext>()];
    for (kind, text) in [(1, ""), (2, "boom\0src/a.rs:1:2\0main"), (3, "now")] {
        seed("protocol", &[header(kind), context.clone(), text.into()].concat())?;
    }
    seed("protocol", &[header(10), vec![5; 16]].concat())?;
    [11, 12, 20, 24].into_iter().try_for_each(|kind| seed("protocol", &header(kind)))
}

/// One attribute and one breadcrumb, whole and torn.
fn blackbox() -> Result<()> {
    let entry = |offset: u32, sequence: u64, first: u64, second: u64| {
        let [a, b, c, _] = offset.to_le_bytes();
        let lengths = 1 | first << 16 | second << 32;
        let words = [sequence, lengths, 77, u64::from_le_bytes(*b"ABCDEFGH")];
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        [vec![a, b, c, 32], words].concat()
    };
    // Offsets of the first attribute, and of the first breadcrumb behind 128 attributes of 139 words.
    let (attributes, breadcrumbs) = (64 * 8, (64 + 128 * 139) * 8);
    seed("blackbox", &[entry(attributes, 2, 5, 9), entry(breadcrumbs, 4, 3, 8)].concat())?;
    seed("blackbox", &[entry(attributes, 3, 5, 9), entry(breadcrumbs, 2, 0xffff, 0xffff)].concat())
}

/// A crash in a module at 0x400000, with a frame-pointer record and a return address to be found by scanning. 16 bytes of
/// the target's own come first; see `src/minimal_record/mod.rs` for the rest.
fn minimal_record() -> Result<()> {
    const MODULES: usize = 320;
    const WORDS: usize = MODULES + 256 * 128;
    let mut record = vec![0; WORDS + 6 * 8];
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    let numbers = [(40, 1_u32), (44, 1), (48, 11), (52, 1), (96, 7), (100, 6), (104, 1)];
    numbers.iter().for_each(|(at, number)| put(*at, &number.to_le_bytes()));
    let addresses =
        [(56, 0x10_u64), (64, 0x40_1000), (72, 0x7000_0000), (80, 0x7000_0008), (88, 0x7000_0000)];
    addresses.iter().for_each(|(at, address)| put(*at, &address.to_le_bytes()));
    let module = [0x40_0000_u64, 0x41_0000, 0x40_1000, 0x40_2000];
    module.iter().enumerate().for_each(|(i, address)| put(MODULES + 8 * i, &address.to_le_bytes()));
    put(MODULES + 32, &[2, 4]);
    put(MODULES + 40, &[0xce, 7]);
    put(MODULES + 72, b"game");
    let words = [0, 0x7000_0018, 0x40_1234, 0, 0x40_1567, 0_u64];
    words.iter().enumerate().for_each(|(i, word)| put(WORDS + 8 * i, &word.to_le_bytes()));
    seed("minimal_record", &record)
}

fn replies() -> Result<()> {
    let reply = |status: u16, after: &str, kind: &str, body: &str| {
        let lengths = [after.len() as u8, kind.len() as u8];
        [status.to_be_bytes().as_slice(), &lengths, after.as_bytes(), kind.as_bytes(), body.as_bytes()]
            .concat()
    };
    seed("http_reply", &reply(200, "", "text/plain", "CrashID=bp-01020304-0506-4708-890a-0b0c0d0e0f10\n"))?;
    seed("http_reply", &reply(200, "", "text/plain", "Discarded=rule_42"))?;
    seed("http_reply", &reply(200, "", "application/json", r#"{"response":"ok","_rxid":"00-11"}"#))?;
    seed("http_reply", &reply(503, "Sun, 06 Nov 1994 08:49:37 GMT", "text/html", "<html>busy"))?;
    seed("http_reply", &reply(429, "Sunday, 06-Nov-94 08:49:37 GMT", "", ""))?;
    seed("http_reply", &reply(429, "Sun Nov  6 08:49:37 1994", "", "120"))
}

fn requests() -> Result<()> {
    let kind = "multipart/form-data; boundary=\"B\"";
    let body = "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\\\"y\"\r\nContent-Type: a/b\r\n\r\nMDMP\r\n--B--\r\n";
    seed("multipart", &[&[kind.len() as u8], kind.as_bytes(), body.as_bytes()].concat())?;
    let length = body.len();
    seed(
        "http_request",
        format!("POST /submit HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
    )?;
    seed("http_request", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n4;x=y\r\nMDMP\r\n0\r\nA: b\r\n\r\n")
}
