//! The minimal record: what a dying process writes about itself when no monitor answers. Fixed size, so that half of one
//! is known for that; not sealed, so that it holds nothing personal.
//!
//! ```text
//! 0       head, 320 bytes ([`Head`])
//! 320     256 modules of 128 bytes ([`Module`]), those behind the head's count zero
//! 33088   8192 words of the stack, upwards from the head's `stack_start`, those behind its count zero
//! 98624   checksum over everything before, 8 bytes
//! ```
//!
//! Little-endian. A word of the stack that points neither into a module's code nor into the words themselves reads 0.
//!
//! This file is reached by signal handlers: nothing in it allocates. [`read`] is for the monitor.
#![forbid(unsafe_code)]

pub(crate) mod read;

/// "CENOLAST", read as a little-endian word.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"CENOLAST");
/// Of this layout.
pub(crate) const VERSION: u32 = 1;
/// Modules, at most.
pub(crate) const MODULES: usize = 256;
/// Words of the stack, at most.
pub(crate) const WORDS: usize = 8192;
/// Bytes of a head.
pub(crate) const HEAD: usize = 320;
/// Bytes of a module.
pub(crate) const MODULE: usize = 128;
/// Bytes of a record.
pub(crate) const LEN: usize = HEAD + MODULES * MODULE + WORDS * 8 + 8;

/// Bytes of a text in a head, filled up with zeros.
pub(crate) const TEXT: usize = 64;
/// Bytes of a build id, at most. GNU's have 20.
pub(crate) const BUILD_ID: usize = 32;
/// Bytes of a module's base name, at most.
pub(crate) const NAME: usize = 56;

/// How a record's file name ends once it is whole.
pub(crate) const WHOLE: &str = ".record";
/// How it ends while it is being written.
pub(crate) const UNFINISHED: &str = ".tmp";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Event {
    /// A signal, whose address means nothing.
    Signal = 0,
    /// A signal at an address.
    Fault = 1,
    /// A Rust panic, of which only the place is told.
    Panic = 2,
}

/// Why there is no more than this record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Why {
    /// The monitor has ended.
    Gone = 1,
    /// It did not answer in time.
    Silent = 2,
    /// It said that it could not make a report.
    Failed = 3,
    /// Asking it faulted: the process was too damaged.
    Fault = 4,
    /// The application has closed Cenotaph's descriptors.
    Closed = 5,
}

/// A record's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of the report that comes of it.
    pub(crate) id: [u8; 16],
    /// Milliseconds since the Unix epoch.
    pub(crate) time_ms: u64,
    pub(crate) event: Event,
    pub(crate) why: Why,
    /// `si_signo`, `si_code` and `si_addr`.
    pub(crate) signal: i32,
    pub(crate) code: i32,
    pub(crate) address: u64,
    pub(crate) thread: u32,
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    /// 0 unless it points into the words.
    pub(crate) fp: u64,
    /// Address of the first word.
    pub(crate) stack_start: u64,
    pub(crate) words: u32,
    pub(crate) modules: u32,
    /// Name and version, as configured.
    pub(crate) application: [u8; TEXT],
    pub(crate) version: [u8; TEXT],
    /// Of a panic: `file:line:column`, without folders.
    pub(crate) location: [u8; TEXT],
}

/// A binary that was mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Its executable mapping.
    pub(crate) code_start: u64,
    pub(crate) code_end: u64,
    pub(crate) build_id: [u8; BUILD_ID],
    pub(crate) build_id_len: u8,
    /// Base name of its file, UTF-8 unless cut.
    pub(crate) name: [u8; NAME],
    pub(crate) name_len: u8,
}

impl Head {
    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(room) = out.get_mut(at..at + bytes.len()) {
                room.copy_from_slice(bytes);
            }
            at += bytes.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&VERSION.to_le_bytes());
        put(&(LEN as u32).to_le_bytes());
        put(&self.id);
        put(&self.time_ms.to_le_bytes());
        put(&(self.event as u32).to_le_bytes());
        put(&(self.why as u32).to_le_bytes());
        put(&self.signal.to_le_bytes());
        put(&self.code.to_le_bytes());
        put(&self.address.to_le_bytes());
        put(&self.pc.to_le_bytes());
        put(&self.sp.to_le_bytes());
        put(&self.fp.to_le_bytes());
        put(&self.stack_start.to_le_bytes());
        put(&self.thread.to_le_bytes());
        put(&self.words.to_le_bytes());
        put(&self.modules.to_le_bytes());
        put(&[0; 4]);
        put(&self.application);
        put(&self.version);
        put(&self.location);
        out
    }
}

impl Module {
    /// All zero: no module.
    pub(crate) const NONE: Self = Self {
        start: 0,
        end: 0,
        code_start: 0,
        code_end: 0,
        build_id: [0; BUILD_ID],
        build_id_len: 0,
        name: [0; NAME],
        name_len: 0,
    };

    /// Its bytes.
    pub(crate) fn encode(&self) -> [u8; MODULE] {
        let mut out = [0; MODULE];
        let numbers = [self.start, self.end, self.code_start, self.code_end];
        for (room, number) in out.chunks_exact_mut(8).zip(numbers) {
            room.copy_from_slice(&number.to_le_bytes());
        }
        out[32] = self.build_id_len;
        out[33] = self.name_len;
        out[40..40 + BUILD_ID].copy_from_slice(&self.build_id);
        out[72..72 + NAME].copy_from_slice(&self.name);
        out
    }
}

/// The checksum of a record: finds damage, not malice. Whoever may write into the spool may write a true one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// Of nothing.
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in `bytes`, a multiple of 8 of them. FNV-1a, a word at a time.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            let mut full = [0; 8];
            full.copy_from_slice(word);
            self.0 = (self.0 ^ u64::from_le_bytes(full)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }

    /// The sum.
    pub(crate) fn finish(self) -> u64 {
        self.0
    }
}

/// Whether an address that nothing is known about could be some characters of text: at least four, all printable, behind
/// them zeros. Such a number stays out of a record: a pointer may have been overwritten with what somebody typed.
pub(crate) fn could_be_text(address: u64) -> bool {
    let bytes = address.to_le_bytes();
    let length = 8 - (address.leading_zeros() / 8) as usize;
    length >= 4 && bytes[..length].iter().all(|byte| (0x20..0x7f).contains(byte))
}

/// `text`, cut to its room.
pub(crate) fn fixed<const ROOM: usize>(text: &[u8]) -> [u8; ROOM] {
    let mut out = [0; ROOM];
    let length = text.len().min(ROOM);
    out[..length].copy_from_slice(&text[..length]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_addresses() {
        let cases = [
            (0, false),
            (0x10, false),
            (0x41_4141, false),
            (u64::from(u32::from_le_bytes(*b"anna")), true),
            (u64::from_le_bytes(*b"person\0\0"), true),
            (0x7fff_ffff_e000, false),
            (0x5555_5576_42a0, false),
            (u64::from_le_bytes(*b"ab\0cde\0\0"), false),
        ];
        for (address, expected) in cases {
            assert_eq!(could_be_text(address), expected, "{address:#x}");
        }
    }

    #[test]
    fn the_head_fills_its_room() {
        let head = Head { location: [7; TEXT], ..read::tests::head() };
        assert_eq!(head.encode()[HEAD - 16 - TEXT..HEAD - 16], [7; TEXT]);
    }
}
