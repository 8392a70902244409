//! A redis-server for one test: on a free port, in a directory of its own, and killed on drop.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running, or stopped, redis-server.
pub struct RedisServer {
    port: u16,
    args: Vec<String>,
    kind: Kind,
    dir: TempDir,
    child: Option<Child>,
}

/// What the process is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    /// A node of a Redis Cluster, with the port of its cluster bus.
    ClusterNode(u16),
    Sentinel,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with further options.
    pub fn with(args: &[&str]) -> Self {
        Self::started(|| Self::new(Kind::Server, args))
    }

    /// Starts a Redis Cluster of one node. It refuses the commands that a larger cluster would refuse.
    pub fn cluster() -> Self {
        let server = Self::cluster_node();
        server.command("CLUSTER ADDSLOTSRANGE 0 16383");
        let until = Instant::now() + Duration::from_secs(10);
        while !server.command("CLUSTER INFO").contains("cluster_state:ok") {
            assert!(Instant::now() < until, "the cluster has its slots");
            pause();
        }
        server
    }

    /// Starts a node of a Redis Cluster. It has no slots yet.
    pub fn cluster_node() -> Self {
        Self::started(|| {
            let bus = free_port();
            let args = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1", "--cluster-port"];
            Self::new(Kind::ClusterNode(bus), &[&args[..], &[&bus.to_string()]].concat())
        })
    }

    /// Starts a sentinel that watches the primary on this port as `main`. One sentinel is enough for a decision.
    pub fn sentinel(primary: u16) -> Self {
        Self::started(|| {
            let mut server = Self::new(Kind::Sentinel, &[]);
            let port = server.port;
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 1\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
            );
            std::fs::write(server.dir.path().join("sentinel.conf"), text).unwrap();
            server.args = ["sentinel.conf", "--sentinel"].map(str::to_owned).to_vec();
            server
        })
    }

    /// Reserves a port without listening yet.
    pub fn stopped() -> Self {
        Self::new(Kind::Server, &[])
    }

    fn new(kind: Kind, args: &[&str]) -> Self {
        let port = free_port();
        let number = port.to_string();
        let always = ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let args = always.iter().chain(args).map(|&arg| arg.to_owned()).collect();
        Self { port, args, kind, dir: tempfile::tempdir().unwrap(), child: None }
    }

    /// Starts a new server. Another process may have taken the port meanwhile; then a new port is chosen.
    fn started(new: impl Fn() -> Self) -> Self {
        loop {
            let mut server = new();
            if server.try_restart() {
                return server;
            }
        }
    }

    /// Starts the server again on the same port.
    pub fn restart(&mut self) {
        assert!(self.try_restart(), "its port is free");
    }

    /// Starts the server. Returns false if the process has ended at once.
    fn try_restart(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(&self.args)
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let child = self.child.insert(child);
        // Another test's server on this port would also answer, and then end with that test. A server with a password
        // does not tell which process it is.
        let own = format!("process_id:{}\r", child.id());
        let is_own = |answer: String| answer.contains(&own) || answer.starts_with("-NOAUTH");
        let until = Instant::now() + Duration::from_secs(10);
        while !self.try_command("INFO server").is_some_and(is_own) {
            if self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some())) {
                return false;
            }
            assert!(Instant::now() < until, "redis-server did not start");
            pause();
        }
        true
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGSTOP: connections stay, and nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// The port on which the server listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of the cluster bus.
    pub fn bus(&self) -> u16 {
        let Kind::ClusterNode(bus) = self.kind else { panic!("no node of a Redis Cluster") };
        bus
    }

    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Server => "redis",
            Kind::ClusterNode(_) => "redis-cluster",
            Kind::Sentinel => "redis-sentinel",
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Sends inline commands, one a line, and returns the answers, up to 1 MiB.
    pub fn command(&self, line: &str) -> String {
        self.try_command(line).expect("redis-server answers")
    }

    /// Waits until the answer to a command contains this text.
    pub async fn says(&self, line: &str, expected: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.try_command(line).is_some_and(|answer| answer.contains(expected)) {
            assert!(Instant::now() < until, "{line} does not say {expected}: {:?}", self.try_command(line));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn try_command(&self, line: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        // Sentinels do not know QUIT, and keep the connection.
        let patience = Duration::from_millis(if self.kind == Kind::Sentinel { 200 } else { 5000 });
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = Vec::new();
        let ended = stream.take(1 << 20).read_to_end(&mut answer).is_ok() || self.kind == Kind::Sentinel;
        (ended && !answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[expect(clippy::disallowed_methods, reason = "a fixture starts before the test's runtime has anything to do")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Waits for a condition, with a deadline.
pub async fn eventually<F: FnMut() -> bool>(what: &str, within: Duration, mut fact: F) -> Duration {
    let started = Instant::now();
    while !fact() {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}
