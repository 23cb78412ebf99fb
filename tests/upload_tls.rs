//! Nothing leaves towards a server whose certificate does not hold, and the log says what is wrong with it.
#![cfg(feature = "upload")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code may panic")]

mod support;

use std::time::Duration;

use cenotaph::upload::http::Request;
use cenotaph::upload::response::Reply;
use cenotaph::upload::{Https, TimeLimits, Transport};
use support::{Answer, Authority, Identity, Server, reply};

const SECRET: &[u8] = b"report-that-must-not-leak";

fn limits() -> TimeLimits {
    TimeLimits { connect: Duration::from_secs(10), whole: Duration::from_secs(10) }
}

fn client(authority: &Authority) -> Https {
    let dir = tempfile::tempdir().unwrap();
    Https::new(&[authority.write_pem(&dir)], limits()).unwrap()
}

fn post(client: &Https, url: &str) -> Result<Reply, String> {
    client.send(Request { url, content_type: "application/octet-stream", gzip: false, body: SECRET.to_vec() })
}

/// Sends to a server with `identity` and expects a failure; returns its words.
fn refused(authority: &Authority, identity: Identity) -> String {
    let server = Server::tls(identity, vec![reply(200, "", "CrashID=bp-leak")]);
    let error = post(&client(authority), &server.url()).unwrap_err();
    let seen = server.finish();
    let seen = seen.lock().unwrap();
    assert!(seen.connections >= 1, "the client did not even try");
    assert!(seen.requests.is_empty(), "application bytes reached the server: {:?}", seen.requests);
    error
}

#[test]
fn a_good_certificate() {
    let authority = Authority::new();
    let server = Server::tls(authority.good(), vec![reply(200, "", "CrashID=bp-1")]);
    let answer = post(&client(&authority), &server.url()).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"CrashID=bp-1".as_slice()));
    let request = server.requests().remove(0);
    assert!(request.ends_with(SECRET));
    let head = String::from_utf8_lossy(&request[..request.len() - SECRET.len()]).to_lowercase();
    assert!(head.starts_with("post /submit http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", SECRET.len())), "{head}");
    assert!(head.contains(concat!("user-agent: cenotaph/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
    for absent in ["expect:", "transfer-encoding:", "content-encoding:", "referer:", "cookie:"] {
        assert!(!head.contains(absent), "{head}");
    }
}

#[test]
fn an_expired_certificate() {
    let authority = Authority::new();
    let error = refused(&authority, authority.certificate("127.0.0.1", 2020, 2021));
    assert!(error.contains("has expired"), "{error}");
}

#[test]
fn a_certificate_of_the_future() {
    let authority = Authority::new();
    let error = refused(&authority, authority.certificate("127.0.0.1", 2098, 2099));
    assert!(error.contains("not valid yet") && error.contains("clock"), "{error}");
}

#[test]
fn a_certificate_for_another_host() {
    let authority = Authority::new();
    let error = refused(&authority, authority.certificate("wrong.example", 2020, 2100));
    assert!(error.contains("another host"), "{error}");
}

#[test]
fn an_unknown_authority() {
    let error = refused(&Authority::new(), Authority::named("another").good());
    assert!(error.contains("unknown issuer") && error.contains(".certificate_authority()"), "{error}");
    // The same name, another key.
    let error = refused(&Authority::new(), Authority::new().good());
    assert!(error.contains("not signed by the trusted authority"), "{error}");
}

#[test]
fn plain_http_on_the_port() {
    let server = Server::plain(vec![reply(400, "", "plain")]);
    let error = post(&client(&Authority::new()), &server.url()).unwrap_err();
    assert!(error.contains("does not speak TLS"), "{error}");
    let seen = server.finish();
    let seen = seen.lock().unwrap();
    assert!(seen.requests.iter().all(|r| r.first() == Some(&0x16)), "more than a TLS greeting was sent");
}

#[test]
fn plain_http_is_never_used() {
    let server = Server::plain(vec![reply(200, "", "CrashID=bp-leak")]);
    let error = post(&client(&Authority::new()), &format!("http://{}/", server.address)).unwrap_err();
    assert!(error.contains("URL"), "{error}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn nobody_listens() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = post(&client(&Authority::new()), &format!("https://{address}/x?token=hush")).unwrap_err();
    assert!(error.contains("cannot be reached"), "{error}");
    assert!(!error.contains("hush"), "{error}");
}

#[test]
fn a_server_that_closes_in_the_middle_of_the_request() {
    let authority = Authority::new();
    let server = Server::tls(authority.good(), vec![Answer::CloseAfter(40)]);
    assert!(post(&client(&authority), &server.url()).is_err());
}

#[test]
fn a_server_that_stores_and_does_not_answer() {
    let authority = Authority::new();
    let server = Server::tls(authority.good(), vec![Answer::Close]);
    let error = post(&client(&authority), &server.url()).unwrap_err();
    assert!(error.contains("may have the report already"), "{error}");
    assert_eq!(server.connections(), 1, "the client must not try again by itself");
    assert!(server.requests()[0].ends_with(SECRET));
}

#[test]
fn a_reply_that_breaks_off_is_no_reply() {
    let authority = Authority::new();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nCrashID=bp-90960866-c9f0";
    let server = Server::tls(authority.good(), vec![Answer::Raw(half.to_owned())]);
    let error = post(&client(&authority), &server.url()).unwrap_err();
    assert!(error.contains("broke within the reply"), "{error}");
}

#[test]
fn a_server_that_hangs() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let short = TimeLimits { connect: Duration::from_secs(10), whole: Duration::from_millis(300) };
    let client = Https::new(&[authority.write_pem(&dir)], short).unwrap();
    let server = Server::tls(authority.good(), vec![Answer::Hang]);
    let error = post(&client, &server.url()).unwrap_err();
    assert!(error.contains("no answer within 0.3 s"), "{error}");
}

#[test]
fn redirects_are_not_followed() {
    let authority = Authority::new();
    let target = Server::tls(authority.good(), vec![reply(200, "", "CrashID=bp-leak")]);
    for status in [301, 302, 303, 307, 308] {
        let location = format!("Location: {}\r\n", target.url());
        let server = Server::tls(authority.good(), vec![reply(status, &location, "")]);
        assert_eq!(post(&client(&authority), &server.url()).unwrap().status, status);
    }
    assert_eq!(target.connections(), 0);
}

#[test]
fn an_endless_reply_is_cut() {
    let authority = Authority::new();
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1 << 20));
    let server = Server::tls(authority.good(), vec![Answer::Raw(endless)]);
    let answer = post(&client(&authority), &server.url()).unwrap();
    assert_eq!(answer.body.len(), cenotaph::upload::http::REPLY_LIMIT);
}
