//! Any bytes as a binary that a dump names: finding its unwind sections.
#![no_main]

use cenotaph::dump::binaries::{MAX_SECTION, sections_of};
use libfuzzer_sys::fuzz_target;

/// The build id that the seeds have.
const BUILD_ID: &[u8] = b"\xce\x07\xaf\x01\xce\x07\xaf\x01\xce\x07\xaf\x01\xce\x07\xaf\x01\xce\x07\xaf\x01";

fuzz_target!(|bytes: &[u8]| {
    let Some(sections) = sections_of(bytes, BUILD_ID) else { return };
    for section in [&sections.eh_frame, &sections.eh_frame_hdr, &sections.debug_frame].into_iter().flatten() {
        assert!(section.bytes.len() as u64 <= MAX_SECTION.min(bytes.len() as u64));
    }
});
