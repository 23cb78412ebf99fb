//! What rust-minidump, an independent reader and stackwalker, finds in a dump.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use minidump::{Minidump, MinidumpModuleList, MinidumpSystemInfo, Module as _};
use minidump_processor::ProcessState;
use minidump_unwind::debuginfo::DebugInfoSymbolProvider;
use minidump_unwind::{FrameTrust, MultiSymbolProvider};

/// A frame: the module's base name, the offset in it (or the address where there is no module), the trust.
pub(crate) type WalkedFrame = (String, u64, FrameTrust);

/// A dump, processed.
pub(crate) struct Walked {
    /// As the processor names it: "SIGSEGV / SEGV_MAPERR".
    pub(crate) reason: String,
    /// The crash address, if there was a crash.
    pub(crate) address: Option<u64>,
    /// The crashing (or requesting) thread's frames, innermost first.
    pub(crate) frames: Vec<WalkedFrame>,
    pub(crate) state: ProcessState,
}

/// Walks `dump`. The binaries' unwind tables are taken for the modules that `reference` names, by their addresses: so a
/// dump whose module paths were scrubbed is walked with the same tables as the one before scrubbing.
pub(crate) fn walk(dump: &[u8], reference: &[u8]) -> Walked {
    let reference = Minidump::read(reference).unwrap();
    let system = reference.get_stream::<MinidumpSystemInfo>().unwrap();
    let modules = reference.get_stream::<MinidumpModuleList>().unwrap();
    let mut provider = MultiSymbolProvider::new();
    provider.add(Box::new(pollster::block_on(DebugInfoSymbolProvider::new(&system, &modules))));
    let dump = Minidump::read(dump).unwrap();
    let state = pollster::block_on(minidump_processor::process_minidump(&dump, &provider)).unwrap();
    let thread = &state.threads[state.requesting_thread.expect("a crashing or requesting thread")];
    let frames = thread.frames.iter().map(|frame| match &frame.module {
        Some(module) => {
            let path = module.code_file().into_owned();
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            (name, frame.instruction - module.base_address(), frame.trust)
        }
        None => (String::new(), frame.instruction, frame.trust),
    });
    let (reason, address) = match &state.exception_info {
        Some(info) => (info.reason.to_string(), Some(info.address.0)),
        None => (String::new(), None),
    };
    Walked { reason, address, frames: frames.collect(), state }
}
