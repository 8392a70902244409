//! Parses `redis.url`.
//!
//! `redis[s][-cluster|-sentinel]://[[user]:password@]host[:port][/database][?node=host:port&…]`

use super::secret::Url;
use crate::suggest;

/// The schemes that `redis.url` may have.
pub(super) const SCHEMES: [&str; 6] =
    ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];

const NODE: &str = "node";
const SERVICE: &str = "sentinelServiceName";
const SENTINEL_USER: &str = "sentinelUsername";
const SENTINEL_PASSWORD: &str = "sentinelPassword";

/// The kind of Redis at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisKind {
    /// One server.
    Single,
    /// A Redis Cluster.
    Cluster,
    /// Sentinels, which know the primary.
    Sentinel,
}

/// A parsed `redis.url`. User and password are percent-decoded bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// The kind of Redis.
    pub kind: RedisKind,
    /// Whether the scheme asks for TLS (`rediss`).
    pub tls: bool,
    /// The ACL user.
    pub username: Option<Vec<u8>>,
    /// Its password.
    pub password: Option<Vec<u8>>,
    /// Hosts and ports of the server, of the nodes of a Redis Cluster, or of the sentinels.
    pub hosts: Vec<(String, u16)>,
    /// The database's number.
    pub database: Option<u8>,
    /// The name of the primary that the sentinels watch.
    pub service: Option<String>,
    /// The user for the sentinels.
    pub sentinel_username: Option<String>,
    /// The password for the sentinels.
    pub sentinel_password: Option<String>,
}

impl RedisAddress {
    /// Parses a URL.
    ///
    /// # Errors
    /// Returns the problem of the address and the remedy. Neither contains a secret.
    pub fn read(url: &Url) -> Result<Self, (String, String)> {
        let (scheme, rest) = url.expose().split_once("://").unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        if !SCHEMES.contains(&scheme.as_str()) {
            let known: Vec<String> = SCHEMES.iter().map(|scheme| format!("{scheme}://HOST")).collect();
            let known = suggest::one_of(known.iter().map(String::as_str));
            return Err((format!("must start with {known}"), "write the whole URL".to_owned()));
        }
        let kind = match scheme.split_once('-') {
            Some((_, "cluster")) => RedisKind::Cluster,
            Some(_) => RedisKind::Sentinel,
            None => RedisKind::Single,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if tail.contains(['@', '#']) {
            let remedy = "write %2F for /, %3F for ?, %23 for # and %40 for @, or set redis.password";
            return Err(("has a character that must be percent-encoded".to_owned(), remedy.to_owned()));
        }
        let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let port = if kind == RedisKind::Sentinel { 26379 } else { 6379 };
        let mut address = Self {
            kind,
            tls: scheme.starts_with("rediss"),
            username: some(decode(username)),
            password: some(decode(password)),
            hosts: vec![host_and_port(host, Some(port))?],
            database: None,
            service: None,
            sentinel_username: None,
            sentinel_password: None,
        };
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        address.read_database(path)?;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            address.read_parameter(parameter)?;
        }
        Ok(address)
    }

    fn read_database(&mut self, path: &str) -> Result<(), (String, String)> {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Ok(());
        }
        let Ok(database) = path.parse() else {
            let problem = format!("names the database {path:?}, which is not a number from 0 to 255");
            return Err((problem, "write redis://HOST:PORT/NUMBER, or nothing behind the port".to_owned()));
        };
        if self.kind == RedisKind::Cluster && database != 0 {
            return Err(("a Redis Cluster has only the database 0".to_owned(), "remove the path".to_owned()));
        }
        self.database = Some(database);
        Ok(())
    }

    fn read_parameter(&mut self, parameter: &str) -> Result<(), (String, String)> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let known = parameters(self.kind);
        if !known.contains(&name) {
            let words = || known.iter().copied();
            let similar = suggest::nearest(name, words()).or_else(|| suggest::longer_or_shorter(name, words()));
            let remedy = match (similar, known) {
                (Some(near), _) => format!("did you mean {near}?"),
                (None, []) => "remove it: such a URL has none".to_owned(),
                (None, _) => format!("there are {}", suggest::list(words())),
            };
            return Err((format!("has the unknown parameter {name:?}"), remedy));
        }
        let value = String::from_utf8_lossy(&decode(value)).into_owned();
        match name {
            NODE => self.hosts.push(host_and_port(&value, None)?),
            SERVICE => self.service = Some(value),
            SENTINEL_USER => self.sentinel_username = Some(value),
            _ => self.sentinel_password = Some(value),
        }
        Ok(())
    }
}

impl std::fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, tls, hosts, database, .. } = self;
        f.debug_struct("RedisAddress")
            .field("kind", kind)
            .field("tls", tls)
            .field("hosts", hosts)
            .field("database", database)
            .finish_non_exhaustive()
    }
}

fn parameters(kind: RedisKind) -> &'static [&'static str] {
    match kind {
        RedisKind::Single => &[],
        RedisKind::Cluster => &[NODE],
        RedisKind::Sentinel => &[NODE, SERVICE, SENTINEL_USER, SENTINEL_PASSWORD],
    }
}

fn host_and_port(text: &str, default: Option<u16>) -> Result<(String, u16), (String, String)> {
    // An IPv6 address in a URL is in brackets, because it contains colons.
    let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(default, |port| port.parse().ok());
    match port {
        Some(port) if port > 0 && !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok((host.to_ascii_lowercase(), port))
        }
        _ => Err(("names no host, or no port from 1 to 65535".to_owned(), "write HOST:PORT".to_owned())),
    }
}

fn some(bytes: Vec<u8>) -> Option<Vec<u8>> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// Percent-decodes a text. A percent sign without two hexadecimal digits stays, and so does a plus sign.
fn decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<RedisAddress, String> {
        RedisAddress::read(&Url::new(url)).map_err(|(problem, _)| problem)
    }

    #[test]
    fn hosts_ports_and_databases_are_read() {
        let address = read("redis://h").unwrap();
        assert_eq!((address.hosts, address.database, address.tls), (vec![("h".into(), 6379)], None, false));
        let address = read("rediss://[::1]:7/3").unwrap();
        assert_eq!((address.hosts, address.database, address.tls), (vec![("::1".into(), 7)], Some(3), true));
        let address = read("redis-cluster://a:1?node=b:2&node=[::1]:3").unwrap();
        assert_eq!(address.hosts, [("a".into(), 1), ("b".into(), 2), ("::1".into(), 3)]);
        let address = read("redis-sentinel://a/2?sentinelServiceName=main&sentinelPassword=p%20w").unwrap();
        assert_eq!((address.kind, address.database), (RedisKind::Sentinel, Some(2)));
        assert_eq!(address.hosts, [("a".into(), 26379)]);
        assert_eq!((address.service.as_deref(), address.sentinel_password.as_deref()), (Some("main"), Some("p w")));
    }

    #[test]
    fn a_password_is_whichever_bytes_it_is() {
        for (url, password) in [
            ("redis://:with space@h", &b"with space"[..]),
            ("redis://:with%20space@h", b"with space"),
            ("redis://u:a%25b%40c%23d%2Fe%3Ff@h", b"a%b@c#d/e?f"),
            ("redis://u:100%@h", b"100%"),
            ("redis://u:p@w@h", b"p@w"),
            ("redis://u:caf\u{e9}@h", "café".as_bytes()),
            ("redis://u:%ff%00@h", b"\xff\0"),
        ] {
            assert_eq!(read(url).unwrap().password.as_deref(), Some(password), "{url}");
        }
        assert_eq!(read("redis://us%20er:p@h").unwrap().username.as_deref(), Some(&b"us er"[..]));
        assert!(!format!("{:?}", read("redis://u:hunter2@h").unwrap()).contains("hunter2"));
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (url, problem) in [
            ("http://h", "must start with"),
            ("h:6379", "must start with"),
            ("redis://", "no host"),
            ("redis:///1", "no host"),
            ("redis://h:0", "no port"),
            ("redis://h:port", "no port"),
            ("redis://h/abc", "database"),
            ("redis://h/1/2", "database"),
            ("redis-cluster://h/1", "only the database 0"),
            ("redis-cluster://h?node=b", "no port"),
            ("redis://h?timeout=5", "unknown parameter \"timeout\""),
            ("redis://h?node=b:1", "unknown parameter \"node\""),
            ("redis-sentinel://h?sentinelServicename=main", "unknown parameter"),
            ("redis://:a#b@h", "must be percent-encoded"),
            ("redis://:a/b@h", "must be percent-encoded"),
        ] {
            let told = read(url).unwrap_err();
            assert!(told.contains(problem), "{url}: {told}");
        }
        let (_, remedy) = RedisAddress::read(&Url::new("redis-sentinel://h?sentinelServicename=main")).unwrap_err();
        assert_eq!(remedy, "did you mean sentinelServiceName?");
    }
}
