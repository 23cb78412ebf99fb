//! Secret memory of the application, out of sight before anybody reads it.
#![forbid(unsafe_code)]

use std::ops::Range;

use zeroize::Zeroize;

use super::inspection;
use crate::dump::Layout;
use crate::error::Result;
use crate::target::{self, Hidden, Target};

/// Puts secret memory out of sight, whoever reads from here on. Returns the texts in it, whose copies go too.
pub(super) fn draw(target: &mut Target, secret: &[Range<u64>]) -> Vec<String> {
    if secret.is_empty() {
        return Vec::new();
    }
    let texts = inspection::texts_in(target, secret.to_vec());
    target.wrap_memory(|memory| Box::new(Hidden::new(memory, secret.to_vec())));
    texts
}

/// The same for a dump that was made without a [`Target`].
pub(super) fn without(mut dump: Vec<u8>, secret: &[Range<u64>]) -> Result<Vec<u8>> {
    if secret.is_empty() {
        return Ok(dump);
    }
    match Layout::parse(&dump) {
        Ok(layout) => {
            for entry in &layout.memory {
                let bytes = dump.get_mut(entry.bytes.clone()).unwrap_or_default();
                target::hide(entry.address, bytes, secret);
            }
            Ok(dump)
        }
        // Nobody knows where it would be.
        Err(error) => {
            dump.zeroize();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_parsed_is_not_used() {
        assert!(without(b"no dump".to_vec(), &[1..2]).is_err());
        assert_eq!(without(b"no dump".to_vec(), &[]).unwrap(), b"no dump");
    }
}
