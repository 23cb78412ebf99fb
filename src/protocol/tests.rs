use super::*;

fn context() -> CrashContext {
    let mut context = SignalRequest::empty().context;
    context.tid = 7;
    context.siginfo.ssi_signo = 11;
    context
}

#[test]
fn requests_survive_the_way() {
    let long = "x".repeat(MAX_TEXT * 2);
    let causes = [
        Cause::Signal,
        Cause::Requested("now".into()),
        Cause::Requested(String::new()),
        Cause::Hang { limit_ms: 1500 },
        Cause::Panic {
            message: "boom: ä".into(),
            location: "src/a.rs:1:2".into(),
            thread: "main".into(),
            again: false,
        },
        Cause::Panic { message: "again".into(), location: String::new(), thread: String::new(), again: true },
    ];
    for cause in causes {
        let bytes = capture_request(3, 9, 5, context(), &cause);
        let ClientMessage::Capture(request) = parse(&bytes).unwrap() else { panic!() };
        assert_eq!((request.sequence, request.monotonic_ns, request.monitor), (3, 9, 5));
        assert_eq!((request.context.tid, request.context.siginfo.ssi_signo), (7, 11));
        assert_eq!(request.cause, cause);
    }
    let bytes = capture_request(1, 1, 0, context(), &Cause::Requested(long));
    assert!(bytes.len() <= MAX_MESSAGE);
    assert!(parse(&bytes).is_ok());
}

#[test]
fn answers_and_controls_survive_the_way() {
    let sent = Answer { kind: AnswerKind::Spooled, sequence: 5, report: ReportId([7; 16]) };
    assert_eq!(parse_answer(&answer(sent)), Some(sent));
    assert!(matches!(parse(&hello(&[1; NONCE])), Ok(ClientMessage::Hello(n)) if n == [1; NONCE]));
    assert!(matches!(parse(&flush(4)), Ok(ClientMessage::Flush { sequence: 4 })));
    assert!(matches!(parse(&consent_changed()), Ok(ClientMessage::ConsentChanged)));
    assert!(matches!(parse(&watches_changed()), Ok(ClientMessage::WatchesChanged)));
    assert!(matches!(parse(&share()), Ok(ClientMessage::Share)));
    let joins = parse(&join(&[3; 32]));
    assert!(matches!(joins, Ok(ClientMessage::Join { settings }) if settings == [3; 32]));
}

#[test]
fn anything_else_is_refused() {
    let whole = capture_request(1, 1, 0, context(), &Cause::Signal);
    for length in 0..size_of::<SignalRequest>() {
        assert!(parse(&whole[..length]).is_err(), "{length}");
    }
    assert!(parse(&[whole.as_slice(), &vec![b'a'; MAX_TEXT + 1]].concat()).is_err());
    assert!(parse(&[flush(1).as_slice(), b"x"].concat()).is_err());
    assert!(parse_answer(&whole).is_none());
    let mut other = flush(1);
    other[7] = 2;
    assert!(parse(&other).is_err());
}
