//! The container: one report as one file. Version 1, all numbers little-endian:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 8 | magic | `CENOTAPH` |
//! | 2 | version | 1 |
//! | 1 | suite | 1: gzip (RFC 1952), STREAM over AES-256-GCM (see `seal`), HKDF-SHA256, local key |
//! | 1 | n | how many parts were sealed, 1 to 16 |
//! | 16, 8 | report id, time | time in milliseconds since the Unix epoch |
//! | n x 12 | kind (1), zero (3), plain length (4), sealed length (4) | the parts, as sealed at first |
//! | 60 | report key | 32 random bytes, wrapped under the local key's `container/v1`; everything above is authenticated |
//! | 2 | present | bit i: part i is still there. The one field that may change, see [`without_part`] |
//! | ... | the present parts | in that order, no gaps, nothing after |
//!
//! A part is sealed under HKDF-SHA256(report key, salt = report id, info = `part/v1` and its kind), with the
//! first 36 bytes, its kind and its plain length as associated data. So parts cannot be changed, exchanged within a
//! report or taken over from another; leaving one out can be done without a key and cannot be hidden.
//! What is readable without the key: that a report of that id, time and size exists. Nothing about whose it is.
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use flate2::bufread::GzDecoder;
use flate2::{Compress, Compression, FlushCompress, Status};
use zeroize::{Zeroize, Zeroizing};

use super::key::{LocalKey, fill_random, hkdf_sha256};
use super::seal::{self, Opener, Sealer, WRAPPED};
use super::{Part, PartKind};
use crate::error::{Error, Result};
use crate::report::ReportId;

/// The most bytes of one part, uncompressed. A dump of 512 threads has some 12 MiB, one of a thread with an
/// 8 MiB stack some 9 MiB.
pub const MAX_PART: usize = 64 * 1024 * 1024;
/// The most parts of one container.
pub const MAX_PARTS: usize = 16;

const MAGIC: &[u8; 8] = b"CENOTAPH";
const VERSION: u16 = 1;
const SUITE: u8 = 1;
const FIXED: usize = 36;
const ENTRY: usize = 12;

/// A sealed container, and its sizes.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The container: what [`Spool::commit`](super::file::Spool::commit) takes.
    pub bytes: Vec<u8>,
    /// Bytes of all parts before compression.
    pub plain_len: u64,
    /// Bytes of all parts after compression, before sealing.
    pub compressed_len: u64,
}

/// What a container says of itself. Only [`open`] and [`read_part`] find out whether it is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The report's id.
    pub id: ReportId,
    /// When it happened, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The parts, as sealed at first.
    pub parts: Vec<PartHeader>,
}

/// One part of a [`Header`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartHeader {
    /// What it is.
    pub kind: PartKind,
    /// Bytes, uncompressed.
    pub plain_len: u32,
    /// Bytes in the container, if `present`.
    pub sealed_len: u32,
    /// Whether it is still there.
    pub present: bool,
}

/// Compresses and seals `parts` under a fresh key, wrapped for `key`.
///
/// # Errors
/// If there are no parts, more than [`MAX_PARTS`], two of a kind, or one longer than [`MAX_PART`].
pub fn seal(id: ReportId, time_ms: u64, parts: &[Part], key: &LocalKey) -> Result<Sealed> {
    if parts.is_empty() {
        return Err(Error::malformed("report", "it has no parts"));
    }
    if parts.len() > MAX_PARTS {
        return Err(Error::Limit { what: "a report's parts", limit: MAX_PARTS });
    }
    let fixed = fixed_header(id, time_ms, parts.len());
    let mut report_key = Zeroizing::new([0; 32]);
    fill_random(report_key.as_mut_slice())?;

    let too_long = || Error::Limit { what: "the bytes of a report's part", limit: MAX_PART };
    for (i, part) in parts.iter().enumerate() {
        if parts.iter().take(i).any(|earlier| earlier.kind == part.kind) {
            return Err(Error::malformed("report", format!("it has two parts of kind {:?}", part.kind)));
        }
        if part.bytes.len() > MAX_PART {
            return Err(too_long());
        }
    }
    let seal = |part: &Part, compressor: &mut Compressor| {
        let plain_len = u32::try_from(part.bytes.len()).map_err(|_| too_long())?;
        seal_part(&fixed, part, plain_len, &part_key(&report_key, id, part.kind), compressor)
    };
    let mut table = Vec::with_capacity(parts.len() * ENTRY);
    let (mut plain_total, mut compressed_total) = (0u64, 0u64);
    let sealed = in_two_threads(parts, &seal).into_iter().collect::<Result<Vec<_>>>()?;
    for (part, (sealed, compressed)) in parts.iter().zip(&sealed) {
        let plain_len = u32::try_from(part.bytes.len()).map_err(|_| too_long())?;
        let sealed_len = u32::try_from(sealed.len()).map_err(|_| too_long())?;
        table.extend_from_slice(&[part.kind as u8, 0, 0, 0]);
        table.extend_from_slice(&plain_len.to_le_bytes());
        table.extend_from_slice(&sealed_len.to_le_bytes());
        plain_total += u64::from(plain_len);
        compressed_total += compressed;
    }
    let bodies: usize = sealed.iter().map(|(sealed, _)| sealed.len()).sum();
    let mut bytes = Vec::with_capacity(fixed.len() + table.len() + WRAPPED + 2 + bodies);
    bytes.extend_from_slice(&fixed);
    bytes.extend_from_slice(&table);
    let wrapped = seal::wrap_key(&key.derive("container/v1"), &report_key, &bytes)?;
    bytes.extend_from_slice(&wrapped);
    let present = u16::MAX.checked_shr(16u32.saturating_sub(parts.len() as u32)).unwrap_or(0);
    bytes.extend_from_slice(&present.to_le_bytes());
    sealed.iter().for_each(|(sealed, _)| bytes.extend_from_slice(sealed));
    Ok(Sealed { bytes, plain_len: plain_total, compressed_len: compressed_total })
}

/// Opens every part that is still there.
///
/// # Errors
/// [`Error::Malformed`] or [`Error::Unsealed`] if anything in it was changed, or the key is another one.
pub fn open(bytes: &[u8], key: &LocalKey) -> Result<Vec<Part>> {
    let container = Container::parse(bytes)?;
    let report_key = container.report_key(key)?;
    container.present().map(|(part, sealed)| container.open_part(part, sealed, &report_key)).collect()
}

/// Whether it is whole: opens every part and keeps nothing.
///
/// # Errors
/// As [`open`].
pub fn verify(bytes: &[u8], key: &LocalKey) -> Result<()> {
    let mut parts = open(bytes, key)?;
    parts.iter_mut().for_each(|part| part.bytes.zeroize());
    Ok(())
}

/// Opens one part, or `None` if there is none of that kind (any more).
///
/// # Errors
/// As [`open`]; the other parts are not looked at.
pub fn read_part(bytes: &[u8], kind: PartKind, key: &LocalKey) -> Result<Option<Part>> {
    let container = Container::parse(bytes)?;
    let report_key = container.report_key(key)?;
    let mut present = container.present();
    present
        .find(|(part, _)| part.kind == kind)
        .map(|(part, sealed)| container.open_part(part, sealed, &report_key))
        .transpose()
}

/// Reads what is readable without a key.
///
/// # Errors
/// [`Error::Malformed`] if the bytes are no container of this version, or not a whole one.
pub fn header(bytes: &[u8]) -> Result<Header> {
    Ok(Container::parse(bytes)?.header)
}

/// The same container without the part of that kind, without opening anything. What remains still verifies, and
/// the header still lists the part as once sealed. Without such a part the bytes come back as they are.
///
/// # Errors
/// As [`header`].
pub fn without_part(bytes: &[u8], kind: PartKind) -> Result<Vec<u8>> {
    let container = Container::parse(bytes)?;
    let mut present = 0u16;
    let mut result = container.authenticated.to_vec();
    result.extend_from_slice(container.wrapped);
    for (i, part) in container.header.parts.iter().enumerate() {
        if part.present && part.kind != kind {
            present |= 1u16.checked_shl(i as u32).unwrap_or(0);
        }
    }
    result.extend_from_slice(&present.to_le_bytes());
    for (_, sealed) in container.present().filter(|(part, _)| part.kind != kind) {
        result.extend_from_slice(sealed);
    }
    Ok(result)
}

/// A container whose lengths add up; nothing is verified yet.
struct Container<'a> {
    header: Header,
    fixed: &'a [u8; FIXED],
    authenticated: &'a [u8],
    wrapped: &'a [u8; WRAPPED],
    bodies: &'a [u8],
}

impl<'a> Container<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let malformed = |reason: &str| Error::malformed("container", reason);
        let short = || malformed("it ends within its header");
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>().ok_or_else(short)?;
        let mut fields = Fields(fixed);
        if fields.take::<8>()? != *MAGIC {
            return Err(malformed("it does not begin with CENOTAPH"));
        }
        let version = u16::from_le_bytes(fields.take()?);
        if version != VERSION {
            return Err(malformed(&format!("version {version}; this library reads version {VERSION}")));
        }
        let [suite, count] = fields.take()?;
        if suite != SUITE {
            return Err(malformed(&format!("cipher suite {suite} is not known to this library")));
        }
        let count = usize::from(count);
        if !(1..=MAX_PARTS).contains(&count) {
            return Err(malformed("it has no parts, or too many"));
        }
        let id = ReportId(fields.take()?);
        let time_ms = u64::from_le_bytes(fields.take()?);

        let (table, rest) = rest.split_at_checked(count * ENTRY).ok_or_else(short)?;
        let authenticated = bytes.get(..FIXED + table.len()).ok_or_else(short)?;
        let (wrapped, rest) = rest.split_first_chunk::<WRAPPED>().ok_or_else(short)?;
        let (present, bodies) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let present = u16::from_le_bytes(*present);
        if present.checked_shr(count as u32).unwrap_or(0) != 0 {
            return Err(malformed("it claims parts that it does not list"));
        }
        let mut parts: Vec<PartHeader> = Vec::with_capacity(count);
        let (mut fields, mut expected) = (Fields(table), 0u64);
        for i in 0..count {
            let [kind, zeros @ ..] = fields.take::<4>()?;
            let kind = PartKind::from_number(kind)
                .filter(|_| zeros == [0; 3])
                .ok_or_else(|| malformed(&format!("part {i} is of a kind not known to this library")))?;
            let plain_len = u32::from_le_bytes(fields.take()?);
            let sealed_len = u32::from_le_bytes(fields.take()?);
            let present = present.checked_shr(i as u32).unwrap_or(0) & 1 == 1;
            if plain_len as usize > MAX_PART {
                return Err(malformed(&format!("part {i} claims more than {MAX_PART} bytes")));
            }
            if parts.iter().any(|earlier| earlier.kind == kind) {
                return Err(malformed(&format!("part {i} is the second of its kind")));
            }
            expected += if present { u64::from(sealed_len) } else { 0 };
            parts.push(PartHeader { kind, plain_len, sealed_len, present });
        }
        if bodies.len() as u64 != expected {
            return Err(malformed(&format!(
                "its parts have {expected} bytes, the file has {}",
                bodies.len()
            )));
        }
        Ok(Self { header: Header { id, time_ms, parts }, fixed, authenticated, wrapped, bodies })
    }

    fn report_key(&self, key: &LocalKey) -> Result<Zeroizing<[u8; 32]>> {
        seal::unwrap_key(&key.derive("container/v1"), self.wrapped, self.authenticated)
    }

    /// The parts that are there, with their sealed bytes.
    fn present(&self) -> impl Iterator<Item = (&PartHeader, &'a [u8])> {
        let mut rest = self.bodies;
        self.header.parts.iter().filter(|part| part.present).map_while(move |part| {
            let (sealed, after) = rest.split_at_checked(part.sealed_len as usize)?;
            rest = after;
            Some((part, sealed))
        })
    }

    fn open_part(&self, part: &PartHeader, sealed: &[u8], report_key: &[u8; 32]) -> Result<Part> {
        let key = part_key(report_key, self.header.id, part.kind);
        let opener = Opener::new(&key, associated(self.fixed, part.kind, part.plain_len), sealed)?;
        // Bounded by what was sealed, whatever the stream says; one more byte shows that there is more.
        let limit = part.plain_len as usize;
        let mut bytes = Vec::with_capacity(limit.min(sealed.len().saturating_mul(MAX_RATIO)));
        let mut decoder = GzDecoder::new(opener);
        let read = (&mut decoder).take(u64::from(part.plain_len) + 1).read_to_end(&mut bytes);
        let opener = decoder.into_inner();
        if opener.has_failed() {
            return Err(Error::Unsealed("the key is another one, or the bytes were changed"));
        }
        read.map_err(|e| Error::malformed("container", format!("a part does not decompress: {e}")))?;
        if bytes.len() != limit || !opener.is_at_end() {
            return Err(Error::malformed("container", "a part is not as long as its header says"));
        }
        Ok(Part { kind: part.kind, bytes })
    }
}

/// Deflate cannot do better (zlib technical details: 1032:1).
const MAX_RATIO: usize = 1032;

/// A compressor for one part after another: what it works with is a third of a megabyte, which is not made for each.
struct Compressor {
    state: Compress,
    /// Compressed text on its way to the sealer, so that it is never whole in memory.
    buffer: Zeroizing<Vec<u8>>,
}

impl Compressor {
    fn new() -> Self {
        /// The largest window of deflate (RFC 1951).
        const WINDOW_BITS: u8 = 15;
        let state = Compress::new_gzip(Compression::new(LEVEL), WINDOW_BITS);
        Self { state, buffer: Zeroizing::new(vec![0; seal::CHUNK]) }
    }

    /// Writes `plain` as one gzip member; returns its length.
    fn compress(&mut self, mut plain: &[u8], output: &mut impl Write) -> std::io::Result<u64> {
        self.state.reset();
        loop {
            let (taken, made) = (self.state.total_in(), self.state.total_out());
            let status = self.state.compress(plain, &mut self.buffer, FlushCompress::Finish)?;
            let taken = usize::try_from(self.state.total_in() - taken).unwrap_or(usize::MAX);
            let made = usize::try_from(self.state.total_out() - made).unwrap_or(usize::MAX);
            output.write_all(self.buffer.get(..made).unwrap_or_default())?;
            plain = plain.get(taken..).unwrap_or_default();
            match status {
                Status::StreamEnd => return Ok(self.state.total_out()),
                _ if taken == 0 && made == 0 => return Err(std::io::ErrorKind::InvalidData.into()),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

/// Compresses and seals one part; returns its bytes and its compressed length.
fn seal_part(
    fixed: &[u8; FIXED],
    part: &Part,
    plain_len: u32,
    key: &[u8; 32],
    compressor: &mut Compressor,
) -> Result<(Vec<u8>, u64)> {
    let failed = |e: std::io::Error| Error::malformed("report", format!("a part does not compress: {e}"));
    let mut output = Vec::with_capacity(part.bytes.len() / 2);
    let mut sealer = Sealer::new(key, associated(fixed, part.kind, plain_len), &mut output)?;
    let compressed = compressor.compress(&part.bytes, &mut sealer).map_err(failed)?;
    sealer.finish()?;
    Ok((output, compressed))
}

/// Bytes of parts that are not worth a second thread.
const SMALL: usize = 128 << 10;

/// What `seal` makes of each part: the longest on a thread of its own, if there is one to be had and there is enough to do,
/// the others here.
fn in_two_threads<T: Send>(parts: &[Part], seal: &(impl Fn(&Part, &mut Compressor) -> T + Sync)) -> Vec<T> {
    let longest = parts.iter().map(|part| part.bytes.len()).max().unwrap_or(0);
    let all: usize = parts.iter().map(|part| part.bytes.len()).sum();
    let longest = parts.iter().position(|part| part.bytes.len() == longest);
    let mut compressor = Compressor::new();
    let Some(longest) = longest.filter(|_| parts.len() > 1 && all > SMALL) else {
        return parts.iter().map(|part| seal(part, &mut compressor)).collect();
    };
    std::thread::scope(|scope| {
        let own = || seal(&parts[longest], &mut Compressor::new());
        let thread = std::thread::Builder::new().spawn_scoped(scope, own);
        let others = parts.iter().enumerate().filter(|(i, _)| *i != longest);
        let mut sealed: Vec<T> = others.map(|(_, part)| seal(part, &mut compressor)).collect();
        let own = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => own(),
        };
        sealed.insert(longest, own);
        sealed
    })
}

/// Deflate level: the fastest that makes next to nothing of zeros. Level 3 takes a sixth of a small report's time.
const LEVEL: u32 = 2;

fn fixed_header(id: ReportId, time_ms: u64, count: usize) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    let count = u8::try_from(count).unwrap_or(0);
    let fields = MAGIC.iter().copied().chain(VERSION.to_le_bytes()).chain([SUITE, count]);
    for (to, from) in fixed.iter_mut().zip(fields.chain(id.0).chain(time_ms.to_le_bytes())) {
        *to = from;
    }
    fixed
}

fn associated(fixed: &[u8; FIXED], kind: PartKind, plain_len: u32) -> Vec<u8> {
    [&fixed[..], &[kind as u8], &plain_len.to_le_bytes()].concat()
}

fn part_key(report_key: &[u8; 32], id: ReportId, kind: PartKind) -> Zeroizing<[u8; 32]> {
    hkdf_sha256(report_key, &id.0, &[b"part/v1", &[kind as u8]])
}

/// Takes fields of a header one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| Error::malformed("container", "it ends within its header"))?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests;
