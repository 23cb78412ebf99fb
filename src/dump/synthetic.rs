//! A stack trace as a small minidump, for collectors that take nothing else.
#![forbid(unsafe_code)]

use crate::error::Result;
use crate::report::{Reason, StackTrace};

/// Writes `trace` as a minidump whose stacks hold only return addresses and the frame-pointer chain, so that any
/// unwinder finds the same modules and offsets. `time_ms` is Unix time.
pub fn write(_trace: &StackTrace, _reason: &Reason, _time_ms: u64) -> Result<Vec<u8>> {
    todo!()
}
