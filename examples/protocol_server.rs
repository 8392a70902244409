//! Answers clients of the native engine as the reference servers of the protocols do, for
//! `tests/js/edge/protocol.test.js` and for the official test suites (`scripts/conformance`).
//!
//! Arguments: the ping interval, the ping timeout, and the time to connect to a namespace, in milliseconds. Without
//! them they are those that the official suites expect.
//!
//! Prints `{"engine":"<address>","socket":"<address>"}` and serves until it is killed. The first address echoes every
//! message of Engine.IO on `/engine.io/`. The second speaks Socket.IO on `/socket.io/`: it emits `auth` with the
//! payload of CONNECT, answers `message` with `message-back`, and acknowledges `message-with-ack`, all with the
//! arguments that came.

use std::error::Error;
use std::future::pending;
use std::sync::Arc;

use roomcast::auth::Handshake;
use roomcast::config;
use roomcast::engine::{Engine, EngineContext, Gate, MessageContent};
use roomcast::error::{Code, Refusal};
use roomcast::event::{Args, Event};
use roomcast::forward::Forwarder;
use roomcast::limits::Limits;
use roomcast::session::{AckId, ClientFacts, Link, Session};
use roomcast::telemetry::metrics::Metrics;
use roomcast::user::User;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Echoes messages of Engine.IO.
struct EngineEcho;

impl Gate for EngineEcho {
    type Admission = ();
    type Client = Session;

    fn message(&self, message: MessageContent<'_>, answer: &mut dyn FnMut(MessageContent<'_>)) -> bool {
        answer(message);
        true
    }

    async fn admit(&self, _: &Arc<str>, _: &str, _: Handshake, _: &ClientFacts) -> Result<(), Refusal> {
        Err(Refusal::new(Code::NotFound, "this server does not speak Socket.IO"))
    }

    fn open(self: &Arc<Self>, (): (), _: &str, _: ClientFacts, _: Box<dyn Link>) -> Option<Arc<Session>> {
        None
    }

    fn dispatch(self: &Arc<Self>, _: &Arc<Session>, _: Event, _: Option<AckId>) {}

    fn closed(self: &Arc<Self>, _: &Arc<Session>, _: &'static str) {}
}

/// Echoes events of Socket.IO.
struct SocketEcho;

impl Gate for SocketEcho {
    type Admission = (Arc<str>, Value);
    type Client = Session;

    async fn admit(
        &self,
        namespace: &Arc<str>,
        _: &str,
        handshake: Handshake,
        _: &ClientFacts,
    ) -> Result<Self::Admission, Refusal> {
        Ok((namespace.clone(), handshake.auth.unwrap_or_else(|| json!({}))))
    }

    fn open(
        self: &Arc<Self>,
        (namespace, auth): Self::Admission,
        id: &str,
        peer: ClientFacts,
        link: Box<dyn Link>,
    ) -> Option<Arc<Session>> {
        let session = Session::new(id, namespace, Arc::new(User::named("anybody")), peer, link);
        let event = Event::encode("auth", &[auth]).ok()?;
        session.send(&event).ok()?;
        Some(session)
    }

    fn dispatch(self: &Arc<Self>, session: &Arc<Session>, event: Event, ack: Option<AckId>) {
        // Neither call fails unless the client is gone.
        let _ = match (event.name(), ack) {
            ("message", _) => session.send(&event.renamed("message-back")),
            ("message-with-ack", Some(ack)) => session.ack(ack, &Args::of(&event)),
            _ => Ok(()),
        };
    }

    fn closed(self: &Arc<Self>, _: &Arc<Session>, _: &'static str) {}
}

/// Serves clients on a free port. Returns its address.
async fn serve<G: Gate>(gate: G, server: config::ServerSettings) -> Result<String, Box<dyn Error>> {
    let metrics = Arc::new(Metrics::new());
    let namespaces: [Arc<str>; 2] = ["/".into(), "/custom".into()];
    let limits = Arc::new(Limits::new(&config::LimitsSettings::default(), &[], metrics.clone()));
    let context = EngineContext::new(limits, &[], Forwarder::alone(metrics.clone()), metrics);
    let engine = Engine::new(&server, &context, &namespaces, &Arc::new(gate));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let never = CancellationToken::new();
    tokio::spawn(async move { engine.serve(listener, None, axum::Router::new(), never).await });
    Ok(address)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut times = [300, 200, 1000];
    for (time, argument) in times.iter_mut().zip(std::env::args().skip(1)) {
        *time = argument.parse()?;
    }
    let [ping_interval, ping_timeout, connect_timeout] = times.map(config::Period::from_millis);
    let server =
        config::ServerSettings { ping_interval, ping_timeout, connect_timeout, ..config::ServerSettings::default() };
    let echo = config::ServerSettings {
        path: "/engine.io/".to_owned(),
        // A client of the echo server never connects to a namespace.
        connect_timeout: config::Period::from_secs(24 * 3600),
        ..server.clone()
    };
    println!("{}", json!({ "engine": serve(EngineEcho, echo).await?, "socket": serve(SocketEcho, server).await? }));
    pending().await
}
