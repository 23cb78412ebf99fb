//! The table of attributes.

use std::sync::atomic::AtomicU64;

use super::entry::{Contents, Read};
use super::layout::ATTRIBUTES;
use crate::error::{Error, Result};
use crate::report::{Attribute, AttributeValue};

/// Attributes, at most.
pub const MAX_ATTRIBUTES: usize = ATTRIBUTES.count;
/// Bytes of a key, at most.
pub const MAX_KEY: usize = ATTRIBUTES.first * 8;
/// Bytes of a string value, at most; longer ones are cut at a character and marked.
pub const MAX_VALUE: usize = ATTRIBUTES.second * 8;

const STRING: u8 = 1;
const INTEGER: u8 = 2;
const FLOAT: u8 = 3;
const BOOL: u8 = 4;
const TRUNCATED: u8 = 1;

pub(super) fn set(memory: &[AtomicU64], attribute: &Attribute) -> Result<()> {
    let key = attribute.key.as_str();
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Error::Limit { what: "an attribute name in bytes (1 or more)", limit: MAX_KEY });
    }
    let index = find(memory, key)
        .or_else(|| free(memory))
        .ok_or(Error::Limit { what: "the number of attributes", limit: MAX_ATTRIBUTES })?;
    ATTRIBUTES.write(memory, index, &encode(attribute));
    Ok(())
}

pub(super) fn remove(memory: &[AtomicU64], key: &str) {
    if let Some(index) = find(memory, key) {
        let empty = Contents { kind: 0, flags: 0, number: 0, first: Vec::new(), second: Vec::new() };
        ATTRIBUTES.write(memory, index, &empty);
    }
}

pub(super) fn read(memory: &[AtomicU64], torn: &mut u32) -> Vec<Attribute> {
    (0..ATTRIBUTES.count)
        .filter_map(|index| match ATTRIBUTES.read(memory, index) {
            Read::Whole(contents) => decode(contents),
            Read::Torn => {
                *torn += 1;
                None
            }
            Read::Empty => None,
        })
        .collect()
}

fn find(memory: &[AtomicU64], key: &str) -> Option<usize> {
    (0..ATTRIBUTES.count)
        .find(|&i| matches!(ATTRIBUTES.read(memory, i), Read::Whole(c) if c.first == key.as_bytes()))
}

fn free(memory: &[AtomicU64]) -> Option<usize> {
    (0..ATTRIBUTES.count).find(|&i| !matches!(ATTRIBUTES.read(memory, i), Read::Whole(_)))
}

fn encode(attribute: &Attribute) -> Contents {
    let (kind, number, text) = match &attribute.value {
        AttributeValue::String(text) => (STRING, 0, text.as_str()),
        AttributeValue::Integer(value) => (INTEGER, *value as u64, ""),
        AttributeValue::Float(value) => (FLOAT, value.to_bits(), ""),
        AttributeValue::Bool(value) => (BOOL, u64::from(*value), ""),
    };
    let cut = &text[..text.floor_char_boundary(MAX_VALUE)];
    let truncated = attribute.truncated || cut.len() < text.len();
    Contents {
        kind,
        flags: if truncated { TRUNCATED } else { 0 },
        number,
        first: attribute.key.as_bytes().to_vec(),
        second: cut.as_bytes().to_vec(),
    }
}

fn decode(contents: Contents) -> Option<Attribute> {
    let value = match contents.kind {
        STRING => AttributeValue::String(String::from_utf8_lossy(&contents.second).into_owned()),
        INTEGER => AttributeValue::Integer(contents.number as i64),
        FLOAT => AttributeValue::Float(f64::from_bits(contents.number)),
        BOOL => AttributeValue::Bool(contents.number != 0),
        _ => return None,
    };
    let key = String::from_utf8_lossy(&contents.first).into_owned();
    Some(Attribute { key, value, truncated: contents.flags & TRUNCATED != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Vec<AtomicU64> {
        (0..ATTRIBUTES.end()).map(|_| AtomicU64::new(0)).collect()
    }

    fn attribute(key: &str, value: impl Into<AttributeValue>) -> Attribute {
        Attribute { key: key.into(), value: value.into(), truncated: false }
    }

    #[test]
    fn keeps_types_and_replaces_values() {
        let memory = memory();
        let all = [
            attribute("level", "castle"),
            attribute("score", -7i64),
            attribute("fps", 59.5),
            attribute("online", true),
        ];
        set(&memory, &attribute("level", 1i64)).unwrap();
        for one in &all {
            set(&memory, one).unwrap();
        }
        let mut torn = 0;
        assert_eq!(read(&memory, &mut torn), all);
        remove(&memory, "score");
        assert_eq!(read(&memory, &mut torn).len(), 3);
        assert_eq!(torn, 0);
    }

    #[test]
    fn states_its_limits() {
        let memory = memory();
        assert!(set(&memory, &attribute("", 1i64)).is_err());
        assert!(set(&memory, &attribute(&"k".repeat(MAX_KEY + 1), 1i64)).is_err());
        set(&memory, &attribute("long", "ä".repeat(MAX_VALUE))).unwrap();
        let long = &read(&memory, &mut 0)[0];
        assert!(long.truncated);
        assert!(matches!(&long.value, AttributeValue::String(s) if s.len() == MAX_VALUE && s.ends_with('ä')));
        for i in 1..MAX_ATTRIBUTES {
            set(&memory, &attribute(&format!("k{i}"), 1i64)).unwrap();
        }
        assert!(matches!(set(&memory, &attribute("more", 1i64)), Err(Error::Limit { .. })));
        set(&memory, &attribute("k1", 2i64)).unwrap();
    }
}
