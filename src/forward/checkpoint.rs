//! Checks the requests that other nodes forward to this node.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bodies::Bodies;
use super::counters::ForwardCounters;
use super::replay::SeenRequests;
use super::stamp::{ANSWERED, ForwardStamp, STAMP, Signature, Unproven};
use super::{ClusterKeys, NodeKey, NotForwarded};
use crate::config;
use crate::telemetry::audit::{self, AuditRecord};
use crate::telemetry::metrics::Metrics;

/// Accepts forwarded requests. Each request must be signed with the cluster's secret, addressed to this node, stamped
/// with a time within 30 s of this node's clock, and not a repetition.
pub struct Checkpoint {
    own: NodeKey,
    keys: ClusterKeys,
    replays: SeenRequests,
    bodies: Bodies,
    places: Arc<Semaphore>,
    counters: ForwardCounters,
}

/// A forwarded request, from a client of another node, that passed the check.
pub struct Checked {
    /// The request as the other node received it.
    pub request: Request<Body>,
    /// The client's address.
    pub client: IpAddr,
    signature: Signature,
    /// The permit for one forwarded request.
    place: OwnedSemaphorePermit,
}

impl Checkpoint {
    /// Creates the checkpoint of the node with the key `own`.
    pub fn new(
        (cluster, server): (&config::ClusterSettings, &config::ServerSettings),
        (own, keys): (NodeKey, ClusterKeys),
        metrics: Arc<Metrics>,
    ) -> Self {
        let within = server.ping_interval.get() + server.ping_timeout.get();
        Self {
            own,
            keys,
            replays: SeenRequests::default(),
            bodies: Bodies::new(server.max_payload.as_usize(), within),
            places: Arc::new(Semaphore::new(cluster.max_forwarded)),
            counters: ForwardCounters(metrics),
        }
    }

    /// Checks a request and reads its body.
    ///
    /// # Errors
    /// Returns the answer to a request that is refused. The answer does not contain the reason; the reason is counted
    /// in `roomcast_forward_received_total`.
    pub async fn check(&self, request: Request<Body>, from: IpAddr) -> Result<Checked, Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let checked = ForwardStamp::check(&self.keys, self.own, &parts, SystemTime::now());
        let (stamp, signature) = checked.map_err(|why| self.refuse(why.as_str(), from))?;
        if !self.replays.is_new(stamp.from, stamp.number, Instant::now()) {
            return Err(self.refuse("replayed", from));
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(self.answer_busy(signature));
        };
        let body = match self.bodies.read(body).await {
            Ok(body) if stamp.is_of(&body.bytes) => body,
            Err(NotForwarded::Busy) => return Err(self.answer_busy(signature)),
            Ok(_) | Err(_) => return Err(self.refuse("body", from)),
        };
        parts.headers.remove(STAMP);
        self.counters.received("served");
        let request = Request::from_parts(parts, Body::from(body.bytes.clone()));
        Ok(Checked { request, client: stamp.client, signature, place })
    }

    /// Signs the answer to a request.
    pub fn sign(&self, signature: Signature, mut answer: Response<Body>) -> Response<Body> {
        if let Some(value) = signature.answer(&self.keys) {
            answer.headers_mut().insert(ANSWERED, value);
        }
        answer
    }

    fn answer_busy(&self, signature: Signature) -> Response<Body> {
        self.counters.received("busy");
        self.sign(signature, empty(StatusCode::SERVICE_UNAVAILABLE))
    }

    fn refuse(&self, why: &'static str, from: IpAddr) -> Response<Body> {
        self.counters.received(why);
        audit::record(
            audit::AuditEvent::ForwardRefused,
            AuditRecord { ip: Some(from), reason: Some(why), ..AuditRecord::default() },
        );
        empty(StatusCode::UNAUTHORIZED)
    }
}

impl Checked {
    /// The request, the signature for its answer, and the permit to hold until the answer is sent.
    pub fn into_parts(self) -> (Request<Body>, Signature, OwnedSemaphorePermit) {
        (self.request, self.signature, self.place)
    }
}

impl Unproven {
    /// The label of the result in `roomcast_forward_received_total`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Stale => "stale",
        }
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}
