//! Any reply of a server: only 2xx accepts, and nothing that is logged can forge a line.
#![no_main]

use cenotaph::Protocol;
use cenotaph::upload::response::{Outcome, Reply, classify};
use libfuzzer_sys::fuzz_target;

/// Status (2 bytes), lengths of `Retry-After` and `Content-Type` (1 byte each), both texts, the body.
fuzz_target!(|bytes: &[u8]| {
    let Some((&[high, low, after, kind], rest)) = bytes.split_first_chunk() else { return };
    let (after, rest) = rest.split_at(usize::from(after).min(rest.len()));
    let (kind, body) = rest.split_at(usize::from(kind).min(rest.len()));
    let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned());
    let reply = Reply {
        status: u16::from_be_bytes([high, low]) % 1000,
        retry_after: text(after),
        content_type: text(kind),
        body: body.to_vec(),
    };
    for protocol in [Protocol::Crashpad, Protocol::Backtrace] {
        let said = match classify(protocol, &reply, 1_800_000_000_000) {
            Outcome::Accepted { server_id } => {
                assert!((200..300).contains(&reply.status) && !server_id.is_empty());
                server_id
            }
            // In the server's own words, which may be none.
            Outcome::Discarded { reason } => reason,
            Outcome::Later { reason, .. } | Outcome::Rejected { reason } => {
                assert!(!reason.is_empty());
                reason
            }
        };
        assert!(said.len() < 400, "{said}");
        assert!(said.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{said:?}");
    }
});
