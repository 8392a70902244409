//! A redis-server for one test: on a free port, in a directory of its own, and killed on drop.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running, or stopped, redis-server.
pub struct RedisServer {
    port: u16,
    /// The port of the cluster bus, if this server is a Redis Cluster of one node.
    bus: Option<u16>,
    dir: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub fn start() -> Self {
        loop {
            let mut server = Self::stopped();
            // Another process may have taken the port meanwhile.
            if server.try_restart() {
                return server;
            }
        }
    }

    /// Starts a Redis Cluster of one node. It refuses the commands that a larger cluster would refuse.
    pub fn cluster() -> Self {
        let mut server = Self::stopped();
        server.bus = Some(free_port());
        server.restart();
        server.command("CLUSTER ADDSLOTSRANGE 0 16383");
        let until = Instant::now() + Duration::from_secs(10);
        while !server.command("CLUSTER INFO").contains("cluster_state:ok") {
            assert!(Instant::now() < until, "the cluster has its slots");
            pause();
        }
        server
    }

    /// Reserves a port without listening yet.
    pub fn stopped() -> Self {
        Self { port: free_port(), bus: None, dir: tempfile::tempdir().unwrap(), child: None }
    }

    /// Starts the server again on the same port.
    pub fn restart(&mut self) {
        assert!(self.try_restart(), "its port is free");
    }

    /// Starts the server. Returns false if the process has ended at once.
    fn try_restart(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(
                self.bus
                    .map(|bus| format!("--cluster-enabled yes --cluster-port {bus} --cluster-announce-ip 127.0.0.1"))
                    .iter()
                    .flat_map(|args| args.split(' ')),
            )
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let child = self.child.insert(child);
        // Another test's server on this port would also answer, and then end with that test.
        let own = format!("process_id:{}\r", child.id());
        let until = Instant::now() + Duration::from_secs(10);
        while self.try_command("INFO server").is_none_or(|answer| !answer.contains(&own)) {
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

    pub fn url(&self) -> String {
        let scheme = if self.bus.is_some() { "redis-cluster" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Sends one inline command and returns the answer, up to 1 MiB.
    pub fn command(&self, line: &str) -> String {
        self.try_command(line).expect("redis-server answers")
    }

    fn try_command(&self, line: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
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
