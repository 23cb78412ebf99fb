//! Authenticated encryption of a byte stream in chunks of 64 KiB.
//!
//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizar, "Online Authenticated-Encryption and its Nonce-Reuse
//! Misuse-Resistance", CRYPTO 2015) over AES-256-GCM (NIST SP 800-38D), laid out as the RustCrypto project's
//! `StreamBE32`: nonce = 7 random bytes, the chunk's number as big-endian `u32`, one byte that is 1 for the last
//! chunk only. So chunks cannot be reordered, repeated, left out or cut off. Each sealed chunk is the ciphertext
//! and its 16-byte tag; all chunks but the last hold 64 KiB; the last holds 0 to 64 KiB.
//!
//! A key seals one stream only: the random prefix is a second line of defence.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read, Write};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce};
use zeroize::{Zeroize, Zeroizing};

use super::key::fill_random;
use crate::error::{Error, Result};

/// Plaintext bytes in every chunk but the last.
pub(super) const CHUNK: usize = 64 * 1024;
/// Bytes that AES-GCM adds to a chunk.
pub(super) const TAG: usize = 16;
/// Random bytes before the first chunk.
pub(super) const PREFIX: usize = 7;

const FAILED: &str = "the key is another one, or the bytes were changed";

/// Seals what is written to it and appends that to a buffer: the prefix, then the chunks.
///
/// Plaintext is held for one chunk only and wiped. Without [`finish`](Self::finish) the stream is incomplete
/// and cannot be opened.
pub(super) struct Sealer<'a> {
    cipher: Aes256Gcm,
    nonces: Nonces,
    associated: Vec<u8>,
    chunk: Zeroizing<Vec<u8>>,
    output: &'a mut Vec<u8>,
}

impl<'a> Sealer<'a> {
    /// `associated` is authenticated with every chunk and not stored.
    pub(super) fn new(key: &[u8; 32], associated: Vec<u8>, output: &'a mut Vec<u8>) -> Result<Self> {
        let mut prefix = [0; PREFIX];
        fill_random(&mut prefix)?;
        Ok(Self::with_prefix(key, prefix, associated, output))
    }

    fn with_prefix(
        key: &[u8; 32],
        prefix: [u8; PREFIX],
        associated: Vec<u8>,
        output: &'a mut Vec<u8>,
    ) -> Self {
        output.extend_from_slice(&prefix);
        let chunk = Zeroizing::new(Vec::with_capacity(CHUNK));
        Self {
            cipher: Aes256Gcm::new(key.into()),
            nonces: Nonces { prefix, next: Some(0) },
            associated,
            chunk,
            output,
        }
    }

    /// Seals the last chunk.
    pub(super) fn finish(mut self) -> Result<()> {
        self.seal_chunk(true)
    }

    fn seal_chunk(&mut self, last: bool) -> Result<()> {
        let nonce = self.nonces.take(last)?;
        let start = self.output.len();
        self.output.resize(start.saturating_add(self.chunk.len()), 0);
        let sealed = self.output.get_mut(start..).unwrap_or_default();
        // Same lengths by the line above.
        let buffer = InOutBuf::new(self.chunk.as_slice(), sealed).map_err(|_| Error::Unsealed(FAILED))?;
        let tag = self
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), &self.associated, buffer)
            .map_err(|_| Error::Unsealed("too many bytes for AES-GCM"))?;
        self.output.extend_from_slice(&tag);
        self.chunk.clear();
        Ok(())
    }
}

impl Write for Sealer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte, because the last one is sealed differently.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.seal_chunk(false).map_err(io::Error::other)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a sealed stream. A byte is handed out only after its chunk was verified.
pub(super) struct Opener<'a> {
    cipher: Aes256Gcm,
    nonces: Nonces,
    associated: Vec<u8>,
    sealed: &'a [u8],
    chunk: Zeroizing<Vec<u8>>,
    read: usize,
    finished: bool,
    failed: bool,
}

impl<'a> Opener<'a> {
    /// `sealed` is the whole stream, with its prefix.
    pub(super) fn new(key: &[u8; 32], associated: Vec<u8>, sealed: &'a [u8]) -> Result<Self> {
        let Some((prefix, sealed)) = sealed.split_first_chunk() else {
            return Err(Error::malformed("container", "a part is shorter than its nonce"));
        };
        Ok(Self {
            cipher: Aes256Gcm::new(key.into()),
            nonces: Nonces { prefix: *prefix, next: Some(0) },
            associated,
            sealed,
            chunk: Zeroizing::new(Vec::new()),
            read: 0,
            finished: false,
            failed: false,
        })
    }

    /// Whether the last chunk was verified and read to its end.
    pub(super) fn is_at_end(&self) -> bool {
        self.finished && self.read == self.chunk.len()
    }

    /// Whether a chunk did not verify.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    fn open_chunk(&mut self) -> Result<()> {
        let (sealed, rest) = self.sealed.split_at(self.sealed.len().min(CHUNK + TAG));
        let last = rest.is_empty();
        let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(Error::Unsealed(FAILED))?;
        let nonce = self.nonces.take(last)?;
        self.chunk.zeroize();
        self.chunk.resize(text.len(), 0);
        self.read = 0;
        let buffer = InOutBuf::new(text, &mut self.chunk).map_err(|_| Error::Unsealed(FAILED))?;
        let verified =
            self.cipher.decrypt_inout_detached(&Nonce::from(nonce), &self.associated, buffer, tag.into());
        if verified.is_err() {
            self.chunk.zeroize();
            return Err(Error::Unsealed(FAILED));
        }
        self.sealed = rest;
        self.finished = last;
        Ok(())
    }
}

impl BufRead for Opener<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.read == self.chunk.len() && !self.finished {
            if self.failed {
                return Err(io::Error::other(FAILED));
            }
            self.open_chunk().map_err(|e| {
                self.failed = true;
                io::Error::other(e)
            })?;
        }
        Ok(self.chunk.get(self.read..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.read = self.read.saturating_add(amount).min(self.chunk.len());
    }
}

impl Read for Opener<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.fill_buf()?.read(buffer)?;
        self.consume(taken);
        Ok(taken)
    }
}

/// Wraps a 32-byte key under another: nonce (12 random bytes), ciphertext, tag.
pub(super) const WRAPPED: usize = 12 + 32 + TAG;

/// Wraps `key` under `under`, bound to `associated`.
pub(super) fn wrap_key(under: &[u8; 32], key: &[u8; 32], associated: &[u8]) -> Result<[u8; WRAPPED]> {
    let mut wrapped = [0; WRAPPED];
    let (nonce, rest) = wrapped.split_at_mut(12);
    fill_random(nonce)?;
    let (text, tag) = rest.split_at_mut(32);
    text.copy_from_slice(key);
    let nonce: [u8; 12] = (&*nonce).try_into().map_err(|_| Error::Unsealed(FAILED))?;
    let made = Aes256Gcm::new(under.into())
        .encrypt_inout_detached(&Nonce::from(nonce), associated, text.into())
        .map_err(|_| Error::Unsealed(FAILED))?;
    tag.copy_from_slice(&made);
    Ok(wrapped)
}

/// The key wrapped by [`wrap_key`].
pub(super) fn unwrap_key(
    under: &[u8; 32],
    wrapped: &[u8; WRAPPED],
    associated: &[u8],
) -> Result<Zeroizing<[u8; 32]>> {
    let failed = || Error::Unsealed(FAILED);
    let (nonce, rest) = wrapped.split_first_chunk::<12>().ok_or_else(failed)?;
    let (text, tag) = rest.split_last_chunk::<TAG>().ok_or_else(failed)?;
    let mut key = Zeroizing::new([0; 32]);
    let buffer = InOutBuf::new(text, key.as_mut_slice()).map_err(|_| failed())?;
    Aes256Gcm::new(under.into())
        .decrypt_inout_detached(&Nonce::from(*nonce), associated, buffer, tag.into())
        .map_err(|_| failed())?;
    Ok(key)
}

/// Each chunk's nonce, used once.
struct Nonces {
    prefix: [u8; PREFIX],
    next: Option<u32>,
}

impl Nonces {
    fn take(&mut self, last: bool) -> Result<[u8; 12]> {
        let number = self.next.ok_or(Error::Limit { what: "a stream's chunks", limit: u32::MAX as usize })?;
        self.next = if last { None } else { number.checked_add(1) };
        let mut nonce = [0; 12];
        let (prefix, rest) = nonce.split_at_mut(PREFIX);
        prefix.copy_from_slice(&self.prefix);
        let (counter, flag) = rest.split_at_mut(4);
        counter.copy_from_slice(&number.to_be_bytes());
        flag.fill(u8::from(last));
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [0x42; 32];

    #[test]
    fn aes_gcm_gives_the_published_answer() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test case 16.
        let key = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce = bytes("cafebabefacedbaddecaf888");
        let associated = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let mut text = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39",
        );
        let key: [u8; 32] = key.try_into().unwrap();
        let nonce: [u8; 12] = nonce.try_into().unwrap();
        let tag = Aes256Gcm::new(&key.into())
            .encrypt_inout_detached(&Nonce::from(nonce), &associated, text.as_mut_slice().into())
            .unwrap();
        let expected = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
             c5f61e6393ba7a0abcc9f662";
        assert_eq!(text, bytes(expected));
        assert_eq!(tag.to_vec(), bytes("76fc6ece0f4e1768cddf8853bb2d551b"));
    }

    #[test]
    fn the_stream_is_what_another_implementation_makes() {
        // Python: for each chunk, cryptography.hazmat AESGCM(KEY).encrypt(prefix + counter + flag, chunk, b"header"),
        // concatenated after the prefix; SHA-256 of that. 150 000 bytes i % 251, prefix 1..=7.
        let text: Vec<u8> = (0..150_000u32).map(|i| (i % 251) as u8).collect();
        let sealed = seal(&text);
        use sha2::Digest;
        let digest: Vec<u8> = sha2::Sha256::digest(&sealed).to_vec();
        assert_eq!(digest, bytes("24f4d1c9fc4539c527f7b6aca14269bbb06891963dae4ebed6c7552fff36d110"));
    }

    #[test]
    fn every_length_around_a_chunk_comes_back() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5] {
            let text: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
            let sealed = seal(&text);
            let chunks = len.div_ceil(CHUNK).max(1);
            assert_eq!(sealed.len(), PREFIX + len + chunks * TAG);
            assert_eq!(open(&sealed).unwrap(), text, "{len}");
        }
    }

    #[test]
    fn any_change_to_the_stream_is_noticed() {
        let text: Vec<u8> = (0..2 * CHUNK + 100).map(|i| (i % 253) as u8).collect();
        let sealed = seal(&text);
        let full = CHUNK + TAG;
        let (prefix, chunks) = sealed.split_at(PREFIX);
        let (first, second, third) = (&chunks[..full], &chunks[full..2 * full], &chunks[2 * full..]);
        let changed = [
            ("swapped", vec![second, first, third]),
            ("repeated", vec![first, first, second, third]),
            ("left out", vec![first, third]),
            ("first only", vec![first]),
            ("cut at a chunk", vec![first, second]),
            ("cut in a chunk", vec![first, second, &third[..50]]),
            ("cut in a tag", vec![first, second, &third[..third.len() - 1]]),
            ("longer", vec![first, second, third, &[0]]),
            ("longer by a chunk", vec![first, second, third, third]),
            ("empty", vec![]),
        ];
        for (what, pieces) in changed {
            assert!(open(&[prefix, &pieces.concat()].concat()).is_err(), "{what}");
        }
        let mut bits = sealed.clone();
        for at in (0..sealed.len()).step_by(997).chain([0, PREFIX, sealed.len() - 1]) {
            bits[at] ^= 0x10;
            assert!(open(&bits).is_err(), "byte {at}");
            bits[at] ^= 0x10;
        }
        assert!(open(&bits).is_ok());
        let mut other = Opener::new(&KEY, b"other".to_vec(), &sealed).unwrap();
        assert!(other.read_to_end(&mut Vec::new()).is_err(), "other associated data");
        assert!(other.has_failed() && !other.is_at_end());
    }

    #[test]
    fn unfinished_streams_do_not_open() {
        let mut output = Vec::new();
        let mut sealer = Sealer::with_prefix(&KEY, [0; PREFIX], vec![], &mut output);
        sealer.write_all(&vec![1; CHUNK + 1]).unwrap();
        drop(sealer);
        assert_eq!(output.len(), PREFIX + CHUNK + TAG);
        let mut opener = Opener::new(&KEY, vec![], &output).unwrap();
        assert!(opener.read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_wrapped_key_opens_only_as_it_was_wrapped() {
        let wrapped = wrap_key(&KEY, &[9; 32], b"header").unwrap();
        assert_eq!(unwrap_key(&KEY, &wrapped, b"header").unwrap().as_ref(), &[9; 32]);
        assert!(unwrap_key(&KEY, &wrapped, b"Header").is_err());
        assert!(unwrap_key(&[0; 32], &wrapped, b"header").is_err());
        for at in 0..WRAPPED {
            let mut bits = wrapped;
            bits[at] ^= 1;
            assert!(unwrap_key(&KEY, &bits, b"header").is_err(), "byte {at}");
        }
        assert_ne!(wrap_key(&KEY, &[9; 32], b"header").unwrap(), wrapped, "a fresh nonce each time");
    }

    #[test]
    fn nonces_never_repeat() {
        let mut nonces = Nonces { prefix: [0; PREFIX], next: Some(u32::MAX) };
        assert_eq!(nonces.take(false).unwrap()[PREFIX..], [255, 255, 255, 255, 0]);
        assert!(nonces.take(true).is_err());
    }

    fn seal(text: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        let mut sealer = Sealer::with_prefix(&KEY, [1, 2, 3, 4, 5, 6, 7], b"header".to_vec(), &mut output);
        for piece in text.chunks(1000) {
            sealer.write_all(piece).unwrap();
        }
        sealer.finish().unwrap();
        output
    }

    fn open(sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut opener = Opener::new(&KEY, b"header".to_vec(), sealed).map_err(io::Error::other)?;
        let mut text = Vec::new();
        opener.read_to_end(&mut text)?;
        assert!(opener.is_at_end());
        Ok(text)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
