//! A blackbox that a dying process has written over.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Patches: offset (3 bytes), length (1 byte), that many bytes.
fuzz_target!(|bytes: &[u8]| {
    let (mut patches, mut rest) = (Vec::new(), bytes);
    while let Some((&[a, b, c, length], more)) = rest.split_first_chunk() {
        let (patch, more) = more.split_at(usize::from(length).min(more.len()));
        patches.push((u64::from(u32::from_le_bytes([a, b, c, 0])), patch));
        rest = more;
    }
    // 128 attributes, 128 breadcrumbs, 64 secrets.
    assert!(cenotaph::fuzzing::blackbox(&patches).is_some_and(|found| found <= 128 + 128 + 64));
});
