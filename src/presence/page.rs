//! Pages of lists, and cursors to their next pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::directory::{ConnectionInfo, DirectoryError, MAX_PAGE, Page, PageRequest};

/// The position at which a page ended. Clients get the position as opaque text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PageCursor {
    /// The last key, in a list that this node has answered without the other nodes.
    #[serde(rename = "l")]
    Local(String),
    /// The last name, in a list of names.
    #[serde(rename = "n")]
    Name(String),
    /// Incarnation and socket id, in a list of connections.
    #[serde(rename = "c")]
    Connection(String, String),
    /// Incarnation, score and member, in a list of members.
    #[serde(rename = "m")]
    Member(String, String, String),
}

impl PageCursor {
    /// The text that clients get.
    pub(super) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("strings are always JSON"))
    }

    /// The cursor of a request; `None` for the first page.
    pub(super) fn of(page: &PageRequest) -> Result<Option<Self>, DirectoryError> {
        let Some(text) = &page.cursor else { return Ok(None) };
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| DirectoryError::Cursor)?;
        serde_json::from_slice(&json).map(Some).map_err(|_| DirectoryError::Cursor)
    }
}

/// Maximum size of the rooms and metadata of the connections on one page, in bytes. A page has at least one connection.
pub(super) const MAX_CONNECTIONS_BYTES: usize = 4 * 1024 * 1024;

/// The size of a connection as counted for [`MAX_CONNECTIONS_BYTES`], in bytes.
pub(super) fn bytes_of(connection: &ConnectionInfo) -> usize {
    let metadata = serde_json::to_string(&connection.metadata).map_or(0, |text| text.len());
    metadata + connection.rooms.iter().map(String::len).sum::<usize>()
}

/// How many items a page may have: the requested number, at least 1 and at most [`MAX_PAGE`].
pub(super) fn limit(page: &PageRequest) -> usize {
    page.limit.clamp(1, MAX_PAGE)
}

/// Returns the requested page of an unsorted list: the items after the cursor, sorted by key, and the next cursor.
/// Takes O(list) and does not sort the whole list.
pub(super) fn cut<T>(
    items: impl Iterator<Item = (String, T)>,
    page: &PageRequest,
) -> Result<(Vec<T>, Option<String>), DirectoryError> {
    let after = match PageCursor::of(page)? {
        None => None,
        Some(PageCursor::Local(key) | PageCursor::Name(key)) => Some(key),
        Some(_) => return Err(DirectoryError::Cursor),
    };
    let mut rest: Vec<_> = items.filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).collect();
    let limit = limit(page);
    let more = rest.len() > limit;
    if more {
        rest.select_nth_unstable_by(limit, |(one, _), (other, _)| one.cmp(other));
        rest.truncate(limit);
    }
    rest.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let next = rest.last().filter(|_| more).map(|(key, _)| PageCursor::Local(key.clone()).text());
    Ok((rest.into_iter().map(|(_, item)| item).collect(), next))
}

/// Marks on a page which part of it is missing.
pub(super) fn mark<T>(mut page: Page<T>, missing: &MissingPart) -> Page<T> {
    page.partial = missing.partial;
    page.missing_nodes.clone_from(&missing.nodes);
    page
}

/// The part that is missing from an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MissingPart {
    /// Whether something is missing.
    pub(super) partial: bool,
    /// The nodes whose part is missing, as far as these nodes are known.
    pub(super) nodes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(from: u32, to: u32) -> impl Iterator<Item = (String, u32)> {
        // Shuffled, so that the list is not sorted by key.
        (from..to).map(|n| n * 37 % 101).map(|n| (format!("{n:03}"), n))
    }

    #[test]
    fn pages_cover_a_list_once_and_in_order() {
        let mut page = PageRequest { limit: 7, cursor: None };
        let mut seen = Vec::new();
        loop {
            let (items, next) = cut(keys(0, 101), &page).unwrap();
            assert!(items.len() <= 7);
            seen.extend(items);
            let Some(next) = next else { break };
            page.cursor = Some(next);
        }
        assert_eq!(seen, (0..101).collect::<Vec<_>>());
    }

    #[test]
    fn cursor_that_is_none_of_ours_is_refused() {
        for text in ["", "x", "!!", "bm90IGpzb24", &PageCursor::Connection("n".into(), "s".into()).text()] {
            let page = PageRequest { limit: 1, cursor: Some(text.to_owned()) };
            assert_eq!(cut(keys(0, 3), &page).unwrap_err(), DirectoryError::Cursor, "{text}");
        }
    }
}
