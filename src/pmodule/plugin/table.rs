//! Reading the table that a module returns, with care: it is foreign memory that says how long it is.

use std::mem::{offset_of, transmute};

use super::super::abi::{self, ABI, ENTRY, FrameFilter, Text};
use super::super::describe;
use super::super::{Description, Event};
use crate::sys::library::Library;

/// Filters, and bytes of a filter's text, at most: what [`Description::check`] allows.
const MOST_FILTERS: u32 = 64;
const LONGEST_FILTER: usize = 256;
const LONGEST_NAME: usize = 64;

/// A module's table, checked and copied.
pub(super) struct Table {
    pub(super) description: Description,
    pub(super) callbacks: abi::Pmodule,
}

impl Table {
    /// Asks a loaded module for its table.
    pub(super) fn of(library: &Library) -> Result<Self, String> {
        let entry = library.symbol(ENTRY).ok_or(
            "exports no function cenotaph_pmodule_entry; mark it CENOTAPH_PMODULE_EXPORT (include/cenotaph_pmodule.h)",
        )?;
        // SAFETY: what is exported under this name has this type; that is the contract of the header.
        let entry: abi::Entry = unsafe { transmute(entry) };
        // SAFETY: the header's contract again: any number may be given, and NULL or a table that stays comes back.
        let table = unsafe { entry(ABI) };
        // SAFETY: as above.
        unsafe { Self::read(table) }
    }

    /// Reads a table.
    ///
    /// # Safety
    /// `table` is NULL, or points to as many bytes as its first four say, which stay for good, and so do the texts and
    /// the filters in it.
    pub(super) unsafe fn read(table: *const abi::Pmodule) -> Result<Self, String> {
        if table.is_null() {
            return Err(format!(
                "cannot work with ABI {ABI} of this version: its entry function returned NULL"
            ));
        }
        let words = table.cast::<u32>();
        // SAFETY: not NULL; every table of any version has at least its size.
        let size = unsafe { words.read_unaligned() } as usize;
        if size >= offset_of!(abi::Pmodule, abi) + size_of::<u32>() {
            // SAFETY: within the size that it states.
            let theirs = unsafe { words.add(1).read_unaligned() };
            if theirs != ABI {
                return Err(format!(
                    "is built for ABI {theirs}, this version has {ABI}; build it with this version's cenotaph_pmodule.h"
                ));
            }
        }
        let needed = size_of::<abi::Pmodule>();
        if size < needed {
            return Err(format!(
                "its table has {size} bytes, ABI {ABI} has {needed}; set `size` to sizeof(cenotaph_pmodule)"
            ));
        }
        // SAFETY: as many bytes as the structure has are there; integers and pointers take any value. Function pointers are
        // NULL or functions of their type, which is the header's contract.
        let callbacks = unsafe { table.read_unaligned() };
        // SAFETY: this function's own contract.
        let description = unsafe { describe(&callbacks) }?;
        description.usable()?;
        Ok(Self { description, callbacks })
    }
}

/// # Safety
/// As [`Table::read`].
unsafe fn describe(table: &abi::Pmodule) -> Result<Description, String> {
    // SAFETY: this function's own contract; so below.
    let name = unsafe { text(table.name, LONGEST_NAME, "its name") }?
        .ok_or("its name is NULL or empty; set `name` to CENOTAPH_PMODULE_LITERAL(\"...\")")?;
    let count = table.frame_filter_count;
    if count > MOST_FILTERS || (count > 0 && table.frame_filters.is_null()) {
        return Err(format!(
            "has {count} frame filters{}; {MOST_FILTERS} at most",
            if table.frame_filters.is_null() { " at NULL" } else { "" }
        ));
    }
    let mut frames = Vec::new();
    for index in 0..count as usize {
        // SAFETY: not NULL, and that many are there.
        let filter: FrameFilter = unsafe { table.frame_filters.add(index).read_unaligned() };
        // SAFETY: as above.
        let (module, symbol) = unsafe {
            (
                text(filter.module, LONGEST_FILTER, "a frame filter's module")?,
                text(filter.symbol, LONGEST_FILTER, "a frame filter's symbol")?,
            )
        };
        frames.push(describe::FrameFilter { module, symbol, faulting: filter.faulting != 0 });
    }
    Ok(Description {
        name,
        priority: table.priority,
        events: events(table)?,
        frames,
        redacts: table.redacts != 0,
    })
}

/// The events of the bits, each of which needs its callback.
fn events(table: &abi::Pmodule) -> Result<Vec<Event>, String> {
    let known = [
        (Event::Attach, table.attach.is_some()),
        (Event::Thread, table.thread.is_some()),
        (Event::Frame, table.frame.is_some()),
        (Event::Region, table.region.is_some()),
        (Event::Attributes, table.attributes.is_some()),
        (Event::Detach, table.detach.is_some()),
        (Event::Scrub, table.scrub.is_some()),
        (Event::Verdict, table.verdict.is_some()),
    ];
    let mut left = table.events;
    let mut events = Vec::new();
    for (event, has_callback) in known {
        if left & bit(event) == 0 {
            continue;
        }
        left &= !bit(event);
        if !has_callback {
            let name = event.name();
            let bit = name.to_uppercase();
            return Err(format!("wants CENOTAPH_PMODULE_ON_{bit}, but its callback `{name}` is NULL"));
        }
        events.push(event);
    }
    if left != 0 {
        return Err(format!("wants events that this version does not know (bits {left:#x})"));
    }
    Ok(events)
}

/// `enum cenotaph_pmodule_event`.
pub(super) fn bit(event: Event) -> u32 {
    1 << event as u32
}

/// A text of a table; `None` for the empty one.
///
/// # Safety
/// It is NULL or as long as it says.
unsafe fn text(text: Text, longest: usize, what: &str) -> Result<Option<String>, String> {
    if text.data.is_null() || text.length == 0 {
        return Ok(None);
    }
    if text.length > longest {
        return Err(format!("{what} has {} bytes, {longest} at most", text.length));
    }
    // SAFETY: not NULL, short, and this function's own contract.
    let bytes = unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), text.length) };
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))?;
    Ok(Some(text.to_owned()))
}
