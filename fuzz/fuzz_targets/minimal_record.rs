//! A minimal record that a dying process, or somebody else, left in the spool: as it is, and with a true checksum.
#![no_main]

use cenotaph::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fuzzing::minimal_record(bytes);
    // The first 8 bytes are always those of a record, or nothing would ever come of it.
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    let body = [b"CENOLAST\x01\0\0\0\x48\x81\x01\0".as_slice(), rest].concat();
    let record = fuzzing::with_checksum(&body);
    if let Some(frames) = fuzzing::minimal_record(&record) {
        assert!(frames <= fuzzing::MAX_FRAMES);
        // One changed byte, and it is none.
        let at = head.iter().fold(0_usize, |at, byte| at * 7 + usize::from(*byte)) % record.len();
        let mut damaged = record;
        damaged[at] ^= 1;
        assert_eq!(fuzzing::minimal_record(&damaged), None);
    }
});
