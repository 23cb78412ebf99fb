//! Values that the application registered while running: blanked wherever a report holds them.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;

use super::entry::{Draft, Read};
use super::layout::SECRETS;
use crate::error::{Error, Result};

/// Registered values, at most.
pub(super) const MAX_SECRETS: usize = SECRETS.count;
/// Bytes of a registered value, at most.
pub(super) const MAX_SECRET: usize = SECRETS.first * 8;

pub(super) fn add(memory: &[AtomicU64], value: &str) -> Result<()> {
    if value.is_empty() || value.len() > MAX_SECRET {
        return Err(Error::Limit { what: "a secret value in bytes (1 or more)", limit: MAX_SECRET });
    }
    if (0..SECRETS.count).any(|i| SECRETS.is(memory, i, value.as_bytes())) {
        return Ok(());
    }
    let index = (0..SECRETS.count)
        .find(|&i| SECRETS.is_free(memory, i))
        .ok_or(Error::Limit { what: "the number of secret values", limit: MAX_SECRETS })?;
    SECRETS.write(
        memory,
        index,
        Draft { kind: 1, flags: 0, number: 0, first: value.as_bytes(), second: b"" },
    );
    Ok(())
}

pub(super) fn read(memory: &[AtomicU64], torn: &mut u32) -> Vec<String> {
    (0..SECRETS.count)
        .filter_map(|index| match SECRETS.read(memory, index) {
            Read::Whole(contents) => Some(String::from_utf8_lossy(&contents.first).into_owned()),
            Read::Torn => {
                *torn += 1;
                None
            }
            Read::Empty => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_each_value_once_within_limits() {
        let memory: Vec<AtomicU64> = (0..SECRETS.end()).map(|_| AtomicU64::new(0)).collect();
        for _ in 0..3 {
            add(&memory, "alice@example.org").unwrap();
        }
        assert_eq!(read(&memory, &mut 0), ["alice@example.org"]);
        assert!(add(&memory, "").is_err());
        assert!(add(&memory, &"x".repeat(MAX_SECRET + 1)).is_err());
        for i in 1..MAX_SECRETS {
            add(&memory, &format!("value {i}")).unwrap();
        }
        assert!(add(&memory, "one more").is_err());
    }
}
