//! Devices: what a user sees of its logins, and their end.

use parlour_event::StreamPos;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{Device, Stored, keys, keys::KeyReader},
};

use super::{
    Decision, UserError, Users, dehydrated, inbox,
    keys::{KeyNews, Touched, remove_keys, with_news},
    sessions::quiet,
};
use crate::commit::{Announcement, At, Change};

/// How many devices a user may have. Who logs in on one more loses the one that was not heard of
/// for the longest time: most likely nobody has it any more.
pub const MAX_DEVICES: usize = 500;

impl Users {
    /// A device of a user.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device(&self, user: &str, device: &str) -> Result<Option<Device>, StorageError> {
        self.store.typed(&keys::device(user, device))
    }

    /// A device of a user, with what is known of it at this moment.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device_now(&self, user: &str, id: &str) -> Result<Option<Device>, StorageError> {
        let device = self.device(user, id)?;
        Ok(device.map(|device| self.seen.freshen(user, id, device)))
    }

    /// All devices of a user with their ids, with what is known of them at this moment.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn devices(&self, user: &str) -> Result<Vec<(String, Device)>, StorageError> {
        let mut devices = all(&self.store, user)?;
        for (id, device) in &mut devices {
            *device = self.seen.freshen(user, id, std::mem::take(device));
        }
        Ok(devices)
    }

    /// The ids of a user's devices.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device_ids(&self, user: &str) -> Result<Vec<String>, StorageError> {
        let prefix = keys::devices_of(user);
        let devices = self.store.scan_prefix(&prefix, Direction::Forward, usize::MAX)?;
        Ok(devices.iter().filter_map(|(key, _)| id_in(key)).collect())
    }

    /// Names a device; says whether there is such a device.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn name_device(
        &self,
        user: &str,
        device: &str,
        display_name: String,
    ) -> Result<bool, UserError> {
        let (name, id) = (user.to_owned(), device.to_owned());
        let decide = move |store: &Store| {
            let key = keys::device(&name, &id);
            let Some(mut device) = store.typed::<Device>(&key)? else {
                return Ok(Decision::Keep(false));
            };
            device.display_name = Some(display_name);
            let ops = vec![Op::Put { key, value: device.encode() }];
            Ok::<_, UserError>(Decision::Write(named(store, &name, &id, ops)?, true))
        };
        self.change(user, decide).await
    }

    /// Deletes devices with all that belongs to them. Those that are not there are passed over.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn delete_devices(&self, user: &str, devices: Vec<String>) -> Result<(), UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let (mut ops, mut removed) = (Vec::new(), Vec::new());
            for id in devices {
                if let Some(device) = store.typed::<Device>(&keys::device(&name, &id))? {
                    remove(store, &name, &id, &device, &mut ops)?;
                    removed.push(id);
                }
            }
            if ops.is_empty() {
                return Ok(Decision::Keep(removed));
            }
            let told = Announcement::User { user: name.clone() };
            Ok::<_, UserError>(Decision::Write(with_news(store, &name, ops, told)?, removed))
        };
        let removed = self.change(user, decide).await?;
        self.forget_local_notifications(user, &removed).await
    }
}

/// The end of a device: whatever belongs to one is deleted here, and nowhere else.
pub(super) fn remove(
    store: &Store,
    user: &str,
    id: &str,
    device: &Device,
    ops: &mut Vec<Op>,
) -> Result<(), StorageError> {
    ops.push(Op::Delete { key: keys::device(user, id) });
    ops.extend(device.token_hashes().map(|hash| Op::Delete { key: keys::token(&hash) }));
    dehydrated::remove(store, user, id, ops)?;
    remove_keys(store, user, id, ops)?;
    inbox::empty(store, user, id, ops)
}

/// The change that gives a device its name. Others see it where the device has keys.
fn named(
    store: &Store,
    user: &str,
    device: &str,
    ops: Vec<Op>,
) -> Result<Box<dyn Change>, StorageError> {
    if store.get(&keys::device_keys(user, device))?.is_none() {
        return Ok(quiet(ops));
    }
    let news = KeyNews::of(store, user, Touched::device(device))?;
    Ok(Box::new(At(move |pos: StreamPos, all: &mut Vec<Op>| {
        all.extend(ops);
        news.write(pos, all)
    })))
}

/// Makes room for one more device.
pub(super) fn make_room(store: &Store, user: &str, ops: &mut Vec<Op>) -> Result<(), StorageError> {
    let mut devices = all(store, user)?;
    if devices.len() < MAX_DEVICES {
        return Ok(());
    }
    devices.sort_by_key(|(_, device)| device.last_seen.ts);
    for (id, device) in &devices {
        // Nobody is ever heard of from there.
        if !dehydrated::is_dehydrated(store, user, id)? {
            return remove(store, user, id, device, ops);
        }
    }
    Ok(())
}

/// All devices of a user, as they are stored.
pub(super) fn all(store: &Store, user: &str) -> Result<Vec<(String, Device)>, StorageError> {
    let devices = store.scan_prefix(&keys::devices_of(user), Direction::Forward, usize::MAX)?;
    let mut all = Vec::with_capacity(devices.len());
    for (key, entry) in devices {
        let device = Device::decode(&key, &entry.value)?;
        all.extend(id_in(&key).map(|id| (id, device)));
    }
    Ok(all)
}

fn id_in(key: &[u8]) -> Option<String> {
    let mut reader = KeyReader::new(key);
    reader.text().and_then(|_user| reader.text())
}
