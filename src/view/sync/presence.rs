//! Who is online, of those who share a room with the user.

use std::{collections::HashSet, sync::Arc};

use parlour_actors::presence::{Presence, State, Status};
use parlour_event::RoomNum;
use ruma::{events::presence::PresenceEvent, serde::Raw};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::Round;
use crate::view::{View, ViewError, filter};

/// How many users' presence one answer tells at most, the newest changes of each room first.
const MAX_EVENTS: usize = 2_000;

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: &'static str,
    sender: &'a str,
    content: Content,
}

#[derive(Serialize)]
struct Content {
    presence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currently_active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

impl Round<'_> {
    /// What has changed; of those in rooms that are new to the user, and for a first sync, all who
    /// are there.
    pub(super) fn presence(
        &self,
        new_rooms: &[RoomNum],
    ) -> Result<Vec<Raw<PresenceEvent>>, ViewError> {
        let presence = &self.syncs.presence;
        if !presence.is_on() {
            return Ok(Vec::new());
        }
        if !new_rooms.is_empty() {
            // The others want to know of this user, too.
            presence.background_changed(self.user());
        }
        let wanted = &self.ask.filter.presence;
        if !filter::wants_type(wanted, "m.presence") {
            return Ok(Vec::new());
        }
        let limit = wanted.limit.and_then(|limit| limit.try_into().ok());
        let limit = limit.unwrap_or(MAX_EVENTS).min(MAX_EVENTS);
        let mut seen = HashSet::new();
        let mut events = Vec::new();
        for (room, since) in self.rooms_with_presence(presence, new_rooms)? {
            for user in presence.changed_in(room, since, MAX_EVENTS) {
                if events.len() >= limit {
                    return Ok(events);
                }
                if seen.contains(&user) || !self.wants_presence_of(room, &user)? {
                    continue;
                }
                let status = presence.status(&user)?;
                // To a client that knows of nobody it is no news that somebody is not there.
                if since > 0 || status.state != State::Offline {
                    events.extend(self.view().presence_event(&user, status)?);
                }
                seen.insert(user);
            }
        }
        Ok(events)
    }

    /// The user's rooms in which something may be new, each with the counter after which it is.
    fn rooms_with_presence(
        &self,
        presence: &Presence,
        new_rooms: &[RoomNum],
    ) -> Result<Vec<(RoomNum, u64)>, ViewError> {
        let (view, user) = (self.view(), self.user());
        let since = self.ask.since.filter(|_| !self.wants_all());
        let all = |since| {
            let rooms = view.store.joined_rooms(user)?.into_iter();
            Ok(rooms.map(|room| (room, since)).collect())
        };
        let Some(since) = since.map(|since| since.presence) else { return all(0) };
        let Some(changed) = presence.rooms_since(since) else { return all(since.max(1)) };
        let changed = view.joined_of(user, changed.into_iter().collect())?;
        let known = changed.into_iter().filter(|room| !new_rooms.contains(room));
        let new = new_rooms.iter().map(|room| (*room, 0));
        Ok(new.chain(known.map(|room| (room, since.max(1)))).collect())
    }

    fn wants_presence_of(&self, room: RoomNum, user: &Arc<str>) -> Result<bool, ViewError> {
        if !filter::wants_sender(&self.ask.filter.presence, user) || self.ignored.contains(user) {
            return Ok(false);
        }
        match self.view().store.membership(user, room)? {
            Some(entry) => Ok(entry.membership == "join"),
            // Of other servers' users that is not noted.
            None => self.view().is_joined(room, user),
        }
    }
}

impl View {
    fn presence_event(
        &self,
        user: &str,
        status: Status,
    ) -> Result<Option<Raw<PresenceEvent>>, ViewError> {
        let account = self.account(user)?.unwrap_or_default();
        let content = Content {
            presence: name(status.state),
            last_active_ago: self.last_active_ago(&status),
            currently_active: (status.state == State::Online).then_some(status.currently_active),
            status_msg: status.status_msg,
            displayname: account.display_name,
            avatar_url: account.avatar_url,
        };
        let event = Event { event_type: "m.presence", sender: user, content };
        // Strings and numbers can always be written.
        Ok(to_raw_value(&event).ok().map(Raw::from_json))
    }

    /// How long ago a user did something, in milliseconds; `None` if that is not known.
    #[must_use]
    pub fn last_active_ago(&self, status: &Status) -> Option<u64> {
        let ts = Some(status.last_active_ts).filter(|ts| *ts > 0)?;
        Some(self.clock.now_ms().saturating_sub(ts))
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Online => "online",
        State::Unavailable => "unavailable",
        State::Offline => "offline",
    }
}
