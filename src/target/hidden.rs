//! Memory of which some is secret: it reads as zeros, to whoever reads.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::os::fd::RawFd;

use zeroize::Zeroize;

use super::Memory;

/// Memory behind a curtain.
pub(crate) struct Hidden {
    inner: Box<dyn Memory>,
    ranges: Vec<Range<u64>>,
}

impl Hidden {
    pub(crate) fn new(inner: Box<dyn Memory>, ranges: Vec<Range<u64>>) -> Self {
        Self { inner, ranges }
    }
}

impl Memory for Hidden {
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
        let mut found = self.inner.read_ranges(ranges);
        for (range, bytes) in ranges.iter().zip(&mut found) {
            hide(range.start, bytes, &self.ranges);
        }
        found
    }

    fn by_pread(&self) -> Option<Box<dyn Memory>> {
        let inner = self.inner.by_pread()?;
        Some(Box::new(Self { inner, ranges: self.ranges.clone() }))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.inner.descriptors()
    }
}

/// Zeroes what of `bytes`, which begin at `address`, lies in `ranges`.
pub(crate) fn hide(address: u64, bytes: &mut [u8], ranges: &[Range<u64>]) {
    let end = address.saturating_add(bytes.len() as u64);
    for range in ranges.iter().filter(|range| range.start < end && address < range.end) {
        let offset = |at: u64| usize::try_from(at - address).unwrap_or(usize::MAX);
        let (from, to) = (offset(range.start.max(address)), offset(range.end.min(end)));
        if let Some(secret) = bytes.get_mut(from..to) {
            secret.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_zeroed() {
        let hidden = |address, ranges: &[Range<u64>]| {
            let mut bytes = vec![1; 4];
            hide(address, &mut bytes, ranges);
            bytes
        };
        assert_eq!(hidden(10, &[0..10, 14..20]), [1, 1, 1, 1]);
        assert_eq!(hidden(10, &[0..11, 13..20]), [0, 1, 1, 0]);
        assert_eq!(hidden(10, &[11..12]), [1, 0, 1, 1]);
        assert_eq!(hidden(10, &[0..u64::MAX]), [0; 4]);
        assert_eq!(hidden(u64::MAX - 2, &[u64::MAX - 1..u64::MAX]), [1, 0, 1, 1]);
    }
}
