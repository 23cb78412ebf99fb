//! What a module sees of the application's notes, of the finished dump and of the finished report.

use super::super::super::abi::{self, HostPointer, Text, kind};
use super::border::{Refusal, fill, guarded, store};
use super::{Call, Sees, lend};
use crate::report::{Attribute, AttributeValue, Breadcrumb, Detail, Reason, Report};

const SIGNAL: u32 = 0;
const PANIC: u32 = 1;
const REQUESTED: u32 = 2;
#[allow(unreachable_patterns, reason = "a reason that is added without a number of its own")]
const OTHER: u32 = 3;

pub(super) const STACK_TRACE: u32 = 0;
pub(super) const POINTERS: u32 = 1;
pub(super) const MINIDUMP: u32 = 2;

#[cfg(test)]
pub(super) const NUMBERS: &[(&str, u32)] = &[
    ("SIGNAL", SIGNAL),
    ("PANIC", PANIC),
    ("REQUESTED", REQUESTED),
    ("OTHER", OTHER),
    ("STACK_TRACE", STACK_TRACE),
    ("POINTERS", POINTERS),
    ("MINIDUMP", MINIDUMP),
];

/// Reason, attributes, breadcrumbs: before they are scrubbed or after.
fn notes<'a>(call: &Call<'a>) -> Result<(&'a Reason, &'a [Attribute], &'a [Breadcrumb]), Refusal> {
    match call.sees {
        Sees::Noted(noted) => Ok((noted.reason, noted.attributes, noted.breadcrumbs)),
        Sees::Report(report) => Ok((&report.reason, &report.attributes, &report.breadcrumbs)),
        Sees::Target(_) | Sees::Dump(_) => {
            Err(Refusal::not_now("what was noted can be seen in attributes and verdict"))
        }
    }
}

fn the_report<'a>(call: &Call<'a>) -> Result<&'a Report, Refusal> {
    if let Sees::Report(report) = call.sees {
        return Ok(report);
    }
    Err(Refusal::not_now("the report can be seen in verdict"))
}

pub(super) unsafe extern "C" fn reason(_: HostPointer, out: *mut abi::Reason) -> i32 {
    guarded(|call| {
        let (reason, ..) = notes(call)?;
        let none = abi::Reason {
            size: 0,
            cause: OTHER,
            signal: 0,
            code: 0,
            message: Text::EMPTY,
            location: Text::EMPTY,
        };
        let found = match reason {
            Reason::Signal { number, code, .. } => {
                abi::Reason { cause: SIGNAL, signal: *number, code: *code, ..none }
            }
            Reason::Panic { message, location, .. } => {
                let (message, location) = (Text::lend(message), Text::lend(location));
                abi::Reason { cause: PANIC, message, location, ..none }
            }
            Reason::Requested { reason } => {
                abi::Reason { cause: REQUESTED, message: Text::lend(reason), ..none }
            }
            Reason::Hang { .. } => none,
            Reason::UncleanExit { signal, .. } => abi::Reason { signal: signal.unwrap_or(0), ..none },
        };
        // SAFETY: the header's contract.
        unsafe { fill(out, found) }
    })
}

pub(super) unsafe extern "C" fn attribute_at(_: HostPointer, index: usize, out: *mut abi::Attribute) -> i32 {
    guarded(|call| {
        let (_, attributes, _) = notes(call)?;
        let attribute = attributes.get(index);
        let attribute = attribute.ok_or_else(|| Refusal::not_found("there are not as many attributes"))?;
        let none = abi::Value { kind: kind::BOOL, reserved: 0, integer: 0, number: 0.0, text: Text::EMPTY };
        let value = match &attribute.value {
            AttributeValue::Bool(value) => abi::Value { integer: (*value).into(), ..none },
            AttributeValue::Integer(value) => abi::Value { kind: kind::INTEGER, integer: *value, ..none },
            AttributeValue::Float(value) => abi::Value { kind: kind::NUMBER, number: *value, ..none },
            AttributeValue::String(value) => abi::Value { kind: kind::TEXT, text: Text::lend(value), ..none },
        };
        let (key, truncated) = (Text::lend(&attribute.key), attribute.truncated.into());
        // SAFETY: the header's contract.
        unsafe { fill(out, abi::Attribute { size: 0, truncated, key, value }) }
    })
}

pub(super) unsafe extern "C" fn breadcrumb_at(
    _: HostPointer,
    index: usize,
    out: *mut abi::Breadcrumb,
) -> i32 {
    guarded(|call| {
        let (.., breadcrumbs) = notes(call)?;
        let breadcrumb = breadcrumbs.get(index);
        let breadcrumb = breadcrumb.ok_or_else(|| Refusal::not_found("there are not as many breadcrumbs"))?;
        let found = abi::Breadcrumb {
            size: 0,
            level: breadcrumb.level as u32,
            time_ms: breadcrumb.time_ms,
            category: Text::lend(&breadcrumb.category),
            message: Text::lend(&breadcrumb.message),
        };
        // SAFETY: the header's contract.
        unsafe { fill(out, found) }
    })
}

pub(super) unsafe extern "C" fn frame_at(
    _: HostPointer,
    thread: usize,
    frame: usize,
    out: *mut abi::Frame,
) -> i32 {
    guarded(|call| {
        let trace = &the_report(call)?.stack_trace;
        let thread =
            trace.threads.get(thread).ok_or_else(|| Refusal::not_found("there are not as many threads"))?;
        let number = frame;
        let frame = thread
            .frames
            .get(number)
            .ok_or_else(|| Refusal::not_found("the thread has not as many frames"))?;
        let module = frame.module.and_then(|index| trace.modules.get(index));
        let found = abi::Frame {
            size: 0,
            thread: thread.id.cast_signed(),
            crashed: thread.crashed.into(),
            number: u32::try_from(number).unwrap_or(u32::MAX),
            instruction: frame.instruction,
            offset: frame.offset,
            module: lend(module.map(|module| module.name.as_str())),
            symbol: Text::EMPTY,
        };
        // SAFETY: the header's contract.
        unsafe { fill(out, found) }
    })
}

pub(super) unsafe extern "C" fn detail(_: HostPointer, out: *mut u32) -> i32 {
    guarded(|call| {
        let detail = match the_report(call)?.detail {
            Detail::StackTrace => STACK_TRACE,
            Detail::Pointers => POINTERS,
            Detail::Minidump => MINIDUMP,
        };
        // SAFETY: the header's contract.
        unsafe { store(out, detail, "the detail") }
    })
}

pub(super) unsafe extern "C" fn report(_: HostPointer, out: *mut Text) -> i32 {
    guarded(|call| {
        let report = the_report(call)?;
        let json = call.json.get_or_init(|| serde_json::to_string(report).unwrap_or_default());
        // SAFETY: the header's contract.
        unsafe { store(out, Text::lend(json), "the text") }
    })
}

pub(super) unsafe extern "C" fn region_at(_: HostPointer, index: usize, out: *mut abi::Region) -> i32 {
    guarded(|call| {
        let Sees::Dump(dump) = call.sees else { return Err(no_dump()) };
        let region = dump.regions().nth(index);
        let (address, bytes) =
            region.ok_or_else(|| Refusal::not_found("there are not as many pieces of memory"))?;
        // A thread may have no stack, and then names nothing.
        let mut threads = dump.layout().threads.iter();
        let stack_of =
            threads.find(|thread| !thread.stack.bytes.is_empty() && thread.stack.address == address);
        let found = abi::Region {
            size: 0,
            stack_of: stack_of.map_or(0, |thread| thread.id.cast_signed()),
            address,
            bytes: bytes.as_ptr(),
            length: bytes.len(),
        };
        // SAFETY: the header's contract.
        unsafe { fill(out, found) }
    })
}

pub(super) unsafe extern "C" fn dump(_: HostPointer, bytes: *mut *const u8, length: *mut usize) -> i32 {
    guarded(|call| {
        let Sees::Dump(dump) = call.sees else { return Err(no_dump()) };
        if bytes.is_null() {
            return Err(Refusal::null("the pointer's place"));
        }
        // SAFETY: the header's contract.
        unsafe {
            store(length, dump.bytes().len(), "the length")?;
            store(bytes, dump.bytes().as_ptr(), "the pointer's place")
        }
    })
}

fn no_dump() -> Refusal {
    Refusal::not_now("the dump can be seen in scrub")
}
