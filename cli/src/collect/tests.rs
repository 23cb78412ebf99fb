use std::time::Duration;

use cenotaph::upload::http::Request as Upload;
use cenotaph::upload::multipart::{File as UploadFile, Form};
use cenotaph::upload::{Https, TimeLimits, Transport};

use super::*;

const ID: &str = "90960866-c9f0-4e96-99b2-fc7830261121";

fn start(dir: &Path, fail: Option<Fail>) -> Server {
    let options = Options { listen: "127.0.0.1:0".parse().unwrap(), dir: dir.to_path_buf(), fail };
    Server::start(&options, |_| {}).unwrap()
}

fn client(server: &Server) -> Https {
    let limits = TimeLimits { connect: Duration::from_secs(20), whole: Duration::from_secs(20) };
    Https::new(&[server.authority().to_path_buf()], limits).unwrap()
}

fn form(dump: &[u8]) -> Form {
    Form {
        fields: vec![("prod".into(), "app".into()), ("../evil".into(), "x".into())],
        files: vec![UploadFile {
            name: "upload_file_minidump".into(),
            file_name: format!("{ID}.dmp"),
            media_type: "application/octet-stream",
            bytes: dump.to_vec(),
        }],
    }
}

fn send(server: &Server, path: &str, dump: &[u8], gzip: bool) -> (u16, String) {
    let encoded = form(dump).encode().unwrap();
    let body = if gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&encoded.body).unwrap();
        encoder.finish().unwrap()
    } else {
        encoded.body
    };
    let url = format!("https://{}{path}", server.address());
    let request = Upload { url: &url, content_type: &encoded.content_type, gzip, body };
    let reply = client(server).send(request).unwrap();
    (reply.status, String::from_utf8(reply.body).unwrap())
}

/// The folders of requests, in order.
fn folders(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().unwrap().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_the_library_sends_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), None);
    assert!(server.address().port() != 0);
    let dump: Vec<u8> = b"MDMP".iter().copied().chain((0..100_000_u32).flat_map(u32::to_le_bytes)).collect();
    let (status, body) = send(&server, "/submit", &dump, true);
    assert!(status == 200 && body.starts_with("CrashID=bp-"), "{body}");
    let (status, body) = send(&server, "/universe/token/minidump", &dump, false);
    assert!(status == 200 && body.contains("_rxid"), "{body}");
    let seen = server.stop();
    assert_eq!(seen, Seen { connections: 2, requests: 2, accepted: 2 });
    assert_eq!(folders(dir.path()), [format!("000001-{ID}"), format!("000002-{ID}")]);
    let folder = dir.path().join(format!("000001-{ID}"));
    assert_eq!(std::fs::read(folder.join(format!("{ID}.dmp"))).unwrap(), dump);
    assert_eq!(std::fs::read(folder.join("prod.txt")).unwrap(), b"app");
    assert_eq!(std::fs::read(folder.join("evil.txt")).unwrap(), b"x");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("request.json")).unwrap()).unwrap();
    assert_eq!(json["method"], "POST");
    assert_eq!(json["path"], "/submit");
    assert_eq!(json["report"], ID);
    assert_eq!(json["answer"]["status"], 200);
    let raw = std::fs::read(folder.join("body")).unwrap();
    assert_eq!(raw[..2], [0x1f, 0x8b], "the body as it came");
    assert_eq!(json["body_bytes"], raw.len());
}

#[test]
fn answers_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), Some(Fail { count: 1, status: 503, retry_after: Some(7) }));
    assert_eq!(send(&server, "/submit", b"MDMP", true).0, 503);
    assert_eq!(send(&server, "/submit", b"MDMP", true).0, 200);
    assert_eq!(server.stop(), Seen { connections: 2, requests: 2, accepted: 1 });
}

#[test]
fn numbers_go_on_and_the_authority_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), None);
    let early = client(&first);
    send(&first, "/submit", b"MDMP", true);
    first.stop();
    let second = start(dir.path(), None);
    // A client that read ca.pem before the restart still trusts the collector.
    let encoded = form(b"MDMP").encode().unwrap();
    let url = format!("https://{}/submit", second.address());
    let request = Upload { url: &url, content_type: &encoded.content_type, gzip: false, body: encoded.body };
    assert_eq!(early.send(request).unwrap().status, 200);
    second.stop();
    assert_eq!(folders(dir.path()), [format!("000001-{ID}"), format!("000002-{ID}")]);
}

#[test]
fn every_connection_leaves_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), None);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(send(&server, "/submit", b"no dump", true).0, 400);
    let seen = server.stop();
    assert_eq!((seen.connections, seen.requests, seen.accepted), (2, 1, 0));
    assert_eq!(folders(dir.path()), [format!("000001-{ID}")]);
    let log = std::fs::read_to_string(dir.path().join("connections.log")).unwrap();
    assert!(log.lines().count() == 2 && log.contains("no TLS connection"), "{log}");
}

#[test]
fn idle_connections_do_not_hold_up_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), None);
    let mut idle = TcpStream::connect(server.address()).unwrap();
    // Served after the idle one was taken, so that it is known to the server.
    send(&server, "/submit", b"MDMP", true);
    assert_eq!(server.stop().connections, 2);
    // Closed by the server, which would otherwise have waited for it until its time was up.
    idle.set_nonblocking(true).unwrap();
    let end = idle.read(&mut [0; 1]);
    assert!(!matches!(&end, Err(e) if e.kind() == io::ErrorKind::WouldBlock), "{end:?}");
}

#[test]
fn other_addresses_than_loopback_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let options = Options { listen: listen.parse().unwrap(), dir: dir.path().join("x"), fail: None };
        let Err(failure) = Server::start(&options, |_| {}) else { panic!("{listen}") };
        assert!(failure.code() == 2 && failure.to_string().contains("loopback"), "{failure}");
    }
    assert!(!dir.path().join("x").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let options = Options { listen: "127.0.0.1:0".parse().unwrap(), dir: file.join("sub"), fail: None };
    let Err(failure) = Server::start(&options, |_| {}) else { panic!() };
    assert!(failure.code() == 1 && failure.to_string().contains("file/sub"), "{failure}");
}
