use super::*;

/// A stream that gives `input` in pieces of `step` bytes and keeps what is written.
struct Wire {
    input: Vec<u8>,
    at: usize,
    step: usize,
    output: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.step.min(into.len()).min(self.input.len() - self.at);
        into[..n].copy_from_slice(&self.input[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LIMITS: Limits = Limits { head: 1024, body: 100 };

fn read_all(input: &[u8], step: usize) -> (Result<bool, u16>, Request, Vec<u8>) {
    let mut stream = BufReader::new(Wire { input: input.to_vec(), at: 0, step, output: Vec::new() });
    let mut request = Request::default();
    let result = read(&mut stream, LIMITS, &mut request).map_err(|refusal| refusal.status);
    (result, request, stream.into_inner().output)
}

#[test]
fn a_body_of_stated_length() {
    for step in [1, 7, 4096] {
        let (result, request, _) =
            read_all(b"POST /submit?a=b HTTP/1.1\r\nHost: x\r\ncontent-length: 5\r\n\r\nhello", step);
        assert_eq!(result, Ok(true));
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/submit?a=b"));
        assert_eq!(request.header("HOST"), Some("x"));
        assert_eq!(request.body, b"hello");
    }
}

#[test]
fn a_body_in_chunks() {
    let input = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n";
    for step in [1, 4096] {
        let (result, request, _) = read_all(input, step);
        assert_eq!(result, Ok(true));
        assert_eq!(request.body, b"abc0123456789");
        assert!(request.chunked);
    }
}

#[test]
fn expect_is_answered_before_the_body() {
    let (result, _, output) =
        read_all(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 4096);
    assert_eq!(result, Ok(true));
    assert_eq!(output, b"HTTP/1.1 100 Continue\r\n\r\n");
    // But not for a body that will not be read.
    let (result, _, output) =
        read_all(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n", 4096);
    assert_eq!((result, output.len()), (Err(413), 0));
}

#[test]
fn hostile_input_is_refused() {
    let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(2000));
    let endless = "x".repeat(5000);
    let many = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1\r\nx\r\n".repeat(200));
    let table: &[(&str, u16)] = &[
        ("GARBAGE\r\n\r\n", 400),
        ("GET / HTTP/2\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\n\r\n", 400),
        ("G\u{0}T / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nA: b\r\n folded: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n: empty\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nA: b", 400),
        ("GET / HTTP/1.1\r\nA: b\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhi", 400),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 101\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", 413),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (&many, 413),
        (&long, 431),
        (&endless, 431),
    ];
    for (input, status) in table {
        for step in [1, 4096] {
            assert_eq!(read_all(input.as_bytes(), step).0, Err(*status), "{input:.80}");
        }
    }
    assert_eq!(read_all(b"", 1).0, Ok(false));
    assert_eq!(read_all(&[0x16, 3, 1, 2, 0xff, 0xfe, b'\n'], 1).0, Err(400));
}

#[test]
fn any_prefix_of_a_request_is_refused_or_nothing() {
    let whole = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for end in 0..whole.len() {
        let (result, ..) = read_all(&whole[..end], 4096);
        assert_eq!(result, if end == 0 { Ok(false) } else { Err(400) }, "{end}");
    }
}
