//! HTTP/1.1 as far as a reward server needs it: requests with a length, answers in JSON, connections that stay open.
//!
//! `httparse` reads heads; here is what is around it, with a bound on everything: bytes, time and connections. A connection on
//! which anything is odd is closed, so that nobody can disagree about where a request ends.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How long a connection may stand idle: longer than clients keep theirs (aiohttp: 15 s), so that they close it first.
const IDLE: Duration = Duration::from_secs(75);
/// How long a head may take from its first byte.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    pub method: String,
    /// Without query.
    pub path: String,
    pub content_type: Option<String>,
    pub authorization: Option<String>,
    /// Bytes of the body; None where the request does not say.
    pub length: Option<usize>,
    /// Whether the connection ends with the answer.
    pub close: bool,
    /// Whether the client waits for a word before it sends the body.
    pub expects_continue: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Broken {
    /// The connection is over, or was idle for too long.
    Gone,
    /// The client is too slow.
    Slow,
    /// The bytes are no request that this server takes; status and reason.
    Refused(u16, String),
}

/// A connection: bytes that were read beyond the last request stay for the next.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Takes a connection over.
    pub fn new(stream: TcpStream) -> Self {
        Connection { stream, buffer: Vec::new() }
    }

    /// Waits for a request's head.
    pub fn head(&mut self) -> Result<Head, Broken> {
        let mut until = Instant::now() + if self.buffer.is_empty() { IDLE } else { HEAD_TIME };
        loop {
            if let Some((head, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(head);
            }
            if self.buffer.len() >= HEAD_BYTES {
                return Err(Broken::Refused(431, format!("the head of the request is longer than {HEAD_BYTES} bytes")));
            }
            let idle = self.buffer.is_empty();
            match self.fill(HEAD_BYTES, until) {
                // Nobody waits for an answer on an idle connection.
                Err(Broken::Slow) if idle => return Err(Broken::Gone),
                other => other?,
            }
            if idle {
                until = Instant::now() + HEAD_TIME;
            }
        }
    }

    /// Reads a body of that many bytes.
    pub fn body(&mut self, head: &Head, length: usize, until: Instant) -> Result<Vec<u8>, Broken> {
        if head.expects_continue && self.buffer.len() < length {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| Broken::Gone)?;
        }
        while self.buffer.len() < length {
            self.fill(length - self.buffer.len(), until)?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads what there is, at most `most` bytes.
    fn fill(&mut self, most: usize, until: Instant) -> Result<(), Broken> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Slow);
        }
        self.stream.set_read_timeout(Some(left)).map_err(|_| Broken::Gone)?;
        let mut chunk = [0; 16 << 10];
        let most = most.min(chunk.len());
        match self.stream.read(&mut chunk[..most]) {
            Ok(0) => Err(Broken::Gone),
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(Broken::Slow),
            Err(_) => Err(Broken::Gone),
        }
    }

    /// Sends an answer in JSON.
    pub fn answer(&mut self, status: u16, headers: &[(&str, String)], body: &str, close: bool) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\n", reason(status));
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        self.stream.set_write_timeout(Some(HEAD_TIME))?;
        // One write: two would wait for each other's acknowledgement (Nagle).
        self.stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        if close {
            self.stream.shutdown(std::net::Shutdown::Write)?;
            // What the client still sends is read and thrown away: closing on unread bytes would make it lose the answer.
            self.stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            io::copy(&mut (&self.stream).take(64 << 20), &mut io::sink())?;
        }
        Ok(())
    }
}

/// The head at the beginning of the bytes and its length, once it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Broken> {
    let bad = |reason: &str| Broken::Refused(400, reason.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(bad(&format!("not an HTTP request: {error}"))),
    };
    let header = |name: &str| {
        let mut found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = found.next().map(|header| String::from_utf8_lossy(header.value).trim().to_owned());
        (value, found.next().is_some())
    };
    let ((content_length, twice), (encoding, _)) = (header("content-length"), header("transfer-encoding"));
    if encoding.is_some() {
        return Err(Broken::Refused(411, "chunked requests are not taken: send a Content-Length".into()));
    }
    if twice {
        return Err(bad("there is more than one Content-Length"));
    }
    let content_length = match content_length {
        None => None,
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Some(text.parse().map_err(|_| Broken::Refused(413, format!("the request is {text} bytes long")))?)
        }
        Some(text) => return Err(bad(&format!("`{text}` is no Content-Length"))),
    };
    let has = |name: &str, token: &str| header(name).0.is_some_and(|value| value.to_ascii_lowercase().contains(token));
    let path = request.path.unwrap_or_default();
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.split('?').next().unwrap_or_default().to_owned(),
        content_type: header("content-type").0,
        authorization: header("authorization").0,
        length: content_length,
        close: has("connection", "close") || request.version == Some(0),
        expects_continue: has("expect", "100-continue"),
    };
    Ok(Some((head, length)))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Option<u16> {
        match parse(text.as_bytes()) {
            Err(Broken::Refused(status, _)) => Some(status),
            _ => None,
        }
    }

    #[test]
    fn head_is_read_once_it_is_whole() {
        let text =
            "POST /verify?x=1 HTTP/1.1\r\nContent-Type: application/json\r\nCONTENT-LENGTH: 2\r\nExpect: 100-continue\r\n\r\n{}";
        let (head, length) = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.path.as_str(), head.length), ("POST", "/verify", Some(2)));
        assert!(head.expects_continue && !head.close);
        assert_eq!(&text[length..], "{}");
        for cut in 0..length {
            assert!(parse(&text.as_bytes()[..cut]).unwrap().is_none(), "{cut}");
        }
        assert!(parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.close);
    }

    #[test]
    fn requests_whose_end_is_unclear_are_refused() {
        let with = |headers: &str| status(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n"));
        assert_eq!(with("Transfer-Encoding: chunked"), Some(411));
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 2"), Some(400));
        assert_eq!(with("Content-Length: +1"), Some(400));
        assert_eq!(with("Content-Length: "), Some(400));
        assert_eq!(with("Content-Length: 99999999999999999999999"), Some(413));
        assert_eq!(status("hello\r\n\r\n"), Some(400));
    }
}
