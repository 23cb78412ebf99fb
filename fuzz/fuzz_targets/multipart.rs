//! Any body as a multipart form, read by the development collector.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The command line has no library; its parser needs nothing of it.
#[allow(dead_code)]
#[path = "../../cli/src/collect/multipart.rs"]
mod multipart;

/// Length of the content type (1 byte), content type, body.
fuzz_target!(|bytes: &[u8]| {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let (kind, body) = rest.split_at(usize::from(length).min(rest.len()));
    let boundary = multipart::boundary(&String::from_utf8_lossy(kind)).and_then(Result::ok);
    let boundary = boundary.unwrap_or_else(|| "B".to_owned());
    if let Ok(parts) = multipart::parse(body, &boundary) {
        for part in parts {
            assert!(part.content.start <= part.content.end && part.content.end <= body.len(), "{part:?}");
        }
    }
});
