//! From the spool over TLS to a server: what was not accepted is still there.
#![cfg(feature = "upload")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use cenotaph::Destination;
use cenotaph::privacy::Verdict;
use cenotaph::report::{Detail, Fingerprint, Reason, Report, ReportId, StackTrace};
use cenotaph::scrub::Receipt;
use cenotaph::spool::file::{Spool, State};
use cenotaph::spool::key::LocalKey;
use cenotaph::spool::{Part, PartKind, container};
use cenotaph::upload::drain::system_now_ms;
use cenotaph::upload::{Hooks, Https, Outbox, Summary, TimeLimits, drain};
use support::{Answer, Authority, Server, reply};

const ACCEPTED: &str = "CrashID=bp-90960866-c9f0-4e96-99b2-fc7830261121";

struct Device {
    dir: tempfile::TempDir,
    authority: Authority,
    ca: PathBuf,
    spool: Spool,
    key: LocalKey,
    log: Vec<String>,
    /// When the first pass of the test runs; the spool's own clock says the same.
    now: u64,
}

impl Device {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let ca = authority.write_pem(&dir);
        let spool = Spool::new(dir.path().join("spool"));
        let key = LocalKey::load_or_create(&dir.path().join("spool")).unwrap();
        Self { dir, authority, ca, spool, key, log: Vec::new(), now: 0 }
    }

    fn crash(&mut self) -> ReportId {
        let id = ReportId::random().unwrap();
        let now = system_now_ms();
        let report = Report {
            id,
            time_ms: now,
            application: "app".into(),
            version: "1".into(),
            environment: "test".into(),
            reason: Reason::Requested { reason: "x".into() },
            detail: Detail::Minidump,
            attributes: Vec::new(),
            breadcrumbs: Vec::new(),
            stack_trace: StackTrace::default(),
            fingerprint: Fingerprint::default(),
            device_id: None,
            annotations: Vec::new(),
            classifiers: Vec::new(),
            origin: None,
            repeats: Vec::new(),
            notes: Vec::new(),
            stages_ms: BTreeMap::new(),
            stages_bytes: BTreeMap::new(),
        };
        let part = |kind, bytes| Part { kind, bytes };
        let parts = [
            part(PartKind::Report, serde_json::to_vec(&report).unwrap()),
            part(PartKind::Receipt, serde_json::to_vec(&Receipt::default()).unwrap()),
            part(PartKind::StackTrace, b"MDMP small".to_vec()),
            part(PartKind::Minidump, b"MDMP large".to_vec()),
        ];
        let sealed = container::seal(id, now, &parts, &self.key).unwrap();
        self.spool.commit(id, &sealed.bytes, || true).unwrap();
        // Committed reports are due from now on.
        self.now = system_now_ms();
        id
    }

    fn drain(&mut self, servers: &[&Server], now: u64, whole: Duration, verdict: Verdict) -> Summary {
        let limits = TimeLimits { connect: Duration::from_secs(10), whole };
        let https = Https::new(std::slice::from_ref(&self.ca), limits).unwrap();
        let destinations: Vec<Destination> =
            servers.iter().map(|s| Destination::crashpad(&s.url()).unwrap()).collect();
        let log = &mut self.log;
        let mut hooks = Hooks {
            gate: &mut || verdict,
            log: &mut |event| log.push(event.to_string()),
            now_ms: &mut || now,
            random: &mut || 0,
        };
        drain(&mut Outbox::new(&self.spool, &self.key), &destinations, &mut Vec::new(), &https, &mut hooks)
            .unwrap()
    }

    fn pass(&mut self, server: &Server, now: u64) -> Summary {
        self.drain(&[server], now, Duration::from_secs(10), Verdict::Proceed)
    }

    fn states(&self) -> Vec<State> {
        self.spool.list().unwrap().into_iter().map(|item| item.state).collect()
    }
}

/// The decompressed body of a request.
fn body(request: &[u8]) -> Vec<u8> {
    let at = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&request[at..]).read_to_end(&mut plain).unwrap();
    plain
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

#[test]
fn accepted_and_gone() {
    let mut device = Device::new();
    let id = device.crash();
    let server = Server::tls(device.authority.good(), vec![reply(200, "", ACCEPTED)]);
    let summary = device.pass(&server, device.now);
    assert_eq!(summary, Summary { delivered: 1, ..Summary::default() });
    assert!(device.states().is_empty());
    let body = body(&server.requests()[0]);
    assert!(contains(&body, b"MDMP large") && !contains(&body, b"MDMP small"));
    assert!(contains(&body, format!("filename=\"{id}.dmp\"").as_bytes()));
}

#[test]
fn whatever_else_happens_it_stays_and_arrives_in_the_end() {
    let table: Vec<(&str, Answer)> = vec![
        ("stored, but no answer", Answer::Close),
        ("closed in the middle", Answer::CloseAfter(40)),
        ("hangs", Answer::Hang),
        ("captive portal", reply(200, "Content-Type: text/html\r\n", "<html>Log in</html>")),
        ("empty", reply(200, "", "")),
        ("half a reply", Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nCrashID=bp-9".into())),
        ("busy", reply(503, "Retry-After: 120\r\n", "")),
        ("too many", reply(429, "", "")),
        ("redirect", reply(307, "Location: https://127.0.0.1:1/\r\n", "")),
        ("failure", reply(500, "", ACCEPTED)),
    ];
    for (name, answer) in table {
        let mut device = Device::new();
        let id = device.crash();
        // Short only where the client has to give up by itself.
        let patience = if matches!(answer, Answer::Hang) { 300 } else { 10_000 };
        let server = Server::tls(device.authority.good(), vec![answer, reply(200, "", ACCEPTED)]);
        let whole = Duration::from_millis(patience);
        let summary = device.drain(&[&server], device.now, whole, Verdict::Proceed);
        assert_eq!((summary.delivered, summary.held), (0, 1), "{name}: {:?}", device.log);
        let items = device.spool.list().unwrap();
        assert_eq!((items.len(), items[0].id, items[0].state), (1, id, State::Pending), "{name}");
        assert_eq!(items[0].attempts, 1, "{name}");
        let due = summary.next_due_ms.unwrap();
        assert!(due > device.now, "{name}");
        if name == "busy" {
            assert!(due >= device.now + 120_000, "the server's wish");
        }
        // A new process at the next start.
        assert_eq!(device.pass(&server, due).delivered, 1, "{name}: {:?}", device.log);
        assert!(device.states().is_empty(), "{name}");
    }
}

#[test]
fn refused_for_good_is_kept_aside() {
    for (status, text) in
        [(200, "Discarded=rule_unsupported_product"), (400, ""), (401, ""), (403, ""), (404, ""), (413, "")]
    {
        let mut device = Device::new();
        device.crash();
        let server = Server::tls(device.authority.good(), vec![reply(status, "", text)]);
        assert_eq!(device.pass(&server, device.now).rejected, 1, "{status}");
        assert_eq!(device.states(), [State::Rejected], "{status}");
        // Never sent again.
        let before = server.connections();
        device.pass(&server, device.now + 3_600_000);
        assert_eq!(server.connections(), before, "{status}");
    }
}

#[test]
fn a_bad_certificate_keeps_all_reports_and_sends_nothing() {
    let mut device = Device::new();
    device.crash();
    device.crash();
    let expired = device.authority.certificate("127.0.0.1", 2020, 2021);
    let server = Server::tls(expired, vec![reply(200, "", ACCEPTED)]);
    let summary = device.pass(&server, device.now);
    assert_eq!(summary.held, 2);
    let seen = server.finish();
    let seen = seen.lock().unwrap();
    assert!(seen.requests.is_empty());
    assert_eq!(device.log.len(), 1, "{:?}", device.log);
    assert!(device.log[0].contains("has expired"), "{:?}", device.log);
    assert_eq!(device.states(), [State::Pending, State::Pending]);
    // Only the one that was tried has used an attempt.
    let attempts: u32 = device.spool.list().unwrap().iter().map(|item| item.attempts).sum();
    assert_eq!(attempts, 1);
}

#[test]
fn each_destination_gets_it_once() {
    let mut device = Device::new();
    device.crash();
    let up = Server::tls(device.authority.good(), vec![reply(200, "", ACCEPTED)]);
    let down = Server::tls(device.authority.good(), vec![reply(503, "", ""), reply(200, "", ACCEPTED)]);
    let summary = device.drain(&[&up, &down], device.now, Duration::from_secs(10), Verdict::Proceed);
    assert_eq!(summary.held, 1);
    assert_eq!(device.spool.list().unwrap()[0].delivered_mask, 0b01);
    let due = summary.next_due_ms.unwrap();
    assert_eq!(device.drain(&[&up, &down], due, Duration::from_secs(10), Verdict::Proceed).delivered, 1);
    assert_eq!((up.requests().len(), down.requests().len()), (1, 2));
}

#[test]
fn no_connection_without_consent() {
    let mut device = Device::new();
    device.crash();
    let server = Server::tls(device.authority.good(), vec![reply(200, "", ACCEPTED)]);
    let long = Duration::from_secs(10);
    assert!(device.drain(&[&server], device.now, long, Verdict::Hold).awaits_consent);
    assert_eq!(device.states(), [State::Pending]);
    assert_eq!(device.drain(&[&server], device.now, long, Verdict::Drop).dropped, 1);
    assert!(device.states().is_empty());
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_damaged_report_is_set_aside_and_the_next_one_goes() {
    let mut device = Device::new();
    device.crash();
    let item = device.spool.list().unwrap().remove(0);
    let mut bytes = std::fs::read(&item.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&item.path, bytes).unwrap();
    device.crash();
    let server = Server::tls(device.authority.good(), vec![reply(200, "", ACCEPTED)]);
    let summary = device.pass(&server, device.now);
    assert_eq!((summary.delivered, summary.rejected), (1, 1), "{:?}", device.log);
    assert_eq!(device.states(), [State::Rejected]);
    assert!(device.dir.path().exists());
}
