//! What the events of a pmodule see, besides the target itself.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::dump::Layout;
use crate::report::{Attribute, Breadcrumb, Frame, Reason};

/// A frame of a thread.
#[derive(Debug, Clone, Copy)]
pub struct FrameEvent<'a> {
    /// The thread's id.
    pub thread: i32,
    /// Whether that thread crashed or asked for the report.
    pub crashed: bool,
    /// Its number: 0 is the innermost.
    pub number: usize,
    /// Instruction, offset in its module, how it was found.
    pub frame: &'a Frame,
    /// The module's file name (`libssl.so.3`), if it lies in one.
    pub module: Option<&'a str>,
    /// The symbol that a [filter](super::FrameFilter) of this pmodule names and that the frame lies in. Without such a filter
    /// ask [`Target::symbolize`](crate::target::Target::symbolize), which reads whole symbol tables.
    pub symbol: Option<&'a str>,
}

/// Memory that is to go into the dump.
#[derive(Debug, Clone, Copy)]
pub struct RegionEvent<'a> {
    /// Its address.
    pub address: u64,
    /// What was read.
    pub bytes: &'a [u8],
    /// The thread whose stack it is, if it is one.
    pub stack_of: Option<i32>,
}

/// What the application and earlier pmodules noted.
#[derive(Debug, Clone, Copy)]
pub struct Noted<'a> {
    /// Why there is a report.
    pub reason: &'a Reason,
    /// Attributes, not yet scrubbed.
    pub attributes: &'a [Attribute],
    /// Breadcrumbs, oldest first, not yet scrubbed.
    pub breadcrumbs: &'a [Breadcrumb],
}

/// A finished dump: scrubbed by everything but scrub hooks.
#[derive(Debug, Clone, Copy)]
pub struct DumpView<'a> {
    bytes: &'a [u8],
    layout: &'a Layout,
}

impl<'a> DumpView<'a> {
    /// A view of `bytes`, whose layout is `layout`.
    pub fn new(bytes: &'a [u8], layout: &'a Layout) -> Self {
        Self { bytes, layout }
    }

    /// The minidump.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its structure.
    pub fn layout(&self) -> &'a Layout {
        self.layout
    }

    /// Address and bytes of every piece of memory in it, stacks included.
    pub fn regions(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let (bytes, layout) = (self.bytes, self.layout);
        layout.memory.iter().filter_map(move |entry| Some((entry.address, bytes.get(entry.bytes.clone())?)))
    }

    /// The bytes at an address, as far as one piece of memory has them.
    pub fn read(&self, range: Range<u64>) -> Option<&'a [u8]> {
        self.regions().find_map(|(address, bytes)| {
            let start = usize::try_from(range.start.checked_sub(address)?).ok()?;
            let end = usize::try_from(range.end.checked_sub(address)?).ok()?.min(bytes.len());
            bytes.get(start..end).filter(|found| !found.is_empty())
        })
    }
}
