//! Keys of users and devices as others may see them: with the signatures that are theirs to see.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>

use std::collections::BTreeMap;

use bytes::Bytes;
use parlour_actors::users::{Claimed, KEY_USAGES, RemoteUserKeys, Users};
use parlour_storage::{StorageError, schema::OneTimeKeys};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, UInt, UserId,
    encryption::{CrossSigningKey, DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::value::{RawValue, to_raw_value};

/// A JSON object whose fields stay as they were written.
type Fields = BTreeMap<String, Box<RawValue>>;

/// The keys of a user.
#[derive(Debug, Default)]
pub struct UserKeys {
    /// Devices with keys.
    pub devices: BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>,
    /// With which the user signs the other two.
    pub master: Option<Raw<CrossSigningKey>>,
    /// With which the user signs its devices.
    pub self_signing: Option<Raw<CrossSigningKey>>,
    /// With which the user signs other users.
    pub user_signing: Option<Raw<CrossSigningKey>>,
}

impl UserKeys {
    /// Reads the keys of a user of this server for one who asks: a user of this server, or another server. Of the
    /// devices only some are wanted, or all if none is named.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn read(
        users: &Users,
        asker: Option<&UserId>,
        user: &UserId,
        wanted: &[OwnedDeviceId],
    ) -> Result<Self, StorageError> {
        let mut keys = Self::default();
        for (id, json) in users.all_device_keys(user.as_str())? {
            let id = OwnedDeviceId::from(id);
            if !wanted.is_empty() && !wanted.contains(&id) {
                continue;
            }
            let device = users.device(user.as_str(), id.as_str())?;
            let name = device.and_then(|device| device.display_name);
            let signatures = users.key_signatures(user.as_str(), user.as_str(), id.as_str())?;
            let added = signatures.map(|signatures| (user, signatures));
            let shown = show(&json, &added.into_iter().collect::<Vec<_>>(), name);
            keys.devices.extend(shown.map(|json| (id, Raw::from_json(json))));
        }
        let [master, self_signing, user_signing] = KEY_USAGES;
        keys.master = read_master(users, asker, user, master)?;
        keys.self_signing = read_key(users, user, self_signing)?;
        if asker == Some(user) {
            keys.user_signing = read_key(users, user, user_signing)?;
        }
        Ok(keys)
    }
}

impl UserKeys {
    /// The keys of a user of another server, for a user of this one.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn of_remote(
        users: &Users,
        asker: &UserId,
        user: &UserId,
        keys: &RemoteUserKeys,
    ) -> Result<Self, StorageError> {
        let raw = |json: &Bytes| serde_json::from_slice(json).ok();
        let devices = keys.devices.iter();
        let devices = devices.filter_map(|(id, keys)| Some((id.as_str().into(), raw(keys)?)));
        let [master, self_signing, _] = KEY_USAGES.map(|usage| keys.signing.get(usage));
        let signed = |master| signed_master(users, [asker].into_iter(), user, master);
        Ok(Self {
            devices: devices.map(|(id, keys)| (id, Raw::from_json(keys))).collect(),
            master: master.map(signed).transpose()?.flatten(),
            self_signing: self_signing.and_then(raw).map(Raw::from_json),
            user_signing: None,
        })
    }
}

fn read_key(
    users: &Users,
    user: &UserId,
    usage: &str,
) -> Result<Option<Raw<CrossSigningKey>>, StorageError> {
    let json = users.cross_signing_key(user.as_str(), usage)?;
    Ok(json.and_then(|json| show(&json, &[], None)).map(Raw::from_json))
}

/// The master key with what the user's own devices have signed, and who asks.
fn read_master(
    users: &Users,
    asker: Option<&UserId>,
    user: &UserId,
    usage: &str,
) -> Result<Option<Raw<CrossSigningKey>>, StorageError> {
    let Some(json) = users.cross_signing_key(user.as_str(), usage)? else { return Ok(None) };
    let signers = [Some(user), asker.filter(|asker| *asker != user)];
    signed_master(users, signers.into_iter().flatten(), user, &json)
}

/// A user's master key with the signatures that some users of this server have added.
fn signed_master<'a>(
    users: &Users,
    signers: impl Iterator<Item = &'a UserId>,
    user: &UserId,
    json: &Bytes,
) -> Result<Option<Raw<CrossSigningKey>>, StorageError> {
    let Some(public) = public_key(json) else { return Ok(None) };
    let mut added = Vec::new();
    for signer in signers {
        let signatures = users.key_signatures(signer.as_str(), user.as_str(), &public)?;
        added.extend(signatures.map(|signatures| (signer, signatures)));
    }
    Ok(show(json, &added, None).map(Raw::from_json))
}

/// A key with signatures that came later, and with a device's name.
fn show(
    json: &Bytes,
    added: &[(&UserId, Bytes)],
    display_name: Option<String>,
) -> Option<Box<RawValue>> {
    let mut key: Fields = serde_json::from_slice(json).ok()?;
    if !added.is_empty() {
        let signatures = key.get("signatures").map(|all| serde_json::from_str(all.get()));
        let mut signatures: BTreeMap<String, Fields> =
            signatures.transpose().ok()?.unwrap_or_default();
        for (signer, more) in added {
            let more: Fields = serde_json::from_slice(more).ok()?;
            signatures.entry(signer.to_string()).or_default().extend(more);
        }
        key.insert("signatures".to_owned(), to_raw_value(&signatures).ok()?);
    }
    // What the client says there is not signed, and not the client's to say.
    key.remove("unsigned");
    if let Some(name) = display_name {
        let unsigned = BTreeMap::from([("device_display_name", name)]);
        key.insert("unsigned".to_owned(), to_raw_value(&unsigned).ok()?);
    }
    to_raw_value(&key).ok()
}

fn public_key(json: &[u8]) -> Option<String> {
    let key: CrossSigningKey = serde_json::from_slice(json).ok()?;
    key.keys.into_values().next()
}

/// One-time keys by device and id.
pub type ByDevice = BTreeMap<OwnedDeviceId, BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>>;

/// Keys that were given out, as they are answered.
#[must_use]
pub fn by_device(claimed: Vec<Claimed>) -> ByDevice {
    let mut found = ByDevice::new();
    for Claimed { device, id, algorithm, key } in claimed {
        let id = OwnedOneTimeKeyId::try_from(format!("{algorithm}:{id}"));
        if let (Ok(id), Ok(key)) = (id, serde_json::from_slice(&key)) {
            found.entry(device.into()).or_default().insert(id, Raw::from_json(key));
        }
    }
    found
}

/// How many one-time keys of each algorithm wait, as clients are told. The usual one is told of
/// even if there are none: so clients know that they are to make some.
#[must_use]
pub fn counts(keys: &OneTimeKeys) -> BTreeMap<OneTimeKeyAlgorithm, UInt> {
    let mut counts = BTreeMap::from([(OneTimeKeyAlgorithm::SignedCurve25519, UInt::MIN)]);
    let known = keys.counts.iter();
    counts.extend(known.map(|(kind, count)| {
        (OneTimeKeyAlgorithm::from(kind.as_str()), UInt::new_saturating(*count))
    }));
    counts
}

/// The algorithms with a fallback key that nobody has got yet.
#[must_use]
pub fn unused_fallbacks(keys: &OneTimeKeys) -> Vec<OneTimeKeyAlgorithm> {
    let unused = keys.fallbacks.iter().filter(|(_, used)| !**used);
    unused.map(|(algorithm, _)| OneTimeKeyAlgorithm::from(algorithm.as_str())).collect()
}
