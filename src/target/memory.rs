//! Reading a target's memory, in as few calls as can be.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use crate::sys::remote::{self, Piece};

/// Where memory comes from: a process that stands still, or a core file.
pub trait Memory {
    /// The bytes of each range, from its start as far as they can be read. The ranges are the caller's to bound:
    /// buffers of their lengths are made.
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>>;

    /// A reader of the same memory that makes no system call but `pread` on descriptors that are open already, so that it
    /// works in a forked child that may do nothing else. `None` if there is none, or opening it was refused.
    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        None
    }

    /// The descriptors that a reader of [`by_pread`](Self::by_pread) reads from: a forked child keeps them open.
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// As many bytes from `address` on as can be read, `length` at most.
    fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let range = address..address.saturating_add(length as u64);
        self.read_ranges(&[range]).pop().unwrap_or_default()
    }

    /// All `length` bytes at `address`, or nothing.
    fn read_bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        Some(self.read(address, length)).filter(|bytes| bytes.len() == length)
    }

    /// A byte.
    fn read_u8(&self, address: u64) -> Option<u8> {
        array(self, address).map(u8::from_le_bytes)
    }

    /// Two bytes.
    fn read_u16(&self, address: u64) -> Option<u16> {
        array(self, address).map(u16::from_le_bytes)
    }

    /// Four bytes.
    fn read_u32(&self, address: u64) -> Option<u32> {
        array(self, address).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    fn read_u64(&self, address: u64) -> Option<u64> {
        array(self, address).map(u64::from_le_bytes)
    }

    /// Four bytes as a C `int`.
    fn read_i32(&self, address: u64) -> Option<i32> {
        array(self, address).map(i32::from_le_bytes)
    }

    /// Eight bytes as a C `long`.
    fn read_i64(&self, address: u64) -> Option<i64> {
        array(self, address).map(i64::from_le_bytes)
    }

    /// A C `float`.
    fn read_f32(&self, address: u64) -> Option<f32> {
        array(self, address).map(f32::from_le_bytes)
    }

    /// A C `double`.
    fn read_f64(&self, address: u64) -> Option<f64> {
        array(self, address).map(f64::from_le_bytes)
    }

    /// An address, eight bytes. It may be any number.
    fn read_pointer(&self, address: u64) -> Option<u64> {
        self.read_u64(address)
    }

    /// Text up to a zero byte, `most` bytes, or the end of what can be read; what is no UTF-8 became U+FFFD. `None` if not
    /// one byte could be read.
    fn read_string(&self, address: u64, most: usize) -> Option<String> {
        let mut text = Vec::new();
        while text.len() < most {
            let wanted = STEP.min(most - text.len());
            let at = address.saturating_add(text.len() as u64);
            let bytes = self.read(at, wanted);
            let end = bytes.iter().position(|&byte| byte == 0);
            text.extend_from_slice(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default());
            if bytes.is_empty() && text.is_empty() {
                return None;
            }
            if end.is_some() || bytes.len() < wanted {
                break;
            }
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Text is read in steps of so many bytes: most strings are short.
const STEP: usize = 256;

fn array<const N: usize>(memory: &(impl Memory + ?Sized), address: u64) -> Option<[u8; N]> {
    memory.read(address, N).try_into().ok()
}

/// No memory.
#[derive(Debug)]
pub(super) struct Nowhere;

impl Memory for Nowhere {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        vec![Vec::new(); ranges.len()]
    }
}

/// The memory of a live process.
#[derive(Debug)]
pub(super) struct Live {
    /// Any thread that lives: the first one may be a zombie, whose memory is gone.
    pub(super) tid: libc::pid_t,
    /// `/proc/PID/mem`, once it was needed. It can also read what has no read permission.
    file: OnceCell<Option<File>>,
    /// Only that file is read, if it can be had.
    by_file: bool,
}

impl Live {
    pub(super) fn new(tid: libc::pid_t) -> Self {
        Self { tid, file: OnceCell::new(), by_file: false }
    }

    /// One that never waits for a page that somebody else is to bring (userfaultfd(2)): `process_vm_readv` does, for ever
    /// if nobody brings it; reading `/proc/PID/mem` fails at once.
    pub(super) fn that_never_waits(tid: libc::pid_t) -> Self {
        Self { by_file: true, ..Self::new(tid) }
    }

    /// `/proc/PID/mem`, opened once.
    fn file(&self) -> Option<&File> {
        self.file.get_or_init(|| File::open(format!("/proc/{}/mem", self.tid)).ok()).as_ref()
    }

    /// Reads what `process_vm_readv` did not, where a file can.
    fn finish(&self, piece: &mut Piece<'_>) {
        let Some(file) = self.file() else { return };
        let Some(at) = piece.address.checked_add(piece.done as u64) else { return };
        piece.done += read_file(file, &mut piece.bytes[piece.done..], at);
    }
}

/// The memory of a live process through an open `/proc/PID/mem`, by `pread` only.
#[derive(Debug)]
pub(crate) struct MemFile(File);

impl MemFile {
    /// Takes a descriptor of `/proc/PID/mem`. It keeps its rights over the memory wherever it is handed to.
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Memory for MemFile {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let read = |range: &Range<u64>| {
            let mut bytes = vec![0; length(range)];
            let done = read_file(&self.0, &mut bytes, range.start);
            bytes.truncate(done);
            bytes
        };
        ranges.iter().map(read).collect()
    }

    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        Some(Box::new(Self(self.0.try_clone().ok()?)))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        vec![self.0.as_raw_fd()]
    }
}

/// Fills `bytes` from `offset` of a file on, as far as it goes; returns how far.
pub(super) fn read_file(file: &File, bytes: &mut [u8], offset: u64) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let Some(at) = offset.checked_add(done as u64) else { break };
        match file.read_at(&mut bytes[done..], at) {
            Ok(read) if read > 0 => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    done
}

/// Of a range, for a buffer.
pub(super) fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)
}

impl Memory for Live {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = ranges.iter().map(|range| vec![0; length(range)]).collect();
        let mut pieces: Vec<Piece<'_>> = all
            .iter_mut()
            .zip(ranges)
            .map(|(bytes, range)| Piece { address: range.start, bytes, done: 0 })
            .collect();
        if !self.by_file || self.file().is_none() {
            // Refused altogether (a filter, a policy): the file may still be open to us.
            let _ = remote::read_pieces(self.tid, &mut pieces);
        }
        pieces.iter_mut().filter(|piece| piece.done < piece.bytes.len()).for_each(|piece| self.finish(piece));
        let done: Vec<usize> = pieces.iter().map(|piece| piece.done).collect();
        all.iter_mut().zip(done).for_each(|(bytes, done)| bytes.truncate(done));
        all
    }

    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        Some(Box::new(MemFile::new(self.file()?.try_clone().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        let own = Live::new(std::process::id() as libc::pid_t);
        let source: Vec<u8> = (0..100_000).map(|i| (i / 7) as u8).collect();
        let at = source.as_ptr() as u64;
        let read = own.read_ranges(&[
            at..at + 100_000,
            0..16,
            at + 5..at + 5,
            at + 1..at + 9,
            u64::MAX - 8..u64::MAX,
        ]);
        assert_eq!(read, [source.clone(), vec![], vec![], source[1..9].to_vec(), vec![]]);
        assert_eq!(own.read(at, 3), source[..3]);
        let file = own.by_pread().expect("one's own memory may be opened");
        let read = file.read_ranges(&[at + 1..at + 9, 0..16, u64::MAX - 8..u64::MAX, at..at + 100_000]);
        assert_eq!(read, [source[1..9].to_vec(), vec![], vec![], source.clone()]);
        assert_eq!(file.by_pread().unwrap().read(at, 3), source[..3]);
        assert_eq!((own.read_u32(at + 14), own.read_i32(0)), (Some(0x0202_0202), None));
        let nobody = Live::new(libc::pid_t::MAX);
        assert_eq!(nobody.read_ranges(&[at..at + 8]), [Vec::<u8>::new()]);
        assert!(nobody.by_pread().is_none());
    }

    #[test]
    fn reads_values_and_text() {
        /// Bytes at address 0x1000 and nothing else.
        struct Bytes(Vec<u8>);
        impl Memory for Bytes {
            fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
                let read = |range: &Range<u64>| {
                    let start = range.start.checked_sub(0x1000)? as usize;
                    let end = (range.end.checked_sub(0x1000)? as usize).min(self.0.len());
                    Some(self.0.get(start..end)?.to_vec())
                };
                ranges.iter().map(|range| read(range).unwrap_or_default()).collect()
            }
        }
        let memory = Bytes([&2.5f64.to_le_bytes()[..], &(-1.5f32).to_le_bytes(), &[0xff; 4], &[1]].concat());
        assert_eq!(memory.read_f64(0x1000), Some(2.5));
        assert_eq!(memory.read_f32(0x1008), Some(-1.5));
        assert_eq!((memory.read_i32(0x100c), memory.read_u16(0x100c)), (Some(-1), Some(0xffff)));
        assert_eq!((memory.read_u8(0x1010), memory.read_u16(0x1010)), (Some(1), None));
        assert_eq!(
            (memory.read_u64(0x1009), memory.read_pointer(0x100a)),
            (Some(0x01ff_ffff_ffbf_c000), None)
        );
        assert_eq!(memory.read_u64(u64::MAX - 3), None);
        assert_eq!(
            (memory.read_bytes(0x1000, 17).map(|b| b.len()), memory.read_bytes(0x1000, 18)),
            (Some(17), None)
        );

        let long = "x".repeat(1000);
        let memory = Bytes([long.as_bytes(), b"\0ab\xff\0end"].concat());
        let cases = [
            (0x1000, 4000, Some(&long[..])),
            (0x1000, 300, Some(&long[..300])),
            (0x1000 + 1001, 9, Some("ab\u{fffd}")),
            (0x1000 + 1005, 9, Some("end")),
            (0x1000 + 1000, 9, Some("")),
            (0x1000, 0, Some("")),
            (0x2000, 9, None),
            (u64::MAX, 9, None),
        ];
        for (address, most, expected) in cases {
            assert_eq!(memory.read_string(address, most).as_deref(), expected, "{address:x} {most}");
        }
    }
}
