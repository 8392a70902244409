//! Checks a client's token: its times by the node's clock, and whether a node accepts it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value;

use super::deployment::{Deployment, PROMPT, now};
use super::frames::FrameEvent;
use super::report::Finding;
use super::{DoctorOptions, websocket};
use crate::config::AuthSettings;

/// A clock difference of more seconds than this is reported. Clocks that NTP keeps differ by much less.
const ODD: f64 = 2.0;

/// Checks the clocks, and the token if there is one.
pub(super) async fn check(deployment: &Deployment, options: &DoctorOptions) -> Vec<Finding> {
    let ahead = clock_skew(deployment).await;
    let mut findings = vec![clock(&ahead)];
    if let Some(token) = &options.token {
        let there = now() + ahead.as_ref().copied().unwrap_or(0.0);
        findings.extend(claims(token.expose(), there));
        findings.push(connect(deployment, token.expose(), &options.namespace).await);
    }
    findings
}

/// Returns by how many seconds the node's clock is ahead of this machine's clock.
async fn clock_skew(deployment: &Deployment) -> Result<f64, String> {
    let before = now();
    let answer = deployment.ask(Method::GET, deployment.with_path("/ready"), &[], "", PROMPT).await?;
    let middle = f64::midpoint(before, now());
    let said: Option<Value> = serde_json::from_str(&answer.body).ok();
    let at =
        said.as_ref().and_then(|ready| ready["websocket"]["timestamp"].as_str()?.parse::<humantime::Timestamp>().ok());
    let at = at.ok_or_else(|| format!("/ready cannot be reached from here ({})", answer.status))?;
    let at = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Ok(at - middle)
}

fn clock(ahead: &Result<f64, String>) -> Finding {
    let name = "clock";
    match ahead {
        Ok(ahead) if ahead.abs() < ODD => {
            Finding::ok(name, format!("the node's clock agrees with this machine's ({ahead:+.1} s)"))
        }
        Ok(ahead) => {
            let (found, remedy) = (
                format!("the node's clock is {ahead:+.1} s from this machine's"),
                "synchronize all machines' clocks by NTP: tokens are refused when the difference passes `auth.leeway`",
            );
            if ahead.abs() < AuthSettings::default().leeway.as_secs_f64() {
                Finding::warning(name, found, remedy)
            } else {
                Finding::problem(name, found, remedy)
            }
        }
        Err(problem) => Finding::unknown(name, problem, "let the proxy pass /ready, as nginx/roomcast.conf does"),
    }
}

/// Checks the token's times by the node's clock. Only the node can check its signature.
fn claims(token: &str, there: f64) -> Vec<Finding> {
    let name = "token.times";
    let Some(claims) = payload(token) else {
        let remedy = "give the token itself: three parts in base64, joined by dots";
        return vec![Finding::problem(name, "the token is not a JWT", remedy)];
    };
    let time = |claim: &str| claims[claim].as_f64();
    let mut findings = Vec::new();
    for claim in ["iat", "nbf"] {
        if let Some(ahead) = time(claim).map(|at| at - there).filter(|ahead| *ahead > ODD) {
            findings.push(Finding::problem(
                name,
                format!("`{claim}` is {ahead:.0} s in the node's future"),
                "the clock of the issuer of the tokens is ahead: synchronize it by NTP, or raise `auth.leeway`",
            ));
        }
    }
    match time("exp") {
        None => findings.push(Finding::warning(name, "the token has no `exp`: it is valid for ever", "let tokens expire")),
        Some(exp) if exp <= there => findings.push(Finding::problem(
            name,
            format!("the token expired {:.0} s ago by the node's clock", there - exp),
            "use a fresh token; if it is fresh, the issuer's clock is behind",
        )),
        Some(exp) if exp - there < 60.0 => findings.push(Finding::warning(
            name,
            format!("the token is valid for {:.0} s more", exp - there),
            "a client that connects later is refused: let tokens live longer, or let clients fetch a fresh one each time",
        )),
        Some(exp) if findings.is_empty() => {
            findings.push(Finding::ok(name, format!("the token is valid for {:.0} s more", exp - there)));
        }
        Some(_) => {}
    }
    findings
}

fn payload(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.is_object().then_some(claims)
}

/// Connects to the namespace with the token.
async fn connect(deployment: &Deployment, token: &str, namespace: &str) -> Finding {
    let name = "token.accepted";
    let (_, mut frames) = match websocket::session(deployment).await {
        Ok(session) => session,
        Err(problem) => return Finding::unknown(name, problem, "see handshake.websocket"),
    };
    let auth = serde_json::json!({ "token": token });
    let place = if namespace == "/" { String::new() } else { format!("{namespace},") };
    if let Err(error) = frames.send(&format!("40{place}{auth}")).await {
        return Finding::unknown(name, error.to_string(), "see handshake.websocket");
    }
    let answer = loop {
        match frames.next(PROMPT).await {
            FrameEvent::Text(text) if text == "2" => _ = frames.send("3").await,
            other => break other,
        }
    };
    _ = frames.send("1").await;
    match answer {
        FrameEvent::Text(text) if text.starts_with(&format!("40{place}")) => {
            Finding::ok(name, format!("{namespace} takes the token"))
        }
        FrameEvent::Text(text) if text.starts_with("44") => {
            let said = text.find('{').and_then(|at| serde_json::from_str::<Value>(&text[at..]).ok());
            let said = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or("no reason given").to_owned();
            let remedy = "the node's log says more at level debug; see `auth` in roomcast.toml (keys, issuer, audience) and the \
                          contract's `[auth]`; another namespace is tried with --namespace";
            Finding::problem(name, format!("{namespace} refuses the token: {said}"), remedy)
        }
        other => Finding::unknown(name, format!("no answer to the token ({other:?})"), "see the node's log"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn told(claims_json: &str) -> Vec<(Level, String)> {
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims_json));
        claims(&token, 1000.0).into_iter().map(|finding| (finding.level, finding.found)).collect()
    }

    #[test]
    fn times_are_judged_by_the_nodes_clock() {
        assert_eq!(told(r#"{"exp":5000,"iat":990}"#), [(Level::Ok, "the token is valid for 4000 s more".into())]);
        assert_eq!(
            told(r#"{"exp":900}"#),
            [(Level::Problem, "the token expired 100 s ago by the node's clock".into())]
        );
        assert_eq!(
            told(r#"{"exp":5000,"iat":1100}"#),
            [(Level::Problem, "`iat` is 100 s in the node's future".into())]
        );
        assert_eq!(told("{}")[0].0, Level::Warning);
        assert_eq!(claims("rubbish", 0.0)[0].level, Level::Problem);
    }

    #[test]
    fn clocks_that_differ_by_more_than_the_leeway_are_a_problem() {
        for (ahead, level) in [(0.3, Level::Ok), (-10.0, Level::Warning), (100.0, Level::Problem)] {
            assert_eq!(clock(&Ok(ahead)).level, level, "{ahead}");
        }
    }
}
