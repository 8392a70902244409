//! Determines a client's address from what trusted proxies report in `X-Forwarded-For` or in `Forwarded` (RFC 7239).
//!
//! The node reads only the header that the proxies are configured to set. The client may have set the other header
//! itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;

use crate::config::{ForwardedHeader, Network};

/// The maximum number of hops that are read from a header, counted from the hop nearest to this node.
pub const MAX_HOPS: usize = 64;

/// A function that reads a header's value. Its result has the farthest hop first.
type ReadHeader = fn(&str) -> Vec<Option<IpAddr>>;

/// Determines the address of a client behind proxies.
pub(super) struct Proxies {
    /// The networks of the trusted proxies.
    pub(super) trusted: Vec<Network>,
    /// The header in which the proxies report the client's address.
    pub(super) header: ForwardedHeader,
}

impl Proxies {
    /// Returns the client's address. If `address` is a trusted proxy, this walks from the nearest hop to the farthest
    /// and stops at the first address that is not a trusted proxy. Otherwise it is `address` itself.
    pub(super) fn client(&self, address: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted = |ip: IpAddr| self.trusted.iter().any(|network| network.contains(ip));
        let mut ip = address.to_canonical();
        if !is_trusted(ip) {
            return ip;
        }
        for hop in self.hops(headers) {
            // A hop that cannot be read ends the search: the hops before it are not trusted.
            let Some(hop) = hop else { break };
            ip = hop.to_canonical();
            if !is_trusted(ip) {
                break;
            }
        }
        ip
    }

    /// The hops that the header reports, the nearest hop first.
    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        let (name, read): (_, ReadHeader) = match self.header {
            ForwardedHeader::XForwardedFor => ("x-forwarded-for", x_forwarded_for),
            ForwardedHeader::Forwarded => ("forwarded", forwarded),
            ForwardedHeader::None => return Vec::new(),
        };
        let mut hops = Vec::new();
        for value in headers.get_all(name).iter().collect::<Vec<_>>().into_iter().rev() {
            match value.to_str() {
                Ok(text) => hops.extend(read(text).into_iter().rev()),
                Err(_) => hops.push(None),
            }
            if hops.len() >= MAX_HOPS {
                hops.truncate(MAX_HOPS);
                break;
            }
        }
        hops
    }
}

/// Reads the hops of an `X-Forwarded-For` value, the farthest first. A hop that is not an address is `None`. An
/// address may be followed by a port, and an IPv6 address may be in brackets, because some proxies write it so.
pub fn x_forwarded_for(value: &str) -> Vec<Option<IpAddr>> {
    let address = |hop: &str| hop.parse().ok().or_else(|| node(hop));
    let hops: Vec<_> = value.rsplit(',').take(MAX_HOPS).map(|hop| address(hop.trim())).collect();
    hops.into_iter().rev().collect()
}

/// Reads the `for` parameter of each element of a `Forwarded` value (RFC 7239, 4), the farthest hop first. An element
/// whose address is hidden, unknown or missing is `None`. A value that breaks the grammar is a single `None`, so that
/// nothing in it is trusted.
pub fn forwarded(value: &str) -> Vec<Option<IpAddr>> {
    elements(value).unwrap_or_else(|| vec![None])
}

fn elements(value: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut rest = value.trim_matches([' ', '\t']);
    while !rest.is_empty() {
        let (hop, after) = element(rest)?;
        hops.push(hop);
        rest = after.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start_matches([' ', '\t']),
            None if rest.is_empty() => break,
            None => return None,
        }
    }
    if hops.len() > MAX_HOPS {
        hops.drain(..hops.len() - MAX_HOPS);
    }
    Some(hops)
}

/// Reads one list element: pairs that are separated by semicolons. A list may have empty elements (RFC 9110, 5.6.1).
fn element(text: &str) -> Option<(Option<IpAddr>, &str)> {
    let (mut hop, mut seen, mut rest) = (None, false, text);
    if rest.starts_with(',') {
        return Some((None, rest));
    }
    loop {
        let (name, after) = token(rest)?;
        let (value, after) = value_of(after.strip_prefix('=')?)?;
        if name.eq_ignore_ascii_case("for") {
            // Each parameter may appear at most once.
            if std::mem::replace(&mut seen, true) {
                return None;
            }
            hop = node(&value);
        }
        rest = after;
        match rest.strip_prefix(';') {
            Some(next) => rest = next,
            None => return Some((hop, rest)),
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let length = text.bytes().take_while(|b| is_token(*b)).count();
    (length > 0).then(|| text.split_at(length))
}

/// Reads a token or a quoted string. The quotes are removed.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if c.is_control() => return None,
            _ if std::mem::take(&mut escaped) => value.push(c),
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            _ => value.push(c),
        }
    }
    None
}

/// Reads an address such as `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]` or `[2001:db8::1]:80`. The port may be
/// obfuscated (`:_x`).
fn node(text: &str) -> Option<IpAddr> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), port.strip_prefix(':').or(port.is_empty().then_some("0")))
        }
        None => {
            let (address, port) = text.split_once(':').map_or((text, Some("0")), |(ip, port)| (ip, Some(port)));
            (IpAddr::V4(address.parse::<Ipv4Addr>().ok()?), port)
        }
    };
    let port = port?;
    let hidden = port
        .strip_prefix('_')
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
    let plain = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    (hidden || plain).then_some(address)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(header: ForwardedHeader, address: &str, values: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        Proxies { trusted, header }.client(address.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let ip_of = |address: &str, values: &[&'static str], trusted: &[&str]| {
            client(ForwardedHeader::XForwardedFor, address, values, trusted)
        };
        assert_eq!(ip_of("1.2.3.4", &["9.9.9.9"], &[]), "1.2.3.4");
        assert_eq!(ip_of("10.0.0.1", &["9.9.9.9"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(ip_of("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.7"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(ip_of("10.0.0.1", &["6.6.6.6", "9.9.9.9"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(ip_of("10.0.0.1", &["9.9.9.9, rubbish"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(ip_of("::ffff:10.0.0.1", &["fd00::1"], &["10.0.0.0/8"]), "fd00::1");
        assert_eq!(ip_of("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn a_port_behind_an_address_is_left_out() {
        for (value, ip) in [
            ("203.0.113.5:51234", "203.0.113.5"),
            ("[2001:db8::1]:51234", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("6.6.6.6, 203.0.113.5:51234, 10.0.0.7:80", "203.0.113.5"),
            ("203.0.113.5:", "10.0.0.1"),
            ("203.0.113.5:port", "10.0.0.1"),
            ("203.0.113.5:123456", "10.0.0.1"),
            ("[203.0.113.5]:80", "10.0.0.1"),
        ] {
            let of = client(ForwardedHeader::XForwardedFor, "10.0.0.1", &[value], &["10.0.0.0/8"]);
            assert_eq!(of, ip, "{value}");
        }
    }

    #[test]
    fn forwarded_is_read_as_the_standard_has_it() {
        let ip_of = |values: &[&'static str]| client(ForwardedHeader::Forwarded, "10.0.0.1", values, &["10.0.0.0/8"]);
        assert_eq!(ip_of(&["for=192.0.2.43"]), "192.0.2.43");
        assert_eq!(ip_of(&["For=\"[2001:db8:cafe::17]:4711\""]), "2001:db8:cafe::17");
        assert_eq!(ip_of(&["for=192.0.2.60;proto=http;by=203.0.113.43"]), "192.0.2.60");
        assert_eq!(ip_of(&["for=6.6.6.6, for=192.0.2.43, for=10.0.0.7"]), "192.0.2.43");
        assert_eq!(ip_of(&["for=6.6.6.6", "for=\"192.0.2.43:80\";host=\"a, b; for=1.1.1.1\""]), "192.0.2.43");
    }

    #[test]
    fn what_is_hidden_or_wrong_ends_what_is_believed() {
        let ip_of = |value: &'static str| client(ForwardedHeader::Forwarded, "10.0.0.1", &[value], &["10.0.0.0/8"]);
        for value in [
            "for=unknown",
            "for=_hidden",
            "for=6.6.6.6, proto=http",
            "for=[2001:db8::1]",
            "for=\"6.6.6.6",
            "for=6.6.6.6;for=7.7.7.7",
            "for=6.6.6.6 for=7.7.7.7",
            "for=",
            "=6.6.6.6",
            "for = 6.6.6.6",
            "for=\"6.6.6.6:\"",
            "for=\"6.6.6.6:x\"",
            "for=6.6.6.6, ,",
            "6.6.6.6",
        ] {
            assert_eq!(ip_of(value), "10.0.0.1", "{value}");
        }
        // The nearest proxy has appended the last hop. The hops before it come from the client and are not trusted.
        assert_eq!(ip_of("for=rubbish, for=192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn header_that_the_proxies_do_not_set_counts_for_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
        headers.insert("forwarded", HeaderValue::from_static("for=7.7.7.7"));
        let of = |header| {
            let trusted = vec!["10.0.0.1".parse().unwrap()];
            Proxies { trusted, header }.client("10.0.0.1".parse().unwrap(), &headers).to_string()
        };
        assert_eq!(of(ForwardedHeader::XForwardedFor), "6.6.6.6");
        assert_eq!(of(ForwardedHeader::Forwarded), "7.7.7.7");
        assert_eq!(of(ForwardedHeader::None), "10.0.0.1");
    }

    #[test]
    fn hops_are_bounded() {
        let many = vec!["10.0.0.1"; 10_000].join(",");
        assert_eq!(x_forwarded_for(&many).len(), MAX_HOPS);
        assert_eq!(forwarded(&vec!["for=10.0.0.1"; 10_000].join(",")).len(), MAX_HOPS);
    }

    proptest! {
        #[test]
        fn any_value_is_read(text in "[ -~]{0,80}", noise in ".{0,40}") {
            forwarded(&text);
            forwarded(&noise);
            forwarded(&format!("for={text}, for=\"{noise}\""));
            x_forwarded_for(&text);
        }

        #[test]
        fn addresses_are_found_again(ips in proptest::collection::vec(any::<IpAddr>(), 1..5)) {
            let quoted = |ip: &IpAddr| match ip {
                IpAddr::V4(ip) => format!("for={ip}"),
                IpAddr::V6(ip) => format!("for=\"[{ip}]:4711\";proto=https"),
            };
            let text = ips.iter().map(quoted).collect::<Vec<_>>().join(", ");
            prop_assert_eq!(forwarded(&text), ips.into_iter().map(Some).collect::<Vec<_>>());
        }
    }
}
