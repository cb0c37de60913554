//! Reads an answer of HTTP/1.1 from the bytes that a connection brings. Pure.

use crate::http::LONGEST;
use httparse::{Header, ParserConfig, Response, Status, parse_chunk_size};
use std::fmt;
use std::mem::MaybeUninit;

/// Most headers of an answer, and most bytes of all before its body, or around its chunks.
const HEADERS: usize = 100;
const LONGEST_REST: usize = 400 * 1024;

/// An answer that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub status: u16,
    /// Of a body that is too long, only the beginning.
    pub body: Vec<u8>,
    /// Whether another may follow on the connection.
    pub goes_on: bool,
}

/// Why what was brought is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It ended too early.
    Short,
    /// Its head is none.
    Head(httparse::Error),
    /// Its length is no number, or two.
    Length,
    /// Its chunks are none.
    Chunk,
    /// Its head, or what is around its chunks, goes on and on.
    Long,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the connection was closed before the answer was complete"),
            Self::Head(error) => error.fmt(f),
            Self::Length => f.write_str("invalid content-length"),
            Self::Chunk => f.write_str("invalid chunk"),
            Self::Long => f.write_str("an answer without end"),
        }
    }
}

impl std::error::Error for Broken {}

/// Reads the answer to one request.
#[derive(Default)]
pub struct Reader {
    /// The last head that was read: of an answer that only announces another one, or of the answer.
    head: Head,
}

#[derive(Default)]
struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    length: Length,
    goes_on: bool,
}

/// How long a body is.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// So many bytes.
    Bytes(u64),
    Chunks,
    /// All that comes.
    #[default]
    Rest,
}

impl Reader {
    /// The answer, if `brought`, all that has come since the request, holds it; `ended` if no more will come.
    ///
    /// # Errors
    /// It never will.
    pub fn read(&mut self, brought: &[u8], ended: bool) -> Result<Option<Read>, Broken> {
        while !self.head.is_of_the_answer() {
            let start = self.head.end;
            let Some(head) = Head::read(brought.get(start..).unwrap_or_default())? else {
                return match () {
                    () if ended => Err(Broken::Short),
                    () if brought.len() > LONGEST_REST => Err(Broken::Long),
                    () => Ok(None),
                };
            };
            self.head = Head { end: start + head.end, ..head };
        }
        let Head { status, end, length, goes_on } = self.head;
        let rest = brought.get(end..).unwrap_or_default();
        let read = |body: &[u8], goes_on| Some(Read { status, body: body.to_vec(), goes_on });
        let cut = || read(rest.get(..LONGEST).unwrap_or(rest), false);
        match length {
            Length::Bytes(length) => match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
                Some(body) => Ok(read(body, goes_on && rest.len() == body.len())),
                None if rest.len() > LONGEST => Ok(cut()),
                None if ended => Err(Broken::Short),
                None => Ok(None),
            },
            Length::Chunks => {
                let (body, length) = chunks(rest)?;
                match length {
                    Some(length) => Ok(read(&body, goes_on && rest.len() == length)),
                    None if body.len() > LONGEST => Ok(read(&body, false)),
                    None if ended => Err(Broken::Short),
                    None if rest.len() > LONGEST_REST => Err(Broken::Long),
                    None => Ok(None),
                }
            }
            Length::Rest if rest.len() > LONGEST => Ok(cut()),
            Length::Rest if ended => Ok(read(rest, false)),
            Length::Rest => Ok(None),
        }
    }
}

impl Head {
    /// Whether no other comes after it: 101 ends a conversation in HTTP, others of that kind come before the answer.
    fn is_of_the_answer(&self) -> bool {
        self.status >= 200 || self.status == 101
    }

    /// The head at the beginning, if it is complete.
    fn read(brought: &[u8]) -> Result<Option<Self>, Broken> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut response, brought, &mut headers);
        let Status::Complete(end) = parsed.map_err(Broken::Head)? else { return Ok(None) };
        let status = response.code.unwrap_or_default();
        let (mut length, mut goes_on) = (None, response.version == Some(1));
        for Header { name, value } in response.headers {
            if name.eq_ignore_ascii_case("content-length") {
                let digits = str::from_utf8(value.trim_ascii()).ok().filter(|text| !text.starts_with('+'));
                let bytes = digits.and_then(|digits| digits.parse().ok()).map(Length::Bytes).ok_or(Broken::Length)?;
                match length {
                    None => length = Some(bytes),
                    Some(Length::Bytes(_)) if length != Some(bytes) => return Err(Broken::Length),
                    Some(_) => {}
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                let chunked = words(value).last().is_some_and(|word| word.eq_ignore_ascii_case(b"chunked"));
                length = Some(if chunked { Length::Chunks } else { Length::Rest });
            } else if name.eq_ignore_ascii_case("connection") {
                let mut options = words(value);
                goes_on = match response.version {
                    Some(1) => goes_on && !options.any(|word| word.eq_ignore_ascii_case(b"close")),
                    _ => options.any(|word| word.eq_ignore_ascii_case(b"keep-alive")),
                };
            }
        }
        let length = match status {
            100..200 | 204 | 304 => Length::Bytes(0),
            _ => length.unwrap_or_default(),
        };
        Ok(Some(Self { status, end, length, goes_on: goes_on && status != 101 && length != Length::Rest }))
    }
}

/// What is between commas.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// What is in the chunks that have come, and where they end if they do.
fn chunks(rest: &[u8]) -> Result<(Vec<u8>, Option<usize>), Broken> {
    let (mut body, mut at) = (Vec::new(), 0);
    while body.len() <= LONGEST {
        let left = rest.get(at..).unwrap_or_default();
        let Status::Complete((begin, size)) = parse_chunk_size(left).map_err(|_| Broken::Chunk)? else { break };
        let left = left.get(begin..).unwrap_or_default();
        if size == 0 {
            return Ok((body, trailers(left)?.map(|length| at + begin + length)));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        body.extend_from_slice(left.get(..size).unwrap_or(left));
        match left.get(size..).and_then(|left| left.get(..2)) {
            Some(b"\r\n") => at += begin + size + 2,
            Some(_) => return Err(Broken::Chunk),
            None => break,
        }
    }
    Ok((body, None))
}

/// Where what follows the last chunk ends, if it does.
fn trailers(left: &[u8]) -> Result<Option<usize>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    match httparse::parse_headers(left, &mut headers).map_err(Broken::Head)? {
        Status::Complete((length, _)) => Ok(Some(length)),
        Status::Partial => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    /// Reads it byte by byte, and at once: the same must come of both.
    fn read(text: &str) -> Result<Option<(u16, String, bool)>, Broken> {
        let bytes = text.as_bytes();
        let shown = |read: Read| (read.status, String::from_utf8(read.body).unwrap(), read.goes_on);
        let at_once = Reader::default().read(bytes, true).map(|read| read.map(shown));
        let mut reader = Reader::default();
        for end in 0..bytes.len() {
            match reader.read(&bytes[..end], false) {
                Ok(None) => {}
                Ok(Some(early)) => {
                    // More than one answer, or one that is cut.
                    let early = shown(early);
                    assert!(at_once.as_ref().is_ok_and(|read| read.as_ref().is_some_and(|read| read.0 == early.0)));
                    return at_once;
                }
                Err(early) => {
                    assert_eq!(Err(early), at_once);
                    return at_once;
                }
            }
        }
        assert_eq!(reader.read(bytes, true).map(|read| read.map(shown)), at_once);
        at_once
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let answer = |status, body: &str, goes_on| Ok(Some((status, body.to_owned(), goes_on)));
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nred", answer(200, "red", true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nCONTENT-LENGTH: 3\r\n\r\nred", answer(200, "red", true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nredHTTP", answer(200, "red", false)),
            ("HTTP/1.1 200\r\ncontent-length: 3\r\nconnection: x, Close\r\n\r\nred", answer(200, "red", false)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nred", answer(200, "red", false)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nred", answer(200, "red", true)),
            ("HTTP/1.1 200 OK\r\n\r\nred", answer(200, "red", false)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: 1\r\n\r\nred", answer(200, "red", false)),
            ("HTTP/1.1 204 No Content\r\n\r\n", answer(204, "", true)),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", answer(304, "", true)),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\nred", answer(101, "", false)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
                answer(404, "", true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nr\r\n2\r\ned\r\n0\r\n\r\n",
                answer(200, "red", true),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nred\r\n0\r\na: b\r\n\r\n",
                answer(200, "red", true),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nred\r\n0\r\n\r\nHTTP",
                answer(200, "red", false),
            ),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_told_by_its_reason() {
        let head = "HTTP/1.1 200 OK\r\n";
        for (text, expected) in [
            (String::new(), Broken::Short),
            (head.to_owned(), Broken::Short),
            (format!("{head}content-length: 4\r\n\r\nred"), Broken::Short),
            (format!("{head}transfer-encoding: chunked\r\n\r\n3\r\nred\r\n"), Broken::Short),
            (format!("{head}transfer-encoding: chunked\r\n\r\n3\r\nred\r\n0\r\na: b\r\n"), Broken::Short),
            ("SSH-2.0-server\r\n".to_owned(), Broken::Head(httparse::Error::Version)),
            (format!("{head}content-length: x3\r\n\r\nred"), Broken::Length),
            (format!("{head}content-length: +3\r\n\r\nred"), Broken::Length),
            (format!("{head}content-length: 3\r\ncontent-length: 4\r\n\r\nredd"), Broken::Length),
            (format!("{head}transfer-encoding: chunked\r\n\r\nred\r\n"), Broken::Chunk),
            (format!("{head}transfer-encoding: chunked\r\n\r\n2\r\nred\r\n"), Broken::Chunk),
        ] {
            assert_eq!(read(&text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn an_endless_answer_ends() {
        let long = "x".repeat(LONGEST + 1);
        for text in [
            format!("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n{long}"),
            format!("HTTP/1.1 200 OK\r\n\r\n{long}"),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n{long}"),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", "1\r\nx\r\n".repeat(LONGEST + 1)),
        ] {
            let read = Reader::default().read(text.as_bytes(), false).unwrap().unwrap();
            assert!(!read.goes_on && (LONGEST..=LONGEST + 1).contains(&read.body.len()), "{}", read.body.len());
        }
        let early = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(LONGEST_REST / 20);
        assert_eq!(Reader::default().read(early.as_bytes(), false), Err(Broken::Long));
        let spaces = "a: b\r\n".repeat(LONGEST_REST);
        let endless = Reader::default().read(format!("HTTP/1.1 200 OK\r\na: {spaces}").as_bytes(), false);
        assert!(matches!(endless, Err(Broken::Long | Broken::Head(httparse::Error::TooManyHeaders))), "{endless:?}");
        let endless =
            Reader::default().read(format!("HTTP/1.1 200 OK\r\na: {}", " ".repeat(LONGEST_REST)).as_bytes(), false);
        assert_eq!(endless, Err(Broken::Long));
    }
}
