//! Checks of WebSocket: a session can be opened, and a long-polling session can be upgraded.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, header};
use reqwest::Upgraded;

use super::deployment::{Deployment, OpenedSession, PROMPT, causes};
use super::frames::{FrameClient, FrameEvent};
use super::report::Finding;

const REMEDY: &str = "let the proxy pass upgrades on: HTTP/1.1 to the node, with the request's `Upgrade` and `Connection: upgrade` \
                      (nginx/roomcast.conf does); a firewall that looks into plain HTTP may also be in the way: try TLS";

/// Opens a session by WebSocket.
pub(super) async fn open(deployment: &Deployment) -> Vec<Finding> {
    let began = Instant::now();
    vec![match session(deployment).await {
        Ok(_) => Finding::ok("handshake.websocket", format!("a session opened in {} ms", began.elapsed().as_millis())),
        Err(problem) => Finding::problem("handshake.websocket", problem, REMEDY),
    }]
}

/// Upgrades a long-polling session to WebSocket, as most clients do.
pub(super) async fn upgrade(deployment: &Deployment) -> Vec<Finding> {
    let name = "upgrade";
    let opened = match deployment.open(&[]).await {
        Ok((opened, _)) => opened,
        Err(problem) => return vec![Finding::unknown(name, problem, "see handshake.polling")],
    };
    if !opened.upgrades.iter().any(|transport| transport == "websocket") {
        let remedy = "see which server answers here: a roomcast node offers websocket always";
        return vec![Finding::problem(name, "the server does not offer the upgrade to WebSocket", remedy)];
    }
    vec![match probe(deployment, &opened).await {
        Ok(took) => Finding::ok(name, format!("a long-polling session became a WebSocket in {} ms", took.as_millis())),
        Err(problem) => Finding::problem(name, format!("clients stay on long-polling: {problem}"), REMEDY),
    }]
}

async fn probe(deployment: &Deployment, opened: &OpenedSession) -> Result<Duration, String> {
    let began = Instant::now();
    let mut frames = connect(deployment, Some(&opened.sid), &Deployment::kept(opened)).await?;
    frames.send("2probe").await.map_err(|error| causes(&error))?;
    match frames.next(PROMPT).await {
        FrameEvent::Text(text) if text == "3probe" => {}
        other => return Err(format!("the probe was not answered ({other:?})")),
    }
    frames.send("5").await.map_err(|error| causes(&error))?;
    let took = began.elapsed();
    _ = frames.send("1").await;
    Ok(took)
}

/// Opens a session by WebSocket, and returns it with its connection.
pub(super) async fn session(deployment: &Deployment) -> Result<(OpenedSession, FrameClient<Upgraded>), String> {
    let mut frames = connect(deployment, None, &[]).await?;
    match frames.next(PROMPT).await {
        FrameEvent::Text(text) => {
            let opened =
                OpenedSession::read(&text).ok_or("the first message is not Socket.IO's: is the path right?")?;
            Ok((opened, frames))
        }
        FrameEvent::End(_) => Err("the connection was upgraded, then closed before a session was opened".into()),
        FrameEvent::Silence => Err("the connection was upgraded, but nothing came".into()),
    }
}

async fn connect(
    deployment: &Deployment,
    sid: Option<&str>,
    cookies: &[(HeaderName, HeaderValue)],
) -> Result<FrameClient<Upgraded>, String> {
    let mut request = deployment.client.request(Method::GET, deployment.session("websocket", sid));
    for (name, value) in cookies {
        request = request.header(name, value);
    }
    let request = request
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        // Any 16 bytes.
        .header(header::SEC_WEBSOCKET_KEY, "cm9vbWNhc3QtZG9jdG9yIQ==");
    let connecting = async {
        let response = request.send().await.map_err(|error| causes(&error))?;
        let status = response.status();
        if status != http::StatusCode::SWITCHING_PROTOCOLS {
            let body = tokio::time::timeout(PROMPT, response.text()).await;
            let start: String = body.ok().and_then(Result::ok).unwrap_or_default().chars().take(120).collect();
            return Err(format!("the upgrade was answered with {status} {}", start.trim()));
        }
        response.upgrade().await.map_err(|error| causes(&error))
    };
    let upgraded = tokio::time::timeout(PROMPT * 2, connecting);
    upgraded.await.map_err(|_| "the upgrade was not answered".to_owned())?.map(FrameClient::new)
}
