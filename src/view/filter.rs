//! A client's filter, applied to events.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use ruma::api::client::filter::{Filter, RoomEventFilter, UrlFilter};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{Fields, event::Relating};

/// The part of a `RoomEventFilter` that looks at single events. Rooms, limits and lazy loading
/// concern whoever collects them.
#[derive(Debug, Clone, Copy)]
pub struct EventFilter<'a> {
    filter: &'a RoomEventFilter,
    relations: Option<&'a RelationFilter>,
}

/// The part of a filter that looks at relations between events, which ruma does not know: MSC3874
/// and what MSC3440 has left in clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationFilter {
    /// Only events with one of these relations to another event.
    #[serde(
        rename = "org.matrix.msc3874.rel_types",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub rel_types: Option<Vec<String>>,
    /// No events with one of these relations to another event.
    #[serde(
        rename = "org.matrix.msc3874.not_rel_types",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub not_rel_types: Vec<String>,
    /// Only events to which an event with one of these relations relates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related_by_rel_types: Option<Vec<String>>,
    /// Only events to which an event of one of these users relates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related_by_senders: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct UrlContent {
    #[serde(default)]
    url: Option<IgnoredAny>,
}

impl<'a> EventFilter<'a> {
    /// The filter.
    #[must_use]
    pub fn new(filter: &'a RoomEventFilter) -> Self {
        Self { filter, relations: None }
    }

    /// The same filter with a look at relations.
    #[must_use]
    pub fn with_relations(self, relations: &'a RelationFilter) -> Self {
        let relations = (*relations != RelationFilter::default()).then_some(relations);
        Self { relations, ..self }
    }

    /// What relations events must have; `None` if that doesn't matter.
    #[must_use]
    pub fn relations(&self) -> Option<&'a RelationFilter> {
        self.relations
    }

    /// Whether the filter lets everything through, so that nothing needs to be looked at.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let filter = self.filter;
        self.relations.is_none()
            && filter.types.is_none()
            && filter.not_types.is_empty()
            && filter.senders.is_none()
            && filter.not_senders.is_empty()
            && filter.url_filter.is_none()
    }

    /// Whether the filter looks at nothing but the type and the sender of an event.
    #[must_use]
    pub fn is_simple(&self) -> bool {
        let RoomEventFilter { rooms, not_rooms, url_filter, .. } = self.filter;
        self.relations.is_none() && rooms.is_none() && not_rooms.is_empty() && url_filter.is_none()
    }

    /// Whether the filter lets nothing through, so that nothing needs to be read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.filter.types.as_ref().is_some_and(Vec::is_empty)
            || self.filter.senders.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether the filter wants events of this room at all.
    #[must_use]
    pub fn wants_room(&self, room_id: &ruma::RoomId) -> bool {
        let listed = |rooms: &[ruma::OwnedRoomId]| rooms.iter().any(|room| room == room_id);
        !listed(&self.filter.not_rooms) && self.filter.rooms.as_deref().is_none_or(listed)
    }

    /// Whether the filter wants this event.
    #[must_use]
    pub fn wants(&self, event: &Fields<'_>) -> bool {
        self.wants_type(&event.event_type)
            && self.wants_sender(&event.sender)
            && self.wants_url(event)
            && self.relations.is_none_or(|relations| relations.wants(event))
    }

    /// Whether the filter wants events of this type.
    #[must_use]
    pub fn wants_type(&self, event_type: &str) -> bool {
        let listed = |types: &[String]| types.iter().any(|pattern| matches(pattern, event_type));
        !listed(&self.filter.not_types) && self.filter.types.as_deref().is_none_or(listed)
    }

    /// Whether the filter wants events of this sender.
    #[must_use]
    pub fn wants_sender(&self, sender: &str) -> bool {
        let listed = |users: &[ruma::OwnedUserId]| users.iter().any(|user| user == sender);
        !listed(&self.filter.not_senders) && self.filter.senders.as_deref().is_none_or(listed)
    }

    fn wants_url(&self, event: &Fields<'_>) -> bool {
        let Some(wanted) = &self.filter.url_filter else { return true };
        let has_url = event.content_as::<UrlContent>().is_ok_and(|content| content.url.is_some());
        match wanted {
            UrlFilter::EventsWithUrl => has_url,
            UrlFilter::EventsWithoutUrl => !has_url,
        }
    }
}

impl RelationFilter {
    /// Whether the filter wants an event with this relation to another one.
    fn wants(&self, event: &Fields<'_>) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let relation = Relating::of(event);
        let is_in = |types: &[String]| {
            relation.as_ref().is_some_and(|relation| types.iter().any(|t| *t == relation.rel_type))
        };
        !is_in(&self.not_rel_types) && self.rel_types.as_deref().is_none_or(is_in)
    }
}

/// Whether a filter of events that belong to no room wants those of this type.
#[must_use]
pub fn wants_type(filter: &Filter, event_type: &str) -> bool {
    let listed = |types: &[String]| types.iter().any(|pattern| matches(pattern, event_type));
    !listed(&filter.not_types) && filter.types.as_deref().is_none_or(listed)
}

/// Whether such a filter wants events of this sender.
#[must_use]
pub fn wants_sender(filter: &Filter, sender: &str) -> bool {
    let listed = |users: &[ruma::OwnedUserId]| users.iter().any(|user| user == sender);
    !listed(&filter.not_senders) && filter.senders.as_deref().is_none_or(listed)
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
