//! What is said to other servers of users' devices and keys.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#device-management>,
//! <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>

use bytes::Bytes;
use parlour_actors::{federation_queue::KeyTeller, users::Users};
use parlour_storage::{StorageError, schema::DeviceUpdate};
use ruma::{
    OwnedDeviceId, UInt, UserId,
    api::federation::transactions::edu::{DeviceListUpdateContent, Edu, SigningKeyUpdateContent},
};

use crate::view::keys::UserKeys;

/// Writes EDUs for the queues.
#[derive(Debug)]
pub struct KeyUpdates {
    /// Whose keys they are.
    pub users: Users,
}

impl KeyTeller for KeyUpdates {
    /// A device without keys is none for others.
    fn device(&self, user: &str, update: &DeviceUpdate) -> Result<Option<Bytes>, StorageError> {
        let Ok(user_id) = UserId::parse(user) else { return Ok(None) };
        let device_id = OwnedDeviceId::from(update.device.as_str());
        let keys = UserKeys::read(&self.users, None, &user_id, std::slice::from_ref(&device_id))?;
        let keys = keys.devices.into_values().next();
        let stream_id = UInt::new_saturating(update.stream_id);
        let mut content = DeviceListUpdateContent::new(user_id, device_id, stream_id);
        content.prev_id = update.prev_id.map(UInt::new_saturating).into_iter().collect();
        match keys {
            Some(keys) => {
                let device = self.users.device(user, &update.device)?;
                content.device_display_name = device.and_then(|device| device.display_name);
                content.keys = Some(keys);
            }
            None => content.deleted = Some(true),
        }
        Ok(json(&Edu::DeviceListUpdate(content)))
    }

    fn signing_keys(&self, user: &str) -> Result<Option<Bytes>, StorageError> {
        let Ok(user_id) = UserId::parse(user) else { return Ok(None) };
        let keys = UserKeys::read(&self.users, None, &user_id, &[])?;
        let mut content = SigningKeyUpdateContent::new(user_id);
        (content.master_key, content.self_signing_key) = (keys.master, keys.self_signing);
        Ok(json(&Edu::SigningKeyUpdate(content)))
    }
}

fn json(edu: &Edu) -> Option<Bytes> {
    let json = serde_json::to_vec(edu).map(Bytes::from);
    json.inspect_err(|error| tracing::error!(%error, "an EDU cannot be written")).ok()
}
