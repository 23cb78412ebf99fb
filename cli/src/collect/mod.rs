//! `cenotaph collect`: an HTTPS collector for development, which writes down everything that reaches it.
//!
//! One thread a connection, one request a connection. [`Server`] is usable from other commands in this process.
#![forbid(unsafe_code)]

mod http;
mod identity;
mod multipart;
mod protocol;
mod store;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cenotaph::report::ReportId;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::failure::{Failure, Result};
use http::{Limits, Refusal, Request};
use protocol::{Answer, Decoded};
use store::{Record, Store};

const LIMITS: Limits = Limits { head: 64 * 1024, body: 128 * 1024 * 1024 };
/// More connections wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// A request has to be over by then.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// How long an orderly stop waits for requests that have begun.
const STOP_TIME: Duration = Duration::from_secs(10);

/// How to run a collector.
#[derive(Debug, Clone)]
pub struct Options {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where everything is written.
    pub dir: PathBuf,
    /// Answers to give instead of the real ones, for trying out how a client takes them.
    pub fail: Option<Fail>,
}

/// `--fail N:STATUS[:SECONDS]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fail {
    /// How many requests are answered so.
    pub count: u64,
    /// With this status.
    pub status: u16,
    /// And this `Retry-After`.
    pub retry_after: Option<u64>,
}

/// What a collector saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// TCP connections, whatever came of them.
    pub connections: u64,
    /// Requests; each has a folder.
    pub requests: u64,
    /// Requests that were answered as accepted.
    pub accepted: u64,
}

/// A running collector. Dropping it stops it.
pub struct Server {
    address: SocketAddr,
    authority: PathBuf,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    store: Store,
    tls: Arc<ServerConfig>,
    stopping: AtomicBool,
    fail: Option<Fail>,
    connections: AtomicU64,
    requests: AtomicU64,
    accepted: AtomicU64,
    /// Connections that are open, and whether their request has begun.
    open: Mutex<BTreeMap<u64, (TcpStream, bool)>>,
    closed: Condvar,
    note: fn(&str),
}

impl Server {
    /// Writes `DIR/ca.pem`, then listens. `note` gets a line for each connection.
    ///
    /// # Errors
    /// If the address is not on loopback, or the folder or the address cannot be used.
    pub fn start(options: &Options, note: fn(&str)) -> Result<Self> {
        let Options { listen, dir, fail } = options;
        if !listen.ip().is_loopback() {
            return Err(Failure::Usage(format!(
                "--listen {listen}: with --self-signed the collector listens on loopback only (127.0.0.1:PORT or \
                 [::1]:PORT), as anyone who reaches it can fill the disk"
            )));
        }
        let store = Store::open(dir)?;
        let (tls, authority) = identity::self_signed(dir, listen.ip())?;
        let failed = |e: io::Error| {
            Failure::Failed(format!("cannot listen on {listen}: {e}; try port 0 for a free one"))
        };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            store,
            tls,
            stopping: AtomicBool::new(false),
            fail: *fail,
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: Mutex::default(),
            closed: Condvar::new(),
            note,
        });
        let acceptor = {
            let shared = shared.clone();
            std::thread::Builder::new().name("collect".to_owned()).spawn(move || accept(&listener, &shared))
        };
        let acceptor = Some(acceptor.map_err(|e| Failure::Failed(format!("cannot start a thread: {e}")))?);
        Ok(Self { address, authority, shared, acceptor })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The PEM file that clients have to trust.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        Seen {
            connections: self.shared.connections.load(Ordering::SeqCst),
            requests: self.shared.requests.load(Ordering::SeqCst),
            accepted: self.shared.accepted.load(Ordering::SeqCst),
        }
    }

    /// Takes no more connections and waits for requests that have begun.
    pub fn stop(mut self) -> Seen {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.closed.notify_all();
        // Wakes the acceptor out of accept(2).
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        let _ = acceptor.join();
        let deadline = Instant::now() + STOP_TIME;
        let mut open = self.shared.open();
        for (stream, begun) in open.values() {
            if !begun {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        while !open.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            open = self.shared.closed.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, (TcpStream, bool)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, peer: SocketAddr, text: &str) {
        (self.note)(&format!("{peer}: {}", crate::output::printable(text)));
        if let Err(error) = self.store.connection(peer, text) {
            (self.note)(&error.to_string());
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let mut open = shared.open();
        while open.len() >= CONNECTIONS && !shared.stopping.load(Ordering::SeqCst) {
            open = shared.closed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        drop(open);
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: wait for a connection to end instead of spinning.
                (shared.note)(&format!("a connection could not be taken: {error}"));
                let open = shared.open();
                drop(shared.closed.wait_timeout(open, Duration::from_secs(1)));
                continue;
            }
        };
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(handle) = stream.try_clone() else { continue };
        shared.open().insert(number, (handle, false));
        let worker = {
            let shared = shared.clone();
            std::thread::Builder::new().name("collect-connection".to_owned()).spawn(move || {
                let text = serve(stream, peer, number, &shared).unwrap_or_else(|failure| failure.to_string());
                shared.note(peer, &text);
                shared.open().remove(&number);
                shared.closed.notify_all();
            })
        };
        if let Err(error) = worker {
            (shared.note)(&format!("{peer}: no thread for the connection: {error}"));
            shared.open().remove(&number);
        }
    }
}

/// Serves one connection and returns the words for its line in the log.
fn serve(stream: TcpStream, peer: SocketAddr, number: u64, shared: &Shared) -> Result<String> {
    let mut tcp = Timed { stream, deadline: Instant::now() + REQUEST_TIME };
    let mut tls = ServerConnection::new(shared.tls.clone())
        .map_err(|e| Failure::Failed(format!("TLS cannot be set up: {e}")))?;
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut tcp) {
            return Ok(format!("no TLS connection: {error}"));
        }
    }
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "unknown",
    };
    if let Some(entry) = shared.open().get_mut(&number) {
        entry.1 = true;
    }
    let mut stream = BufReader::new(StreamOwned::new(tls, tcp));
    let mut request = Request::default();
    let refusal = match http::read(&mut stream, LIMITS, &mut request) {
        Ok(true) => None,
        Ok(false) => return Ok("closed without a request".to_owned()),
        Err(refusal) => Some(refusal),
    };
    let text = respond(&mut stream, &request, refusal, version, peer, shared)?;
    let StreamOwned { conn, sock } = stream.get_mut();
    conn.send_close_notify();
    let _ = conn.complete_io(sock);
    linger(&mut sock.stream);
    Ok(text)
}

/// Records the request, then answers: what was answered as accepted is on disk.
fn respond(
    stream: &mut BufReader<StreamOwned<ServerConnection, Timed>>,
    request: &Request,
    refusal: Option<Refusal>,
    tls: &str,
    peer: SocketAddr,
    shared: &Shared,
) -> Result<String> {
    let protocol = protocol::protocol(&request.target);
    let decoded = match refusal {
        None => protocol::decode(request),
        Some(Refusal { status, reason }) => Decoded { fault: Some((status, reason)), ..Decoded::default() },
    };
    let turn = shared.requests.fetch_add(1, Ordering::SeqCst);
    let answer = match shared.fail {
        Some(fail) if turn < fail.count => Answer {
            status: fail.status,
            content_type: "text/plain",
            body: "as asked by --fail\n".to_owned(),
            retry_after: fail.retry_after,
        },
        _ => protocol::answer(protocol, decoded.fault.as_ref(), ReportId::random()?),
    };
    let record = Record { peer, tls, request, decoded: &decoded, protocol, answer: &answer };
    let folder = shared.store.request(&record)?;
    let status = answer.status;
    if decoded.fault.is_none() && (200..300).contains(&status) {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
    }
    let retry = answer.retry_after.map(|s| format!("Retry-After: {s}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{retry}Connection: close\r\n\r\n",
        if status < 400 { "OK" } else { "Refused" },
        answer.content_type,
        answer.body.len(),
    );
    let stream = stream.get_mut();
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(answer.body.as_bytes()))
        .and_then(|()| stream.flush());
    let mut text = format!("{} {} -> {status}, {}", request.method, request.target, folder.display());
    if let Some((_, reason)) = &decoded.fault {
        text.push_str(&format!(" ({reason})"));
    }
    if let Err(error) = sent {
        text.push_str(&format!(", but the answer did not get through: {error}"));
    }
    Ok(text)
}

/// Reads what is still on its way, a little: closing with unread bytes resets the connection, and the client would
/// not see why its body was refused.
fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let mut sink = [0; 64 * 1024];
    for _ in 0..256 {
        match stream.read(&mut sink) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// A socket whose every wait ends at one deadline, so that a peer that drips bytes cannot hold a thread.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        match self.deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests;
