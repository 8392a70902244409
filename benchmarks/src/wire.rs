//! The part of WebSocket, Engine.IO and Socket.IO that the load generator and the floor need. It does not check for
//! mistakes that a correct peer does not make.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};

/// Writes the WebSocket text frame in which a client sends the text. A mask of zeroes leaves the payload as it is,
/// which is cheapest for the generator and changes nothing for the server.
pub fn put_client_frame(out: &mut Vec<u8>, text: &[u8]) {
    put_frame(out, text, 0x80);
}

/// Writes the WebSocket text frame in which a server sends the text.
pub fn put_server_frame(out: &mut Vec<u8>, text: &[u8]) {
    put_frame(out, text, 0);
}

fn put_frame(out: &mut Vec<u8>, text: &[u8], mask: u8) {
    out.push(0x81);
    match text.len() {
        short @ 0..126 => out.push(mask | short as u8),
        medium @ 126..0x1_0000 => {
            out.push(mask | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(mask | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if mask != 0 {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(text);
}

/// The payload of the first complete frame, and the frame's length.
pub fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let second = *bytes.get(1)?;
    let (length, mut head) = match second & 0x7f {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    if second & 0x80 != 0 {
        head += 4;
    }
    Some((bytes.get(head..head + length)?, head + length))
}

/// The length of the head of a request or an answer, once it is complete.
pub fn head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// A poll, or the request that opens a polling session if `sid` is empty.
pub fn get(address: SocketAddr, sid: &str) -> String {
    format!("GET {}{} HTTP/1.1\r\nHost: {address}\r\n\r\n", path("polling"), with(sid))
}

/// A posted body. `last`: the connection closes after the answer.
pub fn post(address: SocketAddr, sid: &str, body: &[u8], last: bool) -> String {
    let (path, sid, close) = (path("polling"), with(sid), if last { "Connection: close\r\n" } else { "" });
    format!(
        "POST {path}{sid} HTTP/1.1\r\nHost: {address}\r\n{close}Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{}",
        body.len(),
        String::from_utf8_lossy(body)
    )
}

/// The handshake of a WebSocket, which opens a session or upgrades one.
pub fn websocket(address: SocketAddr, sid: Option<&str>) -> String {
    format!(
        "GET {}{} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        path("websocket"),
        with(sid.unwrap_or_default())
    )
}

fn path(transport: &str) -> String {
    format!("/socket.io/?EIO=4&transport={transport}")
}

fn with(sid: &str) -> String {
    if sid.is_empty() { String::new() } else { format!("&sid={sid}") }
}

/// Returns the body of the first whole answer, and the number of bytes that the answer took. It must be a 200 with a
/// known length.
pub fn answer(bytes: &[u8]) -> anyhow::Result<Option<(&[u8], usize)>> {
    let Some(head) = head(bytes) else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    ensure!(text.starts_with("http/1.1 200"), "refused: {}", String::from_utf8_lossy(bytes));
    let length = text.split_once("content-length: ").and_then(|(_, rest)| number(rest.as_bytes()));
    let end = head + length.context("an answer without a length")? as usize;
    Ok(bytes.get(head..end).map(|body| (body, end)))
}

/// Reads the number and the time from an event `["said","<room>",<number>,<time>,…]`.
pub fn said(text: &[u8]) -> Option<(u32, u64)> {
    let mut members = text.split(|byte| *byte == b',').skip(2);
    Some((number(members.next()?)? as u32, number(members.next()?)?))
}

/// Reads the number that the digits at the start of the bytes form.
pub fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let mut any = false;
    let value = digits.fold(0u64, |value, digit| {
        any = true;
        value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    });
    any.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_whoever_wrote_it() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let text = vec![b'x'; length];
            for put in [put_client_frame, put_server_frame] {
                let mut out = Vec::new();
                put(&mut out, &text);
                assert_eq!(frame(&out), Some((&text[..], out.len())));
                assert_eq!(frame(&out[..out.len() - 1]).map(|(payload, _)| payload.len()), None);
            }
        }
    }

    #[test]
    fn what_was_said_has_a_number_and_a_time() {
        assert_eq!(said(br#"["said","r1",12,3456,"xx"]"#), Some((12, 3456)));
        assert_eq!(said(br#"["other"]"#), None);
    }
}
