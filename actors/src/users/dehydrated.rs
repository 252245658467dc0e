//! Dehydrated devices: a device that nobody holds gets messages until a new login takes it over.
//!
//! Specification: <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use bytes::Bytes;
use parlour_storage::{
    Op, StorageError, Store,
    schema::{DehydratedDevice, Device, Stored, keys},
};

use super::{
    Decision, KeyError, NewKeys, Users,
    devices::{self, make_room},
    inbox,
    keys::{plan_upload, with_news},
};
use crate::commit::Announcement;

/// A dehydrated device that is to be kept.
#[derive(Debug, Clone)]
pub struct NewDehydrated {
    /// Its id.
    pub device: String,
    /// Its name for people.
    pub display_name: Option<String>,
    /// What a new login makes the device of: JSON text, encrypted by the client.
    pub data: Bytes,
    /// Its keys.
    pub keys: NewKeys,
}

impl Users {
    /// Keeps a dehydrated device in the place of the one before.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; [`KeyError::Taken`] if there is or was a device with this id.
    pub async fn dehydrate(&self, user: &str, new: NewDehydrated) -> Result<(), KeyError> {
        let (name, now) = (user.to_owned(), self.env.clock.now_ms());
        let decide = move |store: &Store| {
            let NewDehydrated { device: id, display_name, data, keys: new_keys } = new;
            if store.get(&keys::device(&name, &id))?.is_some() {
                return Err(KeyError::Taken(id));
            }
            let mut ops = Vec::new();
            let old = read(store, &name)?.map(|old| old.device);
            let of_old = |old: &String| store.typed::<Device>(&keys::device(&name, old));
            match (&old, old.as_ref().map(of_old).transpose()?.flatten()) {
                (Some(old), Some(device)) => {
                    devices::remove(store, &name, old, &device, &mut ops)?;
                }
                _ => make_room(store, &name, &mut ops)?,
            }
            inbox::empty(store, &name, &id, &mut ops)?;
            let device = Device { display_name, created_ts: now, ..Device::default() };
            ops.push(Op::Put { key: keys::device(&name, &id), value: device.encode() });
            plan_upload(store, &name, &id, new_keys, &mut ops)?;
            let value = DehydratedDevice { device: id }.encode();
            ops.push(Op::PutBlob { key: keys::dehydrated_device(&name), value, blob: data });
            let told = Announcement::User { user: name.clone() };
            Ok(Decision::Write(with_news(store, &name, ops, told)?, ()))
        };
        self.change(user, decide).await
    }

    /// A user's dehydrated device: its id and its data.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn dehydrated_device(&self, user: &str) -> Result<Option<(String, Bytes)>, StorageError> {
        let key = keys::dehydrated_device(user);
        let Some(entry) = self.store.get(&key)? else { return Ok(None) };
        let Some(place) = entry.blob else { return Ok(None) };
        let device = DehydratedDevice::decode(&key, &entry.value)?.device;
        Ok(Some((device, self.store.blob(&place)?)))
    }
}

/// Whether a device is the dehydrated one.
pub(super) fn is_dehydrated(store: &Store, user: &str, device: &str) -> Result<bool, StorageError> {
    Ok(read(store, user)?.is_some_and(|dehydrated| dehydrated.device == device))
}

fn read(store: &Store, user: &str) -> Result<Option<DehydratedDevice>, StorageError> {
    store.typed(&keys::dehydrated_device(user))
}

/// The end of a device, if it is the dehydrated one.
pub(super) fn remove(
    store: &Store,
    user: &str,
    device: &str,
    ops: &mut Vec<Op>,
) -> Result<(), StorageError> {
    if is_dehydrated(store, user, device)? {
        ops.push(Op::Delete { key: keys::dehydrated_device(user) });
    }
    Ok(())
}
