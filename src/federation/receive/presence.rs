//! Who of another server's users is online.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#presence>

use parlour_actors::presence::{State, Status};
use ruma::{OwnedUserId, ServerName, UInt, presence::PresenceState};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ReceiveParts,
    edus::{EduReceiver, Outcome, speaks_for},
};
use crate::view::ViewError;

/// Of how many users one EDU may tell; the rest is dropped.
const MAX_USERS: usize = 500;

/// In how many of the rooms that are shared with a user its presence is shown.
const MAX_ROOMS: usize = 500;

/// The longest status message that is taken, in bytes.
const MAX_STATUS_MESSAGE: usize = 2_048;

/// The content of an `m.presence`. Each update is read by itself: one that is wrong says nothing
/// of the others.
#[derive(Debug, Deserialize)]
pub(super) struct PresenceContent {
    push: Vec<Box<RawValue>>,
}

/// What is told of one user.
#[derive(Deserialize)]
struct Update {
    user_id: OwnedUserId,
    presence: PresenceState,
    status_msg: Option<String>,
    /// The specification wants it, but Synapse leaves it out of what it does not know it of.
    last_active_ago: Option<UInt>,
    #[serde(default)]
    currently_active: bool,
}

impl EduReceiver {
    /// Takes in what is told of users with whom somebody here shares a room.
    pub(super) fn presence(&self, origin: &ServerName, content: PresenceContent) -> Outcome {
        if !self.parts.presence.is_on() {
            return Ok("ignored");
        }
        let mut outcome = "accepted";
        for (number, update) in content.push.into_iter().enumerate() {
            let update = serde_json::from_str::<Update>(update.get()).ok();
            let update = update.filter(|update| number < MAX_USERS && fits(origin, update));
            let is_told = match update {
                Some(update) => self.told_of(update)?,
                None => false,
            };
            if !is_told {
                outcome = "refused";
            }
        }
        Ok(outcome)
    }

    /// Whether it is of a user who is in rooms here.
    fn told_of(&self, update: Update) -> Result<bool, ViewError> {
        let ReceiveParts { view, presence, clock, .. } = &self.parts;
        let mut rooms = view.store.rooms_with(update.user_id.as_str())?;
        rooms.truncate(MAX_ROOMS);
        if rooms.is_empty() {
            return Ok(false);
        }
        let state = match update.presence {
            PresenceState::Online => State::Online,
            PresenceState::Unavailable => State::Unavailable,
            _ => State::Offline,
        };
        let status = Status {
            state,
            currently_active: update.currently_active && state == State::Online,
            status_msg: update.status_msg.filter(|text| !text.is_empty()),
            last_active_ts: match update.last_active_ago {
                Some(ago) => clock.now_ms().saturating_sub(ago.into()),
                None => presence.status(update.user_id.as_str())?.last_active_ts,
            },
        };
        presence.told(update.user_id.as_str(), status, rooms);
        Ok(true)
    }
}

fn fits(origin: &ServerName, update: &Update) -> bool {
    let message = update.status_msg.as_deref().unwrap_or_default();
    speaks_for(origin, &update.user_id) && message.len() <= MAX_STATUS_MESSAGE
}
