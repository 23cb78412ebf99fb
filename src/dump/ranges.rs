//! Ranges of addresses or offsets, as sorted lists.
#![forbid(unsafe_code)]

use std::ops::Range;

/// Sorted, without empty ones; those that touch or overlap are one.
pub(crate) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joins = next.start <= last.end;
        last.end = if joins { last.end.max(next.end) } else { last.end };
        joins
    });
    ranges
}

/// What of `ranges` lies in none of `held`, both [merged].
pub(crate) fn without(ranges: Vec<Range<u64>>, held: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    for range in ranges {
        let mut at = range.start;
        let first = held.partition_point(|held| held.end <= range.start);
        for held in held.iter().skip(first).take_while(|held| held.start < range.end) {
            left.push(at..held.start.max(at));
            at = held.end.min(range.end);
        }
        left.push(at..range.end);
    }
    left.retain(|range| !range.is_empty());
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_added() {
        let cases = [
            (vec![], vec![10..20]),
            (vec![0..10, 20..30], vec![10..20]),
            (vec![12..14, 18..40], vec![10..12, 14..18]),
            (vec![5..25], vec![]),
            (vec![10..20], vec![]),
            (vec![5..15, 15..18], vec![18..20]),
        ];
        for (held, expected) in cases {
            assert_eq!(without(vec![10..20], &merged(held.clone())), expected, "{held:?}");
        }
    }
}
