//! What this server publishes of its own keys.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parlour_event::{
    json::{self, Object, Value},
    signing::{self, PublicKey, SigningKey},
};
use ruma::{OwnedServerName, ServerName};

use super::MAX_KEYS;
use crate::{env::Clock, server_keys::ServerKeys};

/// How long a document holds, in milliseconds. Half of that it is given away, so that none is about
/// to expire: others would ask again and again.
const LIFETIME: u64 = 24 * 60 * 60 * 1000;

/// A key with which this server signed once, and does no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKey {
    /// `ed25519:` and its version.
    pub id: String,
    /// With which its signatures are checked.
    pub key: PublicKey,
    /// When it was used last, milliseconds since the epoch.
    pub expired_ts: u64,
}

/// This server's keys, and the document that publishes them.
#[derive(Debug)]
pub(super) struct OwnKeys {
    pub(super) server_name: OwnedServerName,
    keys: Arc<ServerKeys>,
    old: Vec<OldKey>,
    clock: Arc<dyn Clock>,
    /// The document as it is given away now, and until when it holds.
    published: Mutex<Option<(Bytes, u64)>>,
}

impl OwnKeys {
    pub(super) fn new(
        server_name: OwnedServerName,
        keys: Arc<ServerKeys>,
        mut old: Vec<OldKey>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // A key that is in use again is not an old one.
        old.retain(|old| keys.all().all(|key| key.key_id() != old.id));
        old.truncate(MAX_KEYS);
        Self { server_name, keys, old, clock, published: Mutex::new(None) }
    }

    pub(super) fn public_key(&self, key_id: &str) -> Option<PublicKey> {
        let current = self.keys.all().find(|key| key.key_id() == key_id);
        let old = || self.old.iter().find(|old| old.id == key_id).map(|old| old.key);
        current.map(SigningKey::public_key).or_else(old)
    }

    /// Canonical JSON, signed. The same bytes for hours.
    pub(super) fn document(&self) -> Bytes {
        let now = self.clock.now_ms();
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        match &*published {
            Some((bytes, until)) if *until > now.saturating_add(LIFETIME / 2) => bytes.clone(),
            _ => {
                let until = now.saturating_add(LIFETIME);
                let bytes = self.make(until);
                *published = Some((bytes.clone(), until));
                bytes
            }
        }
    }

    fn make(&self, valid_until_ts: u64) -> Bytes {
        let key = |key: &PublicKey| ("key".to_owned(), Value::from(key.to_base64()));
        let current = self.keys.all().map(|signing| {
            let about = Object::from([key(&signing.public_key())]);
            (signing.key_id().to_owned(), Value::Object(about))
        });
        let old = self.old.iter().map(|old| {
            let expired = ("expired_ts".to_owned(), number(old.expired_ts));
            (old.id.clone(), Value::Object(Object::from([key(&old.key), expired])))
        });
        let mut document = Object::from([
            ("server_name".to_owned(), Value::from(self.server_name.as_str())),
            ("valid_until_ts".to_owned(), number(valid_until_ts)),
            ("verify_keys".to_owned(), Value::Object(current.collect())),
            ("old_verify_keys".to_owned(), Value::Object(old.collect())),
        ]);
        for key in self.keys.all() {
            signing::sign_json(&mut document, self.server_name.as_str(), key);
        }
        canonical(&document)
    }

    /// Adds this server's signature to another server's document.
    pub(super) fn co_sign(&self, document: &mut Object) -> Bytes {
        signing::sign_json(document, self.server_name.as_str(), self.keys.signing());
        canonical(document)
    }

    pub(super) fn is(&self, server: &ServerName) -> bool {
        self.server_name == server
    }
}

fn canonical(object: &Object) -> Bytes {
    let mut bytes = Vec::with_capacity(1024);
    json::write_canonical(object, &mut bytes);
    bytes.into()
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX).min(json::MAX_INTEGER))
}
