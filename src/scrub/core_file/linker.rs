//! The dynamic linker's list of what it loaded: a debugger finds libraries by it, so its words stay at every level and the base
//! names in it are nobody's values.
//!
//! Layout: `struct r_debug` and `struct link_map` (`<link.h>`), program headers and dynamic sections (elf(5)).
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ops::Range;

use super::layout::Core;
use super::notes::Facts;
use super::{AT_PHDR, AT_PHNUM};
use crate::scrub::edit::{Addresses, Finding};
use crate::scrub::{cut_off, echoes, known, places};
use crate::target::core_file::segments::{narrow, word};
use crate::target::core_file::source::Source;

/// The most entries that are followed, and the longest name (PATH_MAX).
const MOST: usize = 1 << 12;
const LONGEST: u64 = 4096;
/// Bytes of a program header, of an entry of a dynamic section, and of the public parts of the two structures.
const PROGRAM_HEADER: u64 = 56;
const DYNAMIC: u64 = 16;
const DEBUG: u64 = 40;
const LINK: u64 = 40;
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
const DT_DEBUG: u64 = 21;

/// Memory that a debugger needs.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Words of the list, and the paths that it names.
    all: Addresses,
    /// Those paths, and where in each the base name begins; ascending and disjoint.
    names: Vec<(Range<u64>, u64)>,
}

impl Kept {
    /// What of `length` bytes at `address` stays, ascending, relative to them.
    pub(super) fn parts(&self, address: u64, length: usize) -> Vec<Range<usize>> {
        let whole = address..address.saturating_add(length as u64);
        let part = |range: &Range<u64>| {
            // Both lie in a slice.
            (range.start.max(whole.start) - address) as usize..(range.end.min(whole.end) - address) as usize
        };
        self.all.within(&whole).iter().map(part).collect()
    }

    /// `findings` in memory at `address` without what lies in base names; and in paths only what is of a person: not what
    /// the environment shares with them (`x86_64-linux-gnu`), or what was cut off elsewhere.
    pub(super) fn spare(&self, mut findings: Vec<Finding>, address: u64) -> Vec<Finding> {
        findings.retain_mut(|finding| {
            let place = |at: usize| address.saturating_add(at as u64);
            let (start, end) = (place(finding.range.start), place(finding.range.end));
            let first = self.names.partition_point(|(name, _)| name.end <= start);
            match self.names.get(first).filter(|(name, _)| name.start < end) {
                None => true,
                Some((_, base)) if *base > start && !is_guess(finding.rule) => {
                    finding.range.end = finding.range.end.min((base - address) as usize);
                    true
                }
                Some(_) => false,
            }
        });
        findings
    }
}

/// Whether a rule goes by what stands elsewhere.
fn is_guess(rule: &str) -> bool {
    [known::COPIES, echoes::RULE, cut_off::CUT_OFF].contains(&rule)
}

/// Follows the list as far as the core file has it. What somebody wrote over it leads to nothing worse than words that stay
/// within what is looked at: names are scrubbed all the same.
pub(super) fn find(core: &Core, file: &Source, facts: &Facts) -> Kept {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let Some((section, debug)) = debug(core, file, facts) else { return Kept::default() };
    all.push(section);
    all.push(debug..debug.saturating_add(DEBUG));
    let mut next = word(&core.memory(file, debug, DEBUG), 8);
    let mut names = Vec::new();
    while next != 0 && seen.len() < MOST && seen.insert(next) {
        let link = core.memory(file, next, LINK);
        all.push(next..next.saturating_add(link.len() as u64));
        let name = word(&link, 8);
        let text = core.memory(file, name, LONGEST);
        let text = &text[..text.iter().position(|&byte| byte == 0).unwrap_or(0)];
        let base = name.saturating_add(places::base_name(text) as u64);
        let end = name.saturating_add(text.len() as u64);
        // A path that the linker opened begins so; anything else is not worth keeping.
        if text.first() == Some(&b'/') && is_library(&text[places::base_name(text)..]) {
            all.push(name..end);
            names.push((name..end, base));
        }
        next = word(&link, 24);
    }
    names.sort_unstable_by_key(|(name, _)| (name.start, name.end));
    names.dedup_by(|(next, _), (last, _)| next.start < last.end);
    Kept { all: Addresses::new(all), names }
}

/// Whether a base name is one of a shared library as they are called. A list that was written over may name any text.
fn is_library(base: &[u8]) -> bool {
    /// NAME_MAX (`<linux/limits.h>`).
    const LONGEST: usize = 255;
    base.len() <= LONGEST
        && memchr::memmem::find(base, b".so").is_some()
        && base.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

/// The program's dynamic section, and `_r_debug`, which it names.
fn debug(core: &Core, file: &Source, facts: &Facts) -> Option<(Range<u64>, u64)> {
    let (at, count) = (facts.auxv(AT_PHDR)?, facts.auxv(AT_PHNUM)?);
    let table = core.memory(file, at, count.min(64) * PROGRAM_HEADER);
    let headers = || table.chunks_exact(PROGRAM_HEADER as usize);
    let address = |kind| headers().find(|entry| narrow(entry, 0) == kind).map(|entry| word(entry, 16));
    let bias = address(PT_PHDR).map_or(0, |own| at.wrapping_sub(own));
    let dynamic = address(PT_DYNAMIC)?.wrapping_add(bias);
    let entries = core.memory(file, dynamic, 512 * DYNAMIC);
    // The tags that there are: small ones, and those of systems and processors (`<elf.h>`). Anything else is no such section.
    let is_tag = |tag: u64| (1..64).contains(&tag) || (0x6000_0000..0x8000_0000).contains(&tag);
    let entries: Vec<&[u8]> =
        entries.chunks_exact(DYNAMIC as usize).take_while(|entry| is_tag(word(entry, 0))).collect();
    let debug = entries.iter().find(|entry| word(entry, 0) == DT_DEBUG).map(|entry| word(entry, 8))?;
    let section = dynamic..dynamic.saturating_add(entries.len() as u64 * DYNAMIC);
    (debug != 0).then_some((section, debug))
}
