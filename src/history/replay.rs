//! Decides which events a joining client is shown.

use super::{HistoryPage, HistoryQuery, HistoryStart, MAX_PAGE, PageOrder};
use crate::contract::model::{HistoryPolicy, ReplayPolicy};

/// Makes the first query for a client that joins with `since`. It asks for the newest events, so that no event is
/// missing between the last event shown and the first live event. `None` when the client is shown nothing.
pub fn plan(policy: &HistoryPolicy, since: Option<HistoryStart>) -> Option<HistoryQuery> {
    let page = (policy.events as usize).clamp(1, MAX_PAGE);
    let (limit, since) = match policy.replay {
        ReplayPolicy::None => return None,
        ReplayPolicy::Last => (1, None),
        ReplayPolicy::All | ReplayPolicy::Since => (page, since),
    };
    Some(HistoryQuery { limit, since, order: PageOrder::Desc })
}

/// Returns the offset of the first event that the client is shown, which can be older than the newest page. The newest
/// offset plus one when the client already has every event.
pub fn first_shown(replay: ReplayPolicy, query: HistoryQuery, newest: &HistoryPage) -> u64 {
    let after_last = newest.last_offset + 1;
    match replay {
        ReplayPolicy::None | ReplayPolicy::Last => newest.oldest().unwrap_or(after_last),
        ReplayPolicy::All | ReplayPolicy::Since => {
            let had = query.since.filter(|since| since.fits(newest.epoch, newest.last_offset));
            let kept = if newest.first_offset == 0 { after_last } else { newest.first_offset };
            had.map_or(kept, |since| kept.max(since.offset + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn policy(replay: ReplayPolicy) -> HistoryPolicy {
        HistoryPolicy { events: 100, ttl: std::time::Duration::from_secs(60), replay, key: None, incomplete: None }
    }

    #[test]
    fn plan_follows_the_contract() {
        let since = Some(HistoryStart { epoch: Some(1), offset: 5 });
        assert_eq!(plan(&policy(ReplayPolicy::None), since), None);
        assert_eq!(plan(&policy(ReplayPolicy::Last), since).map(|query| (query.limit, query.since)), Some((1, None)));
        for replay in [ReplayPolicy::All, ReplayPolicy::Since] {
            assert_eq!(plan(&policy(replay), since).map(|query| (query.limit, query.since)), Some((100, since)));
            assert_eq!(plan(&policy(replay), None).map(|query| (query.limit, query.since)), Some((100, None)));
        }
    }

    #[test]
    fn what_is_shown_begins_where_the_client_is_or_with_what_is_kept() {
        let events = vec![(1500, Event::encode("e", [(); 0]).unwrap())];
        let page = HistoryPage { epoch: 7, first_offset: 201, last_offset: 1500, complete: true, events };
        let first = |replay, since: Option<(u64, u64)>| {
            let since = since.map(|(epoch, offset)| HistoryStart { epoch: Some(epoch), offset });
            first_shown(replay, plan(&policy(replay), since).unwrap(), &page)
        };
        assert_eq!(first(ReplayPolicy::Last, None), 1500);
        assert_eq!(first(ReplayPolicy::All, None), 201);
        assert_eq!(first(ReplayPolicy::Since, Some((7, 1000))), 1001);
        assert_eq!(first(ReplayPolicy::Since, Some((7, 100))), 201, "trimmed");
        assert_eq!(first(ReplayPolicy::Since, Some((6, 1000))), 201, "another epoch");
        assert_eq!(first(ReplayPolicy::Since, Some((7, 1500))), 1501, "it has everything");
        let empty = HistoryPage { first_offset: 0, last_offset: 0, events: Vec::new(), ..page.clone() };
        assert_eq!(first_shown(ReplayPolicy::All, plan(&policy(ReplayPolicy::All), None).unwrap(), &empty), 1);
    }
}
