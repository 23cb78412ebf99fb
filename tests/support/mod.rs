//! A TLS server in this process that answers as it is told, and remembers what reached it.
#![allow(unreachable_pub, reason = "a module of several test binaries")]
#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A certificate authority with a PEM file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("Cenotaph test authority")
    }

    pub fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn write_pem(&self, dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// A server certificate for `name`, valid in the years `from..to`.
    pub fn certificate(&self, name: &str, from: i32, to: i32) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        }
    }

    pub fn good(&self) -> Identity {
        self.certificate("127.0.0.1", 2020, 2100)
    }
}

pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
}

/// What the server does with a request, once it was read.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Sends these bytes and closes.
    Raw(String),
    /// Closes without a byte.
    Close,
    /// Reads this many bytes of the request, then closes.
    CloseAfter(usize),
    /// Reads the request and says nothing until the client goes away.
    Hang,
}

/// A whole reply with its length.
pub fn reply(status: u16, headers: &str, body: &str) -> Answer {
    Answer::Raw(format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    ))
}

/// What reached the server.
#[derive(Default, Debug)]
pub struct Seen {
    /// TCP connections.
    pub connections: usize,
    /// Decrypted bytes of each connection that had any.
    pub requests: Vec<Vec<u8>>,
}

pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves TLS; the n-th request gets the n-th answer, later ones the last.
    pub fn tls(identity: Identity, answers: Vec<Answer>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key.into())
            .unwrap();
        Self::start(Some(Arc::new(config)), answers)
    }

    /// Speaks http in the clear.
    pub fn plain(answers: Vec<Answer>) -> Self {
        Self::start(None, answers)
    }

    fn start(config: Option<Arc<rustls::ServerConfig>>, answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (shared, stopped) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            let mut answer = Answer::Close;
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                shared.lock().unwrap().connections += 1;
                // A safety net for a broken client, longer than any client's limit in these tests.
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                answer = answers.next().unwrap_or(answer);
                serve(stream, config.as_ref(), &answer, &shared);
            }
        });
        Self { address, seen, stop, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("https://{}/submit", self.address)
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// Waits for the server to end, so that all it saw is noted.
    pub fn finish(mut self) -> Arc<Mutex<Seen>> {
        self.end();
        self.seen.clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

fn serve(tcp: TcpStream, config: Option<&Arc<rustls::ServerConfig>>, answer: &Answer, seen: &Mutex<Seen>) {
    match config {
        Some(config) => {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, tcp);
            converse(&mut tls, answer, seen);
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        None => converse(&mut { tcp }, answer, seen),
    }
}

fn converse(stream: &mut (impl Read + Write), answer: &Answer, seen: &Mutex<Seen>) {
    let limit = match answer {
        Answer::CloseAfter(limit) => *limit,
        _ => usize::MAX,
    };
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !complete(&request) && request.len() < limit {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => request.extend_from_slice(&chunk[..n]),
            _ => break,
        }
    }
    if !request.is_empty() {
        seen.lock().unwrap().requests.push(request);
    }
    match answer {
        Answer::Raw(bytes) => {
            let _ = stream.write_all(bytes.as_bytes());
            let _ = stream.flush();
        }
        Answer::Close | Answer::CloseAfter(_) => {}
        Answer::Hang => {
            let _ = stream.read(&mut chunk);
        }
    }
}

/// Whether head and body are there, by Content-Length. A first line of TLS bytes counts as complete.
fn complete(request: &[u8]) -> bool {
    if request.first() == Some(&0x16) {
        return true;
    }
    let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length:"))
        .map_or(0, |v| v.trim().parse::<usize>().unwrap());
    request.len() >= end + 4 + length
}
