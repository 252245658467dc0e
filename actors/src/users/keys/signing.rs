//! Cross-signing: a user's own keys, and the signatures that they put on devices and other users.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use std::collections::BTreeMap;

use bytes::Bytes;
use parlour_event::{
    StreamPos,
    json::{self, Object, Value},
    signing::{self, PublicKey},
};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{keys, known_keys},
};

use super::{Decision, KeyNews, Touched, UserError, Users, body, news::with_news};
use crate::commit::{Announcement, At};

/// What cross-signing keys are for: the user, the user's devices, other users.
pub const KEY_USAGES: [&str; 3] = ["master", "self_signing", "user_signing"];

/// How many signatures of one key a user may have made.
const MAX_SIGNATURES: usize = 100;

/// Why cross-signing keys or signatures were not stored.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// There are such keys already: who replaces them has to show who it is.
    #[error("there are other cross-signing keys already")]
    Replaces,
    /// There is no master key.
    #[error("no master signing key is available")]
    NoMasterKey,
    /// A key is not what a cross-signing key is.
    #[error("{0}")]
    Invalid(&'static str),
    /// A signature is wrong, or missing.
    #[error("{0}")]
    Signature(&'static str),
    /// One of the keys is the id of one of the user's devices.
    #[error("a cross-signing key cannot be named like a device")]
    NamedLikeDevice,
    /// There is no such key.
    #[error("there is no such key")]
    Unknown,
    /// What was signed is not what is stored.
    #[error("this is not the key that is stored here")]
    Different,
    /// There are very many signatures of this key.
    #[error("there are too many signatures")]
    TooMany,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for SigningError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// Cross-signing keys, by usage.
pub type CrossSigningKeys = BTreeMap<&'static str, Bytes>;

/// A key with new signatures on it, as a client sends it.
#[derive(Debug, Clone)]
pub struct NewSignature {
    /// Whose key was signed.
    pub user: String,
    /// A device's id, or a master key.
    pub key: String,
    /// The key with the signatures.
    pub signed: Bytes,
    /// The user's master key, if the user's server was asked for it. It counts where nothing is
    /// remembered of the user.
    pub asked: Option<Bytes>,
}

impl Users {
    /// Stores cross-signing keys. If there are others already, that needs `may_replace`.
    ///
    /// # Errors
    ///
    /// [`SigningError`]
    pub async fn set_cross_signing_keys(
        &self,
        user: &str,
        new: CrossSigningKeys,
        may_replace: bool,
    ) -> Result<(), SigningError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let old = stored_keys(store, &name)?;
            let is_new = |(usage, key): &(&&'static str, &Bytes)| {
                !old.get(**usage).is_some_and(|old| is_same(old, key))
            };
            let changed: Vec<_> = new.iter().filter(is_new).map(|(usage, _)| *usage).collect();
            if changed.is_empty() {
                return Ok(Decision::Keep(()));
            }
            check_keys(store, &name, &old, &new)?;
            if old.contains_key("master") && !may_replace {
                return Err(SigningError::Replaces);
            }
            let mut ops = Vec::new();
            if changed.contains(&"master") && old.contains_key("master") {
                // All trust begins anew.
                forget_signing(store, &name, &new, &mut ops)?;
            }
            for (usage, blob) in new {
                let key = keys::cross_signing_key(&name, usage);
                ops.push(Op::PutBlob { key, value: Bytes::new(), blob });
            }
            Ok(Decision::Write(with_news(store, &name, ops, Announcement::Nothing)?, ()))
        };
        self.change(user, decide).await
    }

    /// Stores signatures that a user has made with its keys and devices; says what is wrong with
    /// each of them, in their order.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn add_signatures(
        &self,
        user: &str,
        new: Vec<NewSignature>,
    ) -> Result<Vec<Result<(), SigningError>>, UserError> {
        let signer = user.to_owned();
        let decide = move |store: &Store| {
            let (mut ops, mut results, mut signed) = (Vec::new(), Vec::new(), Vec::new());
            for signature in new {
                let planned = plan_signatures(store, &signer, &signature, &mut ops);
                match planned {
                    Err(SigningError::User(error)) => return Err(error),
                    Ok(true) => signed.push(signature.user),
                    _ => {}
                }
                results.push(planned.map(|_| ()));
            }
            if ops.is_empty() {
                return Ok(Decision::Keep(results));
            }
            let news = match signed.contains(&signer) {
                true => Some(KeyNews::of(store, &signer, Touched::by(store, &signer, &ops)?)?),
                false => None,
            };
            let change = At(move |pos: StreamPos, all: &mut Vec<Op>| {
                all.extend(ops);
                let others = signed.iter().filter(|other| **other != signer);
                let put = |other: &String| Op::Put {
                    key: keys::own_key_feed(&signer, pos, other),
                    value: keys::key_feed_value(StreamPos(0), other),
                };
                all.extend(others.map(put));
                match news {
                    Some(news) => news.write(pos, all),
                    None => Announcement::User { user: signer },
                }
            });
            Ok(Decision::Write(Box::new(change), results))
        };
        self.change(user, decide).await
    }

    /// A cross-signing key of a user, by its usage.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn cross_signing_key(
        &self,
        user: &str,
        usage: &str,
    ) -> Result<Option<Bytes>, StorageError> {
        body(&self.store, &keys::cross_signing_key(user, usage))
    }

    /// The signatures that a user has added to a key, as a JSON object by the signing key's id.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn key_signatures(
        &self,
        signer: &str,
        user: &str,
        key: &str,
    ) -> Result<Option<Bytes>, StorageError> {
        body(&self.store, &keys::key_signatures(signer, user, key))
    }
}

/// Whether a name is one of a user's cross-signing keys.
pub(in crate::users) fn is_signing_key(
    store: &Store,
    user: &str,
    name: &str,
) -> Result<bool, StorageError> {
    let stored = stored_keys(store, user)?;
    Ok(stored.values().any(|key| parse(key).is_some_and(|key| public_key(&key) == Some(name))))
}

fn stored_keys(store: &Store, user: &str) -> Result<CrossSigningKeys, StorageError> {
    let mut found = CrossSigningKeys::new();
    for usage in KEY_USAGES {
        let key = body(store, &keys::cross_signing_key(user, usage))?;
        found.extend(key.map(|key| (usage, key)));
    }
    Ok(found)
}

/// With a new master key, signatures by those before are worth nothing.
fn forget_signing(
    store: &Store,
    user: &str,
    new: &CrossSigningKeys,
    ops: &mut Vec<Op>,
) -> Result<(), StorageError> {
    let signatures = keys::key_signatures_of(user);
    let signatures = store.scan_prefix(&signatures, Direction::Forward, usize::MAX)?;
    ops.extend(signatures.into_iter().map(|(key, _)| Op::Delete { key }));
    let gone = KEY_USAGES.into_iter().filter(|usage| !new.contains_key(usage));
    ops.extend(gone.map(|usage| Op::Delete { key: keys::cross_signing_key(user, usage) }));
    Ok(())
}

/// Checks keys against each other: the master key, which is new or stored, has signed the others.
fn check_keys(
    store: &Store,
    user: &str,
    old: &CrossSigningKeys,
    new: &CrossSigningKeys,
) -> Result<(), SigningError> {
    let master = new.get("master").or_else(|| old.get("master"));
    let master = master.ok_or(SigningError::NoMasterKey)?;
    let master = parse(master).ok_or(SigningError::Invalid("the master key is no JSON"))?;
    let master = public_key(&master).ok_or(SigningError::Invalid("a key set has one key"))?;
    for (usage, text) in new {
        let key = parse(text).ok_or(SigningError::Invalid("a key is no JSON"))?;
        check_shape(&key, user, usage)?;
        let name = public_key(&key).ok_or(SigningError::Invalid("a key set has one key"))?;
        if store.get(&keys::device(user, name))?.is_some() {
            return Err(SigningError::NamedLikeDevice);
        }
        if *usage != "master" {
            verify(&key, user, &[master.to_owned()])?;
        }
    }
    Ok(())
}

fn check_shape(key: &Object, user: &str, usage: &str) -> Result<(), SigningError> {
    let says = |name: &str| key.get(name);
    if says("user_id").and_then(Value::as_str) != Some(user) {
        return Err(SigningError::Invalid("a key is of another user"));
    }
    let usages = says("usage").and_then(Value::as_array).unwrap_or_default();
    if !usages.iter().any(|known| known.as_str() == Some(usage)) {
        return Err(SigningError::Invalid("a key is for another usage"));
    }
    Ok(())
}

/// Plans to store the new ones among the signatures of a key; says whether there are any.
fn plan_signatures(
    store: &Store,
    signer: &str,
    new: &NewSignature,
    ops: &mut Vec<Op>,
) -> Result<bool, SigningError> {
    let signed = parse(&new.signed).ok_or(SigningError::Invalid("a signed key is no JSON"))?;
    let (stored, signers) = target(store, signer, new)?;
    let without = |mut key: Object| {
        key.retain(|name, _| name != "signatures" && name != "unsigned");
        key
    };
    if without(stored.clone()) != without(signed.clone()) {
        return Err(SigningError::Different);
    }
    let key = keys::key_signatures(signer, &new.user, &new.key);
    let mut kept = body(store, &key)?.and_then(|text| parse(&text)).unwrap_or_default();
    let signatures = |key: &Object| {
        let by = key.get("signatures").and_then(|all| all.get(signer)).and_then(Value::as_object);
        by.cloned().unwrap_or_default()
    };
    let there = signatures(&stored);
    let mut added = signatures(&signed);
    added.retain(|id, value| there.get(id) != Some(value) && kept.get(id) != Some(value));
    if added.is_empty() {
        // Nothing is signed, or what is here already.
        return match signatures(&signed).is_empty() {
            true => Err(SigningError::Signature("the key is not signed by you")),
            false => Ok(false),
        };
    }
    let mut checked = signed;
    let by_signer = Object::from([(signer.to_owned(), Value::Object(added.clone()))]);
    checked.insert("signatures".to_owned(), Value::Object(by_signer));
    if added
        .keys()
        .any(|id| !signers.iter().any(|known| id.split_once(':') == Some(("ed25519", &known.0))))
    {
        return Err(SigningError::Signature("the key that has signed is not known"));
    }
    verify_with(&checked, signer, &signers)?;
    kept.extend(added);
    if kept.len() > MAX_SIGNATURES {
        return Err(SigningError::TooMany);
    }
    ops.push(Op::PutBlob {
        key,
        value: Bytes::new(),
        blob: json::to_canonical(&Value::Object(kept)).into(),
    });
    Ok(true)
}

/// The stored key that is to be signed, and who may sign it: names and public keys.
fn target(
    store: &Store,
    signer: &str,
    new: &NewSignature,
) -> Result<(Object, Vec<(String, String)>), SigningError> {
    let signing = |usage: &str| -> Result<Vec<(String, String)>, StorageError> {
        let key = body(store, &keys::cross_signing_key(signer, usage))?.and_then(|key| parse(&key));
        let key = key.as_ref().and_then(public_key).map(str::to_owned);
        Ok(key.into_iter().map(|key| (key.clone(), key)).collect())
    };
    let own = body(store, &keys::cross_signing_key(&new.user, "master"))?;
    // Of users of other servers it is known what they publish.
    let master = match own {
        Some(own) => Some(own),
        None => body(store, &known_keys::signing_key(&new.user, "master"))?.or(new.asked.clone()),
    };
    let master = master.and_then(|key| parse(&key));
    let is_master = master.as_ref().and_then(public_key) == Some(new.key.as_str());
    if let Some(master) = master.filter(|_| is_master) {
        let signers = match new.user == signer {
            true => devices(store, signer)?,
            false => signing("user_signing")?,
        };
        return Ok((master, signers));
    }
    let device = match new.user == signer {
        true => body(store, &keys::device_keys(signer, &new.key))?.and_then(|key| parse(&key)),
        false => None,
    };
    Ok((device.ok_or(SigningError::Unknown)?, signing("self_signing")?))
}

/// A user's devices, with the keys that they sign with.
fn devices(store: &Store, user: &str) -> Result<Vec<(String, String)>, StorageError> {
    let all = store.scan_prefix(&keys::device_keys_of(user), Direction::Forward, usize::MAX)?;
    let mut devices = Vec::new();
    for (_, entry) in all {
        let Some(place) = entry.blob else { continue };
        let Some(device) = parse(&store.blob(&place)?) else { continue };
        let keys = device.get("keys").and_then(Value::as_object).into_iter().flatten();
        devices.extend(keys.filter_map(|(id, key)| {
            Some((id.strip_prefix("ed25519:")?.to_owned(), key.as_str()?.to_owned()))
        }));
    }
    Ok(devices)
}

fn verify(key: &Object, signer: &str, names: &[String]) -> Result<(), SigningError> {
    let signers: Vec<_> = names.iter().map(|name| (name.clone(), name.clone())).collect();
    verify_with(key, signer, &signers)
}

fn verify_with(
    key: &Object,
    signer: &str,
    signers: &[(String, String)],
) -> Result<(), SigningError> {
    let public = |id: &str| {
        let name = id.strip_prefix("ed25519:")?;
        let (_, key) = signers.iter().find(|(known, _)| known == name)?;
        PublicKey::from_base64(key).ok()
    };
    signing::verify_json(key, signer, public)
        .map_err(|_| SigningError::Signature("a signature is wrong or missing"))
}

/// The one public key of a cross-signing key.
fn public_key(key: &Object) -> Option<&str> {
    let keys = key.get("keys")?.as_object()?;
    let (id, value) = keys.iter().next().filter(|_| keys.len() == 1)?;
    let value = value.as_str()?;
    (id.split_once(':')?.1 == value).then_some(value)
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    one == other || parse(one).is_some_and(|one| Some(one) == parse(other))
}

fn parse(text: &[u8]) -> Option<Object> {
    match json::parse_lax(text).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}
