//! What push rules say of one event, for all who get it: nearly everybody has the rules that the
//! server brings, and those look at the event in the same way for everybody whom it doesn't name.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use parlour_event::StreamPos;
use parlour_storage::schema::{StoredEvent, TimelineEntry};
use ruma::{
    OwnedUserId, ServerName, UserId,
    events::AnySyncTimelineEvent,
    push::{FlattenedJson, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};
use serde_json::value::RawValue;

use super::rules::{self, Verdict};
use crate::view::{Ignored, RoomView, View, ViewError};

/// What a user wants to hear.
#[derive(Debug)]
pub struct Listener {
    /// The user.
    pub user: OwnedUserId,
    /// Whom the user ignores.
    pub ignored: Ignored,
    /// The user's rules; `None` if they are the server's, unchanged.
    pub(super) rules: Option<Ruleset>,
    /// When this was read: it holds until the user's own data change.
    pub as_of: StreamPos,
}

/// An event that is in no thread, as push rules look at it.
#[derive(Debug)]
pub struct Heard {
    /// Its position.
    pub(super) pos: StreamPos,
    /// Who has sent it.
    pub sender: OwnedUserId,
    json: FlattenedJson,
    mentioned: HashSet<String>,
    /// What the server's rules say to those who are not mentioned.
    to_others: Verdict,
    /// The room at the event. The user's part is put in by those who use it.
    context: Mutex<PushConditionRoomCtx>,
}

impl Listener {
    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        /// A rule with its conditions and actions.
        const RULE: usize = 512;
        let rules = self.rules.as_ref().map_or(0, |rules| rules.iter().count());
        let ignored = self.ignored.users().map(|user| user.len() + 48).sum::<usize>();
        (256 + rules * RULE + ignored) as u64
    }
}

impl Heard {
    /// Looks at an event of a room; `entry` has the room as it was then. `None` if it cannot be the
    /// same for all, because it concerns the user who stands for all others.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn new(
        view: &View,
        room: &RoomView,
        entry: &TimelineEntry,
        (pos, event): (StreamPos, &StoredEvent),
        (sender, server): (&str, &ServerName),
    ) -> Result<Option<Self>, ViewError> {
        let (Ok(anybody), Ok(sender)) =
            (UserId::parse(format!("@_:{server}")), UserId::parse(sender))
        else {
            return Ok(None);
        };
        let raw: Box<RawValue> = serde_json::from_slice(&event.json).map_err(|error| {
            ViewError::Event { event_id: event.meta.event_id.clone(), what: error.to_string() }
        })?;
        let json = FlattenedJson::from_raw(&Raw::<AnySyncTimelineEvent>::from_json(raw));
        let mentioned = mentioned(&json);
        if sender == anybody || mentioned.contains(anybody.as_str()) {
            return Ok(None);
        }
        let context = rules::context_at(view, room, &anybody, entry)?;
        let to_others = rules::verdict(&Ruleset::server_default(&anybody), &json, &context);
        let context = Mutex::new(context);
        Ok(Some(Self { pos, sender, json, mentioned, to_others, context }))
    }

    /// What a user's rules say, who is called `name` in the room.
    #[must_use]
    pub fn verdict(&self, listener: &Listener, name: &str) -> Verdict {
        if self.sender == listener.user {
            return Verdict::default();
        }
        let own;
        let rules = match &listener.rules {
            None if !self.mentioned.contains(listener.user.as_str()) => return self.to_others,
            None => {
                own = Ruleset::server_default(&listener.user);
                &own
            }
            Some(rules) => rules,
        };
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        context.user_id.clone_from(&listener.user);
        name.clone_into(&mut context.user_display_name);
        rules::verdict(rules, &self.json, &context)
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self, event: &StoredEvent) -> u64 {
        let levels = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        let levels = levels.power_levels.as_ref().map_or(0, |levels| levels.users.len());
        // Each value of the flattened JSON has its path.
        (1_024 + event.json.len() * 3 + levels * 128) as u64
    }
}

/// Whom an event names (CS API, "User and room mentions").
fn mentioned(json: &FlattenedJson) -> HashSet<String> {
    let users = json.get(r"content.m\.mentions.user_ids").and_then(|users| users.as_array());
    let users = users.into_iter().flatten().filter_map(|user| user.as_str());
    users.map(ToOwned::to_owned).collect()
}
