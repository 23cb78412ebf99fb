use super::*;

use Protocol::{Backtrace, Crashpad};

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, retry_after: None, content_type: None, body: body.as_bytes().to_vec() }
}

fn accepted_as(protocol: Protocol, status: u16, body: &str) -> Option<String> {
    match classify(protocol, &reply(status, body), 0) {
        Outcome::Accepted { server_id } => Some(server_id),
        _ => None,
    }
}

#[test]
fn acceptance_is_parsed() {
    let id = "90960866-c9f0-4e96-99b2-fc7830261121";
    let bp = format!("bp-{id}");
    let table = [
        (Crashpad, format!("CrashID={bp}"), Some(bp.as_str())),
        (Crashpad, format!("CrashID={bp}\n"), Some(&bp)),
        (Crashpad, format!("\r\nStopSendingReportsFor=3\r\nCrashID={bp}\r\nViewURL=x"), Some(&bp)),
        (Crashpad, id.to_owned(), Some(id)),
        (Crashpad, format!(" {bp}\n"), Some(&bp)),
        (Crashpad, "00112233445566778899aabbccddeeff".to_owned(), Some("00112233445566778899aabbccddeeff")),
        (Crashpad, format!("{{\"id\":\"{id}\"}}"), Some(id)),
        (Crashpad, "{\"id\":42}".to_owned(), Some("42")),
        (Crashpad, String::new(), None),
        (Crashpad, "OK".to_owned(), None),
        (Crashpad, "deadbeef".to_owned(), None),
        (Crashpad, "CrashID=".to_owned(), None),
        (Crashpad, "CrashID=<script>".to_owned(), None),
        (Crashpad, "{\"id\":null}".to_owned(), None),
        (Crashpad, "{\"id\":\"\"}".to_owned(), None),
        (Crashpad, "<html>CrashID is not here</html>".to_owned(), None),
        (Crashpad, "{\"response\":\"ok\",\"_rxid\":\"a\"}".to_owned(), None),
        (Crashpad, format!("CrashID={}", "a".repeat(129)), None),
        (Backtrace, format!("{{\"response\":\"ok\",\"_rxid\":\"{id}\"}}"), Some(id)),
        (Backtrace, format!("{{\"response\":\"ok\",\"_rxid\":\"{id}\",\"unique\":true}}\n"), Some(id)),
        (Backtrace, "{\"response\":\"ok\"}".to_owned(), None),
        (Backtrace, format!("{{\"response\":\"error\",\"_rxid\":\"{id}\"}}"), None),
        (Backtrace, format!("{{\"_rxid\":\"{id}\"}}"), None),
        (Backtrace, format!("CrashID={bp}"), None),
        (Backtrace, id.to_owned(), None),
        (Backtrace, "[".repeat(60_000), None),
    ];
    for (protocol, body, id) in &table {
        assert_eq!(accepted_as(*protocol, 200, body).as_deref(), *id, "{protocol:?} {body:.60}");
        for status in [100, 304, 307, 400, 403, 500, 503] {
            assert_eq!(accepted_as(*protocol, status, body), None, "{status}");
        }
        // Never a discard or rejection either, when the status is fine but the text is not understood.
        if id.is_none() {
            assert!(matches!(classify(*protocol, &reply(200, body), 0), Outcome::Later { .. }), "{body:.60}");
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_no_acceptance() {
    let reply =
        Reply { status: 200, retry_after: None, content_type: None, body: b"CrashID=bp-1\xff".to_vec() };
    assert!(matches!(classify(Crashpad, &reply, 0), Outcome::Later { .. }));
}

#[test]
fn a_discard_is_final_even_with_200() {
    for body in ["Discarded=rule_unsupported_product", "CrashID=bp-1\nDiscarded=rule_unsupported_product"] {
        assert_eq!(
            classify(Crashpad, &reply(200, body), 0),
            Outcome::Discarded { reason: "rule_unsupported_product".to_owned() }
        );
    }
    // With a status that says "my fault, later", the status counts.
    assert!(matches!(classify(Crashpad, &reply(503, "Discarded=x"), 0), Outcome::Later { .. }));
    assert!(matches!(classify(Crashpad, &reply(400, "Discarded=malformed_x"), 0), Outcome::Rejected { .. }));
}

#[test]
fn statuses() {
    use Scope::{Destination, Report};
    let table = [
        (301, Some(Destination)),
        (307, Some(Destination)),
        (400, None),
        (401, None),
        (403, None),
        (404, None),
        (408, Some(Report)),
        (413, None),
        (415, None),
        (422, None),
        (425, Some(Report)),
        (429, Some(Destination)),
        (500, Some(Destination)),
        (502, Some(Destination)),
        (503, Some(Destination)),
        (504, Some(Destination)),
        (599, Some(Destination)),
        (101, None),
        (999, None),
    ];
    for (status, expected) in table {
        for protocol in [Crashpad, Backtrace] {
            let found = match classify(protocol, &reply(status, ""), 0) {
                Outcome::Later { scope, reason, .. } => {
                    assert!(reason.contains(&status.to_string()), "{reason}");
                    Some(scope)
                }
                Outcome::Rejected { reason } => {
                    assert!(reason.contains(&status.to_string()), "{reason}");
                    None
                }
                other => panic!("{status}: {other:?}"),
            };
            assert_eq!(found, expected, "{status}");
        }
    }
}

#[test]
fn a_portal_is_named() {
    let Outcome::Later { reason, .. } = classify(Crashpad, &reply(200, "\n<html>Log in</html>"), 0) else {
        panic!()
    };
    assert!(reason.contains("captive portal"), "{reason}");
}

#[test]
fn retry_after_in_both_forms() {
    let table = [
        ("120", Some(RetryAfter::Seconds(120))),
        (" 0 ", Some(RetryAfter::Seconds(0))),
        ("99999999999999999999999", Some(RetryAfter::Seconds(u64::MAX))),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(RetryAfter::At(784_111_777))),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ];
    for (text, expected) in table {
        let mut reply = reply(503, "");
        reply.retry_after = Some(text.to_owned());
        let Outcome::Later { retry_after, .. } = classify(Backtrace, &reply, 0) else { panic!() };
        assert_eq!(retry_after, expected, "{text:?}");
    }
}

#[test]
fn a_servers_words_cannot_forge_a_log() {
    let evil = format!("bad\u{1b}[31m\u{202e}{}\r\nreport delivered", "x".repeat(500));
    let Outcome::Rejected { reason } = classify(Crashpad, &reply(400, &evil), 0) else { panic!() };
    assert!(reason.len() < 200 && reason.bytes().all(|b| (b' '..=b'~').contains(&b)), "{reason}");
    assert!(!reason.contains("report delivered"));
}
