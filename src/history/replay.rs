//! What a joining client is shown.

use super::{MAX_PAGE, Order, Page, Query, Since};
use crate::contract::model::{HistoryPolicy, Replay};

/// What is to be read for a client that joins and names `since`; `None` when it is shown nothing.
///
/// The newest events are read first, so that nothing lies between the last one shown and the live ones, even
/// when more is kept than one page holds.
pub fn plan(policy: &HistoryPolicy, since: Option<Since>) -> Option<Query> {
    let everything = (policy.events as usize).clamp(1, MAX_PAGE);
    let (limit, since) = match policy.replay {
        Replay::None => return None,
        Replay::Last => (1, None),
        Replay::All | Replay::Since => (everything, since),
    };
    Some(Query { limit, since, order: Order::Desc })
}

/// Whether a page that was read by such a plan is all that the contract and the client ask for.
pub fn is_complete(replay: Replay, query: Query, page: &Page) -> bool {
    let nothing_left_off = match replay {
        Replay::None | Replay::Last => true,
        Replay::All | Replay::Since if query.since.is_some() => true,
        Replay::All | Replay::Since => page.oldest().is_none_or(|oldest| oldest == page.first_offset),
    };
    page.complete && nothing_left_off
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn policy(replay: Replay) -> HistoryPolicy {
        HistoryPolicy { events: 100, ttl: std::time::Duration::from_secs(60), replay, key: None }
    }

    #[test]
    fn plan_follows_the_contract() {
        let since = Some(Since { epoch: Some(1), offset: 5 });
        assert_eq!(plan(&policy(Replay::None), since), None);
        assert_eq!(plan(&policy(Replay::Last), since).map(|query| (query.limit, query.since)), Some((1, None)));
        for replay in [Replay::All, Replay::Since] {
            assert_eq!(plan(&policy(replay), since).map(|query| (query.limit, query.since)), Some((100, since)));
            assert_eq!(plan(&policy(replay), None).map(|query| (query.limit, query.since)), Some((100, None)));
        }
    }

    #[test]
    fn a_page_that_leaves_kept_events_off_is_not_complete() {
        let event = Event::encode::<u8>("e", &[]).unwrap();
        let events: Vec<_> = (2..2 + MAX_PAGE as u64).map(|offset| (offset, event.clone())).collect();
        let page = Page { epoch: 1, first_offset: 1, last_offset: 1001, complete: true, events };
        let query = plan(&policy(Replay::All), None).unwrap();
        assert!(!is_complete(Replay::All, query, &page));
        assert!(is_complete(Replay::All, query, &Page { first_offset: 2, ..page.clone() }));
        assert!(is_complete(Replay::Last, query, &Page { events: vec![(9, event)], ..page }));
    }
}
