//! Checks of settings that types cannot express. Each section checks itself and notes every mistake.

use std::time::Duration;

use super::Config;
use super::draft::{Draft, default_of};

/// The shortest time that any setting may have.
const SHORTEST: Duration = Duration::from_millis(1);

/// Checks every section.
pub(super) fn all(config: &Config, draft: &mut Draft) {
    let Config { node, server, contracts, api, auth, redis, cluster, presence, recovery, limits, drain, hooks, log } =
        config;
    let mut check = SectionCheck { draft, path: Vec::new() };
    check.within("node", |check| node.check(check));
    check.within("server", |check| server.check(check));
    check.within("contracts", |check| contracts.check(check));
    check.within("api", |check| api.check(check));
    check.within("auth", |check| auth.check(check));
    check.within("redis", |check| redis.check(check));
    check.within("cluster", |check| cluster.check(check));
    check.within("presence", |check| presence.check(check));
    check.within("recovery", |check| recovery.check(check));
    check.within("limits", |check| limits.check(check));
    check.within("drain", |check| drain.check(check));
    check.within("hooks", |check| {
        for (name, hook) in hooks {
            check.within(name, |check| hook.check(name, check));
        }
    });
    check.within("log", |check| log.check(check));
    if server.listen == api.listen && server.listen.port() != 0 {
        let problem = "is also `server.listen`: clients and backends need listeners of their own";
        check.within("api", |check| check.refuse("listen", problem, "choose another port"));
    }
    if let Some(listen) = cluster.listen {
        if listen.port() != 0 && [server.listen, api.listen].contains(&listen) {
            let problem = "is also `server.listen` or `api.listen`: nodes need a listener of their own";
            check.within("cluster", |check| check.refuse("listen", problem, "choose another port"));
        }
        if redis.url.is_none() {
            let problem = "needs `redis.url`: nodes learn of each other through Redis";
            check.within("cluster", |check| check.refuse("listen", problem, "set `redis.url`, or remove it"));
        }
    }
}

/// Collects the mistakes of one section.
pub(super) struct SectionCheck<'a> {
    draft: &'a mut Draft,
    path: Vec<String>,
}

impl SectionCheck<'_> {
    /// Checks a table inside this section.
    pub(super) fn within(&mut self, name: &str, work: impl FnOnce(&mut SectionCheck<'_>)) {
        let mut path = self.path.clone();
        path.push(name.to_owned());
        work(&mut SectionCheck { draft: self.draft, path });
    }

    /// Checks an entry of a list in this section.
    pub(super) fn entry(&mut self, list: &str, index: usize, work: impl FnOnce(&mut SectionCheck<'_>)) {
        let index = index.to_string();
        self.within(list, |check| check.within(&index, work));
    }

    /// Records a mistake of a key; an empty key means the section itself.
    pub(super) fn refuse(&mut self, key: &str, problem: &str, remedy: &str) {
        let mut path = self.path.clone();
        path.extend(key.split('.').filter(|segment| !segment.is_empty()).map(str::to_owned));
        let remedy = if remedy.is_empty() { default_of(&path) } else { remedy.to_owned() };
        self.draft.refuse(&path, problem, &remedy);
    }

    /// Records a mistake unless `holds` is true. The remedy is to use the default.
    pub(super) fn must(&mut self, holds: bool, key: &str, problem: &str) {
        if !holds {
            self.refuse(key, problem, "");
        }
    }

    /// Requires a time of at least 1 ms.
    pub(super) fn time(&mut self, key: &str, time: Duration) {
        self.must(time >= SHORTEST, key, "must be at least 1ms");
    }

    /// Requires a time of at least `least`.
    pub(super) fn at_least(&mut self, key: &str, time: Duration, least: Duration) {
        let problem = format!("must be at least {}", humantime::format_duration(least));
        self.must(time >= least, key, &problem);
    }

    /// Requires a number of at least 1.
    pub(super) fn count(&mut self, key: &str, count: usize) {
        self.must(count >= 1, key, "must be at least 1");
    }

    /// Requires a secret of at least `fewest` bytes, so that it cannot be guessed.
    pub(super) fn secret(&mut self, key: &str, secret: &super::Secret, fewest: usize) {
        let length = secret.expose().len();
        if length < fewest {
            let problem = format!("has {length} bytes: a secret needs at least {fewest}");
            self.refuse(key, &problem, "make one with `openssl rand -base64 48`");
        }
    }

    /// Requires that a certificate and its key are set together, and that the files of this part can be read.
    pub(super) fn tls_files(&mut self, set: [(&str, Option<&std::path::PathBuf>); 3]) {
        let [_, (cert, cert_file), (key, key_file)] = set;
        match (cert_file, key_file) {
            (Some(_), None) => self.refuse(cert, "a certificate needs its private key", &format!("set `{key}`")),
            (None, Some(_)) => self.refuse(key, "a private key needs its certificate", &format!("set `{cert}`")),
            _ => {}
        }
        for (name, file) in set {
            self.readable(name, file.map(std::path::PathBuf::as_path));
        }
    }

    /// Requires that the file can be opened.
    pub(super) fn readable(&mut self, key: &str, file: Option<&std::path::Path>) {
        if let Some(Err(error)) = file.map(std::fs::File::open) {
            self.refuse(key, &format!("cannot be read: {error}"), "name a readable file");
        }
    }

    /// Requires a URL of one of these schemes.
    pub(super) fn url(&mut self, key: &str, url: &super::Url, schemes: &[&str]) {
        let scheme = url.scheme().map(str::to_ascii_lowercase);
        let has_host =
            url.expose().split_once("://").is_some_and(|(_, rest)| !rest.is_empty() && !rest.starts_with('/'));
        if !has_host || !scheme.is_some_and(|scheme| schemes.contains(&scheme.as_str())) {
            let schemes: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://HOST")).collect();
            let schemes = crate::suggest::one_of(schemes.iter().map(String::as_str));
            self.refuse(key, &format!("must start with {schemes}"), "write the whole URL");
        }
    }
}

/// Whether the text is a name: at most `most` letters, digits, dots, hyphens and underscores.
pub(super) fn is_name(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}
