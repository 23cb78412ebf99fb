//! Values kept so that a search of the process's memory does not find them.

use std::hint::black_box;

/// Bytes, each XORed with a random one.
pub(crate) struct Masked {
    masked: Vec<u8>,
    mask: Vec<u8>,
}

impl Masked {
    /// Masks a copy. The caller's copy is his to wipe.
    pub(crate) fn new(plain: &[u8]) -> Self {
        let mask = random(plain.len());
        let masked = plain.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
        Self { masked, mask }
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.masked.len()
    }

    /// Writes the plain bytes to `target`, as many as both hold, one by one: nothing passes through a buffer or a
    /// vector register on the way.
    pub(crate) fn unmask_into(&self, target: &mut [u8]) {
        for (target, (byte, mask)) in target.iter_mut().zip(self.masked.iter().zip(&self.mask)) {
            // The barrier keeps the loop from becoming vector code.
            *target = black_box(*byte) ^ *mask;
        }
    }
}

/// Random bytes that are never zero, so that every byte of a masked value differs from the plain one.
pub(crate) fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is valid for writes of its length; getrandom(2) writes at most that.
        let written = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        filled += usize::try_from(written).unwrap_or(0);
    }
    bytes.iter_mut().for_each(|byte| *byte |= 1);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_every_byte_and_gives_it_back() {
        let plain = b"alice@example.com";
        let masked = Masked::new(plain);
        assert!(masked.masked.iter().zip(plain).all(|(a, b)| a != b));
        let mut back = [0; 17];
        masked.unmask_into(&mut back);
        assert_eq!(&back, plain);
    }
}
