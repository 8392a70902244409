use std::sync::atomic::AtomicBool;

use super::*;
use crate::config::Period;

/// Clients in this test that close as soon as they are asked.
#[derive(Default)]
struct ObedientClients {
    open: AtomicU64,
    accepts: AtomicBool,
    largest: AtomicU64,
}

impl LocalClients for ObedientClients {
    fn accept(&self, yes: bool) {
        self.accepts.store(yes, Ordering::Relaxed);
    }

    fn left(&self) -> RemainingClients {
        let open = self.open.load(Ordering::Relaxed) as usize;
        RemainingClients { unasked: open, open }
    }

    fn close(&self, count: usize) -> usize {
        self.open.fetch_sub(count as u64, Ordering::Relaxed);
        self.largest.fetch_max(count as u64, Ordering::Relaxed);
        count
    }
}

/// One other node, which records the value of `leaving` each time the drain reports it.
struct Other {
    drain: Arc<Drain>,
    drain_report: DrainReport,
    heard: Mutex<Vec<bool>>,
}

impl OtherNodes for Other {
    fn drain_reports(&self) -> Vec<DrainReport> {
        vec![self.drain_report]
    }

    fn tell(&self) {
        self.heard.lock().unwrap().push(self.drain.drain_report().leaving);
    }
}

fn started(clients: u64) -> (Arc<Drain>, Arc<ObedientClients>, Arc<Other>) {
    let config = config::DrainSettings { delay: Period::from_secs(2), ..config::DrainSettings::default() };
    let drain = Drain::new(&config, Arc::new(Metrics::new()));
    let sockets = Arc::new(ObedientClients { open: clients.into(), accepts: true.into(), largest: 0.into() });
    let drain_report = DrainReport { accepts: 50, ..DrainReport::default() };
    let other = Arc::new(Other { drain: drain.clone(), drain_report, heard: Mutex::default() });
    drain.start(sockets.clone(), other.clone(), 0);
    (drain, sockets, other)
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_the_others_keeps_its_clients_for_the_delay_and_closes_them_in_waves() {
    let (drain, clients, other) = started(100);
    drain.begin(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!clients.accepts.load(Ordering::Relaxed));
    assert_eq!(*other.heard.lock().unwrap(), [true]);
    assert_eq!((drain.status().state, drain.status().left), (Phase::Leaving, 100));
    let before = Instant::now();
    drain.finished().await;
    assert!((2..=4).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
    assert_eq!((clients.left().open, drain.status().closed), (0, 100));
    assert!(clients.largest.load(Ordering::Relaxed) <= 10);
    assert_eq!(drain.undo(), Err(EndIsFinal));
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_stays_and_can_serve_again() {
    let (drain, clients, other) = started(5);
    drain.begin(false);
    drain.finished().await;
    assert_eq!(drain.status().state, Phase::Drained);
    drain.undo().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(clients.accepts.load(Ordering::Relaxed));
    assert_eq!(*other.heard.lock().unwrap(), [true, false]);
    assert_eq!(drain.status().state, Phase::Serving);
}
