//! Everything that is to be blanked in a piece of memory or in a text: known values, rules, cut-off edges.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::echoes::{self, Echoes};
use super::edit::{Encoding, Finding};
use super::known::Known;
use super::layers::{self, Decoded};
use super::rules::{Hit, Line};
use super::runs::{self, Blocks, Run, Scratch};
use super::{contexts, edges, rules};

/// The rule of texts that an edge cuts off.
pub(super) const CUT_OFF: &str = "cut-off";

/// Whether what is looked at is part of something larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edges {
    /// It is whole.
    Whole,
    /// Something may be missing before and behind. It is memory at this address.
    Cut { address: u64 },
}

/// What is to be blanked in `bytes` of any content, with ranges relative to it. Known values come first.
pub(super) fn in_memory(bytes: &[u8], edges: Edges, known: &Known) -> Vec<Finding> {
    in_memory_with(bytes, edges, known, None).0
}

/// The same, with more known values, which come last; and where the text is.
pub(super) fn in_memory_with(
    bytes: &[u8],
    edges: Edges,
    known: &Known,
    more: Option<&Known>,
) -> (Vec<Finding>, Blocks) {
    let more = more.filter(|more| !more.is_empty());
    let (mut findings, mut ruled, mut cut_off, mut last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut searcher, mut hits) = (Searcher::default(), Vec::new());
    let united = more.map(|more| {
        let mut united = known.looked_for().clone();
        united.unite(more.looked_for());
        united
    });
    let looked_for = united.as_ref().unwrap_or_else(|| known.looked_for());
    let least = known.shortest_run().min(more.map_or(runs::SHORTEST, Known::shortest_run));
    let blocks = runs::scan(bytes, least, &mut Scratch::default(), |run, line| {
        searcher.line.look(line, looked_for);
        let starts = &searcher.line.starts;
        known.find_in_run(run, line, starts, bytes, &mut findings);
        if let Some(more) = more {
            more.find_in_run(run, line, starts, bytes, &mut last);
        }
        if line.len() < runs::SHORTEST {
            return;
        }
        searcher.find(line, known, &mut hits);
        ruled.extend(hits.drain(..).map(|hit| finding(run, &hit.range, bytes, hit.rule)));
        if let Edges::Cut { address } = edges {
            cut(run, line, bytes, known, &mut cut_off);
            if let Some(Freed { text, chars }) = freed(run, bytes, address) {
                let head = edges::head(&line[chars.min(line.len())..]);
                let cut = finding(run, &(0..(chars + head).max(1)), bytes, CUT_OFF);
                // What was blanked before is not blanked again: bytes of the key may be text with it that they were not
                // with the value.
                let left = bytes.get(text..cut.range.end).unwrap_or_default();
                if left.iter().any(|byte| !matches!(byte, 0 | b'*')) {
                    cut_off.push(cut);
                }
            }
        }
    });
    known.find_raw(bytes, &mut findings);
    if let Some(more) = more {
        more.find_raw(bytes, &mut last);
    }
    if let Edges::Cut { .. } = edges {
        runs::scan_edges(bytes, |run, line| cut(run, line, bytes, known, &mut cut_off));
    }
    findings.append(&mut ruled);
    findings.append(&mut cut_off);
    findings.append(&mut last);
    (findings, blocks)
}

/// Searches lines, plain and through one layer of encoding.
#[derive(Debug, Default)]
struct Searcher {
    line: Line,
    decoded: Decoded,
    inner_line: Line,
    inner: Vec<Hit>,
}

impl Searcher {
    /// What the rules find in `text`, which was looked at, and what rules and known values find in what it encodes.
    fn find(&mut self, text: &[u8], known: &Known, hits: &mut Vec<Hit>) {
        let Self { line, decoded, inner_line, inner } = self;
        rules::find(text, line, hits);
        known.find_own(text, hits);
        layers::each(text, line, decoded, |decoded| {
            inner_line.look(&decoded.text, known.looked_for());
            rules::find(&decoded.text, inner_line, inner);
            known.find_own(&decoded.text, inner);
            known.find_in_line(&decoded.text, &inner_line.starts, |range| {
                inner.push(Hit { range, rule: known.rule() });
            });
            hits.extend(inner.drain(..).map(|hit| Hit { range: decoded.source(&hit.range), ..hit }));
        });
    }
}

/// Pieces in `bytes` of values that were found elsewhere. `blocks` are those of [`in_memory_with`].
pub(super) fn echoes_in_memory(bytes: &[u8], blocks: &Blocks, echoes: &Echoes) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !echoes.is_empty() {
        runs::scan_again(bytes, blocks, &mut Scratch::default(), |run, line| {
            echoes.find(line, |range| findings.push(finding(run, &range, bytes, echoes::RULE)));
        });
    }
    findings
}

/// The same in bytes that nobody looked at before.
pub(super) fn echoes_in_unseen(bytes: &[u8], echoes: &Echoes) -> Vec<Finding> {
    let mut findings = Vec::new();
    runs::scan(bytes, runs::SHORTEST, &mut Scratch::default(), |run, line| {
        echoes.find(line, |range| findings.push(finding(run, &range, bytes, echoes::RULE)));
    });
    findings
}

/// Has `echoes` remember the values that were found in `bytes`.
pub(super) fn learn(echoes: &mut Echoes, bytes: &[u8], findings: &[Finding]) {
    for Finding { range, encoding, rule } in findings {
        let characters = bytes[range.clone()].iter().skip(encoding.lead()).step_by(encoding.stride());
        let text: Vec<u8> = characters.copied().collect();
        match *rule {
            // What an edge cut off is blanked for what it may have been; most of it is nobody's value.
            // The words of a seed phrase are everybody's.
            CUT_OFF | rules::MNEMONIC => {}
            // So are the names in a list: "JSESSIONID".
            rules::COOKIE | rules::HTTP_AUTH => rules::values_of_pairs(&text, |value| echoes.learn(value)),
            _ => echoes.learn(&text),
        }
    }
}

/// What is to be blanked in UTF-16LE text, all of which is text; ranges are relative to it.
pub(super) fn in_utf16(text: &[u8], known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    known.find(text, &mut findings);
    findings.retain(|finding| finding.encoding == Encoding::Utf16Le && finding.range.start % 2 == 0);
    let (mut searcher, mut hits) = (Searcher::default(), Vec::new());
    let narrow = narrow(text);
    searcher.line.look(&narrow, known.looked_for());
    searcher.find(&narrow, known, &mut hits);
    findings.extend(hits.into_iter().map(|hit| Finding {
        range: hit.range.start * 2..hit.range.end * 2,
        encoding: Encoding::Utf16Le,
        rule: hit.rule,
    }));
    findings
}

/// The known values in UTF-8 text, on character boundaries.
pub(super) fn known_in_utf8(text: &str, known: &Known) -> Vec<Finding> {
    let (mut line, mut findings) = (Line::default(), Vec::new());
    line.look(text.as_bytes(), known.looked_for());
    known.find_in_line(text.as_bytes(), &line.starts, |range| {
        let range = text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end);
        findings.push(Finding { range, encoding: Encoding::Utf8, rule: known.rule() });
    });
    findings
}

/// Pieces in UTF-16LE text, all of which is text, of values that were found elsewhere.
pub(super) fn echoes_in_utf16(text: &[u8], echoes: &Echoes) -> Vec<Finding> {
    let mut findings = Vec::new();
    echoes.find(&narrow(text), |range| {
        let range = range.start * 2..range.end * 2;
        findings.push(Finding { range, encoding: Encoding::Utf16Le, rule: echoes::RULE });
    });
    findings
}

/// What is to be blanked in UTF-8 text, all of which is text, on character boundaries.
pub(super) fn in_utf8(text: &str, known: &Known, echoes: &Echoes) -> Vec<Finding> {
    let (mut searcher, mut hits, mut findings) = (Searcher::default(), Vec::new(), Vec::new());
    searcher.line.look(text.as_bytes(), known.looked_for());
    known.find_in_line(text.as_bytes(), &searcher.line.starts, |range| {
        findings.push(Finding { range, encoding: Encoding::Utf8, rule: known.rule() });
    });
    searcher.find(text.as_bytes(), known, &mut hits);
    findings.extend(hits.into_iter().map(|hit| Finding {
        range: hit.range,
        encoding: Encoding::Utf8,
        rule: hit.rule,
    }));
    echoes.find(text.as_bytes(), |range| {
        findings.push(Finding { range, encoding: Encoding::Utf8, rule: echoes::RULE });
    });
    for Finding { range, .. } in &mut findings {
        *range = text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end);
    }
    findings
}

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

/// One byte a UTF-16LE unit, from 0x80 on for what is not ASCII ([`rules::narrow`]).
pub(super) fn narrow(text: &[u8]) -> Vec<u8> {
    let unit = |unit: &[u8]| {
        char::from_u32(u32::from(unit[0]) | u32::from(unit[1]) << 8).map_or(0xff, rules::narrow)
    };
    text.chunks_exact(2).map(unit).collect()
}

fn finding(run: &Run, chars: &Range<usize>, bytes: &[u8], rule: &'static str) -> Finding {
    Finding { range: run.bytes(chars, bytes), encoding: run.encoding, rule }
}

fn cut(run: &Run, line: &[u8], bytes: &[u8], known: &Known, findings: &mut Vec<Finding>) {
    if run.at_start() {
        let head = edges::head(line).max(known.cut_at_start(line));
        if head > 0 {
            findings.push(finding(run, &(0..head), bytes, CUT_OFF));
        }
    }
    if run.at_end(bytes.len()) {
        let tail = edges::tail(line).min(known.cut_at_end(line));
        if tail < line.len() {
            findings.push(finding(run, &(tail..line.len()), bytes, CUT_OFF));
        }
    }
}

/// What is left of a text that glibc's malloc has freed and written over the first 16 bytes of.
struct Freed {
    /// Where it begins.
    text: usize,
    /// The characters of the run before that.
    chars: usize,
}

/// If glibc's malloc has freed the memory that `run` stands in: where.
///
/// A chunk in the per-thread cache (malloc.c, `tcache_entry`) begins with a link, mangled with its own address, and
/// a random key; before it stands its size, a multiple of 16 with the flags for a used neighbour
/// (1) and perhaps a thread's arena (4). What is left of a secret
/// behind that has lost its prefix.
fn freed(run: &Run, bytes: &[u8], address: u64) -> Option<Freed> {
    let start = run.bytes(&(0..1), bytes).start;
    // The key's last bytes may be printable by chance, so that the run begins in it.
    let into = (address.wrapping_add(start as u64)).wrapping_neg() % 16;
    let text = start.checked_add(usize::try_from(into).ok()?)?;
    let word = |before: usize| text.checked_sub(before).map(|at| contexts::word(bytes, at));
    let (size, link, key) = (word(24)?, word(16)?, word(8)?);
    let is_size = (0x20..=0x410).contains(&(size & !7)) && size & 0xb == 1;
    let is_cached = link >> 48 == 0 && link != 0 && !matches!(key >> 48, 0 | 0xffff);
    let chars = (text - start) / run.encoding.stride();
    (into < 8 && is_size && is_cached).then_some(Freed { text, chars })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Edges = Edges::Cut { address: 0x1000 };

    fn known() -> Known {
        Known::new(&["wilhelmina".to_owned(), "Jane Q. Public".to_owned()]).unwrap()
    }

    fn blank(bytes: &[u8], findings: Vec<Finding>) -> String {
        let mut bytes = bytes.to_vec();
        for finding in findings {
            bytes[finding.range].fill(b'*');
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn edges_of_memory_lose_their_tokens() {
        for (edges, before, after) in [
            (CUT, &b"alice.smi\x01x@example.com\x01lice"[..], "*********\u{1}*************\u{1}****"),
            (Edges::Whole, b"alice.smi\x01x@example.com\x01lice", "alice.smi\u{1}*************\u{1}lice"),
            (CUT, b"\x01\x01by Jane Q. Pu", "\u{1}\u{1}by **********"),
            (CUT, b"Q. Public left\x01\x01", "********* left\u{1}\u{1}"),
            (CUT, b"\x01 wilHELmina \x01", "\u{1} ********** \u{1}"),
        ] {
            assert_eq!(blank(before, in_memory(before, edges, &known())), after);
        }
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

    #[test]
    fn of_cookies_and_credentials_their_values_are_remembered() {
        let memory = b"Cookie: JSESSIONID=0123456789abcdef; state=IDLE\x01Authorization: Digest username=\"wilhelmine\"";
        let mut echoes = Echoes::default();
        learn(&mut echoes, memory, &in_memory(memory, Edges::Whole, &known()));
        for (text, after) in [
            ("JSESSIONID 23456789ab", "JSESSIONID **********"),
            ("state=IDLE", "state=IDLE"),
            ("username=ilhelmine", "username=*********"),
        ] {
            let mut found = Vec::new();
            echoes.find(text.as_bytes(), |range| {
                found.push(Finding { range, encoding: Encoding::Utf8, rule: echoes::RULE });
            });
            assert_eq!(blank(text.as_bytes(), found), after);
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

    #[test]
    fn utf8_findings_keep_character_boundaries() {
        let text = "Jürgen <jürgen@müller.de> é";
        let mut bytes = text.as_bytes().to_vec();
        for finding in in_utf8(text, &known(), &Echoes::default()) {
            bytes[finding.range].fill(b'*');
        }
        assert!(String::from_utf8(bytes).unwrap().starts_with("Jürgen <*"));
    }
}
