//! One request, one reply. The only file that touches the network.
#![forbid(unsafe_code)]

use std::error::Error as StdError;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::redirect;

use super::response::Reply;
use super::tls;
use crate::error::{Error, Result};

/// No reply that means anything is longer; what comes after is not read.
pub const REPLY_LIMIT: usize = 64 * 1024;

/// A request, ready to go.
#[derive(Debug)]
pub struct Request<'a> {
    /// Where to; https.
    pub url: &'a str,
    /// The body's type.
    pub content_type: &'a str,
    /// Whether the body is compressed with gzip.
    pub gzip: bool,
    /// The body. Its length is sent ahead: some collectors refuse chunked bodies.
    pub body: Vec<u8>,
}

/// Sends requests. Tests put a fake in its place.
pub trait Transport {
    /// Sends one request and reads the reply. Nothing is sent unless the server's certificate was verified.
    ///
    /// # Errors
    /// Cause and way out, for a log, if there was no reply.
    fn send(&self, request: Request<'_>) -> Result<Reply, String>;
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// For TCP and TLS to stand.
    pub connect: Duration,
    /// For all of it, reply included.
    pub whole: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), whole: Duration::from_secs(60) }
    }
}

/// HTTPS through `reqwest` on `rustls`.
#[derive(Debug)]
pub struct Https {
    client: Client,
    limits: TimeLimits,
}

impl Https {
    /// A client that trusts the system's authorities and those of the PEM files `authorities`.
    ///
    /// # Errors
    /// As [`tls::client_config`].
    pub fn new(authorities: &[PathBuf], limits: TimeLimits) -> Result<Self> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls::client_config(authorities)?)
            .https_only(true)
            // A redirect would send the report to a host that nobody configured.
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            // Every try is a decision of ours, so that the gate is asked before each connection.
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .http1_only()
            .user_agent(concat!("cenotaph/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .timeout(limits.whole)
            .build()
            .map_err(|e| Error::Upload(format!("the HTTPS client cannot be set up: {}", innermost(&e))))?;
        Ok(Self { client, limits })
    }
}

impl Transport for Https {
    fn send(&self, request: Request<'_>) -> Result<Reply, String> {
        let started = Instant::now();
        let mut builder =
            self.client.post(request.url).header(CONTENT_TYPE, request.content_type).body(request.body);
        if request.gzip {
            builder = builder.header(CONTENT_ENCODING, "gzip");
        }
        let response = builder.send().map_err(|e| explain(&e, self.limits))?;
        let status = response.status().as_u16();
        let (retry_after, content_type) =
            (text(response.headers(), RETRY_AFTER), text(response.headers(), CONTENT_TYPE));
        let body = read_body(response, started, self.limits)?;
        Ok(Reply { status, retry_after, content_type, body })
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Reads up to the limit. A reply that breaks off is no reply: half an id is not an acceptance.
fn read_body(mut response: Response, started: Instant, limits: TimeLimits) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut chunk = [0_u8; 4096];
    while body.len() < REPLY_LIMIT {
        // The client's own limit is for one read; a server that drips must not stretch it for ever.
        if started.elapsed() > limits.whole {
            return Err(format!("the reply was not complete within {} s", limits.whole.as_secs()));
        }
        match response.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => body.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("the connection broke within the reply: {}", innermost(&e))),
        }
    }
    body.truncate(REPLY_LIMIT);
    Ok(body)
}

/// Cause and way out of a request without reply. Never holds the URL, which may hold a token.
fn explain(error: &reqwest::Error, limits: TimeLimits) -> String {
    if let Some(tls_error) = find_tls(error) {
        return tls::explain(tls_error);
    }
    if error.is_timeout() {
        let limit = if error.is_connect() { limits.connect } else { limits.whole };
        return format!(
            "no answer within {} s; the server or the network is slow or down",
            limit.as_secs_f32()
        );
    }
    let cause = innermost(error);
    if error.is_builder() {
        return format!("the request cannot be made ({cause}); check the destination's URL");
    }
    if error.is_connect() {
        return format!("the server cannot be reached: {cause}; check host, port and network");
    }
    format!("the connection broke before a reply: {cause}; the server may have the report already")
}

/// The `rustls` error in a chain of causes, which hides inside an `io::Error`.
fn find_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    // Bounded: a chain of causes is short, and nobody promises that it is no ring.
    for _ in 0..16 {
        let error = next?;
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An `io::Error` names as its source what its inner error was caused by, and so steps over the inner error.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    for _ in 0..16 {
        match error.source() {
            Some(source) => error = source,
            None => break,
        }
    }
    super::response::sanitise(&error.to_string())
}
