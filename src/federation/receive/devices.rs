//! What other servers tell of devices: messages for ours, and that the keys of theirs have changed.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>,
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use parlour_event::RoomNum;
use ruma::{ServerName, UserId, api::federation::transactions::edu::DirectDeviceContent};

use super::edus::{EduReceiver, Outcome};
use crate::{
    client::{to_device::messages_for, txn},
    view::{View, ViewError},
};

/// The longest id of a message, in characters.
const MAX_MESSAGE_ID: usize = 32;

/// How many rooms are read at once.
const PAGE: usize = 500;

impl EduReceiver {
    /// Messages for devices: each id of a server once.
    pub(super) async fn to_device(
        &self,
        origin: &ServerName,
        content: DirectDeviceContent,
    ) -> Outcome {
        let DirectDeviceContent { sender, ev_type, message_id, messages, .. } = content;
        let is_short = message_id.as_str().chars().count() <= MAX_MESSAGE_ID;
        if sender.server_name() != origin || !is_short {
            return Ok("refused");
        }
        let own_name = &self.parts.server_name;
        let Ok(all) = messages_for(&sender, &ev_type.to_string(), &messages, own_name) else {
            return Ok("refused");
        };
        let id = txn::hash(&[origin.as_str(), "m.direct_to_device", message_id.as_str()]);
        let sent = self.parts.users.send_to_devices(origin.as_str(), id, all).await;
        let sent = sent.inspect_err(|error| tracing::warn!(%error, "messages were not kept"));
        Ok(if sent.is_ok() { "accepted" } else { "refused" })
    }

    /// A user's keys have changed. They are not remembered here, so whichever they are: those who
    /// share a room with the user ask for them.
    pub(super) async fn keys_changed(&self, origin: &ServerName, user: &UserId) -> Outcome {
        if user.server_name() != origin {
            return Ok("refused");
        }
        let rooms = all_rooms_of(&self.parts.view, user)?;
        if rooms.is_empty() {
            return Ok("refused");
        }
        let told = self.parts.users.keys_of_other_changed(user.as_str(), rooms).await;
        let told = told.inspect_err(|error| tracing::warn!(%error, "a change was not told"));
        Ok(if told.is_ok() { "accepted" } else { "refused" })
    }
}

/// All rooms here that another server's user is in.
fn all_rooms_of(view: &View, user: &UserId) -> Result<Vec<RoomNum>, ViewError> {
    let mut rooms = Vec::new();
    if view.store.state_key_num("m.room.member", user.as_str())?.is_none() {
        return Ok(rooms);
    }
    let mut after = (RoomNum(0), None);
    loop {
        let page = view.store.rooms_of_server(user.server_name().as_str(), after, PAGE)?;
        let Some(last) = page.last() else { return Ok(rooms) };
        after = *last;
        for (room, _) in page {
            if view.is_joined(room, user.as_str())? {
                rooms.push(room);
            }
        }
    }
}
