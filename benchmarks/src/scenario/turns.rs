//! Measures how long the delivery of an event to a large room blocks a thread.

use super::rooms::paced;
use super::{Figures, Size, Stage};

/// The maximum duration of a write turn, in seconds, that the native engine promises.
const PROMISED: &str = "0.001";

/// A room of 10,000 members receives five events a second.
pub(super) fn large_room(stage: &Stage, size: Size) -> anyhow::Result<Figures> {
    let mut figures = paced(stage, size, &super::websockets(1, 10_000, 5))?;
    // The histograms also contain the writes before these events, but those are few in comparison.
    if let Some(metrics) = stage.nodes[0].metrics()? {
        let of = |histogram| ["_count", "_sum", "_bucket"].map(|part| total(&metrics, histogram, part));
        let [turns, seconds, within] = of("roomcast_delivery_turn_seconds");
        if turns > 0.0 {
            figures.insert("turn_mean_ms", seconds / turns * 1000.0);
            figures.insert("turns_over_1ms_percent", (turns - within) / turns * 100.0);
        }
        let [events, seconds, _] = of("roomcast_publish_seconds");
        if events > 0.0 {
            figures.insert("queued_for_all_mean_ms", seconds / events * 1000.0);
        }
    }
    Ok(figures)
}

/// The sum of a histogram's series, and of its buckets up to [`PROMISED`].
fn total(metrics: &str, histogram: &str, part: &str) -> f64 {
    let bucket = format!("le=\"{PROMISED}\"");
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(histogram)?.strip_prefix(part)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (part != "_bucket" || labels.contains(&bucket)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}
