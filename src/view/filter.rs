//! A client's filter, applied to events.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use ruma::api::client::filter::{RoomEventFilter, UrlFilter};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Fields;

/// The part of a `RoomEventFilter` that looks at single events. Rooms, limits and lazy loading
/// concern whoever collects them.
#[derive(Debug, Clone, Copy)]
pub struct EventFilter<'a>(&'a RoomEventFilter);

#[derive(Deserialize)]
struct UrlContent {
    #[serde(default)]
    url: Option<IgnoredAny>,
}

impl<'a> EventFilter<'a> {
    /// The filter.
    #[must_use]
    pub fn new(filter: &'a RoomEventFilter) -> Self {
        Self(filter)
    }

    /// Whether the filter lets everything through, so that nothing needs to be looked at.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let filter = self.0;
        filter.types.is_none()
            && filter.not_types.is_empty()
            && filter.senders.is_none()
            && filter.not_senders.is_empty()
            && filter.url_filter.is_none()
    }

    /// Whether the filter lets nothing through, so that nothing needs to be read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.types.as_ref().is_some_and(Vec::is_empty)
            || self.0.senders.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether the filter wants events of this room at all.
    #[must_use]
    pub fn wants_room(&self, room_id: &ruma::RoomId) -> bool {
        let listed = |rooms: &[ruma::OwnedRoomId]| rooms.iter().any(|room| room == room_id);
        !listed(&self.0.not_rooms) && self.0.rooms.as_deref().is_none_or(listed)
    }

    /// Whether the filter wants this event.
    #[must_use]
    pub fn wants(&self, event: &Fields<'_>) -> bool {
        self.wants_type(&event.event_type)
            && self.wants_sender(&event.sender)
            && self.wants_url(event)
    }

    /// Whether the filter wants events of this type.
    #[must_use]
    pub fn wants_type(&self, event_type: &str) -> bool {
        let listed = |types: &[String]| types.iter().any(|pattern| matches(pattern, event_type));
        !listed(&self.0.not_types) && self.0.types.as_deref().is_none_or(listed)
    }

    fn wants_sender(&self, sender: &str) -> bool {
        let listed = |users: &[ruma::OwnedUserId]| users.iter().any(|user| user == sender);
        !listed(&self.0.not_senders) && self.0.senders.as_deref().is_none_or(listed)
    }

    fn wants_url(&self, event: &Fields<'_>) -> bool {
        let Some(wanted) = &self.0.url_filter else { return true };
        let has_url = event.content_as::<UrlContent>().is_ok_and(|content| content.url.is_some());
        match wanted {
            UrlFilter::EventsWithUrl => has_url,
            UrlFilter::EventsWithoutUrl => !has_url,
        }
    }
}

/// A type pattern in which `*` stands for any characters.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(mut last) = parts.next() else { return rest.is_empty() };
    for part in parts {
        // Everything between two stars is found as early as possible: that leaves most for the rest.
        match rest.find(last) {
            Some(at) => rest = &rest[at + last.len()..],
            None => return false,
        }
        last = part;
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "m.room.", true),
            ("m.room.*", "m.roam.message", false),
            ("*", "", true),
            ("*", "anything", true),
            ("*.message", "m.room.message", true),
            ("m.*.message", "m.room.message", true),
            ("m.*.message", "m.message", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
