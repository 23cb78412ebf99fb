//! Servers that are not collectors: one that nobody may connect to, and ones that go wrong in their own ways.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A port that keeps every connection in the kernel's queue, where it is counted.
pub(crate) struct Quiet(TcpListener);

impl Quiet {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// `--destination` for a victim.
    pub(crate) fn options(&self) -> [String; 2] {
        let address = self.0.local_addr().unwrap();
        ["--destination".to_owned(), format!("crashpad=https://{address}/submit")]
    }

    /// How many connections were made, ever. They stay in the queue even when the other side is gone.
    pub(crate) fn connections(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

/// A free port of this moment: nobody listens there, so a connection is refused.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server whose certificate is good or over, and that answers every request with the same bytes.
pub(crate) struct Odd {
    pub(crate) address: SocketAddr,
    /// The PEM file to trust.
    pub(crate) authority: PathBuf,
}

impl Odd {
    /// `folder` takes the authority's file. The threads end with the test.
    pub(crate) fn tls(folder: &Path, expired: bool, answer: &'static str) -> Self {
        let (config, authority) = identity(folder, expired);
        let config = Arc::new(config);
        let address = serve(move |stream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            respond(&mut StreamOwned::new(connection, stream), answer)
        });
        Self { address, authority }
    }

    /// One that speaks http without TLS.
    pub(crate) fn plain(folder: &Path) -> Self {
        let (_, authority) = identity(folder, false);
        let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let address = serve(move |mut stream| {
            let mut first = [0; 16];
            stream.read_exact(&mut first)?;
            stream.write_all(answer.as_bytes())
        });
        Self { address, authority }
    }

    /// `--ca` and `--destination` for a victim.
    pub(crate) fn options(&self) -> [String; 4] {
        let ca = self.authority.to_str().unwrap().to_owned();
        let destination = format!("crashpad=https://{}/submit", self.address);
        ["--ca".to_owned(), ca, "--destination".to_owned(), destination]
    }
}

fn serve(answer: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // A client that does not like the certificate hangs up: that is what is tested.
            let _ = answer(stream);
        }
    });
    address
}

/// Reads a request with a Content-Length to its end, then answers.
fn respond(stream: &mut StreamOwned<ServerConnection, TcpStream>, answer: &str) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.trim().parse().ok()).unwrap();
    io::copy(&mut io::Read::take(&mut *stream, length), &mut io::sink())?;
    stream.write_all(answer.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn identity(folder: &Path, expired: bool) -> (ServerConfig, PathBuf) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let authority = folder.join(if expired { "expired-ca.pem" } else { "odd-ca.pem" });
    std::fs::write(&authority, certificate.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    if expired {
        leaf.not_before = date_time_ymd(2020, 1, 1);
        leaf.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        );
    (config.unwrap(), authority)
}
