//! What concerns the device itself: messages for it, keys of others, and its own.

use parlour_event::StreamPos;
use ruma::{api::client::sync::sync_events::v3::Response, events::AnyToDeviceEvent, serde::Raw};

use super::{Ask, Round, Syncs};
use crate::view::{SyncToken, ViewError, keys};

/// How many messages one answer has at most.
const MAX_MESSAGES: usize = 100;

impl SyncToken {
    /// Until when the device has its messages.
    #[must_use]
    pub fn messages_until(&self) -> StreamPos {
        self.inbox.unwrap_or(self.pos)
    }
}

impl Syncs {
    /// The answer that nothing is new but how many one-time keys are left.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn nothing(&self, ask: &Ask, now: SyncToken) -> Result<Response, ViewError> {
        let left = self.users.one_time_keys(ask.user.as_str(), ask.device.as_str())?;
        let mut response = Response::new(now.to_string());
        response.device_one_time_keys_count = keys::counts(&left);
        response.device_unused_fallback_key_types = Some(keys::unused_fallbacks(&left));
        Ok(response)
    }
}

impl Round<'_> {
    /// The oldest messages that the device has not got, and where the answer's token stands then.
    pub(super) fn messages(&self) -> Result<(Vec<Raw<AnyToDeviceEvent>>, SyncToken), ViewError> {
        let (user, device) = (self.user(), self.ask.device.as_str());
        let after = self.ask.since.map_or(StreamPos(0), |since| since.messages_until());
        let range = (after, self.now.pos);
        let mut waiting = self.syncs.users.inbox(user, device, range, MAX_MESSAGES + 1)?;
        let are_all = waiting.len() <= MAX_MESSAGES;
        waiting.truncate(MAX_MESSAGES);
        let inbox = waiting.last().map(|last| last.pos).filter(|_| !are_all);
        let event = |json: &[u8]| serde_json::from_slice(json).ok().map(Raw::from_json);
        let events = waiting.iter().filter_map(|message| event(&message.message)).collect();
        Ok((events, SyncToken { inbox, ..self.now }))
    }

    /// Fills in whose keys have changed since the last sync.
    pub(super) fn device_lists(&self, response: &mut Response) -> Result<(), ViewError> {
        let Some(since) = self.since() else { return Ok(()) };
        let (view, changes) = (self.view(), &self.syncs.changes);
        let lists = view.device_lists(changes, &self.ask.user, since, self.now.pos)?;
        let ids = |users: std::collections::BTreeSet<String>| {
            users.into_iter().filter_map(|user| user.try_into().ok()).collect()
        };
        response.device_lists.changed = ids(lists.changed);
        response.device_lists.left = ids(lists.left);
        Ok(())
    }
}
