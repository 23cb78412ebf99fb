//! Everything that is to be blanked in a piece of memory or in a text: known values, rules, cut-off edges.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::cut_off::{self, CUT_OFF};
use super::echoes::{self, Echoes};
use super::edit::{Encoding, Finding};
use super::known::Known;
use super::layers::{self, Decoded, Wanted};
use super::malloc_chunks::{self, Freed};
use super::rules::{Hit, Line};
use super::runs::{self, Blocks, Run, Scratch};
use super::trigrams::Trigrams;
use super::{edges, rules};

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
    let (mut found, mut last) = (Found::default(), Vec::new());
    let (mut searcher, mut hits) = (Searcher::default(), Vec::new());
    let united = more.map(|more| {
        let mut united = known.looked_for().clone();
        united.unite(more.looked_for());
        united
    });
    let looked_for = united.as_ref().unwrap_or_else(|| known.looked_for());
    let least = shortest_run(known, more);
    let mut look = |run: &Run, line: &[u8], found: &mut Found| {
        searcher.line.look(line, looked_for);
        let starts = &searcher.line.starts;
        known.find_in_run(run, line, starts, bytes, &mut found.known);
        if let Some(more) = more {
            more.find_in_run(run, line, starts, bytes, &mut last);
        }
        if line.len() >= runs::SHORTEST {
            searcher.find(line, known, more, looked_for, &mut hits);
            found.ruled.extend(hits.drain(..).map(|hit| finding(run, &hit.range, bytes, hit.rule)));
        }
    };
    let blocks = runs::scan(bytes, least, &mut Scratch::default(), |run, line| {
        let before = (found.known.len(), found.ruled.len());
        look(run, line, &mut found);
        let Edges::Cut { address } = edges else { return };
        if let Some((run, line)) = malloc_chunks::without_size(run, line, bytes, address) {
            look(&run, line, &mut found);
        }
        if line.len() < runs::SHORTEST {
            return;
        }
        if run.at_start() || run.at_end(bytes.len()) {
            let mut gone = found.known[before.0..].iter().chain(&found.ruled[before.1..]).peekable();
            let left = gone.peek().is_some().then(|| cut_off::blanked(run, line, gone, bytes));
            let lines: Vec<&[u8]> = std::iter::once(line).chain(left.as_deref()).collect();
            found.cut_off.extend(cut_off::cut(run, &lines, bytes, known));
        }
        if let Some(Freed { text, chars }) = malloc_chunks::freed(run, bytes, address) {
            let head = edges::head(&line[chars.min(line.len())..]);
            let cut = finding(run, &(0..(chars + head).max(1)), bytes, CUT_OFF);
            // What was blanked before is not blanked again: bytes of the key may be text with it that they were not
            // with the value.
            let left = bytes.get(text..cut.range.end).unwrap_or_default();
            if left.iter().any(|byte| !matches!(byte, 0 | b'*')) {
                found.cut_off.push(cut);
            }
        }
    });
    known.find_raw(bytes, &mut found.known);
    if let Some(more) = more {
        more.find_raw(bytes, &mut last);
    }
    if let Edges::Cut { .. } = edges {
        runs::scan_edges(bytes, |run, line| {
            found.cut_off.extend(cut_off::cut(run, &[line], bytes, known));
        });
    }
    let Found { known: mut findings, mut ruled, mut cut_off } = found;
    findings.append(&mut ruled);
    findings.append(&mut cut_off);
    findings.append(&mut last);
    (findings, blocks)
}

/// The shortest run that may hold a value of either.
pub(super) fn shortest_run(known: &Known, more: Option<&Known>) -> usize {
    known.shortest_run().min(more.map_or(runs::SHORTEST, Known::shortest_run))
}

/// What was found so far, in the order in which it is blanked.
#[derive(Debug, Default)]
struct Found {
    known: Vec<Finding>,
    ruled: Vec<Finding>,
    cut_off: Vec<Finding>,
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
    /// What the rules find in `text`, which was looked at, and what rules and known values, `more` of them too, find in what it
    /// encodes. `looked_for` is what all of these begin with.
    fn find(
        &mut self,
        text: &[u8],
        known: &Known,
        more: Option<&Known>,
        looked_for: &Trigrams,
        hits: &mut Vec<Hit>,
    ) {
        let Self { line, decoded, inner_line, inner } = self;
        rules::find(text, line, hits);
        known.find_own(text, hits);
        // What is shorter is too short for anything; of words that happen to be base64, most are.
        let all = || std::iter::once(known).chain(more);
        let shortest = all().map(Known::shortest_value).min().unwrap_or(usize::MAX);
        let least = shortest.clamp(layers::SHORTEST, runs::SHORTEST);
        let wanted = Wanted { least, foreign: all().any(Known::has_foreign) };
        layers::each(text, line, wanted, decoded, |decoded| {
            inner_line.look(&decoded.text, looked_for);
            rules::find(&decoded.text, inner_line, inner);
            known.find_own(&decoded.text, inner);
            for known in all() {
                known.find_in_line(&decoded.text, &inner_line.starts, |range| {
                    inner.push(Hit { range, rule: known.rule() });
                });
            }
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
    searcher.find(&narrow, known, None, known.looked_for(), &mut hits);
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
    searcher.find(text.as_bytes(), known, None, known.looked_for(), &mut hits);
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

/// One byte a UTF-16LE unit, from 0x80 on for what is not ASCII ([`rules::narrow`]).
pub(super) fn narrow(text: &[u8]) -> Vec<u8> {
    let unit = |unit: &[u8]| {
        char::from_u32(u32::from(unit[0]) | u32::from(unit[1]) << 8).map_or(0xff, rules::narrow)
    };
    text.chunks_exact(2).map(unit).collect()
}

pub(super) fn finding(run: &Run, chars: &Range<usize>, bytes: &[u8], rule: &'static str) -> Finding {
    Finding { range: run.bytes(chars, bytes), encoding: run.encoding, rule }
}

#[cfg(test)]
pub(super) mod testing {
    use super::Finding;

    /// `bytes` without what was found.
    pub(in crate::scrub) fn blank(bytes: &[u8], findings: Vec<Finding>) -> String {
        let mut bytes = bytes.to_vec();
        for finding in findings {
            bytes[finding.range].fill(b'*');
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::blank;
    use super::*;

    const CUT: Edges = Edges::Cut { address: 0x1000 };

    fn known() -> Known {
        Known::new(&["wilhelmina".to_owned(), "Jane Q. Public".to_owned()]).unwrap()
    }

    #[test]
    fn edges_of_memory_lose_their_tokens() {
        for (edges, before, after) in [
            (CUT, &b"alice.smi\x01x@example.com\x01lice"[..], "*********\u{1}*************\u{1}****"),
            (Edges::Whole, b"alice.smi\x01x@example.com\x01lice", "alice.smi\u{1}*************\u{1}lice"),
            (CUT, b"\x01\x01by Jane Q. Pu", "\u{1}\u{1}by **********"),
            (CUT, b"Q. Public left\x01\x01", "********* left\u{1}\u{1}"),
            (CUT, b"\x01 wilHELmina \x01", "\u{1} ********** \u{1}"),
            // A second pass would take what stands before stars for a part of them.
            (CUT, b"\x01by card=4111 1111 1111 1111", "\u{1}by ************************"),
            (CUT, b"\x01 x=Jane Q. Public", "\u{1} ****************"),
            (Edges::Whole, b"\x01by card=4111 1111 1111 1111", "\u{1}by card=*******************"),
        ] {
            assert_eq!(blank(before, in_memory(before, edges, &known())), after);
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
    fn other_values_are_found_in_what_is_encoded_too() {
        let one = Known::new(&["q".to_owned(), "Илья".to_owned()]).unwrap();
        let copies = Known::copies(b"T=Zx9secretvalue77", b"").unwrap();
        for (memory, left) in [
            ("x=Wng5c2VjcmV0dmFsdWU3Nw==", "WU3N"),
            ("x 5a783973656372657476616c75653737", "756537"),
            ("/q%5Ax9secretvalue77", "value"),
            ("id_d098d0bbd18cd18f", "d18f"),
            ("GET /u/n-d098d0bbd18cd18f?x", "d18f"),
            ("%2Fsrv%2Fq%2Fsave", "q"),
        ] {
            let (found, _) = in_memory_with(memory.as_bytes(), Edges::Whole, &one, copies.as_ref());
            let text = blank(memory.as_bytes(), found);
            assert!(!text.contains(left), "{text}");
        }
        assert_eq!(known_in_utf8("/srv/q", &one).len(), 1);
    }

    #[test]
    fn words_of_two_characters_announce_in_wide_text() {
        for (text, left) in
            [("密码: Tr0ub4dor&3x", "3"), ("密碼=Tr0ub4dor&3x", "3"), ("电话: 010-6552-9988", "8")]
        {
            let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let wider: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            for memory in [wide, wider] {
                let blanked = blank(&memory, in_memory(&memory, Edges::Whole, &known()));
                assert!(!blanked.contains(left), "{blanked}");
            }
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
