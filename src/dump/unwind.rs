//! Frames of every thread, found on the device from a dump.
#![forbid(unsafe_code)]

use crate::dump::{Layout, layout::ModuleEntry};
use crate::error::Result;
use crate::report::StackTrace;

/// Where unwind sections come from: the mapped files, in the worker; memory, in tests.
pub trait Binaries {
    /// The ELF file of `module`, whole. `path` is the name in the dump. `None` if it cannot be had or its
    /// build id is not `build_id`.
    fn elf(&self, path: &str, build_id: &[u8], module: &ModuleEntry) -> Option<Vec<u8>>;
}

/// Unwinds all threads of `dump`, the crashing one first.
pub fn stack_trace(_dump: &[u8], _layout: &Layout, _binaries: &dyn Binaries) -> Result<StackTrace> {
    todo!()
}
