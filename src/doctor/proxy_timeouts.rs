//! Checks that every proxy on the way waits longer than the node, so that only the node ends a silent session.

use std::time::{Duration, Instant};

use http::Method;

use super::deployment::{Deployment, HttpAnswer, OpenedSession};
use super::frames::FrameEvent;
use super::report::Finding;
use super::websocket;

/// How much later than announced a ping, or the end of a session, may arrive.
const SLACK: Duration = Duration::from_secs(2);

/// Checks a silent WebSocket session: a ping must arrive within the ping interval, and after this ping only the node
/// may end the session.
pub(super) async fn check_silent_session(deployment: &Deployment, known: &OpenedSession) -> Vec<Finding> {
    let name = "patience.websocket";
    let (opened, mut frames) = match websocket::session(deployment).await {
        Ok(session) => session,
        Err(problem) => return vec![Finding::unknown(name, problem, "see handshake.websocket")],
    };
    let (began, interval, timeout) = (Instant::now(), opened.ping_interval(), known.ping_timeout());
    let first = loop {
        match frames.next((interval + SLACK).saturating_sub(began.elapsed())).await {
            // A ping that comes at once shows nothing about time-outs, so it is answered and the next one is awaited.
            FrameEvent::Text(text) if text == "2" && is_early(began, interval) => _ = frames.send("3").await,
            other => break other,
        }
    };
    match first {
        FrameEvent::Text(text) if text == "2" => {}
        FrameEvent::End(_) => return vec![cut_off_early(name, "a silent WebSocket", began.elapsed(), interval)],
        other => {
            let remedy = "nodes ping every `server.ping_interval`: check whether a proxy delays messages (buffering?)";
            return vec![Finding::problem(
                name,
                format!("no ping came within {} s ({other:?})", interval.as_secs_f64()),
                remedy,
            )];
        }
    }
    let pinged = Instant::now();
    let ended = loop {
        match frames.next((timeout + SLACK).saturating_sub(pinged.elapsed())).await {
            FrameEvent::Text(_) => {}
            other => break other,
        }
    };
    // The node ends the session when its ping time-out has passed. If the end comes clearly earlier, something else
    // closed the connection.
    let earlier = matches!(ended, FrameEvent::End(_)) && pinged.elapsed() + Duration::from_millis(500) < timeout;
    vec![if earlier {
        Finding::warning(
            name,
            format!(
                "something closed a silent WebSocket {} s after a ping, before the node's time-out of {} s",
                secs(pinged.elapsed()),
                secs(timeout)
            ),
            "set the proxy's idle time-out above ping_interval + ping_timeout (nginx: proxy_read_timeout and proxy_send_timeout)",
        )
    } else {
        Finding::ok(
            name,
            format!(
                "a silent WebSocket was pinged after {} s and kept until the node's own time-out",
                secs(pinged - began)
            ),
        )
    }]
}

/// Sends a poll when there is nothing to receive. The node's ping must answer the poll, and not a proxy's time-out.
pub(super) async fn waiting(deployment: &Deployment, known: &OpenedSession) -> Vec<Finding> {
    let name = "patience.polling";
    let opened = match deployment.open(&[]).await {
        Ok((opened, _)) => opened,
        Err(problem) => return vec![Finding::unknown(name, problem, "see handshake.polling")],
    };
    let (began, interval) = (Instant::now(), known.ping_interval());
    let url = deployment.session("polling", Some(&opened.sid));
    let cookies = Deployment::kept(&opened);
    let answer = loop {
        let answer = deployment.ask(Method::GET, url.clone(), &cookies, "", interval + SLACK).await;
        if !(answer.as_ref().is_ok_and(is_ping) && is_early(began, interval)) {
            break answer;
        }
        _ = deployment.ask(Method::POST, url.clone(), &cookies, "3", SLACK).await;
    };
    let finding = match answer {
        Ok(answer) if is_ping(&answer) => {
            Finding::ok(name, format!("a poll waited {} s for its ping", secs(began.elapsed())))
        }
        // An answer this early is not caused by a proxy's time-out.
        Ok(answer) if answer.status == 400 => Finding::unknown(name, answer.told(), "see stickiness"),
        Ok(answer) if answer.status == 200 => Finding::unknown(name, answer.told(), "try again"),
        Ok(answer) => {
            let told = answer.told();
            let mut finding = cut_off_early(name, "a waiting poll", began.elapsed(), interval);
            finding.found = format!("{} ({told})", finding.found);
            finding
        }
        Err(problem) => {
            let mut finding = cut_off_early(name, "a waiting poll", began.elapsed(), interval);
            finding.found = format!("{} ({problem})", finding.found);
            finding
        }
    };
    _ = deployment.ask(Method::POST, url, &cookies, "1", SLACK).await;
    vec![finding]
}

/// Whether a ping at this moment comes too early to show anything about time-outs.
fn is_early(began: Instant, interval: Duration) -> bool {
    began.elapsed() < interval / 2
}

fn is_ping(answer: &HttpAnswer) -> bool {
    answer.status == 200 && answer.body.split('\u{1e}').any(|packet| packet == "2")
}

fn cut_off_early(name: &'static str, what: &str, after: Duration, interval: Duration) -> Finding {
    Finding::problem(
        name,
        format!("{what} was ended after {} s, before the ping that comes every {} s", secs(after), secs(interval)),
        "set the proxy's idle and read time-outs above ping_interval + ping_timeout (nginx: proxy_read_timeout and \
         proxy_send_timeout; ingress-nginx: the annotations of these names), or lower `server.ping_interval`",
    )
}

fn secs(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}
