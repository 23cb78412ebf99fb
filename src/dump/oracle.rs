//! What rust-minidump, an independent reader and stackwalker, finds in a dump. For tests only.
#![forbid(unsafe_code)]

use minidump::Module;
use minidump_processor::ProcessState;
use minidump_unwind::{FrameTrust, MultiSymbolProvider};

/// (module, offset or address, trust) of a frame.
pub(crate) type OracleFrame = (Option<String>, u64, FrameTrust);

/// Processes `dump` without any symbols: contexts, frame pointers and scanning.
pub(crate) fn process(dump: &[u8]) -> ProcessState {
    let dump = minidump::Minidump::read(dump).expect("a minidump");
    pollster::block_on(minidump_processor::process_minidump(&dump, &MultiSymbolProvider::new()))
        .expect("a stack walk")
}

/// Thread id and frames of each thread.
pub(crate) fn frames(state: &ProcessState) -> Vec<(u32, Vec<OracleFrame>)> {
    let frame = |frame: &minidump_unwind::StackFrame| {
        let module = frame.module.as_ref();
        let offset = frame.instruction - module.map_or(0, |module| module.base_address());
        (module.map(|module| module.code_file().into_owned()), offset, frame.trust)
    };
    state.threads.iter().map(|thread| (thread.thread_id, thread.frames.iter().map(frame).collect())).collect()
}
