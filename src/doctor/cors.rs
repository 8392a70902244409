//! Checks whether web pages of other origins may connect.

use http::{HeaderMap, HeaderValue, Method, header};

use super::deployment::{Deployment, PROMPT};
use super::report::Finding;

/// An origin that no page can have (RFC 2606).
const STRANGER: &str = "https://roomcast-doctor.invalid";

/// Checks the origin that should be able to connect, and an unknown one.
pub(super) async fn check(deployment: &Deployment, origin: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![check_unlisted_origin(deployment).await];
    match origin {
        Some(origin) => findings.push(page(deployment, origin).await),
        None => {
            let remedy = "name the page's origin: --origin https://app.example.com";
            findings.push(Finding::unknown("cors", "no origin was given", remedy));
        }
    }
    findings
}

/// The finding that both the node and a proxy set `Access-Control-Allow-Origin`.
pub(super) fn duplicate_header() -> Finding {
    let remedy = "leave CORS to the nodes (`server.cors_origins`): remove the proxy's own Access-Control headers";
    Finding::problem("cors", "Access-Control-Allow-Origin comes twice, which browsers refuse", remedy)
}

async fn page(deployment: &Deployment, origin: &str) -> Finding {
    let name = "cors";
    let Ok(value) = HeaderValue::from_str(origin) else {
        return Finding::unknown(name, format!("{origin} is not an origin"), "write it like https://app.example.com");
    };
    let asked = [(header::ORIGIN, value.clone())];
    let answer = match deployment.ask(Method::GET, deployment.session("polling", None), &asked, "", PROMPT).await {
        Ok(answer) => answer,
        Err(problem) => return Finding::unknown(name, problem, "see handshake.polling"),
    };
    let preflight = [
        (header::ORIGIN, value),
        (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST")),
        (header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("content-type")),
    ];
    let flown = deployment.ask(Method::OPTIONS, deployment.session("polling", None), &preflight, "", PROMPT).await;
    let allowed: Vec<_> = answer.headers.get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect();
    if allowed.len() > 1 {
        return duplicate_header();
    }
    let remedy = format!("add {origin:?} to `server.cors_origins`, and let proxies pass `Origin` and `OPTIONS` on");
    if answer.status != 200 || !permits(&answer.headers, origin) {
        return Finding::problem(name, format!("pages of {origin} may not connect ({})", answer.told()), remedy);
    }
    match flown {
        Ok(flown) if flown.status < 300 && permits(&flown.headers, origin) => {}
        Ok(flown) => {
            return Finding::problem(name, format!("the preflight of {origin} is refused ({})", flown.told()), remedy);
        }
        Err(problem) => return Finding::unknown(name, format!("the preflight was not answered: {problem}"), remedy),
    }
    let credentials = answer.headers.get(header::ACCESS_CONTROL_ALLOW_CREDENTIALS).is_some_and(|value| value == "true");
    if credentials {
        return Finding::ok(name, format!("pages of {origin} may connect, with cookies"));
    }
    let remedy = "name the origins in `server.cors_origins` instead of `*`: cookies, by which proxies keep clients on their node, \
                  are not sent to whoever allows everybody";
    Finding::warning(name, format!("pages of {origin} may connect, but without cookies"), remedy)
}

async fn check_unlisted_origin(deployment: &Deployment) -> Finding {
    let name = "cors.strangers";
    let asked = [(header::ORIGIN, HeaderValue::from_static(STRANGER))];
    match deployment.ask(Method::GET, deployment.session("polling", None), &asked, "", PROMPT).await {
        Ok(answer) if answer.status == 200 && permits(&answer.headers, STRANGER) => {
            let remedy = "list the permitted origins in `server.cors_origins`, unless the namespace is public";
            Finding::warning(name, "pages of any origin may connect", remedy)
        }
        Ok(_) => Finding::ok(name, "pages of an unknown origin may not connect"),
        Err(problem) => Finding::unknown(name, problem, "see handshake.polling"),
    }
}

fn permits(headers: &HeaderMap, origin: &str) -> bool {
    let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).and_then(|value| value.to_str().ok());
    allowed.is_some_and(|allowed| allowed == "*" || allowed == origin)
}
