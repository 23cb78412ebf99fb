//! The messages between the application and its monitor: fixed headers, native byte order (both run the same
//! program on the same machine), read with care because the sender may be dying.

use crash_context::CrashContext;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::report::ReportId;

/// "CENOMSG" and the version of the protocol.
const MAGIC: u64 = u64::from_le_bytes(*b"CENOMSG\x01");

/// Version of what application and monitor say to each other: messages, blackbox, settings. A helper may be of another
/// release than the library, so every change to one of them needs a new number. The first message stays as it is.
pub(crate) const PROTOCOL: u32 = 4;

/// Length of the one-shot nonce that ties a monitor to its launcher.
pub(crate) const NONCE: usize = 16;
/// Bytes of text in a message, at most.
pub(crate) const MAX_TEXT: usize = 8 * 1024;
/// Bytes of a message, at most.
pub(crate) const MAX_MESSAGE: usize = size_of::<SignalRequest>() + MAX_TEXT;

/// The part of the whole deadline that is kept back for a minimal record: a fifth, a second at most. The monitor and its
/// workers have the rest, so that a dying process that was held by one of them still gets to write.
pub(crate) const fn reserve_ns(deadline_ns: u64) -> u64 {
    const MOST: u64 = 1_000_000_000;
    let fifth = deadline_ns / 5;
    if fifth < MOST { fifth } else { MOST }
}

/// How long a monitor that does not take a request on is waited for before another one is started: an eighth of the whole
/// deadline. One that lives takes it on within milliseconds, and the other one needs the time that is left.
pub(crate) const fn patience_ns(deadline_ns: u64) -> u64 {
    deadline_ns / 8
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Signal = 1,
    Panic = 2,
    Requested = 3,
    Hang = 4,
    PanicAgain = 5,
    Hello = 10,
    Flush = 11,
    ConsentChanged = 12,
    WatchesChanged = 13,
    Share = 14,
    Join = 15,
    Released = 20,
    Spooled = 21,
    Refused = 22,
    Failed = 23,
    Flushed = 24,
    Vetoed = 25,
    OutOfReach = 26,
    Joined = 27,
}

/// The first bytes of every message.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Header {
    magic: u64,
    kind: u32,
    /// The thread that the message is about, in the sender's pid namespace.
    thread: i32,
    /// CLOCK_MONOTONIC when it happened.
    monotonic_ns: u64,
    /// Chosen by the sender; answers repeat it.
    sequence: u64,
    /// In answers: the report's id. In requests for a report: the monitor's number (`generation`), then zero.
    report: [u8; 16],
}

/// A crash as the handler sends it: no pointer in it is followed by the receiver.
#[repr(C)]
pub(crate) struct SignalRequest {
    header: Header,
    /// Registers and signal information.
    pub(crate) context: CrashContext,
}

/// What the application may say.
#[derive(Clone)]
pub(crate) enum ClientMessage {
    /// A process is dying, or asks for a report.
    Capture(Box<CaptureRequest>),
    /// First message of a launcher.
    Hello([u8; NONCE]),
    /// Asks for an answer when everything has been delivered or deferred.
    Flush {
        /// To be repeated in the answer.
        sequence: u64,
    },
    /// The consent record was rewritten.
    ConsentChanged,
    /// The blackbox has another set of watched threads.
    WatchesChanged,
    /// Opens a seat for other processes: a socket comes along.
    Share,
    /// Over a seat: another process wants to be a client. Its sockets and its blackbox come along.
    Join {
        /// A hash of its settings.
        settings: [u8; 32],
    },
}

/// A request for a report.
#[derive(Clone)]
pub(crate) struct CaptureRequest {
    /// To be repeated in the answer.
    pub(crate) sequence: u64,
    /// CLOCK_MONOTONIC when it happened.
    pub(crate) monotonic_ns: u64,
    /// The number of the monitor that it is for (`generation`).
    pub(crate) monitor: u32,
    /// Registers and signal information.
    pub(crate) context: CrashContext,
    /// Why.
    pub(crate) cause: Cause,
}

/// Why a report is asked for, as the application knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// Signal number, `si_code` and `si_addr` are in the context.
    Signal,
    /// A Rust panic.
    Panic {
        /// Its payload, if it was text.
        message: String,
        /// `file:line:column`.
        location: String,
        /// The thread's name.
        thread: String,
        /// The thread has panicked before: this may be a panic while that one unwinds, and no event of its own.
        again: bool,
    },
    /// The application's words.
    Requested(String),
    /// The supervisor's finding: a watched thread did not beat for so long. It has no context.
    Hang {
        /// In milliseconds.
        limit_ms: u64,
    },
}

/// What the monitor answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: AnswerKind,
    pub(crate) sequence: u64,
    pub(crate) report: ReportId,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// The memory is read; the application may go on.
    Released,
    /// The report is committed.
    Spooled,
    /// Consent does not allow a report.
    Refused,
    /// A pmodule did not want a report.
    Vetoed,
    /// The monitor may not read the application's memory. The application may ask again and send a socket along, by
    /// which a copy of it tells that (`memory_protocol`).
    OutOfReach,
    /// No report could be made.
    Failed,
    /// Nothing is left to deliver now.
    Flushed,
    /// The process shares this monitor from now on.
    Joined,
}

impl SignalRequest {
    /// For a static that is filled in a handler.
    pub(crate) const fn empty() -> Self {
        // SAFETY: integers, arrays of integers and raw pointers only; all-zero is a value of each.
        unsafe { std::mem::MaybeUninit::zeroed().assume_init() }
    }

    /// An all-zero context.
    pub(crate) const fn empty_context() -> CrashContext {
        // SAFETY: as in `empty`.
        unsafe { std::mem::MaybeUninit::zeroed().assume_init() }
    }

    /// Fills the header for number `monitor`; signal-safe.
    pub(crate) fn begin(&mut self, sequence: u64, monotonic_ns: u64, monitor: u32) {
        self.header = header(Kind::Signal, sequence);
        self.header.report = to_monitor(monitor);
        self.header.thread = self.context.tid;
        self.header.monotonic_ns = monotonic_ns;
    }

    /// When it happened; signal-safe.
    pub(crate) fn monotonic_ns(&self) -> u64 {
        self.header.monotonic_ns
    }

    /// The message; signal-safe.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: `repr(C)` without padding that is not zeroed by `empty`, read as bytes for its own size.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
}

fn header(kind: Kind, sequence: u64) -> Header {
    Header { magic: MAGIC, kind: kind as u32, thread: 0, monotonic_ns: 0, sequence, report: [0; 16] }
}

fn to_monitor(number: u32) -> [u8; 16] {
    u128::from(number).to_ne_bytes()
}

fn header_bytes(header: &Header) -> &[u8] {
    // SAFETY: `Header` is `repr(C)` and its fields leave no padding (8 + 4 + 4 + 8 + 8 + 16 bytes).
    unsafe { std::slice::from_raw_parts((&raw const *header).cast(), size_of::<Header>()) }
}

/// A request for a report from ordinary code (a panic hook, `capture`), for number `monitor`.
pub(crate) fn capture_request(
    sequence: u64,
    monotonic_ns: u64,
    monitor: u32,
    context: CrashContext,
    cause: &Cause,
) -> Vec<u8> {
    let kind = match cause {
        Cause::Signal => Kind::Signal,
        Cause::Panic { again: false, .. } => Kind::Panic,
        Cause::Panic { again: true, .. } => Kind::PanicAgain,
        Cause::Requested(_) => Kind::Requested,
        Cause::Hang { .. } => Kind::Hang,
    };
    let mut request = SignalRequest::empty();
    request.context = context;
    request.header = header(kind, sequence);
    request.header.thread = request.context.tid;
    request.header.monotonic_ns = monotonic_ns;
    request.header.report = to_monitor(monitor);
    let mut bytes = request.as_bytes().to_vec();
    let limit = if let Cause::Hang { limit_ms } = cause { limit_ms.to_string() } else { String::new() };
    let texts: [&str; 3] = match cause {
        Cause::Signal => ["", "", ""],
        Cause::Panic { message, location, thread, .. } => [message, location, thread],
        Cause::Requested(reason) => [reason, "", ""],
        Cause::Hang { .. } => [&limit, "", ""],
    };
    // NUL-separated; the first text gives way when there are too many bytes.
    let room = MAX_TEXT - 2 - texts[1].len().min(1024) - texts[2].len().min(1024);
    let limits = [room, 1024, 1024];
    for (i, (text, limit)) in texts.iter().zip(limits).enumerate() {
        if i > 0 {
            bytes.push(0);
        }
        bytes.extend(text[..text.floor_char_boundary(limit)].bytes().filter(|&b| b != 0));
    }
    bytes
}

/// Bytes of a launcher's first message.
pub(crate) const HELLO: usize = size_of::<Header>() + NONCE;

/// The launcher's first message.
pub(crate) fn hello(nonce: &[u8; NONCE]) -> Vec<u8> {
    [header_bytes(&header(Kind::Hello, 0)), nonce].concat()
}

/// Asks for an answer when nothing is left to deliver.
pub(crate) fn flush(sequence: u64) -> Vec<u8> {
    header_bytes(&header(Kind::Flush, sequence)).to_vec()
}

/// Tells of a new consent record.
pub(crate) fn consent_changed() -> Vec<u8> {
    header_bytes(&header(Kind::ConsentChanged, 0)).to_vec()
}

/// Tells of watched threads that came or went.
pub(crate) fn watches_changed() -> Vec<u8> {
    header_bytes(&header(Kind::WatchesChanged, 0)).to_vec()
}

/// Opens a seat.
pub(crate) fn share() -> Vec<u8> {
    header_bytes(&header(Kind::Share, 0)).to_vec()
}

/// Asks to be a client.
pub(crate) fn join(settings: &[u8; 32]) -> Vec<u8> {
    [header_bytes(&header(Kind::Join, 0)), settings].concat()
}

/// An answer to the application.
pub(crate) fn answer(answer: Answer) -> Vec<u8> {
    let kind = match answer.kind {
        AnswerKind::Released => Kind::Released,
        AnswerKind::Spooled => Kind::Spooled,
        AnswerKind::Refused => Kind::Refused,
        AnswerKind::Vetoed => Kind::Vetoed,
        AnswerKind::OutOfReach => Kind::OutOfReach,
        AnswerKind::Failed => Kind::Failed,
        AnswerKind::Flushed => Kind::Flushed,
        AnswerKind::Joined => Kind::Joined,
    };
    let mut header = header(kind, answer.sequence);
    header.report = answer.report.0;
    header_bytes(&header).to_vec()
}

/// Bytes of an answer.
pub(crate) const ANSWER: usize = size_of::<Header>();

/// Reads an answer; allocates nothing, so that a handler may call it.
pub(crate) fn parse_answer(bytes: &[u8]) -> Option<Answer> {
    let header = parse_header(bytes)?;
    let kind = match header.kind {
        k if k == Kind::Released as u32 => AnswerKind::Released,
        k if k == Kind::Spooled as u32 => AnswerKind::Spooled,
        k if k == Kind::Refused as u32 => AnswerKind::Refused,
        k if k == Kind::Vetoed as u32 => AnswerKind::Vetoed,
        k if k == Kind::OutOfReach as u32 => AnswerKind::OutOfReach,
        k if k == Kind::Failed as u32 => AnswerKind::Failed,
        k if k == Kind::Flushed as u32 => AnswerKind::Flushed,
        k if k == Kind::Joined as u32 => AnswerKind::Joined,
        _ => return None,
    };
    Some(Answer { kind, sequence: header.sequence, report: ReportId(header.report) })
}

fn parse_header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..size_of::<Header>())?;
    let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let header = Header {
        magic: u64_at(0)?,
        kind: u32_at(8)?,
        thread: u32_at(12)? as i32,
        monotonic_ns: u64_at(16)?,
        sequence: u64_at(24)?,
        report: bytes.get(32..48)?.try_into().ok()?,
    };
    (header.magic == MAGIC).then_some(header)
}

/// Reads what an application sent.
///
/// # Errors
/// [`Error::Malformed`] for anything that is not exactly a known message.
pub(crate) fn parse(bytes: &[u8]) -> Result<ClientMessage> {
    let malformed = |reason: &str| Error::malformed("message", reason);
    let header = parse_header(bytes).ok_or_else(|| malformed("no header of this version"))?;
    let body = &bytes[size_of::<Header>()..];
    let exact = |message: ClientMessage| {
        if body.is_empty() { Ok(message) } else { Err(malformed("bytes after the end")) }
    };
    match header.kind {
        k if k == Kind::Hello as u32 => {
            let nonce = body.try_into().map_err(|_| malformed("a nonce of the wrong length"))?;
            Ok(ClientMessage::Hello(nonce))
        }
        k if k == Kind::Flush as u32 => exact(ClientMessage::Flush { sequence: header.sequence }),
        k if k == Kind::ConsentChanged as u32 => exact(ClientMessage::ConsentChanged),
        k if k == Kind::WatchesChanged as u32 => exact(ClientMessage::WatchesChanged),
        k if k == Kind::Share as u32 => exact(ClientMessage::Share),
        k if k == Kind::Join as u32 => {
            let settings = body.try_into().map_err(|_| malformed("a hash of the wrong length"))?;
            Ok(ClientMessage::Join { settings })
        }
        k if [Kind::Signal, Kind::Panic, Kind::PanicAgain, Kind::Requested, Kind::Hang]
            .iter()
            .any(|kind| k == *kind as u32) =>
        {
            parse_capture(&header, body)
        }
        _ => Err(malformed("an unknown kind")),
    }
}

fn parse_capture(header: &Header, body: &[u8]) -> Result<ClientMessage> {
    let malformed = |reason: &str| Error::malformed("message", reason);
    let context_size = size_of::<CrashContext>();
    let start = std::mem::offset_of!(SignalRequest, context) - size_of::<Header>();
    let context = body
        .get(start..start + context_size)
        .and_then(CrashContext::from_bytes)
        .ok_or_else(|| malformed("a crash context that is cut short"))?;
    let text = &body[size_of::<SignalRequest>().saturating_sub(size_of::<Header>()).min(body.len())..];
    if text.len() > MAX_TEXT {
        return Err(malformed("too much text"));
    }
    let mut texts = text.split(|&b| b == 0).map(|t| String::from_utf8_lossy(t).into_owned());
    let mut next = || texts.next().unwrap_or_default();
    let again = header.kind == Kind::PanicAgain as u32;
    let cause = if again || header.kind == Kind::Panic as u32 {
        Cause::Panic { message: next(), location: next(), thread: next(), again }
    } else if header.kind == Kind::Requested as u32 {
        Cause::Requested(next())
    } else if header.kind == Kind::Hang as u32 {
        let limit_ms = next().parse().map_err(|_| malformed("a limit that is no number"))?;
        Cause::Hang { limit_ms }
    } else {
        Cause::Signal
    };
    Ok(ClientMessage::Capture(Box::new(CaptureRequest {
        sequence: header.sequence,
        monotonic_ns: header.monotonic_ns,
        monitor: u32::try_from(u128::from_ne_bytes(header.report))
            .map_err(|_| malformed("a monitor that is none"))?,
        context,
        cause,
    })))
}

#[cfg(test)]
mod tests;
