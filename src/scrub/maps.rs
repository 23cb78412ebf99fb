//! `/proc/PID/maps` in a dump: names are text like any other, the kernel's numbers before them are not.
//!
//! A program with a hundred libraries has some 500 lines, 50 bytes of numbers each. To look for values in these would cost
//! more than everything else in a small dump, and what a rule took for one would be an address.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::edit::Finding;
use super::finder::{self, Edges};
use super::known::Known;

/// What is to be blanked in `text`, with ranges relative to it. Lines that the kernel would not write so are looked at
/// whole.
pub(super) fn find(text: &[u8], known: &Known) -> Vec<Finding> {
    if text.contains(&0) {
        return finder::in_memory(text, Edges::Whole, known);
    }
    let (mut names, mut pieces) = (Vec::new(), Vec::new());
    let mut at = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let numbers = numbers(line).unwrap_or(0);
        let name = line.get(numbers..).unwrap_or_default();
        if !name.trim_ascii().is_empty() {
            pieces.push(Piece { at: names.len(), from: at + numbers });
            names.extend_from_slice(name);
        }
        at += line.len();
    }
    let findings = finder::in_memory(&names, Edges::Whole, known);
    let sources = |finding: Finding| {
        let ranges: Vec<_> = sources(&pieces, names.len(), &finding.range).collect();
        ranges.into_iter().map(move |range| Finding { range, ..finding.clone() })
    };
    findings.into_iter().flat_map(sources).collect()
}

/// A name among the others, and where it stands in the text.
struct Piece {
    at: usize,
    from: usize,
}

/// Where in the text `range` of the names stands.
fn sources(pieces: &[Piece], end: usize, range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = pieces.partition_point(|piece| piece.at <= range.start).saturating_sub(1);
    let ends = pieces.iter().skip(first + 1).map(|next| next.at).chain([end]);
    let pieces = pieces.iter().skip(first).zip(ends);
    pieces.take_while(|(piece, _)| piece.at < range.end).filter_map(|(piece, end)| {
        let (start, end) = (range.start.max(piece.at), range.end.min(end));
        (start < end).then(|| piece.from + (start - piece.at)..piece.from + (end - piece.at))
    })
}

/// The length of the five fields that a line begins with, if they are what the kernel writes (show_vma_header_prefix in
/// fs/proc/task_mmu.c): whole pages in lower-case hexadecimal, permissions, device and inode.
fn numbers(line: &[u8]) -> Option<usize> {
    let mut rest = Fields { line, at: 0 };
    rest.page()?;
    rest.byte(b"-")?;
    rest.page()?;
    rest.byte(b" ")?;
    for allowed in [b"r-", b"w-", b"x-", b"ps"] {
        rest.byte(allowed)?;
    }
    rest.byte(b" ")?;
    rest.page()?;
    rest.byte(b" ")?;
    rest.digits(2..=8, is_hexadecimal)?;
    rest.byte(b":")?;
    rest.digits(2..=8, is_hexadecimal)?;
    rest.byte(b" ")?;
    rest.digits(1..=20, u8::is_ascii_digit)?;
    // The field ends here.
    rest.byte(b" \n")?;
    Some(rest.at - 1)
}

struct Fields<'a> {
    line: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn byte(&mut self, allowed: &[u8]) -> Option<()> {
        allowed.contains(self.line.get(self.at)?).then(|| self.at += 1)
    }

    fn digits(&mut self, count: std::ops::RangeInclusive<usize>, is_digit: fn(&u8) -> bool) -> Option<&[u8]> {
        let field = self.line.get(self.at..)?;
        let length = field.iter().take(count.end() + 1).take_while(|byte| is_digit(byte)).count();
        self.at += length;
        field.get(..length).filter(|_| count.contains(&length))
    }

    /// An address or an offset of a page.
    fn page(&mut self) -> Option<()> {
        self.digits(8..=16, is_hexadecimal)?.ends_with(b"000").then_some(())
    }
}

fn is_hexadecimal(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_at_and_the_kernels_numbers_are_not() {
        let known = Known::new(&["wilhelmina".to_owned(), "7ffff7a00000".to_owned()]).unwrap();
        let blanked = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            for finding in find(text.as_bytes(), &known) {
                bytes[finding.range].fill(b'*');
            }
            String::from_utf8(bytes).unwrap()
        };
        for (text, expected) in [
            (
                "7ffff7a00000-7ffff7c00000 r-xp 00001000 fe:00 4111111111111111          /opt/wilhelmina/a\n\
                7ffff7c00000-7ffff7e00000 rw-p 00000000 00:00 0 \n\
                7ffff7e00000-7ffff7e01000 r--p 00000000 00:00 0 [anon:x@example.org]\n\
                7fffffffd000-7ffffffff000 rw-p 00000000 00:00 0\n\
                ffffffff600000-ffffffff601000 --xp 00000000 00:00 0 /home/wilhelmina/b c",
                "7ffff7a00000-7ffff7c00000 r-xp 00001000 fe:00 4111111111111111          /opt/**********/a\n\
                7ffff7c00000-7ffff7e00000 rw-p 00000000 00:00 0 \n\
                7ffff7e00000-7ffff7e01000 r--p 00000000 00:00 0 [anon:*************]\n\
                7fffffffd000-7ffffffff000 rw-p 00000000 00:00 0\n\
                ffffffff600000-ffffffff601000 --xp 00000000 00:00 0 /home/**********/b c",
            ),
            // None of these is the kernel's.
            ("7ffff7a00000-7ffff7c00000 r-xp", "************-7ffff7c00000 r-xp"),
            (
                "7ffff7a00000-7ffff7c00000 r-xz 00001000 fe:00 1 /a\n",
                "************-7ffff7c00000 r-xz 00001000 fe:00 1 /a\n",
            ),
            (
                "7ffff7a00000-7ffff7c00001 r-xp 00001000 fe:00 1 /a\n",
                "************-7ffff7c00001 r-xp 00001000 fe:00 1 /a\n",
            ),
            ("4111 1111 1111 1111 r--p", "******************* r--p"),
            ("", ""),
            ("\n\n", "\n\n"),
        ] {
            assert_eq!(blanked(text), expected);
        }
    }

    #[test]
    fn what_reaches_over_several_names_is_blanked_in_each() {
        let pieces = [Piece { at: 0, from: 10 }, Piece { at: 5, from: 40 }, Piece { at: 8, from: 90 }];
        let ranges = |range: Range<usize>| sources(&pieces, 12, &range).collect::<Vec<_>>();
        assert_eq!(ranges(3..7), [13..15, 40..42]);
        assert_eq!(ranges(5..8), std::iter::once(40..43).collect::<Vec<_>>());
        assert_eq!(ranges(4..12), [14..15, 40..43, 90..94]);
    }

    #[test]
    fn odd_bytes_do_not_panic() {
        let known = Known::new(&["wilhelmina".to_owned()]).unwrap();
        let line = b"7ffff7a00000-7ffff7c00000 r-xp 00001000 fe:00 1 /a/wilhelmina\n";
        for at in 0..line.len() {
            for byte in [0, b'\n', b' ', 0xff, b'0'] {
                let mut bytes = line.to_vec();
                bytes[at] = byte;
                find(&bytes, &known);
                find(&bytes[..at], &known);
            }
        }
    }
}
