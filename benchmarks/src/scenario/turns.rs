//! How long a large room holds a thread.

use super::rooms::{Paced, paced};
use super::{Figures, Size, Stage};

/// What the native engine promises of a turn.
const PROMISED: &str = "0.001";

/// Ten thousand members hear five events a second.
pub(super) fn large_room(stage: &Stage, size: Size) -> anyhow::Result<Figures> {
    let mut figures = paced(stage, size, &Paced { rooms: 1, members: 10_000, rate: 5 })?;
    // Nothing else was published, and what was written before is little beside it.
    if let Some(metrics) = stage.nodes[0].metrics()? {
        for (name, histogram) in [("turn", "roomcast_delivery_turn_seconds"), ("publish", "roomcast_publish_seconds")] {
            let [count, sum, within] = ["_count", "_sum", "_bucket"].map(|part| total(&metrics, histogram, part));
            let (mean, over) = match name {
                "turn" => ("turn_mean_ms", "turns_over_1ms_percent"),
                _ => ("publish_mean_ms", "publishes_over_1ms_percent"),
            };
            if count > 0.0 {
                figures.insert(mean, sum / count * 1000.0);
                figures.insert(over, (count - within) / count * 100.0);
            }
        }
    }
    Ok(figures)
}

/// The sum of a histogram's series; of its buckets that of [`PROMISED`].
fn total(metrics: &str, histogram: &str, part: &str) -> f64 {
    let bucket = format!("le=\"{PROMISED}\"");
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(histogram)?.strip_prefix(part)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (part != "_bucket" || labels.contains(&bucket)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}
