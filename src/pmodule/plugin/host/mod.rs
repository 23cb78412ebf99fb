//! The functions that a module may call, and what they work on.
//!
//! A host function finds the event that it belongs to by the thread that it runs on, not by a pointer that the module
//! hands back: a confused module gets an error instead of a wild read in here.

mod border;
mod looking;
mod noted;
mod wishes;

use std::cell::{Cell, OnceCell, RefCell};
use std::ptr::NonNull;

use super::super::abi::{self, ABI, HostPointer, Text};
use super::super::{Blanks, DumpView, Edits, Noted, Veto};
use crate::report::Report;
use crate::target::Target;

pub(super) use looking::thread;

/// One event: what is to be seen, and where wishes go.
pub(super) struct Call<'a> {
    sees: Sees<'a>,
    pub(super) wishes: Wishes<'a>,
    /// The module's words for its failure.
    pub(super) failure: RefCell<Option<String>>,
    /// What the last function that refused returned.
    refused: Cell<Option<abi::Status>>,
    /// Why it did.
    error: RefCell<String>,
    /// The report, once it was asked for.
    json: OnceCell<String>,
}

/// What is to be seen.
#[derive(Clone, Copy)]
pub(super) enum Sees<'a> {
    Target(&'a Target),
    Noted(&'a Noted<'a>),
    Dump(&'a DumpView<'a>),
    Report(&'a Report),
}

/// Where wishes go.
pub(super) enum Wishes<'a> {
    Edits(RefCell<&'a mut Edits>),
    Blanks(RefCell<&'a mut Blanks>),
    Veto(RefCell<Option<Veto>>),
}

impl<'a> Wishes<'a> {
    pub(super) fn edits(edits: &'a mut Edits) -> Self {
        Self::Edits(RefCell::new(edits))
    }

    pub(super) fn blanks(blanks: &'a mut Blanks) -> Self {
        Self::Blanks(RefCell::new(blanks))
    }

    pub(super) fn veto() -> Self {
        Self::Veto(RefCell::new(None))
    }

    pub(super) fn into_veto(self) -> Option<Veto> {
        if let Self::Veto(veto) = self { veto.into_inner() } else { None }
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(sees: Sees<'a>, wishes: Wishes<'a>) -> Self {
        let (failure, error, json) = (RefCell::new(None), RefCell::default(), OnceCell::new());
        Self { sees, wishes, failure, refused: Cell::new(None), error, json }
    }

    /// What a callback that returned `code` most likely means by it: a refusal that it handed on.
    pub(super) fn handed_on(&self, code: i32) -> Option<String> {
        let status = self.refused.get().filter(|status| *status as i32 == code)?;
        Some(format!("{}: {}", status.name(), self.error.borrow()))
    }
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<Call<'static>>>> = const { Cell::new(None) };
}

/// Runs a callback, during which the host's functions work on `call`.
pub(super) fn during<R>(call: &Call<'_>, run: impl FnOnce(HostPointer) -> R) -> R {
    /// Puts back what was there, also when `run` unwinds.
    struct Before(Option<NonNull<Call<'static>>>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(Some(NonNull::from(call).cast())));
    run(&raw const HOST)
}

/// The call that is going on in this thread.
fn current<R>(run: impl FnOnce(&Call<'_>) -> R) -> Option<R> {
    let call = CURRENT.get()?;
    // SAFETY: `during` set it from a reference that lives until it sets it back, on this thread; `run` cannot keep it, as
    // it must take any lifetime.
    Some(run(unsafe { call.as_ref() }))
}

static HOST: abi::Host = abi::Host {
    size: size_of::<abi::Host>() as u32,
    abi: ABI,
    fail: border::fail,
    error: border::error,
    read: looking::read,
    read_string: looking::read_string,
    read_register: looking::read_register,
    thread: looking::thread_at,
    module: looking::module_at,
    map: looking::map_at,
    symbol: looking::symbol,
    symbolize: looking::symbolize,
    crash: looking::crash,
    reason: noted::reason,
    attribute: noted::attribute_at,
    breadcrumb: noted::breadcrumb_at,
    frame: noted::frame_at,
    detail: noted::detail,
    report: noted::report,
    region: noted::region_at,
    dump: noted::dump,
    annotate: wishes::annotate,
    set_attribute: wishes::set_attribute,
    classify: wishes::classify,
    fingerprint: wishes::fingerprint,
    add_memory: wishes::add_memory,
    blank_argument: wishes::blank_argument,
    blank_environment: wishes::blank_environment,
    keep_stack: wishes::keep_stack,
    lower_detail: wishes::lower_detail,
    blank_memory: wishes::blank_memory,
    blank_register: wishes::blank_register,
    drop_stack: wishes::drop_stack,
    veto: wishes::veto,
};

/// What only one kind of event shows.
fn no_target() -> border::Refusal {
    border::Refusal::not_now("the process can be looked at in attach, thread, frame, region and detach")
}

/// Reads a text for the report.
fn lend(text: Option<&str>) -> Text {
    text.map_or(Text::EMPTY, Text::lend)
}

/// The header's numbers, by their names there without the prefix.
#[cfg(test)]
pub(in crate::pmodule) fn numbers() -> Vec<(String, u32)> {
    use super::super::Event;
    let events = [
        ("ON_ATTACH", Event::Attach),
        ("ON_THREAD", Event::Thread),
        ("ON_FRAME", Event::Frame),
        ("ON_REGION", Event::Region),
        ("ON_ATTRIBUTES", Event::Attributes),
        ("ON_DETACH", Event::Detach),
        ("ON_SCRUB", Event::Scrub),
        ("ON_VERDICT", Event::Verdict),
    ];
    let events = events.map(|(name, event)| (name.to_owned(), super::table::bit(event)));
    let others = wishes::NUMBERS.iter().chain(noted::NUMBERS).chain(looking::NUMBERS);
    events.into_iter().chain(others.map(|(name, number)| ((*name).to_owned(), *number))).collect()
}
