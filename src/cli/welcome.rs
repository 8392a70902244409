//! The page that development mode prints when the node listens: an address, a token, a client, and a `curl` command
//! that makes an event appear.

mod example;
mod sample;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;

pub use example::example;

/// The user in development mode's token.
pub(super) const TRYING_USER: &str = "dev";
/// The roles of development mode's user, which permit what contracts reserve for administrators.
pub(super) const TRYING_ROLES: [&str; 1] = ["admin"];

/// The values that the page of development mode shows.
pub struct WelcomeInfo {
    /// The address for clients.
    pub server: SocketAddr,
    /// The address for backends.
    pub api: SocketAddr,
    /// The path of Socket.IO.
    pub path: String,
    /// A user's token.
    pub token: String,
    /// An API key.
    pub api_key: String,
    /// An example event that the contracts permit.
    pub example: Example,
}

/// An example: an event of the client, and a publish of the backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The namespace to which the client connects.
    pub namespace: String,
    /// The event and payload with which the client joins the room, if it must.
    pub subscribe: Option<(String, Value)>,
    /// The API's route.
    pub route: &'static str,
    /// The body of the backend's request.
    pub request: Value,
}

/// Writes the page.
pub fn text(info: &WelcomeInfo) -> String {
    let WelcomeInfo { server, api, token, api_key, example, .. } = info;
    let (server, api) = (reachable(*server), reachable(*api));
    let program = program(info, &format!("http://{server}{}", example.namespace.trim_end_matches('/')));
    let request = &example.request;
    let route = example.route;
    format!(
        "\
roomcast listens. Its keys are those of this run, and this page shows them: for development alone.

  clients   http://{server}
  backends  http://{api}
  token     {token}

A client, client.mjs:

{program}
  npm install socket.io-client && node client.mjs

A backend: this makes an event appear in the client.

  curl -sSw '\\n' http://{api}{route} \\
    -H 'authorization: Bearer {api_key}' -H 'content-type: application/json' \\
    -d '{request}'

"
    )
}

fn program(info: &WelcomeInfo, url: &str) -> String {
    let path = match info.path.as_str() {
        "/socket.io/" => String::new(),
        other => format!("path: {}, ", Value::from(other)),
    };
    let mut lines = vec![
        "import { io } from \"socket.io-client\";".to_owned(),
        format!("const token = \"{}\";", info.token),
        format!("const socket = io(\"{url}\", {{ {path}auth: {{ token }} }});"),
        "socket.on(\"connect_error\", (error) => console.log(\"refused:\", error.message));".to_owned(),
        "socket.onAny((event, ...args) => console.log(event, JSON.stringify(args)));".to_owned(),
        "socket.on(\"connect\", async () => {".to_owned(),
        "  console.log(\"connected as\", socket.id);".to_owned(),
    ];
    if let Some((event, payload)) = &info.example.subscribe {
        let payload = if payload.is_null() { String::new() } else { format!(", {payload}") };
        lines.push(format!("  console.log(await socket.emitWithAck({}{payload}));", Value::from(event.as_str())));
    }
    lines.push("});".to_owned());
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// The address to connect to: loopback if the node listens on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    }
    address
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info() -> WelcomeInfo {
        WelcomeInfo {
            server: "0.0.0.0:3000".parse().unwrap(),
            api: "127.0.0.1:3001".parse().unwrap(),
            path: "/socket.io/".into(),
            token: "TOKEN".into(),
            api_key: "KEY".into(),
            example: Example { subscribe: Some(("join".into(), json!({ "id": "demo" }))), ..example(&[]) },
        }
    }

    #[test]
    fn page_has_an_address_a_token_a_client_and_a_curl() {
        let page = text(&info());
        for part in ["http://127.0.0.1:3000\n", "TOKEN", "socket.io-client", "emitWithAck(\"join\", {\"id\":\"demo\"})"]
        {
            assert!(page.contains(part), "{part} in\n{page}");
        }
        assert!(page.contains("curl -sSw '\\n' http://127.0.0.1:3001/api/v1/emit \\\n"), "{page}");
        assert!(program(&info(), "u").lines().count() <= 10);
    }
}
