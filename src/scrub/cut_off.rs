//! What the edges of a piece of memory cut off of its texts, or a limit of a text: which characters of them go is for [`edges`].
#![forbid(unsafe_code)]

use std::ops::Range;

use super::edges;
use super::edit::{Encoding, Finding};
use super::finder::finding;
use super::known::Known;
use super::runs::{self, Run, Scratch};

/// The rule of texts that an edge cuts off.
pub(super) const CUT_OFF: &str = "cut-off";

/// What the edges of `bytes` cut off of the text of `run`: as it stands in the first of `lines`, and as it is left in the others, where
/// what was found in it is blanked. In "card=4111 1111 1111 1111" only the last groups are at the edge, but of "card=****" all of it.
pub(super) fn cut(run: &Run, lines: &[&[u8]], bytes: &[u8], known: &Known) -> impl Iterator<Item = Finding> {
    [cut_before(run, lines, bytes, known), cut_behind(run, lines, bytes, known)].into_iter().flatten()
}

fn cut_before(run: &Run, lines: &[&[u8]], bytes: &[u8], known: &Known) -> Option<Finding> {
    let line = lines.first().filter(|_| run.at_start())?;
    let head = lines.iter().map(|line| edges::head(line)).max()?.max(known.cut_at_start(line));
    (head > 0).then(|| finding(run, &(0..head), bytes, CUT_OFF))
}

fn cut_behind(run: &Run, lines: &[&[u8]], bytes: &[u8], known: &Known) -> Option<Finding> {
    let line = lines.first().filter(|_| run.at_end(bytes.len()))?;
    let tail = lines.iter().map(|line| edges::tail(line)).min()?.min(known.cut_at_end(line));
    (tail < line.len()).then(|| finding(run, &(tail..line.len()), bytes, CUT_OFF))
}

/// The text `line` of `run` without what is `gone`.
pub(super) fn blanked<'a>(
    run: &Run,
    line: &[u8],
    gone: impl Iterator<Item = &'a Finding>,
    bytes: &[u8],
) -> Vec<u8> {
    let first = run.bytes(&(0..1), bytes).start;
    // The last one may be cut off in the middle.
    let character = |at: usize| at.saturating_sub(first).div_ceil(run.encoding.stride()).min(line.len());
    let mut left = line.to_vec();
    for Finding { range, .. } in gone.filter(|finding| finding.encoding == run.encoding) {
        left[character(range.start)..character(range.end)].fill(b'*');
    }
    left
}

/// What of `bytes`, a whole piece of memory in which something was blanked, its edges cut off as it stands now: stars and zeros make
/// other runs, and other words of them, than there were. `least` is that of [`finder::shortest_run`]: letters of other scripts beside a
/// short run may make its text long enough.
pub(super) fn now(bytes: &[u8], known: &Known, least: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    at_edge(bytes, |length| 0..length, known, least, cut_before, &mut findings);
    at_edge(bytes, |length| bytes.len() - length..bytes.len(), known, least, cut_behind, &mut findings);
    runs::scan_edges(bytes, |run, line| findings.extend(cut(run, &[line], bytes, known)));
    findings
}

/// What `cut` finds in the part of `bytes` at one of its edges. That is as long as the run at the edge, and more.
fn at_edge(
    bytes: &[u8],
    part: impl Fn(usize) -> Range<usize>,
    known: &Known,
    least: usize,
    cut: impl Fn(&Run, &[&[u8]], &[u8], &Known) -> Option<Finding>,
    findings: &mut Vec<Finding>,
) {
    let mut length = EDGE;
    loop {
        let range = part(length.min(bytes.len()));
        let part = &bytes[range.clone()];
        let (mut found, mut is_filled) = (Vec::new(), false);
        runs::scan(part, least, &mut Scratch::default(), |run, line| {
            if line.len() >= runs::SHORTEST {
                found.extend(cut(run, &[line], part, known));
            }
            is_filled |= run.at_start() && run.at_end(part.len());
        });
        if !is_filled || length >= bytes.len() {
            let moved = |at: Range<usize>| range.start + at.start..range.start + at.end;
            let moved = |finding: Finding| Finding { range: moved(finding.range), ..finding };
            findings.extend(found.into_iter().map(moved));
            return;
        }
        length = length.saturating_mul(16);
    }
}

/// Bytes at an edge that are looked at first.
const EDGE: usize = 512;

/// What is to be blanked at the end of UTF-8 text that was cut to a limit.
pub(super) fn cut_end_of_utf8(text: &str, known: &Known) -> Option<Finding> {
    let start = edges::tail(text.as_bytes()).min(known.cut_at_end(text.as_bytes()));
    let range = text.floor_char_boundary(start)..text.len();
    (!range.is_empty()).then_some(Finding { range, encoding: Encoding::Utf8, rule: CUT_OFF })
}

/// Whether a name that is as long as a thread's can be (15 bytes on Linux, TASK_COMM_LEN) may be the first
/// part of a value that its rule no longer knows.
///
/// Blanking the last token of each would lose names such as "tokio-runtime-w", so this asks for a sign of a value.
pub(super) fn is_cut_value(name: &[u8], known: &Known) -> bool {
    const MARKS: &[&[u8]] = &[
        b"@",
        b"://",
        b"/home",
        b"/users",
        b"\\users",
        b"akia",
        b"asia",
        b"ghp_",
        b"gho_",
        b"ghu_",
        b"ghs_",
        b"ghr_",
        b"github_p",
        b"xox",
        b"xapp-",
        b"sk_",
        b"rk_",
        b"pk_",
        b"whsec_",
        b"eyj",
        b"-----",
        b"bearer ",
        b"basic ",
        b"authoriz",
        b"aws_",
        b"hooks.sl",
    ];
    let lower = name.to_ascii_lowercase();
    let has = |class: fn(&u8) -> bool| name.iter().any(class);
    let count = |class: fn(&u8) -> bool| name.iter().filter(|byte| class(byte)).count();
    let random = has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    let one_token = !name.iter().any(|byte| b" -_.:#".contains(byte));
    MARKS.iter().any(|mark| lower.windows(mark.len()).any(|window| window == *mark))
        || count(u8::is_ascii_digit) >= 7
        || count(|&byte| byte == b':') >= 2
        || (random && one_token)
        || known.begins_with(name)
}

#[cfg(test)]
mod tests {
    use super::super::finder::{self, Edges, in_memory};
    use super::*;

    const CUT: Edges = Edges::Cut { address: 0x1000 };

    fn known() -> Known {
        Known::new(&["wilhelmina".to_owned(), "Jane Q. Public".to_owned()]).unwrap()
    }

    #[test]
    fn edges_are_looked_at_until_they_cut_nothing_more() {
        let words = "word ".repeat(700);
        for (card, after) in [("card=****", "*********"), ("see ****", "see ****")] {
            let memory = format!("\u{1}{words}{card}").into_bytes();
            let mut left = memory.clone();
            now(&memory, &known(), runs::SHORTEST)
                .into_iter()
                .for_each(|Finding { range, .. }| left[range].fill(b'*'));
            assert_eq!(String::from_utf8(left).unwrap(), format!("\u{1}{words}{after}"));
        }
        let pieces: [&[u8]; 17] = [
            b"U",
            b"6\x05",
            b"\0",
            b"*",
            b"\0*",
            b"*\0",
            b"CARD=",
            b"4111 1111 1111 1111",
            b" ",
            b"\x01",
            b"abc=",
            b"a\0b\0",
            b"Jane Q. Public",
            b"\xc3\xa9",
            b"1\x041\x041\x041\x04",
            b"a\0b\0=\0",
            b"\x041\x041\x041\0a\0b\0=\0",
        ];
        let mut state = 7u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let fill = |bytes: &mut [u8], findings: Vec<Finding>| {
            for Finding { range, encoding, .. } in findings {
                let first = range.start;
                for at in range {
                    bytes[at] = if (at - first) % encoding.stride() == encoding.lead() { b'*' } else { 0 };
                }
            }
        };
        // Of the second, runs of three characters may hold a value.
        for known in [known(), Known::new(&["ab".to_owned()]).unwrap()] {
            let least = finder::shortest_run(&known, None);
            for _ in 0..800 {
                let pieces = (0..1 + random(24)).flat_map(|_| pieces[random(pieces.len())]);
                let mut bytes: Vec<u8> = pieces.copied().collect();
                let first = in_memory(&bytes, CUT, &known);
                fill(&mut bytes, first);
                for _ in 0..16 {
                    let now = now(&bytes, &known, least);
                    fill(&mut bytes, now);
                }
                let mut again = bytes.clone();
                let mut second = in_memory(&bytes, CUT, &known);
                second.retain(|finding| finding.rule == CUT_OFF);
                fill(&mut again, second.clone());
                assert_eq!(bytes.escape_ascii().to_string(), again.escape_ascii().to_string(), "{second:?}");
            }
        }
    }

    #[test]
    fn cut_thread_names_show_signs() {
        for (name, expected) in [
            ("tokio-runtime-w", false),
            ("Web Content Pro", false),
            ("pool-1-thread-1", false),
            ("AsyncIOWorker#1", false),
            ("alice.smith@exa", true),
            ("DE8937040044053", true),
            ("2001:db8:85a3:0", true),
            ("wilhelmina-game", true),
            ("x-jane q. publi", true),
            ("ghp_16C7e42F292", true),
            ("wJalrXUtnFEMI7K", true),
            ("-----BEGIN RSA ", true),
        ] {
            assert_eq!(is_cut_value(name.as_bytes(), &known()), expected, "{name}");
        }
    }
}
