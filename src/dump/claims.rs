//! Accounting of a file's bytes: who claims what, and what nobody claims.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::error::{Error, Result};

/// What a claimed range holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    Header,
    Directory,
    Stream,
    LinkMap,
    Dictionary,
    Context,
    Memory,
    Text,
    CodeView,
}

impl Claim {
    /// Whether two structures may name the very same range. A stack is in the thread list and in the memory
    /// list, a context in the thread list and in the exception stream; writers may share equal strings and records.
    fn may_repeat(self) -> bool {
        matches!(self, Self::Context | Self::Memory | Self::Text | Self::CodeView)
    }
}

/// The claims on one file.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<(Range<usize>, Claim)>);

impl Claims {
    /// Notes that `range` holds `claim`. Empty ranges claim nothing.
    pub(super) fn add(&mut self, range: Range<usize>, claim: Claim) {
        if !range.is_empty() {
            self.0.push((range, claim));
        }
    }

    /// The ranges of `0..length` that nobody claimed.
    ///
    /// # Errors
    /// [`Error::Malformed`] if claims overlap other than by naming the very same range for the same thing.
    pub(super) fn gaps(mut self, length: usize) -> Result<Vec<Range<usize>>> {
        self.0.sort_unstable_by_key(|(range, claim)| (range.start, range.end, *claim));
        self.0.dedup_by(|b, a| a == b && a.1.may_repeat());
        let (mut gaps, mut end, mut holder) = (Vec::new(), 0, Claim::Header);
        for (range, claim) in self.0 {
            if range.start < end {
                return Err(Error::malformed(
                    "minidump",
                    format!("{claim:?} at {:#x}..{:#x} overlaps {holder:?}", range.start, range.end),
                ));
            }
            if range.start > end {
                gaps.push(end..range.start);
            }
            (end, holder) = (range.end, claim);
        }
        if end < length {
            gaps.push(end..length);
        }
        Ok(gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(claims: &[(Range<usize>, Claim)]) -> Option<Vec<(usize, usize)>> {
        let mut all = Claims::default();
        claims.iter().for_each(|(range, claim)| all.add(range.clone(), *claim));
        Some(all.gaps(100).ok()?.into_iter().map(|gap| (gap.start, gap.end)).collect())
    }

    #[test]
    fn what_overlaps_and_what_is_left() {
        use Claim::*;
        assert_eq!(gaps(&[]), Some(vec![(0, 100)]));
        assert_eq!(gaps(&[(50..100, Memory), (0..10, Header)]), Some(vec![(10, 50)]));
        assert_eq!(gaps(&[(0..60, Memory), (60..99, Stream), (30..30, Text)]), Some(vec![(99, 100)]));
        assert_eq!(gaps(&[(0..100, Memory), (0..100, Memory), (0..100, Memory)]), Some(vec![]));
        assert_eq!(gaps(&[(0..100, Stream), (0..100, Stream)]), None, "two streams are never one");
        assert_eq!(gaps(&[(0..100, Memory), (0..100, Text)]), None);
        assert_eq!(gaps(&[(0..50, Memory), (49..60, Memory)]), None);
        assert_eq!(gaps(&[(0..50, Memory), (10..20, Memory)]), None);
    }
}
