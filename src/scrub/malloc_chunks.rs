//! What glibc's malloc writes before and behind a text in its heap: beside it stand numbers that may look like a part of it.
//!
//! A chunk (malloc.c, `struct malloc_chunk`) is an odd multiple of 8 bytes of the program's own behind a word with its size, which is a
//! multiple of 16 with three flags: a used neighbour before it (1), its own mapping (2), a thread's arena (4). Memory begins at
//! multiples of 16; so the size of the next chunk stands at a multiple of 16 and 8.
#![forbid(unsafe_code)]

use super::contexts;
use super::edit::Encoding;
use super::runs::Run;

/// What is left of a text that glibc's malloc has freed and written over the first 16 bytes of.
pub(super) struct Freed {
    /// Where it begins.
    pub(super) text: usize,
    /// The characters of the run before that.
    pub(super) chars: usize,
}

/// If glibc's malloc has freed the memory that `run` stands in: where.
///
/// A chunk in the per-thread cache (malloc.c, `tcache_entry`) begins with a link, mangled with its own address, and
/// a random key; before it stands its size, a multiple of 16 with the flags for a used neighbour
/// (1) and perhaps a thread's arena (4). What is left of a secret
/// behind that has lost its prefix.
pub(super) fn freed(run: &Run, bytes: &[u8], address: u64) -> Option<Freed> {
    let start = run.start(0);
    // The key's last bytes may be printable by chance, so that the run begins in it.
    let into = (address.wrapping_add(start as u64)).wrapping_neg() % 16;
    let text = start.checked_add(usize::try_from(into).ok().filter(|&into| into < 8)?)?;
    let word = |before: usize| text.checked_sub(before).map(|at| contexts::word(bytes, at));
    let is_size = |size: u64| (0x20..=0x410).contains(&(size & !7)) && size & 0xb == 1;
    word(24).filter(|&size| is_size(size))?;
    let (link, key) = (word(16)?, word(8)?);
    let is_cached = link >> 48 == 0 && link != 0 && !matches!(key >> 48, 0 | 0xffff);
    is_cached.then(|| Freed { text, chars: (text - start) / run.encoding.stride() })
}

/// If the last characters of `run` of `bytes`, whose text is `line`, are the lowest bytes of the next chunk's size ("a": 0x61, a
/// chunk of 96 bytes behind a used one; "1\n": 0xa31): the run and its text without them.
///
/// A text that nothing ends may fill its chunk to the last byte: `String` of Rust, `std::string_view`, what `read` wrote.
pub(super) fn without_size<'a>(
    run: &Run,
    line: &'a [u8],
    bytes: &[u8],
    address: u64,
) -> Option<(Run, &'a [u8])> {
    // With the highest byte of a unit first, these belong to no character.
    let little = matches!(run.encoding, Encoding::Utf8 | Encoding::Utf16Le | Encoding::Utf32Le);
    let last = line.len().checked_sub(1).filter(|_| little)?;
    // From the only place where a size may stand to the last character: less than half a word.
    let behind = address.wrapping_add(run.start(last) as u64).wrapping_sub(8) % 16;
    let characters = usize::try_from(behind).ok()? / run.encoding.stride();
    let length = last.checked_sub(characters).filter(|&length| characters < MOST_OF_SIZE && length > 0)?;
    let lowest = *line.get(length).filter(|&&lowest| lowest & 0xb == 1)?;
    let at = run.start(length);
    // The end of the memory may cut it off.
    let size = bytes.get(at..)?.iter().take(8).rev().fold(0, |size, &byte| size << 8 | u64::from(byte));
    let is_place = address.wrapping_add(at as u64) % 16 == 8;
    if !is_place || size >> 32 != 0 || size & 0xff != u64::from(lowest) {
        return None;
    }
    let shorter = (0..=characters).try_fold(run.clone(), |run, _| run.without_last_character());
    Some((shorter?, &line[..length]))
}

/// Characters that a size may seem to have: it is less than 4 GiB.
const MOST_OF_SIZE: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::edit::Finding;
    use super::super::finder::testing::blank;
    use super::super::finder::{Edges, in_memory};
    use super::super::known::Known;

    fn known() -> Known {
        Known::new(&["wilhelmina".to_owned()]).unwrap()
    }

    #[test]
    fn freed_memory_loses_what_may_be_the_rest_of_a_secret() {
        for key in [0x8f9e_1234_5678_9abc_u64, 0x7878_1234_5678_9abc] {
            for (size, text, after) in [
                (0x35_u64, "292c6912E7710c838347Ae178B4a and more", "**************************** and more"),
                (0x32, "292c6912E7710c838347Ae178B4a and more", "292c6912E7710c838347Ae178B4a and more"),
            ] {
                let mut bytes = vec![1; 8];
                [size, 0x5_5555_1234, key].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
                bytes.extend(text.as_bytes());
                bytes.extend([1; 8]);
                let edges = Edges::Cut { address: 0x5555_0000 };
                let blanked = blank(&bytes, in_memory(&bytes, edges, &known()));
                assert!(blanked.contains(after), "{key:x} {blanked}");
            }
        }
    }

    #[test]
    fn keys_of_freed_memory_stay_when_it_is_scrubbed_again() {
        // Their last bytes are letters of UTF-16 in one byte order or the other, with the text or with what stands for it.
        for key in
            [0x057c_f37e_7abc_5162_u64, 0xd7ce_ffa7_c237_a728, 0x0683_9f98_e500_6c5c, 0xd297_0331_edf9_73a0]
        {
            let mut bytes = vec![0; 8];
            [0x51, 0x5_6446_20a5, key].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
            bytes.extend("n.zephyr@example.org".encode_utf16().flat_map(u16::to_le_bytes));
            bytes.extend([0; 16]);
            let edges = Edges::Cut { address: 0x5555_0000 };
            let blanked = |bytes: &mut [u8]| {
                for Finding { range, encoding, .. } in in_memory(bytes, edges, &known()) {
                    let first = range.start;
                    range.for_each(|at| {
                        let is_character = (at - first) % encoding.stride() == encoding.lead();
                        bytes[at] = if is_character { b'*' } else { 0 };
                    });
                }
                bytes.to_vec()
            };
            let once = blanked(&mut bytes);
            assert!(once[32..].iter().all(|byte| matches!(byte, 0 | b'*')), "{key:x} {once:?}");
            assert_eq!(blanked(&mut bytes), once, "{key:x}");
        }
    }

    /// `text` at the end of a chunk at this multiple of 16, followed by a size.
    fn chunk(text: &[u8], size: u64) -> (u64, Vec<u8>) {
        let before = (24usize.wrapping_sub(text.len())) % 16 + 16;
        let mut bytes = vec![1; before];
        bytes.extend(text);
        bytes.extend(size.to_le_bytes());
        bytes.extend([1; 16]);
        (0x5555_0000, bytes)
    }

    #[test]
    fn the_next_size_is_no_part_of_a_text() {
        let texts =
            ["2001:db8:85a3::8a2e:370:7334", "4111111111111111", "alice@example.com", "for wilhelmina"];
        for text in texts {
            let small = [0x21_u64, 0x31, 0x61, 0x65, 0x71, 0x131, 0x1_0161];
            for size in small.into_iter().chain([0xa31, 0x2e61, 0x3131, 0x2_0d31, 0x20_3031, 0x3031_6361]) {
                let wide = |width: usize| -> Vec<u8> {
                    text.bytes().flat_map(|byte| [byte, 0, 0, 0].into_iter().take(width)).collect()
                };
                for width in [1, 2, 4] {
                    let text_bytes = wide(width);
                    let (address, bytes) = chunk(&text_bytes, size);
                    let end = bytes.len() - 24;
                    let value = end - text_bytes.len() + text.rfind(' ').map_or(0, |at| at + 1) * width;
                    // All of it, and where the memory ends within the size.
                    for left in [24, 1, 2, 3, 4, 5, 6, 7] {
                        let found = in_memory(&bytes[..end + left], Edges::Cut { address }, &known());
                        let covered = |at: usize| found.iter().any(|finding| finding.range.contains(&at));
                        let bare: Vec<usize> =
                            (value..end).step_by(width).filter(|&at| !covered(at)).collect();
                        assert!(bare.is_empty(), "{text} {size:x} {width} {left}: {bare:?} of {found:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn elsewhere_such_a_byte_is_text() {
        let (address, bytes) = chunk(b"4111111111111111", 0x31);
        // Where 0x31 can be no size, the number has 17 digits and is no card's.
        for (shift, size, found) in
            [(0, 0x31_u64, 1), (8, 0x31, 0), (0, 0x39, 0), (0, 0x33, 0), (0, 0x31_0000_0031, 0)]
        {
            let mut bytes = bytes.clone();
            let at = bytes.len() - 24;
            bytes[at..at + 8].copy_from_slice(&size.to_le_bytes());
            let edges = Edges::Cut { address: address + shift };
            assert_eq!(in_memory(&bytes, edges, &known()).len(), found, "{shift} {size:x}");
        }
    }
}
