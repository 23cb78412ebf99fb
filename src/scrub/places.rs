//! Where in a dump what is done: streams, strings, memory.
#![forbid(unsafe_code)]

mod memory;
mod names;
mod streams;

use std::ops::Range;

pub(super) use self::memory::coalesce;
pub(super) use self::names::{THREAD_NAME, base_name, outside};
use super::aliases::masked;
use super::contexts::{self, Cpu};
use super::echoes::Echoes;
use super::edit::{Addresses, Editor, Encoding, Finding, Guard};
use super::finder::{self, Edges};
use super::known::Known;
use super::receipt::Place;
use super::{Level, Policy, arguments, frames, pointers, saved_registers, structures, wishes};
use crate::dump::Layout;
use crate::error::Result;

/// Scrubs a dump: first what goes whatever it holds, then everything else by known values and rules. These two see the
/// same bytes, so that neither hides half of a value from the other.
pub(super) fn scrub(
    editor: &mut Editor<'_>,
    layout: &Layout,
    policy: &Policy,
    known: &Known,
    echoes: &mut Echoes,
) -> Result<()> {
    let cpu = Cpu::new(layout.processor)?;
    let layout = &*frames::with_stacks(editor.bytes(), layout, cpu);
    let copies = copies(editor.bytes(), layout, policy)?;
    for (rule, wishes) in &policy.wishes {
        // What the dump has not need not be blanked in it.
        let _ = wishes::apply(editor, layout, rule, wishes);
    }
    streams::unclaimed(editor, layout);
    let mapped = mapped(layout);
    arguments::scrub(editor, layout, cpu, policy, known, echoes);
    structures::scrub(editor, layout, cpu, &mapped, known);
    saved_registers::scrub(editor, layout, policy, &mapped, known);
    let means = Means { policy, known };
    memory::learn_from_reduced(editor, layout, &means, copies.as_ref(), echoes);
    pointers::reduce(editor, layout, cpu, policy.level_of(Place::Stack), policy.level_of(Place::Heap));
    memory::scrub(editor, layout, &mapped, cpu.width, &means, copies.as_ref(), echoes);
    let registers = policy.level_of(Place::Registers);
    for thread in &layout.threads {
        cpu.scrub(editor, &thread.context, &mapped, known, registers)?;
    }
    if let Some(exception) = &layout.exception {
        cpu.scrub(editor, &exception.context, &mapped, known, registers)?;
        let parameters: Vec<usize> = exception.parameters.clone().step_by(8).collect();
        let level = policy.level_of(Place::Exception);
        contexts::words(editor, &parameters, 8, Place::Exception, &mapped, known, level);
    }
    let pieces = names::pieces(editor.bytes(), layout, echoes);
    streams::scrub(editor, layout, &means);
    names::scrub(editor, layout, &means);
    for (start, findings, place) in pieces {
        blank(editor, start, findings, place, None);
    }
    editor.finish(&mapped, cpu.width);
    Ok(())
}

/// What is sought in text, and how much of it stays.
pub(super) struct Means<'a> {
    pub(super) policy: &'a Policy,
    pub(super) known: &'a Known,
}

impl Means<'_> {
    /// Known values in bytes of any content.
    fn values(&self, bytes: &[u8]) -> Vec<Finding> {
        let mut found = Vec::new();
        self.known.find(bytes, &mut found);
        found
    }

    /// What is to be blanked in a text, which stands whole in one byte a character.
    pub(super) fn in_text(&self, bytes: &[u8], place: Place) -> Vec<Finding> {
        match self.policy.level_of(place) {
            Level::Keep => self.values(bytes),
            Level::Pattern => finder::in_memory(bytes, Edges::Whole, self.known),
            Level::Pointers | Level::Drop => whole(bytes, Encoding::Utf8, DROPPED),
        }
    }

    /// The same in UTF-16LE.
    fn in_utf16(&self, text: &[u8], place: Place) -> Vec<Finding> {
        match self.policy.level_of(place) {
            Level::Keep => {
                let mut found = self.values(text);
                found.retain(|finding| finding.encoding == Encoding::Utf16Le && finding.range.start % 2 == 0);
                found
            }
            Level::Pattern => finder::in_utf16(text, self.known),
            Level::Pointers | Level::Drop => whole(text, Encoding::Utf16Le, DROPPED),
        }
    }
}

/// The rule of what goes because of its place's level.
pub(super) const DROPPED: &str = "dropped";

fn whole(bytes: &[u8], encoding: Encoding, rule: &'static str) -> Vec<Finding> {
    vec![Finding { range: 0..bytes.len(), encoding, rule }]
}

/// What the environment and the command line hold may stand elsewhere too, whether the dump has streams of them or not.
fn copies(bytes: &[u8], layout: &Layout, policy: &Policy) -> Result<Option<Known>> {
    let stream = |kind: u32, beside: &str| {
        let stream = layout.streams.iter().find(|stream| stream.kind == kind);
        let stream = stream.map_or(&[][..], |stream| &bytes[stream.bytes.clone()]);
        [stream, beside.as_bytes()].join(&0)
    };
    Known::copies(
        &stream(streams::ENVIRONMENT, &masked(&policy.environment_strings)),
        &stream(streams::COMMAND_LINE, &masked(&policy.argument_strings)),
    )
}

/// Of regions that nobody may read (winnt.h): tools reserve terabytes so.
const PAGE_NOACCESS: u32 = 1;

/// Everything that a pointer of the process may point to.
fn mapped(layout: &Layout) -> Addresses {
    // A return address may lie just behind a module.
    let modules = layout.modules.iter().map(|m| m.base..m.base.saturating_add(m.size).saturating_add(1));
    let memory = layout.memory.iter().map(|entry| span(entry.address, &entry.bytes));
    let readable = layout.mapped.iter().filter(|(_, protection)| protection & PAGE_NOACCESS == 0);
    let regions = readable.map(|(range, _)| range.clone());
    Addresses::new(modules.chain(memory).chain(regions))
}

fn span(address: u64, bytes: &Range<usize>) -> Range<u64> {
    address..address.saturating_add(bytes.len() as u64)
}

/// Blanks `findings` in what begins at `start`; whether anything changed.
pub(super) fn blank(
    editor: &mut Editor<'_>,
    start: usize,
    findings: Vec<Finding>,
    place: Place,
    guard: Option<Guard<'_>>,
) -> bool {
    let at = |finding: Finding| Finding {
        range: start + finding.range.start..start + finding.range.end,
        ..finding
    };
    // All of them before the first is blanked: they may overlap.
    let findings: Vec<_> =
        findings.into_iter().map(at).map(|finding| (editor.identity(&finding), finding)).collect();
    let mut changed = false;
    for (identity, finding) in findings {
        changed |= editor.blank(&finding, identity, place, guard);
    }
    changed
}
