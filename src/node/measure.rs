//! Registers gauges that are measured at each scrape, so that they show the values of that moment.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::history::History;
use crate::limits::Limits;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::{Metrics, count};
use crate::telemetry::process;
use crate::telemetry::version::VERSION;

/// Sets the metrics that identify the node, and registers the measurements of its parts. Needs a Tokio runtime.
pub(super) fn measure(
    metrics: &Metrics,
    config: &Config,
    cluster: &Arc<Cluster>,
    history: &Arc<History>,
    limits: &Arc<Limits>,
) {
    let engine = config.server.engine.as_str();
    metrics.build_info.with_label_values(&[VERSION, engine, cluster.node()]).set(1);
    process::watch(metrics);
    let (cluster, history, limits) = (Arc::downgrade(cluster), Arc::downgrade(history), Arc::downgrade(limits));
    metrics.measure(move |metrics| {
        if let Some(cluster) = cluster.upgrade() {
            cluster.measure(metrics);
        }
        if let Some(history) = history.upgrade() {
            let (rooms, bytes) = history.size();
            metrics.history_rooms.with_label_values::<&str>(&[]).set(count(rooms));
            metrics.history_bytes.with_label_values::<&str>(&[]).set(count(bytes));
        }
        if let Some(limits) = limits.upgrade() {
            let (addresses, users) = limits.tracked();
            metrics.rate_buckets.with_label_values(&["address"]).set(count(addresses));
            metrics.rate_buckets.with_label_values(&["user"]).set(count(users));
            let (addresses, users) = limits.present();
            metrics.limits_present.with_label_values(&["addresses"]).set(count(addresses));
            metrics.limits_present.with_label_values(&["users"]).set(count(users));
        }
    });
}

/// Registers the measurements of the process's log.
pub(super) fn log(metrics: &Metrics, logging: Arc<Logging>) {
    metrics.measure(move |metrics| {
        let lost = metrics.log_lost_total.with_label_values::<&str>(&[]);
        lost.inc_by(logging.lost().saturating_sub(lost.get()));
    });
}
