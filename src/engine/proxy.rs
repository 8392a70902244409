//! The PROXY protocol, versions 1 and 2. A TCP load balancer uses this protocol to report a connection's client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::Network;

/// How long a load balancer may take to send its header.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum length of a version 1 header in bytes, with its line end (section 2.1 of the specification).
pub const MAX_V1: usize = 107;

/// The maximum length of a version 2 header in bytes: a fixed part of 16 bytes, the addresses, and optional fields.
pub const MAX_V2: usize = 16 + 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How far the header at the start of a connection has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The header is not complete yet.
    Partial,
    /// A complete header: its length in bytes, and the client's address. The address is `None` when the load balancer
    /// opened the connection itself or does not tell the address.
    Whole(usize, Option<SocketAddr>),
    /// The bytes are not a valid header.
    Wrong,
}

impl ProxyHeader {
    /// Reads a header from the first bytes of a connection.
    pub fn read(bytes: &[u8]) -> Self {
        match bytes.first() {
            None => Self::Partial,
            Some(b'P') => version_1(bytes),
            Some(b'\r') => version_2(bytes).unwrap_or(Self::Wrong),
            Some(_) => Self::Wrong,
        }
    }
}

fn version_1(bytes: &[u8]) -> ProxyHeader {
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        let start = b"PROXY ";
        let fits = line.len() < MAX_V1 && line.iter().zip(start).all(|(got, wanted)| got == wanted);
        return if fits { ProxyHeader::Partial } else { ProxyHeader::Wrong };
    };
    let text = std::str::from_utf8(&line[..end]).ok();
    match text.and_then(line_1) {
        Some(source) => ProxyHeader::Whole(end + 2, source),
        None => ProxyHeader::Wrong,
    }
}

/// Reads a version 1 line such as `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443`. The outer `None` means that the line is
/// wrong, the inner `None` that the line names no client.
fn line_1(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The specification requires a receiver to ignore the rest of the line.
        return Some(None);
    }
    let ips: [&str; 2] = [words.next()?, words.next()?];
    let ports = [port(words.next()?)?, port(words.next()?)?];
    if words.next().is_some() {
        return None;
    }
    let read = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    read(ips[1])?;
    Some(Some(SocketAddr::new(read(ips[0])?, ports[0])))
}

/// Reads a port: digits only, without a sign or leading zeroes.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Reads a version 2 header. Returns `None` if the header is not valid.
fn version_2(bytes: &[u8]) -> Option<ProxyHeader> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return None;
    }
    let Some(&[command, family, high, low]) = bytes.get(12..16).and_then(|rest| rest.first_chunk()) else {
        return Some(ProxyHeader::Partial);
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    // Accept the commands LOCAL (0x20) and PROXY (0x21), and TCP over IPv4 or IPv6 or an unspecified protocol.
    if !matches!(command, 0x20 | 0x21) || !matches!(family, 0x00 | 0x11 | 0x21) || length > MAX_V2 {
        return None;
    }
    let needed = match family {
        0x11 => 12,
        0x21 => 36,
        _ => 0,
    };
    if command == 0x21 && length < 16 + needed {
        return None;
    }
    let Some(told) = bytes.get(16..length) else { return Some(ProxyHeader::Partial) };
    let source = match (command, family) {
        (0x21, 0x11) => {
            let ip: [u8; 4] = *told.first_chunk()?;
            Some(SocketAddr::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes([told[8], told[9]])))
        }
        (0x21, 0x21) => {
            let ip: [u8; 16] = *told.first_chunk()?;
            Some(SocketAddr::new(Ipv6Addr::from(ip).into(), u16::from_be_bytes([told[32], told[33]])))
        }
        _ => None,
    };
    Some(ProxyHeader::Whole(length, source))
}

/// The load balancers that send a PROXY header.
#[derive(Debug, Clone)]
pub struct Balancers(Arc<[Network]>);

impl Balancers {
    /// Connections from `trusted` addresses must begin with a PROXY header. Connections from other addresses must not:
    /// their bytes go to HTTP as they are, and a header there is not valid HTTP.
    pub fn new(trusted: &[Network]) -> Self {
        Self(trusted.into())
    }

    /// Reads the header off a connection and returns the client's address.
    ///
    /// # Errors
    ///
    /// Returns an error if the header is missing or wrong, or did not come within [`HEADER_TIMEOUT`]. The
    /// caller must close the connection.
    pub async fn receive(&self, stream: &mut TcpStream, address: SocketAddr) -> io::Result<SocketAddr> {
        if !self.0.iter().any(|network| network.contains(address.ip())) {
            return Ok(address);
        }
        let source =
            tokio::time::timeout(HEADER_TIMEOUT, read(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(source.unwrap_or(address))
    }
}

/// Reads the header and leaves every byte after it in the stream.
async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::new();
    let mut seen = [0; 512];
    loop {
        let more = stream.peek(&mut seen).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = header.len();
        header.extend_from_slice(&seen[..more]);
        let (used, outcome) = match ProxyHeader::read(&header) {
            ProxyHeader::Partial if header.len() <= MAX_V2 => (more, None),
            ProxyHeader::Whole(length, source) => (length - before, Some(source)),
            ProxyHeader::Partial | ProxyHeader::Wrong => return Err(io::ErrorKind::InvalidData.into()),
        };
        stream.read_exact(&mut seen[..used]).await?;
        if let Some(source) = outcome {
            return Ok(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn v2(command: u8, family: u8, told: &[u8]) -> Vec<u8> {
        let length = u16::try_from(told.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, told].concat()
    }

    #[test]
    fn whole_headers_say_who_the_client_is() {
        let of = |text: &str| ProxyHeader::read(text.as_bytes());
        let whole = |text: &str, address: Option<&str>| {
            ProxyHeader::Whole(text.len(), address.map(|address| address.parse().unwrap()))
        };
        for (text, address) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Some("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Some("[2001:db8::1]:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            assert_eq!(of(text), whole(text, address), "{text}");
            assert_eq!(of(&format!("{text}GET / HTTP/1.1\r\n\r\n")), whole(text, address), "{text}");
            (0..text.len()).for_each(|cut| assert_eq!(of(&text[..cut]), ProxyHeader::Partial, "{text} {cut}"));
        }
        let four = v2(0x21, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 187, 3, 0, 1, 9]);
        assert_eq!(ProxyHeader::read(&four), ProxyHeader::Whole(four.len(), Some("192.0.2.1:56324".parse().unwrap())));
        let mut told = [0; 36];
        told[15] = 1;
        let six = v2(0x21, 0x21, &told);
        assert_eq!(ProxyHeader::read(&six), ProxyHeader::Whole(52, Some("[::1]:0".parse().unwrap())));
        let local = v2(0x20, 0x00, b"whatever");
        assert_eq!(ProxyHeader::read(&local), ProxyHeader::Whole(24, None));
        (0..four.len()).for_each(|cut| assert_eq!(ProxyHeader::read(&four[..cut]), ProxyHeader::Partial, "{cut}"));
    }

    #[test]
    fn everything_else_is_wrong() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.256 1 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 1\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 1\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 1\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 1\r\n",
            "PROXX",
            "\r\n\r\n\0\r\nQUIX",
        ] {
            assert_eq!(ProxyHeader::read(text.as_bytes()), ProxyHeader::Wrong, "{text}");
        }
        let address = [0; 12];
        for wrong in [
            v2(0x11, 0x11, &address),
            v2(0x22, 0x11, &address),
            v2(0x21, 0x12, &address),
            v2(0x21, 0x31, &[0; 216]),
            v2(0x21, 0x11, &address[..11]),
            v2(0x21, 0x21, &address),
        ] {
            assert_eq!(ProxyHeader::read(&wrong), ProxyHeader::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn length_is_bounded() {
        let line = |padding: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(padding));
        let longest = line(MAX_V1 - 16);
        assert_eq!(ProxyHeader::read(longest.as_bytes()), ProxyHeader::Whole(MAX_V1, None));
        assert_eq!(ProxyHeader::read(line(MAX_V1 - 15).as_bytes()), ProxyHeader::Wrong);
        assert_eq!(ProxyHeader::read(&v2(0x20, 0, &[0; 4096])), ProxyHeader::Whole(MAX_V2, None));
        assert_eq!(ProxyHeader::read(&v2(0x20, 0, &[0; 4097])), ProxyHeader::Wrong);
    }

    async fn received(sent: &[&[u8]], trusted: &str) -> (io::Result<SocketAddr>, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut stream, address) = listener.accept().await.unwrap();
        let balancers = Balancers::new(&[trusted.parse().unwrap()]);
        let writing = async {
            for part in sent {
                client.write_all(part).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client.shutdown().await.unwrap();
        };
        let (outcome, ()) = tokio::join!(balancers.receive(&mut stream, address), writing);
        (outcome, stream, address)
    }

    #[tokio::test]
    async fn header_is_taken_off_to_the_byte_however_it_comes() {
        let header: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
        let large = v2(0x21, 0x11, &[7; 3000]);
        for parts in [vec![header, b"rest"], vec![&header[..3], &header[3..20], &header[20..], b"rest"]] {
            let (source, mut stream, _) = received(&parts, "127.0.0.1").await;
            assert_eq!(source.unwrap().to_string(), "192.0.2.1:56324");
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "rest");
        }
        let (source, mut stream, _) = received(&[&large, b"rest"], "127.0.0.1").await;
        assert_eq!(source.unwrap().to_string(), "7.7.7.7:1799");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "rest");
    }

    #[tokio::test]
    async fn strangers_headers_are_left_to_http_and_balancers_without_one_are_refused() {
        let header: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
        let (source, _, address) = received(&[header], "192.0.2.9").await;
        assert_eq!(source.unwrap(), address);
        let (source, ..) = received(&[b"GET / HTTP/1.1\r\n\r\n"], "127.0.0.1").await;
        assert_eq!(source.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (source, ..) = received(&[&header[..9]], "127.0.0.1").await;
        assert_eq!(source.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn balancer_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, address) = listener.accept().await.unwrap();
        tokio::time::pause();
        let outcome = Balancers::new(&["127.0.0.1".parse().unwrap()]).receive(&mut stream, address).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..13) {
            ProxyHeader::read(&bytes);
            ProxyHeader::read(&[&SIGNATURE[..cut.min(12)], &bytes[..]].concat());
            ProxyHeader::read(&[&b"PROXY TCP4 "[..], &bytes[..]].concat());
        }
    }
}
