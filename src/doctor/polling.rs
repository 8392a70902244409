//! Checks of long-polling: a session can be opened, and its requests reach its node.

use http::Method;

use super::deployment::{Deployment, OpenedSession, PROMPT};
use super::report::Finding;

/// A CONNECT packet for a namespace that no contract has. The node answers each one within the session, and opens
/// nothing.
const NOWHERE: &str = "40/roomcast-doctor,";

/// Opens a session by long-polling.
pub(super) async fn handshake(deployment: &Deployment) -> (Vec<Finding>, Option<OpenedSession>) {
    let name = "handshake.polling";
    match deployment.open(&[]).await {
        Ok((opened, answer)) => {
            let found = format!(
                "a session opened in {} ms (ping every {} s, time-out {} s, at most {} bytes)",
                answer.took.as_millis(),
                opened.ping_interval().as_secs_f64(),
                opened.ping_timeout().as_secs_f64(),
                opened.max_payload
            );
            let mut findings = vec![Finding::ok(name, found)];
            if answer.headers.get_all("access-control-allow-origin").iter().count() > 1 {
                findings.push(super::cors::duplicate_header());
            }
            (findings, Some(opened))
        }
        Err(problem) => {
            let remedy = "check the address and its path (`server.path`), that a node is ready (`/ready`), and that whatever is \
                          in front passes the Socket.IO path to the nodes' public listener";
            (vec![Finding::problem(name, problem, remedy)], None)
        }
    }
}

/// Checks whether all requests of a session reach its node, once with the session's cookies and once without.
pub(super) async fn stickiness(deployment: &Deployment, polls: u32) -> Vec<Finding> {
    let (with, without) = futures_util::join!(session(deployment, polls, true), session(deployment, polls, false));
    let mut findings = Vec::new();
    findings.push(match with {
        Ok(()) => Finding::ok("stickiness", format!("each of {polls} polls found its session")),
        Err(problem) => Finding::problem(
            "stickiness",
            problem,
            "several nodes answer, the proxy keeps no session on its node, and the nodes pass no requests on: let the proxy set a \
             cookie (nginx/roomcast.conf; ingress-nginx: affinity \"cookie\"), let nodes pass requests on (`cluster.listen`, \
             docs/sticky-sessions.md), or let clients use WebSocket only (transports: [\"websocket\"])",
        ),
    });
    findings.push(match without {
        Ok(()) => Finding::ok("stickiness.no_cookies", "polls of clients that keep no cookies do, too"),
        Err(problem) => Finding::warning(
            "stickiness.no_cookies",
            format!("without cookies: {problem}"),
            "pages of another origin need `withCredentials: true` and `server.cors_origins`; programs that keep no cookies need \
             WebSocket only, a proxy that also knows them by something else (nginx/roomcast.conf does), or nodes that pass \
             requests on (`cluster.listen`)",
        ),
    });
    findings
}

/// Opens one session and polls it `polls` times, each time on a new connection.
async fn session(deployment: &Deployment, polls: u32, keeps_cookies: bool) -> Result<(), String> {
    let (opened, _) = deployment.open(&[]).await?;
    let cookies = if keeps_cookies { Deployment::kept(&opened) } else { Vec::new() };
    let url = || deployment.session("polling", Some(&opened.sid));
    for poll in 1..=polls {
        let posted = deployment.ask(Method::POST, url(), &cookies, NOWHERE, PROMPT).await;
        let posted = posted.map_err(|problem| format!("request {poll} of {polls} failed: {problem}"))?;
        if posted.status != 200 {
            return Err(lost(poll, polls, &posted.told()));
        }
        let polled = deployment.ask(Method::GET, url(), &cookies, "", PROMPT).await;
        let polled = polled.map_err(|problem| format!("poll {poll} of {polls} failed: {problem}"))?;
        if polled.status != 200 {
            return Err(lost(poll, polls, &polled.told()));
        }
    }
    // Closes the session, so that the node need not wait for its ping time-out.
    _ = deployment.ask(Method::POST, url(), &cookies, "1", PROMPT).await;
    Ok(())
}

fn lost(poll: u32, polls: u32, told: &str) -> String {
    format!("the session was lost at request {poll} of {polls}, as if another node had been asked ({told})")
}
