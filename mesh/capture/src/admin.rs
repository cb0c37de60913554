//! Asks the administration of the pod's Envoy.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

/// Where it listens unless told otherwise.
pub const PORT: u16 = 15002;

/// How long Envoy may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The answer of Envoy's administration to a request, such as `GET /ready`.
///
/// # Errors
/// Nothing answers at that port of this pod, or it answers with another status than 200, which the error quotes.
pub fn ask(port: u16, what: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("connecting to {port}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{what} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let (status, body) = (head.lines().next().unwrap_or_default(), joined(body));
    ensure!(status.split(' ').nth(1) == Some("200"), "{what}: {status}: {}", body.trim());
    Ok(body)
}

/// A body that comes in chunks, as Envoy's administration sends its answers.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let chunk = usize::from_str_radix(length, 16).ok().and_then(|length| rest.split_at_checked(length));
        let Some((chunk, rest)) = chunk.filter(|(chunk, _)| !chunk.is_empty()) else { break };
        body.push_str(chunk);
        chunks = rest.trim_start_matches("\r\n");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        assert_eq!(joined("4\r\na: 1\r\n6\r\n2\nb: 3\r\n0\r\n\r\n"), "a: 12\nb: 3");
        for broken in ["", "x\r\na", "5\r\nab", "0\r\n\r\n"] {
            assert_eq!(joined(broken), "");
        }
    }
}
