//! The table of attributes.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;

use super::entry::{Contents, Draft, Read};
use super::layout::ATTRIBUTES;
use crate::error::{Error, Result};
use crate::report::{Attribute, AttributeValue, ValueRef};

/// Attributes, at most.
pub(super) const MAX_ATTRIBUTES: usize = ATTRIBUTES.count;
/// Bytes of a key, at most.
pub(super) const MAX_KEY: usize = ATTRIBUTES.first * 8;
/// Bytes of a string value, at most; longer ones are cut at a character and marked.
pub(super) const MAX_VALUE: usize = ATTRIBUTES.second * 8;

const STRING: u8 = 1;
const INTEGER: u8 = 2;
const FLOAT: u8 = 3;
const BOOL: u8 = 4;
const TRUNCATED: u8 = 1;

pub(super) fn set(memory: &[AtomicU64], key: &str, value: ValueRef<'_>) -> Result<()> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Error::Limit { what: "an attribute name in bytes (1 or more)", limit: MAX_KEY });
    }
    let index = find(memory, key)
        .or_else(|| (0..ATTRIBUTES.count).find(|&i| ATTRIBUTES.is_free(memory, i)))
        .ok_or(Error::Limit { what: "the number of attributes", limit: MAX_ATTRIBUTES })?;
    ATTRIBUTES.write(memory, index, encode(key, value));
    Ok(())
}

pub(super) fn remove(memory: &[AtomicU64], key: &str) {
    if let Some(index) = find(memory, key) {
        ATTRIBUTES.write(memory, index, Draft { kind: 0, flags: 0, number: 0, first: b"", second: b"" });
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
    (0..ATTRIBUTES.count).find(|&i| ATTRIBUTES.is(memory, i, key.as_bytes()))
}

fn encode<'a>(key: &'a str, value: ValueRef<'a>) -> Draft<'a> {
    let (kind, number, text) = match value {
        ValueRef::String(text) => (STRING, 0, text),
        ValueRef::Integer(value) => (INTEGER, value as u64, ""),
        ValueRef::Float(value) => (FLOAT, value.to_bits(), ""),
        ValueRef::Bool(value) => (BOOL, u64::from(value), ""),
    };
    let cut = &text[..text.floor_char_boundary(MAX_VALUE)];
    let flags = if cut.len() < text.len() { TRUNCATED } else { 0 };
    Draft { kind, flags, number, first: key.as_bytes(), second: cut.as_bytes() }
}

fn decode(contents: Contents) -> Option<Attribute> {
    let value = match contents.kind {
        STRING => AttributeValue::String(String::from_utf8_lossy(&contents.second).into_owned()),
        INTEGER => AttributeValue::Integer(contents.number as i64),
        FLOAT => match f64::from_bits(contents.number) {
            value if value.is_finite() => AttributeValue::Float(value),
            // JSON has no number for it (RFC 8259, section 6).
            value => AttributeValue::String(value.to_string()),
        },
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

    #[test]
    fn keeps_types_and_replaces_values() {
        let memory = memory();
        let values = [ValueRef::String("castle"), (-7i64).into(), 59.5.into(), true.into()];
        set(&memory, "level", 1i64.into()).unwrap();
        for (key, value) in ["level", "score", "fps", "online"].iter().zip(values) {
            set(&memory, key, value).unwrap();
        }
        let mut torn = 0;
        let all = read(&memory, &mut torn);
        let text: Vec<String> = all.iter().map(|a| format!("{}={}", a.key, a.value)).collect();
        assert_eq!(text, ["level=castle", "score=-7", "fps=59.5", "online=true"]);
        set(&memory, "fps", f64::NAN.into()).unwrap();
        assert_eq!(read(&memory, &mut torn)[2].value, AttributeValue::from("NaN"));
        remove(&memory, "score");
        assert_eq!(read(&memory, &mut torn).len(), 3);
        assert_eq!(torn, 0);
    }

    #[test]
    fn states_its_limits() {
        let memory = memory();
        assert!(set(&memory, "", 1i64.into()).is_err());
        assert!(set(&memory, &"k".repeat(MAX_KEY + 1), 1i64.into()).is_err());
        set(&memory, "long", (&*"ä".repeat(MAX_VALUE)).into()).unwrap();
        let long = &read(&memory, &mut 0)[0];
        assert!(long.truncated);
        assert!(matches!(&long.value, AttributeValue::String(s) if s.len() == MAX_VALUE && s.ends_with('ä')));
        for i in 1..MAX_ATTRIBUTES {
            set(&memory, &format!("k{i}"), 1i64.into()).unwrap();
        }
        assert!(matches!(set(&memory, "more", 1i64.into()), Err(Error::Limit { .. })));
        set(&memory, "k1", 2i64.into()).unwrap();
    }
}
