//! Memory that registers and live stacks point to: which addresses, and adding it to a dump.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::dump::Layout;
use crate::error::Result;

/// Bytes kept around each address: half before, half behind.
pub const AROUND: u64 = 1024;

/// Address ranges worth keeping, merged, page-clipped to `readable` (ascending, disjoint), at most `budget` bytes
/// in all. The crashing thread's registers come first, then its stack from the stack pointer up, then the other threads'.
/// Ranges that the dump holds already, and addresses inside `modules`, are left out.
pub fn wanted(_dump: &[u8], _layout: &Layout, _readable: &[Range<u64>], _budget: u64) -> Vec<Range<u64>> {
    todo!()
}

/// The dump with `memory` added to its memory list. The old list's bytes are zeroed.
pub fn append(_dump: Vec<u8>, _layout: &Layout, _memory: &[(u64, Vec<u8>)]) -> Result<Vec<u8>> {
    todo!()
}
