//! A Redis Cluster of one node, which has all hash slots. Like a large cluster, it refuses commands with keys of
//! different slots.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct RedisCluster {
    port: u16,
    _dir: TempDir,
    child: Child,
}

impl RedisCluster {
    /// Starts the cluster and waits until it answers for every slot.
    pub async fn start() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, bus) = (free(), free());
        let dir = tempfile::tempdir().unwrap();
        let numbers = [port.to_string(), bus.to_string()];
        let child = Command::new("redis-server")
            .args(["--port", &numbers[0], "--cluster-port", &numbers[1], "--bind", "127.0.0.1", "--save", ""])
            .args(["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let server = Self { port, _dir: dir, child };
        let until = Instant::now() + Duration::from_secs(20);
        server.try_command("CLUSTER ADDSLOTSRANGE 0 16383");
        while server.try_command("CLUSTER INFO").is_none_or(|answer| !answer.contains("cluster_state:ok")) {
            assert!(Instant::now() < until, "the cluster did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
            server.try_command("CLUSTER ADDSLOTSRANGE 0 16383");
        }
        server
    }

    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.port)
    }

    /// Sends one inline command and returns the answer.
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

impl Drop for RedisCluster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
