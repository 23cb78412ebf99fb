//! Overwriting bytes of a dump and writing the receipt: the only place that changes a dump.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::ops::Range;

use super::aliases::{self, Aliases, Identity, Masked};
use super::contexts;
use super::receipt::{Entry, Place, Receipt, WORD_FILL};

/// How text stands in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
    Utf32Le,
    Utf32Be,
}

impl Encoding {
    /// Bytes of a code unit.
    pub(super) fn stride(self) -> usize {
        match self {
            Self::Utf8 => 1,
            Self::Utf16Le | Self::Utf16Be => 2,
            Self::Utf32Le | Self::Utf32Be => 4,
        }
    }

    /// Where in a unit the byte of an ASCII character stands.
    pub(super) fn lead(self) -> usize {
        match self {
            Self::Utf8 | Self::Utf16Le | Self::Utf32Le => 0,
            Self::Utf16Be => 1,
            Self::Utf32Be => 3,
        }
    }

    /// By the name that receipts have.
    fn named(name: &str) -> Option<Self> {
        [Self::Utf8, Self::Utf16Le, Self::Utf16Be, Self::Utf32Le, Self::Utf32Be]
            .into_iter()
            .find(|encoding| encoding.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
            Self::Utf32Le => "utf-32le",
            Self::Utf32Be => "utf-32be",
        }
    }
}

/// Text to be blanked: whole code units, the first of which begins at `range.start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) range: Range<usize>,
    pub(super) encoding: Encoding,
    pub(super) rule: &'static str,
}

impl From<super::rules::Hit> for Finding {
    /// In UTF-8, where characters and bytes of a rule's line are the same.
    fn from(hit: super::rules::Hit) -> Self {
        Self { range: hit.range, encoding: Encoding::Utf8, rule: hit.rule }
    }
}

/// A sorted set of addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses(Vec<Range<u64>>);

impl Addresses {
    pub(super) fn new(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged = Vec::<Range<u64>>::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The ranges that `range` touches.
    pub(super) fn within(&self, range: &Range<u64>) -> &[Range<u64>] {
        let first = self.0.partition_point(|own| own.end <= range.start);
        let end = self.0.partition_point(|own| own.start < range.end);
        self.0.get(first..end).unwrap_or_default()
    }

    pub(super) fn all(&self) -> &[Range<u64>] {
        &self.0
    }

    /// The address behind the highest.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.end)
    }

    pub(super) fn contains(&self, address: u64) -> bool {
        let behind = self.0.partition_point(|range| range.start <= address);
        behind.checked_sub(1).is_some_and(|at| address < self.0[at].end)
    }
}

/// Keeps words that an unwinder may need from being half overwritten.
#[derive(Clone, Copy)]
pub(super) struct Guard<'a> {
    /// What pointers may point to.
    mapped: &'a Addresses,
    /// Some offset of an aligned address.
    aligned: usize,
    /// Bytes of a word.
    width: usize,
}

impl<'a> Guard<'a> {
    /// For memory at `address` that stands at `start`, of a process whose words have `width` bytes (4 or 8).
    pub(super) fn new(mapped: &'a Addresses, start: usize, address: u64, width: usize) -> Self {
        let to_aligned = address.wrapping_neg() % width as u64;
        Self { mapped, aligned: start + to_aligned as usize, width }
    }

    /// `range` without the words at its ends that it covers in part only and that are pointers.
    fn trim(&self, bytes: &[u8], mut range: Range<usize>) -> Range<usize> {
        let width = self.width;
        let phase = self.aligned % width;
        let word_of = |at: usize| at.checked_sub((at + width - phase) % width);
        // A word of text on a 32-bit machine may look like a pointer; none that is text throughout is spared.
        let pointer = |word: usize| {
            bytes.get(word..word.saturating_add(width)).is_some_and(|bytes| {
                self.mapped.contains(contexts::value(bytes)) && (width > 4 || !contexts::is_printable(bytes))
            })
        };
        if let Some(word) = word_of(range.start)
            && (word < range.start || word + width > range.end)
            && pointer(word)
        {
            range.start = (word + width).min(range.end);
        }
        if let Some(word) = range.end.checked_sub(1).and_then(word_of)
            && word + width > range.end
            && pointer(word)
        {
            range.end = word.max(range.start);
        }
        range
    }
}

/// As many characters in a row that an alias has where the value had the same ones would be a piece of the value that
/// stayed. Fewer mean nothing; leaving the name out for them would tell that they were there.
const SURVIVES: usize = 4;

/// A dump being edited.
pub(super) struct Editor<'a> {
    bytes: &'a mut [u8],
    receipt: &'a mut Receipt,
    /// If values get aliases.
    naming: Option<Naming<'a>>,
}

/// A value that gets an alias.
struct Value {
    identity: Identity,
    /// Whether the rule's name would repeat some of it.
    alike: bool,
}

/// What [`Editor::finish`] needs.
struct Naming<'a> {
    aliases: &'a mut Aliases,
    masked: Masked,
    /// The first of the receipt's entries that is this editor's.
    first: usize,
    /// For some entries whose value they removed, ascending.
    values: Vec<(usize, Value)>,
}

impl<'a> Editor<'a> {
    pub(super) fn new(bytes: &'a mut [u8], receipt: &'a mut Receipt) -> Self {
        Self { bytes, receipt, naming: None }
    }

    /// One that knows aliases: those that are there count as fill until [`finish`](Self::finish), which brings them back and
    /// writes new ones.
    pub(super) fn naming(bytes: &'a mut [u8], receipt: &'a mut Receipt, aliases: &'a mut Aliases) -> Self {
        let masked = Masked::mask(bytes);
        masked.numbers().for_each(|number| aliases.take(number));
        let naming = Naming { aliases, masked, first: receipt.entries.len(), values: Vec::new() };
        Self { bytes, receipt, naming: Some(naming) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Offsets of what was changed so far. To be asked for once, not for each piece of memory.
    pub(super) fn changed(&self) -> Addresses {
        let entries = self.receipt.entries.iter();
        Addresses::new(entries.map(|entry| entry.offset..entry.offset.saturating_add(entry.length)))
    }

    /// Zeroes a range.
    pub(super) fn zero(&mut self, range: Range<usize>, place: Place, rule: &str) {
        let old = &mut self.bytes[range.clone()];
        // Most of what is zeroed is zero: by blocks.
        let zeros = old.as_chunks::<64>().0.iter().take_while(|block| **block == [0; 64]).count() * 64;
        let Some(first) = old[zeros..].iter().position(|&byte| byte != 0) else { return };
        let first = zeros + first;
        let last = old.iter().rposition(|&byte| byte != 0).unwrap_or(first);
        old[first..=last].fill(0);
        self.log(place, rule, "binary", range.start + first..range.start + last + 1);
    }

    /// Fills a word with [`WORD_FILL`], if it is not zero.
    pub(super) fn fill_word(&mut self, word: Range<usize>, place: Place, rule: &str) {
        let old = &mut self.bytes[word.clone()];
        if old.iter().any(|&byte| byte != 0) && old.iter().any(|&byte| byte != WORD_FILL) {
            old.fill(WORD_FILL);
            self.log(place, rule, "word", word);
        }
    }

    /// Whose value a finding is; to be asked for before anything near it is blanked.
    pub(super) fn identity(&mut self, finding: &Finding) -> Option<Identity> {
        let naming = self.naming.as_mut()?;
        naming.aliases.identity(finding.rule, self.bytes.get(finding.range.clone())?, finding.encoding)
    }

    /// Fills text with `*`, over which its alias may come. Words that `guard` protects stay. Whether anything changed.
    pub(super) fn blank(
        &mut self,
        finding: &Finding,
        identity: Option<Identity>,
        place: Place,
        guard: Option<Guard<'_>>,
    ) -> bool {
        let Finding { range: whole, encoding, rule } = finding;
        let range = guard.map_or_else(|| whole.clone(), |guard| guard.trim(self.bytes, whole.clone()));
        let stride = encoding.stride();
        let fill = |at: usize| if (at - whole.start) % stride == encoding.lead() { b'*' } else { 0 };
        let changed = |at: &usize| self.bytes[*at] != fill(*at);
        let Some(first) = range.clone().find(changed) else { return false };
        let last = range.clone().rfind(changed).unwrap_or(first);
        // The receipt names whole characters.
        let start = (first - (first - whole.start) % stride).max(range.start);
        let end = (last + stride - (last - whole.start) % stride).min(range.end);
        // The first and the last character of an entry have changed: an alias must not write the same ones again.
        let brackets = self.bytes[start..end.min(start + stride)].contains(&b'[')
            || self.bytes[start.max(end.saturating_sub(stride))..end].contains(&b']');
        let alike = {
            let there = self.bytes[start..end].iter().skip(encoding.lead()).step_by(stride);
            let same: Vec<bool> = format!("[{rule}#").bytes().zip(there).map(|(a, &b)| a == b).collect();
            same.windows(SURVIVES).any(|run| run.iter().all(|same| *same))
        };
        for at in first..=last {
            self.bytes[at] = fill(at);
        }
        self.log(place, rule, encoding.name(), start..end);
        if let (Some(naming), Some(identity), false) = (&mut self.naming, identity, brackets) {
            naming.values.push((self.receipt.entries.len() - 1, Value { identity, alike }));
        }
        true
    }

    /// Writes the aliases of what was blanked over the fill, and brings back those that were there, unless something near
    /// them was blanked. None is written so that a word of memory with some of it is one of `mapped`, of a process whose words
    /// have `width` bytes: an unwinder would take it for a pointer.
    pub(super) fn finish(&mut self, mapped: &Addresses, width: usize) {
        let Some(naming) = self.naming.take() else { return };
        let Naming { aliases: names, masked, first, values } = naming;
        let mut order: Vec<usize> = (first..self.receipt.entries.len()).collect();
        let entries = &self.receipt.entries;
        order.sort_by_key(|&at| (entries[at].offset, Reverse(entries[at].length), at));
        let (mut covered, mut left) = (0, aliases::MOST.saturating_sub(masked.numbers().count()));
        for (at, &index) in order.iter().enumerate().filter(|_| !values.is_empty()) {
            let entry = &self.receipt.entries[index];
            let (start, end) = (entry.offset, entry.offset.saturating_add(entry.length));
            let next = order.get(at + 1).map_or(end, |&next| self.receipt.entries[next].offset.min(end));
            // Where two entries overlap both say what is there: fill.
            let alone = start >= covered;
            covered = covered.max(end);
            let value = values.binary_search_by_key(&index, |(index, _)| *index);
            if let (true, Ok(value)) = (alone && left > 0, value) {
                let Some(encoding) = Encoding::named(&entry.encoding) else { continue };
                let Value { identity, alike } = values[value].1;
                let rule = if alike { "" } else { &*entry.rule };
                let room = (next - start) as usize / encoding.stride();
                let Some(alias) = names.name(identity, rule, room) else { continue };
                if self.write(start as usize, &alias, encoding, (mapped, width)) {
                    self.receipt.entries[index].alias = Some(alias);
                    left -= 1;
                }
            }
        }
        self.restore(&masked, &order);
    }

    /// Whether `alias` could be written over fill at `start`.
    fn write(
        &mut self,
        start: usize,
        alias: &str,
        encoding: Encoding,
        pointers: (&Addresses, usize),
    ) -> bool {
        let (stride, lead) = (encoding.stride(), encoding.lead());
        let end = start + alias.len() * stride;
        let is_fill = |at: usize| self.bytes[at] == if (at - start) % stride == lead { b'*' } else { 0 };
        if end > self.bytes.len() || !(start..end).all(is_fill) {
            return false;
        }
        let places = (start + lead..end).step_by(stride);
        places.clone().zip(alias.bytes()).for_each(|(at, byte)| self.bytes[at] = byte);
        let (mapped, width) = pointers;
        let near = start.saturating_sub(width - 1)..self.bytes.len().min(end + width - 1);
        let written = !self.bytes[near].windows(width).any(|word| mapped.contains(contexts::value(word)));
        if !written {
            places.for_each(|at| self.bytes[at] = b'*');
        }
        written
    }

    /// Brings back the aliases that were masked. One of which an entry of this editor's (in `order`) has a part goes
    /// altogether.
    fn restore(&mut self, masked: &Masked, order: &[usize]) {
        let taken: Vec<(usize, Range<u64>, Place)> = order
            .iter()
            .map(|&at| {
                let entry = &self.receipt.entries[at];
                (at, entry.offset..entry.offset.saturating_add(entry.length), entry.place)
            })
            .collect();
        let covered = Addresses::new(taken.iter().map(|(_, range, _)| range.clone()));
        for characters in masked.each() {
            let (Some(first), Some(last)) = (characters.first(), characters.last()) else { continue };
            let touched = covered.within(&(first.0 as u64..last.0 as u64 + 1));
            let Some(touching) = touched.first() else {
                characters.iter().for_each(|&(at, byte)| self.bytes[at] = byte);
                continue;
            };
            let behind = taken.partition_point(|(_, range, _)| range.start <= touching.start);
            let place = behind.checked_sub(1).map_or(Place::Heap, |at| taken[at].2);
            for (at, _) in characters.iter().filter(|(at, _)| !covered.contains(*at as u64)) {
                self.log(place, "alias", Encoding::Utf8.name(), *at..at + 1);
            }
        }
    }

    fn log(&mut self, place: Place, rule: &str, encoding: &str, range: Range<usize>) {
        self.receipt.push(Entry {
            place,
            rule: rule.to_owned(),
            encoding: encoding.to_owned(),
            offset: range.start as u64,
            length: range.len() as u64,
            alias: None,
        });
    }
}

#[cfg(test)]
mod tests;
