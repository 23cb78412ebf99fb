//! Any bytes as a message between application and monitor.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(written) = cenotaph::fuzzing::message(bytes) else { return };
    // What was understood is understood again, as the same.
    assert_eq!(cenotaph::fuzzing::message(&written), Some(written));
});
