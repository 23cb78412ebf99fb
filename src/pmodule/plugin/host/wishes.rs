//! What a module may ask for.

use super::super::super::abi::{self, HostPointer, Text, kind};
use super::super::super::{AnnotationLevel, Blank, Edit, Veto};
use super::border::{Refusal, guarded, text};
use super::noted::{MINIDUMP, POINTERS, STACK_TRACE};
use super::{Call, Wishes};
use crate::report::{AttributeValue, Detail};

const LEVELS: [(u32, AnnotationLevel); 4] = [
    (0, AnnotationLevel::Comment),
    (1, AnnotationLevel::Warning),
    (2, AnnotationLevel::Critical),
    (3, AnnotationLevel::Json),
];

#[cfg(test)]
pub(super) const NUMBERS: &[(&str, u32)] =
    &[("COMMENT", LEVELS[0].0), ("WARNING", LEVELS[1].0), ("CRITICAL", LEVELS[2].0), ("JSON", LEVELS[3].0)];

/// Adds to the edit list.
fn edit(call: &Call<'_>, edit: Edit) -> Result<(), Refusal> {
    let Wishes::Edits(edits) = &call.wishes else {
        return Err(Refusal::not_now("scrub may only blank, and verdict only veto"));
    };
    Ok(edits.borrow_mut().try_push(edit)?)
}

/// Adds to the edit list, or to the list of what a scrub hook blanks.
fn blank(call: &Call<'_>, in_scrub: Blank, before: Edit) -> Result<(), Refusal> {
    let Wishes::Blanks(blanks) = &call.wishes else { return edit(call, before) };
    Ok(blanks.borrow_mut().try_push(in_scrub)?)
}

fn range(address: u64, length: u64) -> Result<std::ops::Range<u64>, Refusal> {
    let end = address.checked_add(length);
    Ok(address..end.ok_or_else(|| Refusal::invalid("the range goes beyond the last address"))?)
}

fn level(number: u32) -> Result<AnnotationLevel, Refusal> {
    let found = LEVELS.iter().find(|(known, _)| *known == number);
    found
        .map(|(_, level)| *level)
        .ok_or_else(|| Refusal::invalid(format!("no level has the number {number}")))
}

pub(super) unsafe extern "C" fn annotate(_: HostPointer, number: u32, words: Text) -> i32 {
    guarded(|call| {
        // SAFETY: the header's contract, here and in the functions below.
        let text = unsafe { text(words, "the annotation") }?.to_owned();
        edit(call, Edit::Annotate { level: level(number)?, text })
    })
}

pub(super) unsafe extern "C" fn set_attribute(_: HostPointer, key: Text, value: *const abi::Value) -> i32 {
    guarded(|call| {
        if value.is_null() {
            return Err(Refusal::null("the value"));
        }
        // SAFETY: see `annotate`; the value is not NULL.
        let (key, value) = unsafe { (text(key, "the attribute's name")?.to_owned(), value.read_unaligned()) };
        let value = match value.kind {
            kind::BOOL => AttributeValue::Bool(value.integer != 0),
            kind::INTEGER => AttributeValue::Integer(value.integer),
            kind::NUMBER => AttributeValue::Float(value.number),
            // SAFETY: see `annotate`.
            kind::TEXT => AttributeValue::String(unsafe { text(value.text, "the attribute") }?.to_owned()),
            other => return Err(Refusal::invalid(format!("no kind of value has the number {other}"))),
        };
        edit(call, Edit::Attribute { key, value })
    })
}

pub(super) unsafe extern "C" fn classify(_: HostPointer, word: Text) -> i32 {
    // SAFETY: see `annotate`.
    guarded(|call| edit(call, Edit::Classifier(unsafe { text(word, "the classifier") }?.to_owned())))
}

pub(super) unsafe extern "C" fn fingerprint(_: HostPointer, component: Text) -> i32 {
    guarded(|call| {
        // SAFETY: see `annotate`.
        edit(call, Edit::FingerprintComponent(unsafe { text(component, "the component") }?.to_owned()))
    })
}

pub(super) unsafe extern "C" fn add_memory(_: HostPointer, address: u64, length: u64) -> i32 {
    guarded(|call| edit(call, Edit::AddMemory(range(address, length)?)))
}

pub(super) unsafe extern "C" fn blank_argument(_: HostPointer, index: usize) -> i32 {
    guarded(|call| edit(call, Edit::BlankArgument(index)))
}

pub(super) unsafe extern "C" fn blank_environment(_: HostPointer, name: Text) -> i32 {
    guarded(|call| {
        // SAFETY: see `annotate`.
        edit(call, Edit::BlankEnvironment(unsafe { text(name, "the variable's name") }?.to_owned()))
    })
}

pub(super) unsafe extern "C" fn keep_stack(_: HostPointer, thread: i32) -> i32 {
    guarded(|call| edit(call, Edit::KeepStack(thread)))
}

pub(super) unsafe extern "C" fn lower_detail(_: HostPointer, detail: u32) -> i32 {
    guarded(|call| {
        let detail = match detail {
            STACK_TRACE => Detail::StackTrace,
            POINTERS => Detail::Pointers,
            MINIDUMP => Detail::Minidump,
            other => return Err(Refusal::invalid(format!("no level of detail has the number {other}"))),
        };
        edit(call, Edit::LowerDetail(detail))
    })
}

pub(super) unsafe extern "C" fn blank_memory(_: HostPointer, address: u64, length: u64) -> i32 {
    guarded(|call| {
        let range = range(address, length)?;
        blank(call, Blank::Memory(range.clone()), Edit::BlankMemory(range))
    })
}

pub(super) unsafe extern "C" fn blank_register(_: HostPointer, thread: i32, name: Text) -> i32 {
    guarded(|call| {
        // SAFETY: see `annotate`.
        let register = unsafe { text(name, "the register's name") }?.to_owned();
        let in_scrub = Blank::Register { thread: thread.cast_unsigned(), register: register.clone() };
        blank(call, in_scrub, Edit::BlankRegister { thread, register })
    })
}

pub(super) unsafe extern "C" fn drop_stack(_: HostPointer, thread: i32) -> i32 {
    guarded(|call| blank(call, Blank::Stack(thread.cast_unsigned()), Edit::DropStack(thread)))
}

pub(super) unsafe extern "C" fn veto(_: HostPointer, reason: Text) -> i32 {
    guarded(|call| {
        // SAFETY: see `annotate`.
        let veto = Veto { reason: unsafe { text(reason, "the reason") }?.to_owned() };
        if let Wishes::Veto(place) = &call.wishes {
            place.replace(Some(veto));
            return Ok(());
        }
        edit(call, Edit::Veto(veto))
    })
}
