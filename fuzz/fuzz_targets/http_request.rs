//! Any bytes as a request to the development collector.
#![no_main]

use std::io::{self, BufReader, Read, Write};

use libfuzzer_sys::fuzz_target;

// The command line has no library; its parser needs nothing of it.
#[allow(dead_code)]
#[path = "../../cli/src/collect/http.rs"]
mod http;

/// Sends the bytes and takes every answer.
struct Peer<'a>(&'a [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = http::Limits { head: 1024, body: 4096 };
    let mut request = http::Request::default();
    let _ = http::read(&mut BufReader::new(Peer(bytes)), limits, &mut request);
    assert!(request.body.len() <= limits.body);
    let text: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    // A byte that is no UTF-8 becomes the three of U+FFFD.
    assert!(text <= 3 * limits.head, "{text}");
});
