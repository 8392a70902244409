//! Runs the official parsers in a Node.js process, which answers one JSON request per line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// The Node.js process with the official parsers. The process ends when this value is dropped.
pub struct Reference {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// The result of the official decoder for a list of messages.
#[derive(Debug)]
pub struct Decoded {
    /// The complete packets.
    pub packets: Vec<Value>,
    /// The reason why the rest was refused.
    pub error: Option<String>,
    /// Whether attachments are missing.
    pub waits: bool,
}

impl Reference {
    pub fn start() -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let modules = format!("{root}/tests/js/package.json");
        assert!(
            std::path::Path::new(&format!("{root}/tests/js/node_modules/socket.io-parser")).exists(),
            "npm ci in tests/js has installed the official client"
        );
        let mut child = Command::new("node")
            .args([&format!("{root}/tests/codec/reference.js"), &modules])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.input, "{question}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line} to {question}"))
    }

    /// Decodes Engine.IO messages: strings, and binary as `{"$b":hex}`.
    pub fn decode(&mut self, messages: &[Value]) -> Decoded {
        let mut answer = self.ask(&json!({ "decode": messages }));
        let packets = answer["packets"].take();
        Decoded {
            packets: packets.as_array().cloned().unwrap_or_default(),
            error: answer["error"].as_str().map(str::to_owned),
            waits: answer["waits"] == true,
        }
    }

    /// Encodes a packet as Engine.IO messages.
    pub fn encode(&mut self, packet: &Value) -> Vec<Value> {
        self.ask(&json!({ "encode": packet })).as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
