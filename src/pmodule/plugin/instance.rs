//! A loaded module as a [`Pmodule`]: each event becomes one call through its table.

use std::ffi::c_void;

use super::super::abi::{self, HostPointer, Text};
use super::super::{
    Blanks, Description, DumpView, Edits, Failure, FrameEvent, Noted, Pmodule, RegionEvent, Veto,
};
use super::host::{self, Call, Sees, Wishes};
use super::table::Table;
use crate::report::Report;
use crate::target::{Target, Thread};

/// A module in this process. It is never unloaded.
pub(super) struct Plugin(Table);

impl Plugin {
    pub(super) fn new(table: Table) -> Self {
        Self(table)
    }

    /// Calls back, and takes what came of it.
    fn call(
        &self,
        event: &str,
        call: &Call<'_>,
        run: impl FnOnce(&abi::Pmodule, HostPointer, *mut c_void) -> Option<i32>,
    ) -> Result<(), Failure> {
        let table = &self.0.callbacks;
        // The event is wanted only if there is a callback, which the table's check has seen to.
        let code = host::during(call, |host| run(table, host, table.user)).unwrap_or_default();
        match (code, call.failure.take()) {
            (0, _) => Ok(()),
            (_, Some(words)) if !words.is_empty() => Err(Failure(words)),
            (code, _) => {
                let words = call.handed_on(code).map(|words| format!(" ({words})")).unwrap_or_default();
                Err(Failure(format!("its callback for {event} returned {code}{words}")))
            }
        }
    }

    /// An event at which the process stands still.
    fn look(
        &self,
        event: &str,
        target: &Target,
        edits: &mut Edits,
        run: impl FnOnce(&abi::Pmodule, HostPointer, *mut c_void) -> Option<i32>,
    ) -> Result<(), Failure> {
        self.call(event, &Call::new(Sees::Target(target), Wishes::edits(edits)), run)
    }
}

impl Pmodule for Plugin {
    fn describe(&self) -> Description {
        self.0.description.clone()
    }

    fn attach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        self.look("attach", target, edits, |table, host, user| {
            // SAFETY: a function of the module's own table, with arguments as the header has them; so below.
            table.attach.map(|attach| unsafe { attach(host, user) })
        })
    }

    fn thread(&mut self, target: &Target, thread: &Thread, edits: &mut Edits) -> Result<(), Failure> {
        let given = host::thread(target, thread);
        self.look("thread", target, edits, |table, host, user| {
            // SAFETY: see `attach`; the structure lives as long as the call.
            table.thread.map(|callback| unsafe { callback(host, user, &raw const given) })
        })
    }

    fn frame(&mut self, target: &Target, frame: &FrameEvent<'_>, edits: &mut Edits) -> Result<(), Failure> {
        let lend = |text: Option<&str>| text.map_or(Text::EMPTY, Text::lend);
        let given = abi::Frame {
            size: size_of::<abi::Frame>() as u32,
            thread: frame.thread,
            crashed: frame.crashed.into(),
            number: u32::try_from(frame.number).unwrap_or(u32::MAX),
            instruction: frame.frame.instruction,
            offset: frame.frame.offset,
            module: lend(frame.module),
            symbol: lend(frame.symbol),
        };
        self.look("frame", target, edits, |table, host, user| {
            // SAFETY: see `thread`.
            table.frame.map(|callback| unsafe { callback(host, user, &raw const given) })
        })
    }

    fn region(
        &mut self,
        target: &Target,
        region: &RegionEvent<'_>,
        edits: &mut Edits,
    ) -> Result<(), Failure> {
        let given = abi::Region {
            size: size_of::<abi::Region>() as u32,
            stack_of: region.stack_of.unwrap_or(0),
            address: region.address,
            bytes: region.bytes.as_ptr(),
            length: region.bytes.len(),
        };
        self.look("region", target, edits, |table, host, user| {
            // SAFETY: see `thread`.
            table.region.map(|callback| unsafe { callback(host, user, &raw const given) })
        })
    }

    fn attributes(&mut self, noted: &Noted<'_>, edits: &mut Edits) -> Result<(), Failure> {
        let call = Call::new(Sees::Noted(noted), Wishes::edits(edits));
        self.call("attributes", &call, |table, host, user| {
            // SAFETY: see `attach`.
            table.attributes.map(|callback| unsafe { callback(host, user) })
        })
    }

    fn detach(&mut self, target: &Target, edits: &mut Edits) -> Result<(), Failure> {
        self.look("detach", target, edits, |table, host, user| {
            // SAFETY: see `attach`.
            table.detach.map(|callback| unsafe { callback(host, user) })
        })
    }

    fn scrub(&mut self, dump: &DumpView<'_>, blanks: &mut Blanks) -> Result<(), Failure> {
        let call = Call::new(Sees::Dump(dump), Wishes::blanks(blanks));
        self.call("scrub", &call, |table, host, user| {
            // SAFETY: see `attach`.
            table.scrub.map(|callback| unsafe { callback(host, user) })
        })
    }

    fn verdict(&mut self, report: &Report) -> Result<Option<Veto>, Failure> {
        let call = Call::new(Sees::Report(report), Wishes::veto());
        self.call("verdict", &call, |table, host, user| {
            // SAFETY: see `attach`.
            table.verdict.map(|callback| unsafe { callback(host, user) })
        })?;
        Ok(call.wishes.into_veto())
    }
}
