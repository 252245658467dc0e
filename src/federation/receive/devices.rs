//! What other servers tell of devices: messages for ours, and that the keys of theirs have changed.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>,
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use std::collections::BTreeMap;

use parlour_actors::users::{DeviceChange, KEY_USAGES, Told, UserError};
use ruma::{
    ServerName,
    api::federation::transactions::edu::{
        DeviceListUpdateContent, DirectDeviceContent, SigningKeyUpdateContent,
    },
    serde::Raw,
};

use super::edus::{EduReceiver, Outcome, speaks_for};
use crate::{
    client::{to_device::messages_for, txn},
    federation::outbound::remote_key,
};

/// The longest id of a message, in characters.
const MAX_MESSAGE_ID: usize = 32;

impl EduReceiver {
    /// Messages for devices: each id of a server once.
    pub(super) async fn to_device(
        &self,
        origin: &ServerName,
        content: DirectDeviceContent,
    ) -> Outcome {
        let DirectDeviceContent { sender, ev_type, message_id, messages, .. } = content;
        let is_short = message_id.as_str().chars().count() <= MAX_MESSAGE_ID;
        if !speaks_for(origin, &sender) || !is_short {
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

    /// A user's device has changed.
    pub(super) async fn device_changed(
        &self,
        origin: &ServerName,
        content: DeviceListUpdateContent,
    ) -> Outcome {
        let DeviceListUpdateContent { user_id, device_id, keys, prev_id, .. } = content;
        if !speaks_for(origin, &user_id) {
            return Ok("refused");
        }
        let is_there = |keys: &Raw<_>| content.deleted != Some(true) && keys.json().get() != "null";
        let keys = match keys.filter(is_there) {
            Some(keys) => {
                let name = content.device_display_name;
                let keys = remote_key::device(&user_id, device_id.as_str(), keys.json(), name);
                if keys.is_none() {
                    // Junk is another thing than none.
                    return Ok("refused");
                }
                keys
            }
            None => None,
        };
        let change = DeviceChange {
            device: device_id.to_string(),
            keys,
            number: content.stream_id.into(),
            follows: prev_id.into_iter().map(Into::into).collect(),
        };
        let told = self.parts.users.device_changed_elsewhere(user_id.as_str(), change).await;
        Ok(self.outcome(origin, told))
    }

    /// A user's cross-signing keys have changed.
    pub(super) async fn signing_keys_changed(
        &self,
        origin: &ServerName,
        content: SigningKeyUpdateContent,
    ) -> Outcome {
        let SigningKeyUpdateContent { user_id, master_key, self_signing_key, .. } = content;
        let [of_user, of_devices, _] = KEY_USAGES;
        let mut changed = BTreeMap::new();
        for (usage, key) in [(of_user, master_key), (of_devices, self_signing_key)] {
            let Some(key) = key else { continue };
            let Some(key) = remote_key::signing(&user_id, usage, key.json()) else {
                return Ok("refused");
            };
            changed.insert(usage.to_owned(), key);
        }
        if !speaks_for(origin, &user_id) {
            return Ok("refused");
        }
        let told = self.parts.users.signing_keys_changed_elsewhere(user_id.as_str(), changed).await;
        Ok(self.outcome(origin, told))
    }

    fn outcome(&self, origin: &ServerName, told: Result<Told, UserError>) -> &'static str {
        match told {
            Ok(Told::Applied | Told::Noted) => "accepted",
            Ok(Told::Known) => "known",
            Ok(Told::Stale) => {
                self.parts.resync.ask(origin);
                "out_of_order"
            }
            Ok(Told::Stranger) => "refused",
            Err(error) => {
                tracing::warn!(%error, "a change of keys was not taken in");
                "failed"
            }
        }
    }
}
