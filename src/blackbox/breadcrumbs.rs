//! The ring of breadcrumbs: the newest replace the oldest.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::{Contents, Draft, Read};
use super::layout::{BREADCRUMBS, NEXT_BREADCRUMB_WORD};
use crate::error::{Error, Result};
use crate::report::{Breadcrumb, Level};

/// Breadcrumbs, at most.
pub(super) const MAX_BREADCRUMBS: usize = BREADCRUMBS.count;
/// Bytes of a category, at most.
pub(super) const MAX_CATEGORY: usize = BREADCRUMBS.first * 8;
/// Bytes of a message, at most; longer ones are cut at a character.
pub(super) const MAX_MESSAGE: usize = BREADCRUMBS.second * 8;

/// A bit beside the level.
const TRUNCATED: u8 = 0x80;

pub(super) fn add(
    memory: &[AtomicU64],
    time_ms: u64,
    level: Level,
    category: &str,
    message: &str,
) -> Result<()> {
    if category.len() > MAX_CATEGORY {
        return Err(Error::Limit { what: "a breadcrumb category in bytes", limit: MAX_CATEGORY });
    }
    let next = memory[NEXT_BREADCRUMB_WORD].load(Ordering::Relaxed);
    let whole = message.len();
    let message = &message[..message.floor_char_boundary(MAX_MESSAGE)];
    let truncated = if message.len() < whole { TRUNCATED } else { 0 };
    let draft = Draft {
        kind: 1,
        flags: level as u8 | truncated,
        number: time_ms,
        first: category.as_bytes(),
        second: message.as_bytes(),
    };
    BREADCRUMBS.write(memory, position(next), draft);
    memory[NEXT_BREADCRUMB_WORD].store(next.wrapping_add(1), Ordering::Release);
    Ok(())
}

pub(super) fn read(memory: &[AtomicU64], torn: &mut u32) -> Vec<Breadcrumb> {
    let next = memory[NEXT_BREADCRUMB_WORD].load(Ordering::Acquire);
    let mut all: Vec<Breadcrumb> = (0..MAX_BREADCRUMBS as u64)
        .filter_map(|back| match BREADCRUMBS.read(memory, position(next.wrapping_add(back))) {
            Read::Whole(contents) => Some(decode(&contents)),
            Read::Torn => {
                *torn += 1;
                None
            }
            Read::Empty => None,
        })
        .collect();
    // A stray write may have moved the ring's start; time still tells the order.
    all.sort_by_key(|breadcrumb| breadcrumb.time_ms);
    all
}

fn position(next: u64) -> usize {
    (next % MAX_BREADCRUMBS as u64) as usize
}

fn decode(contents: &Contents) -> Breadcrumb {
    Breadcrumb {
        time_ms: contents.number,
        level: match contents.flags & !TRUNCATED {
            0 => Level::Debug,
            2 => Level::Warning,
            3 => Level::Error,
            _ => Level::Info,
        },
        category: String::from_utf8_lossy(&contents.first).into_owned(),
        message: String::from_utf8_lossy(&contents.second).into_owned(),
        truncated: contents.flags & TRUNCATED != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_in_order() {
        let memory: Vec<AtomicU64> = (0..BREADCRUMBS.end()).map(|_| AtomicU64::new(0)).collect();
        let breadcrumb = |i: u64| Breadcrumb {
            time_ms: i,
            level: Level::Warning,
            category: "net".into(),
            message: format!("request {i}"),
            truncated: false,
        };
        let total = MAX_BREADCRUMBS as u64 + 5;
        for i in 0..total {
            add(&memory, i, Level::Warning, "net", &format!("request {i}")).unwrap();
        }
        let read = read(&memory, &mut 0);
        assert_eq!(read, (5..total).map(breadcrumb).collect::<Vec<_>>());
        add(&memory, total, Level::Error, "net", &"m".repeat(MAX_MESSAGE + 1)).unwrap();
        let last = super::read(&memory, &mut 0).pop().unwrap();
        assert!(last.truncated && last.level == Level::Error && last.message.len() == MAX_MESSAGE);
        assert!(add(&memory, 1, Level::Info, &"c".repeat(MAX_CATEGORY + 1), "").is_err());
    }
}
