//! Documents in which servers publish their keys: checking them, and what is remembered of them.

use std::collections::BTreeMap;

use parlour_event::{
    json::{self, Object, Value},
    signing::{self, PublicKey, SignatureError},
};
use parlour_storage::schema::{RemoteKey, RemoteKeys};
use ruma::ServerName;

use super::{MAX_KEYS, Purpose};

/// How far ahead a key is believed to be valid, in milliseconds: whoever got hold of a server's key
/// must not be able to use it for ever.
const MAX_AHEAD: u64 = 7 * 24 * 60 * 60 * 1000;

/// The largest document, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// Why a document is not believed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DocumentError {
    /// It is no document of keys.
    #[error("no list of keys: {0}")]
    Malformed(&'static str),
    /// It is another server's.
    #[error("these are the keys of {0}")]
    OtherServer(String),
    /// The server has not signed it with one of the keys in it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// A document that its server has signed.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) object: Object,
    pub(super) valid_until_ts: u64,
    current: BTreeMap<String, PublicKey>,
    old: BTreeMap<String, (PublicKey, u64)>,
}

impl Document {
    /// Reads and checks a document that should be this server's.
    pub(super) fn check(bytes: &[u8], server: &ServerName) -> Result<Self, DocumentError> {
        let object = read(bytes)?;
        let named = object.get("server_name").and_then(Value::as_str);
        let named = named.ok_or(DocumentError::Malformed("no server_name"))?;
        if named != server.as_str() {
            return Err(DocumentError::OtherServer(named.to_owned()));
        }
        let valid_until_ts = object.get("valid_until_ts").and_then(Value::as_u64);
        let valid_until_ts = valid_until_ts.ok_or(DocumentError::Malformed("no valid_until_ts"))?;
        let key = |value: &Value| PublicKey::from_base64(value.get("key")?.as_str()?).ok();
        let old = |value: &Value| Some((key(value)?, value.get("expired_ts")?.as_u64()?));
        let current = keys_in(&object, "verify_keys", key)?;
        let old = keys_in(&object, "old_verify_keys", old)?;
        signing::verify_json(&object, named, |key_id| current.get(key_id).copied())?;
        Ok(Self { object, valid_until_ts, current, old })
    }

    /// The server that a document says it is of, before anything of it is believed.
    pub(super) fn server_in(bytes: &[u8]) -> Option<String> {
        read(bytes).ok()?.get("server_name")?.as_str().map(str::to_owned)
    }

    /// Adds what the document says to what was known.
    pub(super) fn merge_into(&self, known: &RemoteKeys, now: u64) -> RemoteKeys {
        let is_newest = self.valid_until_ts >= known.valid_until_ts;
        let mut keys: BTreeMap<_, _> = known.keys.iter().cloned().collect();
        let until = self.valid_until_ts.min(now.saturating_add(MAX_AHEAD));
        let mut learn = |id: &str, key: RemoteKey| {
            if is_newest || !keys.contains_key(id) {
                keys.insert(id.to_owned(), key);
            }
        };
        for (id, (key, expired_ts)) in &self.old {
            let valid_until_ts = (*expired_ts).min(now);
            learn(id, RemoteKey { public: key.to_bytes(), valid_until_ts, retired: true });
        }
        for (id, key) in &self.current {
            learn(id, RemoteKey { public: key.to_bytes(), valid_until_ts: until, retired: false });
        }
        // Those that the server names now come first, should there be too many.
        let named = |id: &String| self.current.contains_key(id) || self.old.contains_key(id);
        let (mut kept, forgotten): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(id, _)| named(id));
        kept.extend(forgotten);
        kept.truncate(2 * MAX_KEYS);
        let newest = if is_newest {
            (now, self.valid_until_ts)
        } else {
            (known.fetched_ts, known.valid_until_ts)
        };
        RemoteKeys { fetched_ts: newest.0, valid_until_ts: newest.1, keys: kept }
    }
}

/// The key of this id, if its signatures are good for this purpose.
pub(super) fn good_key(
    known: &RemoteKeys,
    key_id: &str,
    purpose: Purpose,
    now: u64,
) -> Option<PublicKey> {
    let (_, key) = known.keys.iter().find(|(id, _)| id == key_id)?;
    let good = match purpose {
        Purpose::Request => !key.retired && now <= key.valid_until_ts,
        Purpose::Event { origin_server_ts, enforce_validity } => {
            origin_server_ts <= key.valid_until_ts || !enforce_validity && !key.retired
        }
    };
    if good { PublicKey::from_bytes(&key.public).ok() } else { None }
}

fn read(bytes: &[u8]) -> Result<Object, DocumentError> {
    if bytes.len() > MAX_BYTES {
        return Err(DocumentError::Malformed("too large"));
    }
    match json::parse_lax(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(DocumentError::Malformed("not a JSON object")),
    }
}

/// The keys under a name whose ids and values are well-formed; others are skipped.
fn keys_in<T>(
    object: &Object,
    name: &'static str,
    key: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, DocumentError> {
    let Some(keys) = object.get(name) else { return Ok(BTreeMap::new()) };
    let keys = keys.as_object().ok_or(DocumentError::Malformed("keys that are no object"))?;
    if keys.len() > MAX_KEYS {
        return Err(DocumentError::Malformed("too many keys"));
    }
    let good = keys.iter().filter(|(id, _)| is_key_id(id));
    Ok(good.filter_map(|(id, value)| Some((id.clone(), key(value)?))).collect())
}

fn is_key_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let version = id.strip_prefix("ed25519:");
    version.is_some_and(|version| !version.is_empty() && version.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlour_event::signing::SigningKey;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn key(version: &str) -> SigningKey {
        let mut seed = [7; 32];
        seed[..version.len()].copy_from_slice(version.as_bytes());
        SigningKey::from_seed(&seed, version).expect("a key")
    }

    fn document(until: u64, current: &[&str], old: &[(&str, u64)]) -> Object {
        let public = |version: &str| key(version).public_key().to_base64();
        let current_keys = current
            .iter()
            .map(|version| format!(r#""ed25519:{version}":{{"key":"{}"}}"#, public(version)));
        let old_keys = old.iter().map(|(version, expired)| {
            format!(r#""ed25519:{version}":{{"key":"{}","expired_ts":{expired}}}"#, public(version))
        });
        let list = |keys: Vec<String>| keys.join(",");
        let text = format!(
            r#"{{"server_name":"far.org","valid_until_ts":{until},"verify_keys":{{{}}},"old_verify_keys":{{{}}}}}"#,
            list(current_keys.collect()),
            list(old_keys.collect()),
        );
        let mut object = read(text.as_bytes()).expect("an object");
        for version in current {
            signing::sign_json(&mut object, "far.org", &key(version));
        }
        object
    }

    fn check(object: &Object) -> Result<Document, DocumentError> {
        let bytes = json::to_canonical(&Value::Object(object.clone()));
        Document::check(&bytes, <&ServerName>::try_from("far.org").expect("a name"))
    }

    // Checklist 11.11
    #[test]
    fn only_what_its_server_has_signed_is_believed() {
        let good = document(DAY, &["a", "b"], &[("c", 5)]);
        assert!(check(&good).is_ok());
        let changed = |name: &str, value: Value| {
            let mut object = good.clone();
            object.insert(name.to_owned(), value);
            check(&object).expect_err(name)
        };
        assert!(matches!(changed("valid_until_ts", 7.into()), DocumentError::Signature(_)));
        assert!(matches!(changed("server_name", "near.org".into()), DocumentError::OtherServer(_)));
        assert!(matches!(changed("verify_keys", "x".into()), DocumentError::Malformed(_)));
        assert!(matches!(changed("valid_until_ts", "x".into()), DocumentError::Malformed(_)));
        let unsigned = Value::Object(Object::new());
        assert!(matches!(changed("signatures", unsigned), DocumentError::Signature(_)));
        // A key that it does not publish may have signed, too; one that it calls old may not alone.
        let mut by_old = document(DAY, &["a"], &[("c", 5)]);
        by_old.remove("signatures");
        signing::sign_json(&mut by_old, "far.org", &key("c"));
        assert!(matches!(check(&by_old), Err(DocumentError::Signature(_))));
    }

    // Checklist 11.7
    #[test]
    fn keys_are_good_for_their_time_and_purpose() {
        let now = 1_000 * DAY;
        let expired = now - 10 * DAY;
        let known = check(&document(now + 365 * DAY, &["a"], &[("c", expired)]));
        let known = known.expect("a document").merge_into(&RemoteKeys::default(), now);
        let good = |id: &str, purpose, at| good_key(&known, id, purpose, at).is_some();
        let event = |origin_server_ts, enforce_validity| Purpose::Event {
            origin_server_ts,
            enforce_validity,
        };
        let (a, c) = ("ed25519:a", "ed25519:c");
        // Seven days ahead and no more, whatever the document says.
        for (days, valid) in [(0, true), (7, true), (8, false)] {
            assert_eq!(good(a, Purpose::Request, now + days * DAY), valid, "{days}");
            assert_eq!(good(a, event(now + days * DAY, true), now), valid, "{days}");
            assert!(good(a, event(now + days * DAY, false), now), "{days}");
        }
        // Old keys: for old events alone, in every room version.
        assert!(!good(c, Purpose::Request, now));
        for enforce in [false, true] {
            assert!(good(c, event(expired, enforce), now));
            assert!(!good(c, event(expired + 1, enforce), now));
        }
        assert!(!good("ed25519:x", Purpose::Request, now));
    }

    #[test]
    fn an_older_document_takes_nothing_back() {
        let now = 1_000 * DAY;
        let newer = check(&document(now + 2 * DAY, &["b"], &[("a", now - DAY)])).expect("newer");
        let older = check(&document(now + DAY, &["a"], &[])).expect("older");
        let known = older.merge_into(&RemoteKeys::default(), now);
        assert!(good_key(&known, "ed25519:a", Purpose::Request, now).is_some());
        let known = newer.merge_into(&known, now);
        assert!(good_key(&known, "ed25519:a", Purpose::Request, now).is_none());
        let known = older.merge_into(&known, now);
        assert!(good_key(&known, "ed25519:a", Purpose::Request, now).is_none());
        assert_eq!(known.valid_until_ts, now + 2 * DAY);
        // What a server does not mention any more is not forgotten.
        let newest = check(&document(now + 3 * DAY, &["d"], &[])).expect("newest");
        let known = newest.merge_into(&known, now);
        let event = Purpose::Event { origin_server_ts: now - 2 * DAY, enforce_validity: true };
        assert!(good_key(&known, "ed25519:a", event, now).is_some());
    }
}
