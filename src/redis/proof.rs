//! Proves that the server that took a publish is the primary.
//!
//! A replica accepts publishes too, but passes them only to the nodes that are connected to the replica. If old
//! connections stay open after a failover, a server that the other nodes have left would confirm publishes. Therefore
//! this node sends a write that changes nothing after the publish on the same connection. A replica refuses this write.

use fred::error::Error;
use fred::interfaces::KeysInterface;
use tokio::sync::{mpsc, oneshot};

use super::cause::{Cause, CauseKind};
use super::{Redis, probe};

/// Maximum number of callers in the queue for a proof; further callers wait to enter it. One proof serves all callers
/// whose requests were made before the proof was sent.
const WAITING: usize = 4096;

type ProofAnswer = oneshot::Sender<Result<(), Error>>;

/// The sending end of the queue of requests for proofs.
pub(super) struct Proofs(mpsc::Sender<ProofAnswer>);

/// The receiving end of [`Proofs`], for [`run`].
pub(super) struct ProofRequests(mpsc::Receiver<ProofAnswer>);

impl Proofs {
    pub(super) fn new() -> (Self, ProofRequests) {
        let (asked, waiting) = mpsc::channel(WAITING);
        (Self(asked), ProofRequests(waiting))
    }

    /// Resolves when a proof that was sent after this call is answered.
    pub(super) async fn next(&self) -> Result<(), Error> {
        let (answer, proof) = oneshot::channel();
        if self.0.send(answer).await.is_err() {
            return Err(Error::new_canceled());
        }
        proof.await.unwrap_or_else(|_| Err(Error::new_canceled()))
    }
}

/// Answers requests for proofs until Redis is closed.
pub(super) async fn run(redis: Redis, mut asked: ProofRequests, node: String) {
    let key = redis.keys().probe_write(&node);
    let mut waiting = Vec::new();
    loop {
        let count = tokio::select! {
            () = redis.state().stopped() => return,
            count = asked.0.recv_many(&mut waiting, WAITING) => count,
        };
        if count == 0 {
            return;
        }
        let proof = prove(&redis, &key).await;
        for answer in waiting.drain(..) {
            // The caller may have stopped waiting.
            let _ = answer.send(proof.clone());
        }
    }
}

async fn prove(redis: &Redis, key: &str) -> Result<(), Error> {
    // No proof is needed in a Redis Cluster: each server redirects commands for keys of other servers.
    if redis.is_clustered() {
        return Ok(());
    }
    match redis.client().del::<(), _>(key).await {
        Ok(()) => Ok(()),
        Err(error) => {
            redis.notice(&error, &format!("{} {key}", probe::PROOF));
            match Cause::of(&error).kind {
                CauseKind::ReadOnly | CauseKind::Timeout | CauseKind::Lost => Err(error),
                // The server is a primary that refused the write for another reason than being a replica.
                _ => Ok(()),
            }
        }
    }
}
