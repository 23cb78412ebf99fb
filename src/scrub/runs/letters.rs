//! Letters of other scripts around a run of UTF-16 or UTF-32, which looks at ASCII alone: "contraseña: ", ".укр".
#![forbid(unsafe_code)]

use super::{Run, is_text};
use crate::scrub::edit::Encoding;
use crate::scrub::rules;

/// Calls `found` with the run with the letters around it, if there are any, in each byte order that may be meant.
pub(super) fn each(run: &Run, bytes: &[u8], line: &mut Vec<u8>, found: &mut impl FnMut(&Run, &[u8])) {
    for run in [Some(run.clone()), run.twin(bytes), run.without_first(bytes)].into_iter().flatten() {
        if let Some(longer) = with_letters(run, bytes, line) {
            found(&longer, line);
        }
    }
    if let Some(longer) = run.without_last(bytes).and_then(|run| with_letters(run, bytes, line))
        && longer.ahead > 0
    {
        found(&longer, line);
    }
}

impl Run {
    /// The same text in big-endian order, whose first character is none of ASCII: its other byte only looks like one.
    fn without_first(&self, bytes: &[u8]) -> Option<Self> {
        let encoding = match self.encoding.stride() {
            2 => Encoding::Utf16Be,
            _ => Encoding::Utf32Be,
        };
        let before = bytes.get((self.first + 1).checked_sub(encoding.stride())?..self.first)?;
        let other = before.iter().any(|&byte| byte != 0);
        (other && self.count > 2).then(|| Self {
            first: self.first + encoding.stride(),
            count: self.count - 1,
            back: 0,
            ahead: 0,
            encoding,
        })
    }

    /// The same text in little-endian order, whose last character is none of ASCII: its first byte only looks like one.
    fn without_last(&self, bytes: &[u8]) -> Option<Self> {
        let (encoding, stride) = match self.encoding.stride() {
            2 => (Encoding::Utf16Le, 2),
            _ => (Encoding::Utf32Le, 4),
        };
        let last = self.first + self.count.checked_sub(1)? * stride;
        let other = bytes.get(last + 1..last + stride)?.iter().any(|&byte| byte != 0);
        (other && self.count > 2).then(|| Self { count: self.count - 1, encoding, ..self.clone() })
    }
}

/// Letters, and what ASCII there is between them, that a run looks back or ahead at.
const LETTERS: usize = 24;

/// A run with what belongs to its first and its last word, and its line: there a run ends that looks at ASCII alone.
fn with_letters(mut run: Run, bytes: &[u8], line: &mut Vec<u8>) -> Option<Run> {
    let (stride, lead) = (run.encoding.stride(), run.encoding.lead());
    let start = run.first.checked_sub(lead)?;
    let code = |unit: &[u8]| {
        let value = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        if lead == 0 { unit.iter().rev().fold(0, value) } else { unit.iter().fold(0, value) }
    };
    let letters = |units: &mut dyn Iterator<Item = &[u8]>, is_letter: &dyn Fn(char) -> bool| {
        let (mut letters, mut count) = ([0; LETTERS], 0);
        for unit in units.take(LETTERS) {
            match char::from_u32(code(unit)) {
                Some(c) if is_letter(c) || (count > 0 && c.is_ascii() && is_text(c as u8)) => {
                    letters[count] = rules::narrow(c);
                }
                _ => break,
            }
            count += 1;
        }
        (letters, count)
    };
    let (before, back) = letters(&mut bytes[..start].rchunks_exact(stride), &is_letter);
    let behind = bytes.get(start + run.count * stride..).unwrap_or_default();
    // A small number behind little-endian text would often be a big-endian letter of Latin.
    let least = if lead == 0 { '\0' } else { '\u{370}' };
    let (after, ahead) = letters(&mut behind.chunks_exact(stride), &|c| c >= least && is_alphabetic(c));
    if back + ahead == 0 {
        return None;
    }
    line.clear();
    line.extend(before[..back].iter().rev());
    line.extend((0..run.count).map(|at| bytes[run.first + at * stride]));
    line.extend(&after[..ahead]);
    (run.back, run.ahead) = (back, ahead);
    Some(run)
}

/// Letters of the scripts that words of rules are written in.
fn is_letter(c: char) -> bool {
    is_alphabetic(c)
        || matches!(
            c,
            '\u{180}'..='\u{24f}' | '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        )
}

/// Letters of living alphabets among them. Every other pair of bytes is one of the rest, so that these are not looked for behind
/// a run, where what is found is blanked to its end.
fn is_alphabetic(c: char) -> bool {
    matches!(
        c,
        '\u{c0}'..='\u{17f}' | '\u{370}'..='\u{52f}' | '\u{5d0}'..='\u{64a}' | '\u{900}'..='\u{97f}' | '\u{e00}'..='\u{e7f}'
            | '\u{1e00}'..='\u{1eff}'
    )
}
