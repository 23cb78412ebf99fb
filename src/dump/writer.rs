//! Taking the dump, through `minidump-writer`, into anonymous memory.
#![forbid(unsafe_code)]

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::time::Duration;

use crash_context::CrashContext;
use minidump_writer::CrashContextExt;
use minidump_writer::minidump_writer::MinidumpWriterConfig;

use super::indirect;
use super::layout::Layout;
use crate::error::{Error, Result};

/// What to dump.
pub struct Request {
    /// The process. It may not be the caller's own.
    pub pid: i32,
    /// The thread that crashed or asked.
    pub tid: i32,
    /// Its context, for a crash: the thread itself sits in a signal handler. `ssi_addr` is the fault's address
    /// already. Without one the dump shows the thread where it is, and its exception says "requested".
    pub context: Option<CrashContext>,
    /// How long to wait for the process to stop before it is read while it runs.
    pub stop_timeout: Duration,
}

impl Request {
    /// With the writer's usual patience for stopping.
    pub fn new(pid: i32, tid: i32, context: Option<CrashContext>) -> Self {
        Self { pid, tid, context, stop_timeout: minidump_writer::minidump_writer::STOP_TIMEOUT }
    }
}

/// Stops the process, writes its minidump into memory, and lets it go on.
///
/// It holds personal data of every kind, the environment included: it must not leave the process before it is scrubbed.
///
/// # Errors
/// [`Error::System`] if the process cannot be traced or vanishes on the way. What merely cannot be read is listed in the
/// dump's own stream of soft errors.
pub fn write(request: Request) -> Result<Vec<u8>> {
    let mut config = MinidumpWriterConfig::new(request.pid, request.tid);
    config.stop_timeout(request.stop_timeout);
    if let Some(inner) = request.context {
        config.set_crash_context(CrashContextExt { inner });
    }
    // The writer returns what it wrote; its destination would be a second copy.
    config
        .write(&mut Discard(0))
        .map_err(|e| Error::System { call: "ptrace (dump)", source: io::Error::other(e.to_string()) })
}

/// The dump with memory added that its registers and stacks point to, `budget` bytes at most.
///
/// `readable` are the process's readable mappings, and `read` fills a buffer with its memory from an address on and
/// returns how many bytes it could read. What cannot be read is left out.
///
/// # Errors
/// As [`Layout::parse`] and [`indirect::append`].
pub fn with_indirect(
    dump: Vec<u8>,
    budget: u64,
    readable: &[Range<u64>],
    read: &mut dyn FnMut(u64, &mut [u8]) -> usize,
) -> Result<Vec<u8>> {
    let layout = Layout::parse(&dump)?;
    let mut memory = Vec::new();
    for range in indirect::wanted(&dump, &layout, readable, budget) {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut bytes = vec![0; length];
        let filled = read(range.start, &mut bytes).min(length);
        bytes.truncate(filled);
        if !bytes.is_empty() {
            memory.push((range.start, bytes));
        }
    }
    if memory.is_empty() {
        return Ok(dump);
    }
    let added = indirect::append(dump, &layout, &memory);
    memory.iter_mut().for_each(|(_, bytes)| zeroize::Zeroize::zeroize(bytes));
    added
}

/// A destination that keeps the position and nothing else.
struct Discard(u64);

impl Write for Discard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Discard {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            // The end is where the position is: nothing is kept behind it.
            SeekFrom::End(by) | SeekFrom::Current(by) => self.0.checked_add_signed(by),
        };
        self.0 = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.0)
    }
}
