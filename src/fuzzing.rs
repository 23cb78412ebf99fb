//! Doors for the fuzz targets (`fuzz/`) to readers that are no part of the public face. Compiled with `--cfg fuzzing`
//! only, as cargo-fuzz does.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::blackbox::Blackbox;
use crate::dump::binaries::FileBinaries;
use crate::dump::{recorded, synthetic, unwind};
use crate::minimal_record::{self, read::Record};
use crate::protocol::{self, ClientMessage};
use crate::report::Reason;

/// Reads a message as the monitor does, and one as the application does. Returns the message written anew, if it was one.
pub fn message(bytes: &[u8]) -> Option<Vec<u8>> {
    if let Some(answer) = protocol::parse_answer(bytes) {
        return Some(protocol::answer(answer));
    }
    Some(match protocol::parse(bytes).ok()? {
        ClientMessage::Capture(request) => {
            let (sequence, monotonic_ns) = (request.sequence, request.monotonic_ns);
            protocol::capture_request(
                sequence,
                monotonic_ns,
                request.monitor,
                request.context,
                &request.cause,
            )
        }
        ClientMessage::Hello(nonce) => protocol::hello(&nonce),
        ClientMessage::Flush { sequence } => protocol::flush(sequence),
        ClientMessage::ConsentChanged => protocol::consent_changed(),
        ClientMessage::WatchesChanged => protocol::watches_changed(),
        ClientMessage::Share => protocol::share(),
        ClientMessage::Join { settings } => protocol::join(&settings),
    })
}

/// A blackbox whose bytes a dying process has overwritten, `(offset, bytes)` each. Returns how many entries its
/// reader found, torn ones included; `None` if the system refuses the memory.
pub fn blackbox(patches: &[(u64, &[u8])]) -> Option<usize> {
    let blackbox = Blackbox::create().ok()?;
    let memory = File::from(blackbox.as_fd().try_clone_to_owned().ok()?);
    for (offset, bytes) in patches {
        // Beyond the sealed end nothing can be written.
        let _ = memory.write_all_at(bytes, *offset);
    }
    let (_, _) = (blackbox.mirror(), blackbox.monitor_state());
    let snapshot = blackbox.snapshot();
    Some(
        snapshot.attributes.len()
            + snapshot.breadcrumbs.len()
            + snapshot.secrets.len()
            + snapshot.torn as usize,
    )
}

/// Reads a report's file name and writes it anew.
pub fn spool_name(text: &str) -> Option<String> {
    crate::spool::rewritten_name(text)
}

/// Reads a minimal record and unwinds it without any binary's file. Returns its frames, if it was one.
pub fn minimal_record(bytes: &[u8]) -> Option<usize> {
    let record = Record::parse(bytes).ok()?;
    let reason = Reason::Signal { number: record.head.signal, code: record.head.code, address: None };
    let binaries = FileBinaries::new();
    let recorded = recorded::stack_trace(&record, &reason, &|_| Vec::new(), &binaries).ok()?;
    synthetic::write(&recorded.trace, &reason, record.head.time_ms).ok()?;
    Some(recorded.trace.threads.iter().map(|thread| thread.frames.len()).sum())
}

/// A record with a true checksum, so that a fuzzer gets behind it.
pub fn with_checksum(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.resize(minimal_record::LEN - 8, 0);
    let mut checksum = minimal_record::Checksum::new();
    checksum.add(&bytes);
    bytes.extend(checksum.finish().to_le_bytes());
    bytes
}

/// The frames that one thread has at most.
pub const MAX_FRAMES: usize = unwind::MAX_FRAMES;
