//! Sparse core files: what nobody wrote is neither read nor written.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{PIECE, is_zero};
use crate::target::core_file::source::Source;

/// Zeros of a hole that are read with what lies beside it: no text goes across them.
const MARGIN: u64 = 64;
/// Bytes that are read at least, as long as there are some: holes may be as small as a disk's block.
const LEAST: u64 = 64 << 10;
/// What a file system keeps as a whole, mostly.
const BLOCK: usize = 4096;

/// The next piece of `rest` to be looked at; what lies before it, or behind the last one, is zero. It begins and, unless `rest`
/// ends with it, ends at whole words, counted from the start of `rest`.
pub(super) fn next_piece(file: &Source, rest: &Range<u64>) -> Option<Range<u64>> {
    let data = file.next_data(rest)?;
    let skipped = (data.start - rest.start).saturating_sub(MARGIN) & !7;
    let start = rest.start + skipped;
    let wanted = (data.end - start).saturating_add(MARGIN).clamp(LEAST, PIECE).next_multiple_of(8);
    Some(start..rest.end.min(start.saturating_add(wanted)))
}

/// Writes `bytes` where nothing was written yet: blocks of zeros become holes.
pub(super) fn write(output: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_blocks(output, bytes, offset, |block| !is_zero(&bytes[block]))
}

/// Writes what differs from `before`, which stands there.
pub(super) fn rewrite(output: &File, before: &[u8], bytes: &[u8], offset: u64) -> io::Result<()> {
    write_blocks(output, bytes, offset, |block| before[block.clone()] != bytes[block])
}

fn write_blocks(
    output: &File,
    bytes: &[u8],
    offset: u64,
    is_wanted: impl Fn(Range<usize>) -> bool,
) -> io::Result<()> {
    let mut waiting = 0..0;
    let flush = |run: &Range<usize>| {
        if run.is_empty() {
            Ok(())
        } else {
            output.write_all_at(&bytes[run.clone()], offset + run.start as u64)
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        // Blocks are counted from the start of the file.
        let left = BLOCK - (offset % BLOCK as u64) as usize;
        let end = bytes.len().min(if at == 0 { left } else { at + BLOCK });
        if is_wanted(at..end) {
            waiting = if waiting.end == at { waiting.start..end } else { at..end };
        } else {
            flush(&waiting)?;
            waiting = end..end;
        }
        at = end;
    }
    flush(&waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_wanted_are_written() {
        for (offset, length) in [(0, 5 * BLOCK), (100, 5 * BLOCK), (BLOCK - 1, 3), (7, 0)] {
            let mut bytes = vec![0; length];
            bytes.iter_mut().step_by(2 * BLOCK + 9).for_each(|byte| *byte = 1);
            let file = tempfile::tempfile().unwrap();
            write(&file, &bytes, offset as u64).unwrap();
            file.set_len((offset + length) as u64).unwrap();
            let read = || {
                let mut written = vec![9; length];
                file.read_exact_at(&mut written, offset as u64).unwrap();
                written
            };
            assert_eq!(read(), bytes);
            let mut changed = bytes.clone();
            changed.iter_mut().skip(BLOCK).step_by(BLOCK + 1).for_each(|byte| *byte ^= 1);
            rewrite(&file, &bytes, &changed, offset as u64).unwrap();
            assert_eq!(read(), changed, "zeros over something, too");
        }
    }

    #[test]
    fn pieces_cover_all_data_by_words() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        let places = [5, 1 << 20, (1 << 20) + 70_000, (40 << 20) + 3, (64 << 20) - 1];
        places.iter().for_each(|&at| file.write_all_at(b"x", at).unwrap());
        // From here on two of them are within four megabytes.
        file.write_all_at(&vec![1; 9 << 20], 20 << 20).unwrap();
        let source = Source::new(file).unwrap();
        for whole in [0..64 << 20, 3..(64 << 20) - 2, (1 << 20) + 1..41 << 20, 9 << 20..10 << 20] {
            let (mut rest, mut pieces): (_, Vec<Range<u64>>) = (whole.clone(), Vec::new());
            while let Some(piece) = next_piece(&source, &rest) {
                assert!(rest.start <= piece.start && piece.start < piece.end && piece.end <= whole.end);
                assert!((piece.start - whole.start) % 8 == 0 && piece.end - piece.start <= PIECE);
                rest.start = piece.end;
                pieces.push(piece);
            }
            let is_read = |at: u64| pieces.iter().any(|piece| piece.contains(&at));
            for at in places.into_iter().chain((20 << 20..29 << 20).step_by(1 << 18)) {
                assert_eq!(is_read(at), whole.contains(&at), "{at} of {whole:?}");
            }
        }
    }
}
