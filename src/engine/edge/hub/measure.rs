//! The metrics of connections.

use prometheus::IntGaugeVec;

use super::Hub;
use crate::telemetry::metrics::{Metrics, count};

impl Hub {
    pub(super) fn measure(&self, metrics: &Metrics) {
        let sessions = self.sessions();
        let (mut packets, mut bytes, mut longest) = (0, 0, (0, 0));
        let (mut websockets, mut compressed) = (0, 0);
        for connection in sessions.iter().filter_map(|session| session.connection()) {
            let (count, size) = connection.waiting();
            packets += count;
            bytes += size;
            longest = (count.max(longest.0), size.max(longest.1));
            websockets += usize::from(connection.is_websocket());
            compressed += usize::from(connection.compresses());
        }
        let set = |gauge: &IntGaugeVec, number| gauge.with_label_values::<&str>(&[]).set(count(number));
        set(&metrics.websockets_compressed, compressed);
        set(&metrics.queue_packets, packets);
        set(&metrics.queue_bytes, bytes);
        set(&metrics.queue_longest_packets, longest.0);
        set(&metrics.queue_longest_bytes, longest.1);
        metrics.transports.with_label_values(&["websocket"]).set(count(websockets));
        metrics.transports.with_label_values(&["polling"]).set(count(sessions.len() - websockets));
        let legacy = sessions.iter().filter(|session| session.peer().protocol == 3).count();
        metrics.protocols.with_label_values(&["3"]).set(count(legacy));
        metrics.protocols.with_label_values(&["4"]).set(count(sessions.len() - legacy));
    }
}
