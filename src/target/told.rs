//! A process that nobody may look into: a copy of it tells its memory by a socket (`memory_protocol`).
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use super::{
    AT_ENTRY, AT_SYSINFO_EHDR, Memory, Registers, Request, StartUp, Target, Thread, maps, modules, symbols,
};
use crate::error::{Error, Result};
use crate::memory_protocol::{File, MOST, REPLY, Wanted, parse_reply};
use crate::sys::procfs;
use crate::sys::socket::{Received, Socket};

/// A copy that lives answers at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest file of /proc that is taken.
const LONGEST_FILE: usize = 16 << 20;
/// Threads that are listed, at most.
const MOST_THREADS: usize = 1 << 16;

impl Target {
    /// The process of `request`, whose copy is at the other end of `socket`. Only the thread that crashed has registers.
    ///
    /// # Errors
    /// If the copy does not answer.
    pub(crate) fn told(request: Request, socket: Socket) -> Result<Self> {
        let memory = Told { socket, next: Cell::new(0) };
        let maps_text = memory.file(File::Maps);
        let maps = maps::parse(&maps_text);
        if maps.is_empty() {
            return Err(Error::malformed("target", "its copy does not tell what is mapped"));
        }
        let auxv = memory.file(File::Auxv);
        let value = |key| super::auxv(&auxv, key);
        let modules = modules::read(&memory, &maps, value(AT_ENTRY), value(AT_SYSINFO_EHDR));
        let start_up = procfs::parse_strings(&String::from_utf8_lossy(&memory.file(File::Stat)));
        let name = String::from_utf8_lossy(&memory.file(File::Comm)).trim_end().to_owned();
        let mut threads = vec![Thread {
            id: request.tid,
            name: Some(name),
            registers: request.context.as_ref().map(Registers::from_crash),
            signal: None,
            control_block: None,
        }];
        threads.extend(others(request.pid, request.tid));
        let notes = vec![format!(
            "the process could not be traced: its memory is what a copy of it told, and {} other threads have no registers",
            threads.len() - 1
        )];
        Ok(Self {
            pid: request.pid,
            tid: request.tid,
            crash: request.context,
            threads,
            modules,
            maps,
            maps_text,
            status: memory.file(File::Status),
            auxv,
            start_up: start_up.map(|(arguments, environment)| StartUp { arguments, environment }),
            notes,
            memory: Box::new(memory),
            symbols: symbols::Cache::default(),
            stopped: None,
        })
    }
}

/// As far as /proc shows them.
fn others(pid: i32, crashed: i32) -> Vec<Thread> {
    if pid == 0 {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ids: Vec<i32> = ids.filter(|id| *id != crashed).take(MOST_THREADS).collect();
    let names = super::names::read(pid, &ids);
    let thread = |(id, name)| Thread { id, name, registers: None, signal: None, control_block: None };
    ids.into_iter().zip(names).map(thread).collect()
}

/// The other end of the socket.
struct Told {
    socket: Socket,
    /// The next request's number: a late reply to somebody before us is not taken for ours.
    next: Cell<u64>,
}

impl Told {
    fn ask(&self, wanted: Wanted) -> Option<Vec<u8>> {
        let number = self.next.get().wrapping_add(u64::from(std::process::id()) << 32);
        self.next.set(self.next.get().wrapping_add(1));
        self.socket.send(&wanted.encode(number), &[]).ok()?;
        loop {
            let Ok(Received::Message(message)) = self.socket.receive(REPLY + MOST, PATIENCE) else {
                return None;
            };
            let (answered, bytes) = parse_reply(&message.bytes)?;
            if answered == number {
                return Some(bytes.to_vec());
            }
        }
    }

    fn file(&self, file: File) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = self.ask(Wanted::File(file, all.is_empty())).unwrap_or_default();
            all.extend_from_slice(&bytes);
            if bytes.is_empty() || all.len() > LONGEST_FILE {
                return all;
            }
        }
    }

    fn range(&self, range: &Range<u64>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(MOST as u64);
            let bytes = self.ask(Wanted::Memory(at, length)).unwrap_or_default();
            // No more than was asked for, whoever answers.
            let told = bytes.get(..bytes.len().min(length as usize)).unwrap_or_default();
            all.extend_from_slice(told);
            at += told.len() as u64;
            if (told.len() as u64) < length {
                break;
            }
        }
        all
    }
}

impl Memory for Told {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        ranges.iter().map(|range| self.range(range)).collect()
    }
}
