//! Keys of users of other servers, as they are kept: what nobody could use is junk.
//!
//! Clients check the signatures. They are made over canonical JSON, so that is what is kept.

use bytes::Bytes;
use parlour_event::json::{self, Object, Value};
use ruma::UserId;
use serde_json::value::RawValue;

/// How long a key with its signatures may be, in bytes. A device has some 800.
const MAX_KEY: usize = 32 << 10;

/// How long a device's id may be, in bytes.
const MAX_DEVICE_ID: usize = 512;

/// How long a device's name may be, in bytes. Longer ones are left out.
const MAX_NAME: usize = 512;

/// The keys of a device of a user; `None` if they are junk. A name that was told with them is put
/// where clients look for it.
#[must_use]
pub fn device(user: &UserId, device: &str, keys: &RawValue, name: Option<String>) -> Option<Bytes> {
    let mut keys = object(keys)?;
    let says = |field: &str| keys.get(field).and_then(Value::as_str);
    let is_named = says("user_id") == Some(user.as_str()) && says("device_id") == Some(device);
    let has_keys = keys.get("keys").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    if !is_named || !has_keys || device.len() > MAX_DEVICE_ID {
        return None;
    }
    let unsigned = keys.remove("unsigned");
    let told = unsigned.as_ref().and_then(|unsigned| unsigned.get("device_display_name"));
    let name = name.or_else(|| told.and_then(Value::as_str).map(str::to_owned));
    if let Some(name) = name.filter(|name| name.len() <= MAX_NAME) {
        let name = Object::from([("device_display_name".to_owned(), Value::String(name))]);
        keys.insert("unsigned".to_owned(), Value::Object(name));
    }
    Some(json::to_canonical(&Value::Object(keys)).into())
}

/// A cross-signing key of a user; `None` if it is junk.
#[must_use]
pub fn signing(user: &UserId, usage: &str, key: &RawValue) -> Option<Bytes> {
    let mut key = object(key)?;
    let usages = key.get("usage").and_then(Value::as_array).unwrap_or_default();
    let is_for = usages.iter().any(|known| known.as_str() == Some(usage));
    let is_of = key.get("user_id").and_then(Value::as_str) == Some(user.as_str());
    let keys = key.get("keys").and_then(Value::as_object).map_or(0, Object::len);
    if !is_for || !is_of || keys != 1 {
        return None;
    }
    key.remove("unsigned");
    Some(json::to_canonical(&Value::Object(key)).into())
}

fn object(text: &RawValue) -> Option<Object> {
    let text = text.get();
    if text.len() > MAX_KEY {
        return None;
    }
    match json::parse_lax(text.as_bytes()).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn user() -> &'static UserId {
        "@bob:far.org".try_into().expect("a user")
    }

    fn read(bytes: Option<Bytes>) -> Option<serde_json::Value> {
        bytes.map(|bytes| serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[test]
    fn a_device_is_what_it_says() {
        let good = json!({ "user_id": "@bob:far.org", "device_id": "D", "keys": { "ed25519:D": "k" },
            "unsigned": { "device_display_name": "phone", "x": 1 } });
        let kept = |keys: &serde_json::Value, name: Option<&str>| {
            let raw = to_raw_value(keys).expect("JSON");
            read(device(user(), "D", &raw, name.map(str::to_owned)))
        };
        let mut named = good.clone();
        named["unsigned"] = json!({ "device_display_name": "phone" });
        assert_eq!(kept(&good, None), Some(named.clone()));
        named["unsigned"] = json!({ "device_display_name": "tablet" });
        assert_eq!(kept(&good, Some("tablet")), Some(named));
        let long = "x".repeat(MAX_KEY);
        for (field, value) in [
            ("user_id", json!("@eve:far.org")),
            ("device_id", json!("E")),
            ("keys", json!({})),
            ("keys", json!([])),
            ("more", json!(long)),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert_eq!(kept(&bad, None), None, "{field}");
        }
        assert_eq!(kept(&json!([]), None), None);
    }

    #[test]
    fn a_signing_key_is_one_key_of_its_user_for_its_usage() {
        let good =
            json!({ "user_id": "@bob:far.org", "usage": ["master"], "keys": { "ed25519:k": "k" } });
        let kept = |key: &serde_json::Value| {
            read(signing(user(), "master", &to_raw_value(key).expect("JSON")))
        };
        assert_eq!(kept(&good), Some(good.clone()));
        for (field, value) in [
            ("user_id", json!("@eve:far.org")),
            ("usage", json!(["self_signing"])),
            ("keys", json!({})),
            ("keys", json!({ "ed25519:a": "a", "ed25519:b": "b" })),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert_eq!(kept(&bad), None, "{field}");
        }
    }
}
