//! What an interrupted `cenotaph scrub` leaves: nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TEXT: &[u8] = b"wilhelmina.k@example.org called 4111 1111 1111 1111 from 198.51.100.7;\n";
const STACK: u64 = 0x7ffc_0000_0000;

/// A core file of one thread, with as much text in its heap.
fn core(heap: usize) -> Vec<u8> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let note = |kind: u32, bytes: &[u8]| {
        let head = [5, bytes.len() as u32, kind].map(u32::to_le_bytes).concat();
        [&head, &b"CORE\0\0\0\0"[..], bytes].concat()
    };
    // elf_prstatus (sys/procfs.h): the registers begin at 112, the stack pointer is the 20th.
    let mut status = [0; 336];
    status[112 + 19 * 8..112 + 20 * 8].copy_from_slice(&(STACK + 64).to_le_bytes());
    // Where the kernel has put random bytes and the program's name (AT_RANDOM, AT_EXECFN): between them are its strings.
    let notes = [note(1, &status), note(6, &words(&[25, STACK + 0x200, 31, STACK + 0x300, 0, 0]))].concat();
    let mut stack = vec![0; 4096];
    stack[0x220..0x240].copy_from_slice(b"game\0LANGUAGE=en_GB.UTF-8:en\0\0\0\0");
    stack[0x300..0x305].copy_from_slice(b"game\0");
    let text: Vec<u8> = TEXT.iter().copied().cycle().take(heap).collect();
    let segments = [(4u64, 0u64, notes), (1, STACK, stack), (1, 0x5555_0000_0000, text)];
    let mut file = [&b"\x7fELF\x02\x01\x01"[..], &[0; 9]].concat();
    // ET_CORE, EM_X86_64, EV_CURRENT.
    file.extend([&[4, 0, 62, 0, 1, 0, 0, 0][..], &words(&[0, 64, 0])].concat());
    file.extend([0u16, 0, 64, 56, 3, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    let (mut headers, mut body) = (Vec::new(), Vec::new());
    for (kind, address, bytes) in segments {
        let length = bytes.len() as u64;
        // A readable and writable one: p_flags is the upper half.
        let flags = 6u64 << 32;
        headers.extend(words(&[kind | flags, 4096 + body.len() as u64, address, 0, length, length, 1]));
        body.extend(bytes);
    }
    file.extend(headers);
    file.resize(4096, 0);
    file.extend(body);
    file
}

/// A minidump of nothing but memory with as much text.
fn minidump(memory: usize) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    // The header, and streams of system information (7) and memory (5).
    let mut file = words(&[0x504d_444d, 0xa793, 2, 32, 0, 0, 0, 0, 7, 56, 56, 5, 20, 112]);
    // PROCESSOR_ARCHITECTURE_AMD64, and Linux as Breakpad has it.
    file.extend(words(&[9, 0, 0, 0, 0, 0x8201]));
    file.resize(112, 0);
    file.extend(words(&[1, 0x1_0000, 0, memory as u32, 132]));
    file.extend(TEXT.iter().copied().cycle().take(memory));
    file
}

/// Whether the process has a file of `folder` open for what will be the output: one that nobody has begun as.
fn has_begun(child: &Child, folder: &Path, input: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|to| to.starts_with(folder) && to != input)
}

#[test]
fn an_interrupted_scrub_leaves_no_file() {
    for (name, make) in [("core", core as fn(usize) -> Vec<u8>), ("minidump", minidump)] {
        for (signal, number) in [("-INT", libc::SIGINT), ("-TERM", libc::SIGTERM)] {
            // Should it be ready before it could be interrupted: more.
            let interrupted = [16usize, 64, 256].into_iter().any(|mebibytes| {
                let temporary = tempfile::tempdir().unwrap();
                let folder = temporary.path().canonicalize().unwrap();
                let input = folder.join(name);
                fs::write(&input, make(mebibytes << 20)).unwrap();
                let mut child = Command::new(env!("CARGO_BIN_EXE_cenotaph"))
                    .arg("scrub")
                    .arg(&input)
                    .arg("-o")
                    .arg(folder.join("out"))
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap();
                let deadline = Instant::now() + Duration::from_secs(120);
                while !has_begun(&child, &folder, &input) && child.try_wait().unwrap().is_none() {
                    assert!(Instant::now() < deadline, "{name} is not begun");
                    std::thread::yield_now();
                }
                let pid = child.id().to_string();
                let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status();
                let status = child.wait().unwrap();
                let left: Vec<_> =
                    fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                match status.signal() {
                    Some(by) => {
                        assert_eq!(by, number);
                        assert_eq!(left, [name], "{signal}");
                        true
                    }
                    None => {
                        assert!(status.success() && left.len() == 2, "{name}: {status} {left:?}");
                        false
                    }
                }
            });
            assert!(interrupted, "{name} {signal}");
        }
    }
}
