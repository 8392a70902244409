//! A minimal Socket.IO client, for packets and behaviour that the official client does not have.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum time until the connection ends, if frames arrive meanwhile.
const END: Duration = Duration::from_secs(30);

/// A WebSocket connection to a node.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    pub sid: String,
    /// Number of pings that were received and answered.
    pings: usize,
}

/// The payload of a WebSocket frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Closed,
}

impl Client {
    /// Opens a WebSocket and reads the open packet.
    pub async fn open(address: &str) -> Self {
        let mut client = Self::upgrade(address, "").await;
        let Frame::Text(open) = client.frame().await else { panic!("no open packet") };
        client.sid = open.split_once(r#""sid":""#).unwrap().1.split('"').next().unwrap().to_owned();
        client
    }

    /// Opens a WebSocket with additional query parameters.
    pub async fn upgrade(address: &str, query: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET /socket.io/?EIO=4&transport=websocket{query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        Self { stream, buffer: Vec::new(), sid: String::new(), pings: 0 }
    }

    /// Opens a WebSocket and connects to a namespace; the answer is the CONNECT or CONNECT_ERROR packet.
    pub async fn connect(address: &str, namespace: &str, auth: &str) -> (Self, String) {
        let mut client = Self::open(address).await;
        let answer = client.join(namespace, auth).await;
        (client, answer)
    }

    pub async fn join(&mut self, namespace: &str, auth: &str) -> String {
        let prefix = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.send(&format!("40{prefix}{auth}")).await;
        self.text().await
    }

    /// Returns the TCP connection, and the received bytes that were not read.
    pub fn into_stream(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// Sends a text frame.
    pub async fn send(&mut self, text: &str) {
        self.write(0x81, text.as_bytes()).await;
    }

    pub async fn send_binary(&mut self, bytes: &[u8]) {
        self.write(0x82, bytes).await;
    }

    pub async fn write(&mut self, head: u8, payload: &[u8]) {
        let mut frame = vec![head];
        match payload.len() {
            length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length @ ..65_536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        // The mask is all zeros, so the payload stays as it is.
        frame.extend([0; 4]);
        frame.extend(payload);
        let _ = self.stream.write_all(&frame).await;
    }

    /// Returns the next packet that is not a ping. Answers pings.
    pub async fn text(&mut self) -> String {
        loop {
            match self.frame().await {
                Frame::Text(text) if text == "2" => self.pong().await,
                Frame::Text(text) => return text,
                other => panic!("{other:?} instead of a packet"),
            }
        }
    }

    /// Waits until the first ping was answered. No other packet may come before it.
    pub async fn first_ping(&mut self) {
        if self.pings == 0 {
            assert_eq!(self.frame().await, Frame::Text("2".to_owned()));
            self.pong().await;
        }
    }

    async fn pong(&mut self) {
        self.pings += 1;
        self.send("3").await;
    }

    /// Reads packets until the connection ends. Returns those that are not pings. Answers pings.
    pub async fn until_closed(&mut self) -> Vec<String> {
        timeout(END, self.packets(true)).await.expect("an end in time")
    }

    /// Reads packets until the connection ends, and answers no ping. Returns all packets.
    pub async fn silent_until_closed(&mut self) -> Vec<String> {
        timeout(END, self.packets(false)).await.expect("an end in time")
    }

    async fn packets(&mut self, answer_pings: bool) -> Vec<String> {
        let mut packets = Vec::new();
        loop {
            match self.frame().await {
                Frame::Text(text) if text == "2" && answer_pings => self.pong().await,
                Frame::Text(text) => packets.push(text),
                Frame::Binary(_) => {}
                Frame::Closed => return packets,
            }
        }
    }

    pub async fn frame(&mut self) -> Frame {
        timeout(PATIENCE, self.read()).await.expect("a frame in time")
    }

    async fn read(&mut self) -> Frame {
        loop {
            if let Some((opcode, payload, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                match opcode {
                    1 => return Frame::Text(String::from_utf8(payload).unwrap()),
                    2 => return Frame::Binary(payload),
                    8 => return Frame::Closed,
                    _ => continue,
                }
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return Frame::Closed,
                Ok(read) => self.buffer.extend(&bytes[..read]),
            }
        }
    }
}

/// Parses the first frame, which has no mask. Returns opcode, payload and total length.
fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, head) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(head..head + length)?.to_vec();
    Some((first & 0x0f, payload, head + length))
}

/// Sends one HTTP/1.1 request on a new connection. Returns status and body.
pub async fn http(address: &str, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text =
        format!("{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
