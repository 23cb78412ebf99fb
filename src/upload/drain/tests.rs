use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use super::*;
use crate::report::{Detail, Fingerprint, Reason, Report, StackTrace};
use crate::scrub::Receipt;

const NOW: u64 = 1_700_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Pending(Progress),
    Deleted,
    Rejected,
    Discarded,
}

type Shared = Rc<RefCell<BTreeMap<ReportId, State>>>;

struct FakeQueue {
    states: Shared,
    /// What `open` answers, if not a report.
    open: fn() -> Option<Error>,
}

struct FakeClaim {
    id: ReportId,
    states: Shared,
    open: fn() -> Option<Error>,
}

impl Queue for FakeQueue {
    type Claim = FakeClaim;
    fn claim_due(&mut self, now_ms: u64) -> Result<Option<FakeClaim>> {
        let due = |state: &State| matches!(state, State::Pending(p) if p.next_due_ms <= now_ms);
        let id = self.states.borrow().iter().find(|(_, s)| due(s)).map(|(id, _)| *id);
        Ok(id.map(|id| FakeClaim { id, states: self.states.clone(), open: self.open }))
    }
    fn next_due_ms(&mut self) -> Result<Option<u64>> {
        let states = self.states.borrow();
        let due = states.values().filter_map(|s| match s {
            State::Pending(p) => Some(p.next_due_ms),
            _ => None,
        });
        Ok(due.min())
    }
}

impl FakeClaim {
    fn set(&self, state: State) -> Result<()> {
        self.states.borrow_mut().insert(self.id, state);
        Ok(())
    }
}

impl Claim for FakeClaim {
    fn id(&self) -> ReportId {
        self.id
    }
    fn progress(&self) -> Progress {
        match self.states.borrow()[&self.id] {
            State::Pending(progress) => progress,
            other => panic!("claimed in state {other:?}"),
        }
    }
    fn open(&mut self) -> Result<Opened> {
        match (self.open)() {
            Some(error) => Err(error),
            None => Ok(opened(self.id)),
        }
    }
    fn record(&mut self, progress: Progress) -> Result<()> {
        self.set(State::Pending(progress))
    }
    fn delivered(self) -> Result<()> {
        self.set(State::Deleted)
    }
    fn hold(self, progress: Progress) -> Result<()> {
        self.set(State::Pending(progress))
    }
    fn reject(self, _reason: &str) -> Result<()> {
        self.set(State::Rejected)
    }
    fn discard(self) -> Result<()> {
        self.set(State::Discarded)
    }
}

fn opened(id: ReportId) -> Opened {
    Opened {
        report: Report {
            id,
            time_ms: NOW,
            application: "app".into(),
            version: "1".into(),
            environment: "test".into(),
            reason: Reason::Requested { reason: "x".into() },
            detail: Detail::StackTrace,
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
        },
        dump: b"MDMP".to_vec(),
        receipt: Receipt::default(),
    }
}

/// What was sent: host, gzip, decoded body.
type Sent = (String, bool, Vec<u8>);

/// What the server says to a host and whether the body came as gzip.
type Script = Box<dyn Fn(&str, bool) -> Result<Reply, String>>;

struct FakeTransport {
    sent: RefCell<Vec<Sent>>,
    answer: Script,
}

impl Transport for FakeTransport {
    fn send(&self, request: Request<'_>) -> Result<Reply, String> {
        let mut body = Vec::new();
        if request.gzip {
            flate2::read::GzDecoder::new(&request.body[..]).read_to_end(&mut body).unwrap();
        } else {
            body.clone_from(&request.body);
        }
        let host = request.url.split('/').nth(2).unwrap().to_owned();
        let answer = (self.answer)(&host, request.gzip);
        self.sent.borrow_mut().push((host, request.gzip, body));
        answer
    }
}

fn reply(status: u16, body: &str) -> Result<Reply, String> {
    Ok(Reply { status, retry_after: None, content_type: None, body: body.as_bytes().to_vec() })
}

const ACCEPTED: &str = "CrashID=bp-90960866-c9f0-4e96-99b2-fc7830261121";

struct Bench {
    queue: FakeQueue,
    states: Shared,
    lanes: Vec<Lane>,
    transport: FakeTransport,
    hosts: Vec<&'static str>,
    gate: Vec<Verdict>,
    log: Vec<String>,
    now: Cell<u64>,
}

impl Bench {
    fn new(
        reports: u8,
        hosts: &[&'static str],
        answer: impl Fn(&str, bool) -> Result<Reply, String> + 'static,
    ) -> Self {
        let states: Shared = Rc::default();
        for n in 0..reports {
            states.borrow_mut().insert(ReportId([n; 16]), State::Pending(Progress::default()));
        }
        Self {
            queue: FakeQueue { states: states.clone(), open: || None },
            states,
            lanes: Vec::new(),
            transport: FakeTransport { sent: RefCell::default(), answer: Box::new(answer) },
            hosts: hosts.to_vec(),
            gate: Vec::new(),
            log: Vec::new(),
            now: Cell::new(NOW),
        }
    }

    fn drain(&mut self) -> Summary {
        let destinations: Vec<Destination> = self
            .hosts
            .iter()
            .map(|h| Destination::crashpad(&format!("https://{h}/submit?token=secret")).unwrap())
            .collect();
        let mut verdicts = std::mem::take(&mut self.gate).into_iter();
        let mut last = Verdict::Proceed;
        let (log, now) = (&mut self.log, &self.now);
        let mut hooks = Hooks {
            gate: &mut || {
                last = verdicts.next().unwrap_or(last);
                last
            },
            log: &mut |event| log.push(event.to_string()),
            now_ms: &mut || now.get(),
            random: &mut || 0,
        };
        drain(&mut self.queue, &destinations, &mut self.lanes, &self.transport, &mut hooks).unwrap()
    }

    fn states(&self) -> Vec<State> {
        self.states.borrow().values().copied().collect()
    }

    fn sent(&self) -> Vec<(String, bool)> {
        self.transport.sent.borrow().iter().map(|(host, gzip, _)| (host.clone(), *gzip)).collect()
    }
}

#[test]
fn accepted_reports_are_deleted() {
    let mut bench = Bench::new(2, &["a.test"], |_, _| reply(200, ACCEPTED));
    let summary = bench.drain();
    assert_eq!(summary, Summary { delivered: 2, ..Summary::default() });
    assert_eq!(bench.states(), [State::Deleted, State::Deleted]);
    let sent = bench.transport.sent.borrow();
    assert!(sent[0].1, "gzip first");
    assert!(memchr::memmem::find(&sent[0].2, b"MDMP").is_some());
    assert!(
        bench.log[0].ends_with("to crashpad a.test: accepted as bp-90960866-c9f0-4e96-99b2-fc7830261121")
    );
    assert!(bench.log.iter().all(|line| !line.contains("secret")));
}

#[test]
fn the_first_network_failure_ends_the_batch() {
    let mut bench = Bench::new(3, &["a.test"], |_, _| Err("no route".into()));
    let summary = bench.drain();
    assert_eq!(bench.sent().len(), 1);
    assert_eq!(summary.held, 3);
    // Only the report that was tried has used a try; all of them wait.
    let attempts: Vec<u32> = bench
        .states()
        .iter()
        .map(|s| match s {
            State::Pending(p) => {
                assert!(p.next_due_ms > NOW);
                p.attempts
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(attempts, [1, 0, 0]);
    assert!(summary.next_due_ms.unwrap() > NOW);
    // Due again later, not at once.
    bench.drain();
    assert_eq!(bench.sent().len(), 1);
    bench.now.set(NOW + 60_000);
    bench.drain();
    assert_eq!(bench.sent().len(), 2);
}

#[test]
fn a_servers_wish_holds_for_all_reports_of_the_destination() {
    let mut bench = Bench::new(2, &["a.test"], |_, _| {
        Ok(Reply { status: 503, retry_after: Some("120".into()), content_type: None, body: Vec::new() })
    });
    bench.drain();
    bench.now.set(NOW + 119_999);
    bench.drain();
    assert_eq!(bench.sent().len(), 1);
    bench.now.set(NOW + 120_001);
    bench.drain();
    assert_eq!(bench.sent().len(), 2);
}

#[test]
fn a_server_in_trouble_is_not_asked_for_every_report() {
    let mut bench = Bench::new(3, &["a.test"], |_, _| reply(500, ""));
    assert_eq!(bench.drain().held, 3);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_408_is_about_one_report() {
    let mut bench = Bench::new(3, &["a.test"], |_, _| reply(408, ""));
    assert_eq!(bench.drain().held, 3);
    assert_eq!(bench.sent().len(), 3);
}

#[test]
fn a_report_that_a_server_chokes_on_does_not_hold_up_the_others() {
    let first = std::cell::Cell::new(true);
    let mut bench =
        Bench::new(
            3,
            &["a.test"],
            move |_, _| {
                if first.replace(false) { reply(500, "") } else { reply(200, ACCEPTED) }
            },
        );
    bench.drain();
    bench.now.set(NOW + 60_000);
    assert_eq!(bench.drain().delivered, 3);
}

#[test]
fn each_destination_on_its_own() {
    let mut bench = Bench::new(2, &["up.test", "down.test", "never.test"], |host, _| match host {
        "up.test" => reply(200, ACCEPTED),
        "down.test" => Err("refused".into()),
        _ => reply(413, ""),
    });
    assert_eq!(bench.drain().held, 2);
    let sent: Vec<String> = bench.sent().into_iter().map(|(host, _)| host).collect();
    assert_eq!(sent, ["up.test", "down.test", "never.test", "up.test", "never.test"]);
    for state in bench.states() {
        let State::Pending(progress) = state else { panic!("{state:?}") };
        assert_eq!((progress.delivered, progress.refused), (0b001, 0b100));
    }
    // Nobody is asked twice for what is settled; a refusal keeps the report on disk.
    bench.transport.sent.borrow_mut().clear();
    bench.transport.answer = Box::new(|_, _| reply(200, ACCEPTED));
    bench.now.set(NOW + 60_000);
    let summary = bench.drain();
    assert_eq!(summary.rejected, 2);
    assert_eq!(bench.sent().len(), 2);
    assert_eq!(bench.states(), [State::Rejected, State::Rejected]);
}

#[test]
fn a_kill_after_an_acceptance_does_not_send_it_there_again() {
    let mut bench = Bench::new(1, &["up.test", "down.test"], |_, _| reply(200, ACCEPTED));
    let states = bench.states.clone();
    bench.transport.answer = Box::new(move |host, _| {
        if host == "down.test" {
            // What a new process would find if this one died here.
            let State::Pending(p) = states.borrow()[&ReportId([0; 16])] else { panic!() };
            assert_eq!(p.delivered, 0b01);
        }
        reply(200, ACCEPTED)
    });
    assert_eq!(bench.drain().delivered, 1);
}

#[test]
fn what_a_server_discards_or_rejects_stays_on_disk() {
    for (status, body) in [(200, "Discarded=rule_x"), (400, ""), (401, ""), (413, "")] {
        let mut bench = Bench::new(1, &["a.test"], move |_, _| reply(status, body));
        assert_eq!(bench.drain().rejected, 1, "{status}");
        assert_eq!(bench.states(), [State::Rejected], "{status}");
    }
    for (status, body) in [(200, ""), (200, "<html>portal</html>"), (200, "ok"), (307, ""), (429, "")] {
        let mut bench = Bench::new(1, &["a.test"], move |_, _| reply(status, body));
        assert_eq!(bench.drain().held, 1, "{status} {body}");
        assert!(matches!(bench.states()[0], State::Pending(p) if p.attempts == 1));
    }
}

#[test]
fn a_server_without_gzip_gets_plain_bodies() {
    for refusal in [400, 415] {
        let mut bench = Bench::new(2, &["old.test"], move |_, gzip| {
            if gzip { reply(refusal, "bad form") } else { reply(200, "00112233445566778899aabbccddeeff") }
        });
        assert_eq!(bench.drain().delivered, 2);
        let gzip: Vec<bool> = bench.sent().into_iter().map(|(_, gzip)| gzip).collect();
        assert_eq!(gzip, [true, false, false], "remembered after the first");
    }
    // A report that is wrong in either form says nothing about gzip.
    let mut bench = Bench::new(1, &["a.test"], |_, _| reply(400, ""));
    assert_eq!(bench.drain().rejected, 1);
    assert!(!bench.lanes[0].identity);
}

#[test]
fn no_connection_without_consent() {
    use Verdict::{Drop, Hold, Proceed};
    let mut bench = Bench::new(2, &["a.test"], |_, _| reply(200, ACCEPTED));
    bench.gate = vec![Hold];
    let summary = bench.drain();
    assert!(summary.awaits_consent && bench.sent().is_empty());
    assert!(bench.states().iter().all(|s| *s == State::Pending(Progress::default())));

    // Withdrawn after the claim, before the connection.
    bench.gate = vec![Proceed, Drop];
    assert_eq!(bench.drain().dropped, 2);
    assert!(bench.sent().is_empty());
    assert_eq!(bench.states(), [State::Discarded, State::Discarded]);

    // Withdrawn between the compressed try and the plain one.
    let mut bench = Bench::new(1, &["a.test"], |_, _| reply(400, ""));
    bench.gate = vec![Proceed, Proceed, Drop];
    assert_eq!(bench.drain().dropped, 1);
    assert_eq!(bench.sent().len(), 1);

    // Held between two destinations: what was accepted is remembered.
    let mut bench = Bench::new(1, &["a.test", "b.test"], |_, _| reply(200, ACCEPTED));
    bench.gate = vec![Proceed, Proceed, Hold];
    let summary = bench.drain();
    assert!(summary.awaits_consent && summary.held == 1 && bench.sent().len() == 1);
    assert!(matches!(bench.states()[0], State::Pending(p) if p.delivered == 1 && p.attempts == 0));
}

#[test]
fn withdrawal_reaches_reports_of_a_destination_that_is_down() {
    let mut bench = Bench::new(1, &["a.test"], |_, _| Err("down".into()));
    bench.lanes = vec![Lane { not_before_ms: NOW + 1_000_000, identity: false }];
    bench.gate = vec![Verdict::Drop];
    assert_eq!(bench.drain().dropped, 1);
}

#[test]
fn reports_that_cannot_be_opened() {
    let mut bench = Bench::new(1, &["a.test"], |_, _| reply(200, ACCEPTED));
    bench.queue.open = || Some(Error::Unsealed("wrong key"));
    assert_eq!(bench.drain().rejected, 1);
    let mut bench = Bench::new(1, &["a.test"], |_, _| reply(200, ACCEPTED));
    bench.queue.open = || Some(Error::System { call: "read", source: std::io::Error::other("EIO") });
    assert_eq!(bench.drain().held, 1);
    assert!(bench.sent().is_empty());
}

#[test]
fn destinations_that_no_longer_exist_do_not_count() {
    let mut bench = Bench::new(1, &["a.test"], |_, _| reply(200, ACCEPTED));
    let old = Progress { delivered: 0b110, refused: 0b1000, ..Progress::default() };
    bench.states.borrow_mut().insert(ReportId([0; 16]), State::Pending(old));
    assert_eq!(bench.drain().delivered, 1);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn without_destinations_everything_stays() {
    let mut bench = Bench::new(2, &[], |_, _| panic!("nothing may be sent"));
    let summary = bench.drain();
    assert_eq!(summary, Summary::default());
    assert!(bench.states().iter().all(|s| matches!(s, State::Pending(_))));
}
