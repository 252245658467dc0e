//! End-to-end encryption, as far as a server has to do with it.

mod between;
mod cross_signing;
mod dehydrated;
mod device_lists;
mod key_backup;
mod keys;
mod known;
mod known_model;
mod to_device;
mod told;

use parlour_event::signing::SigningKey;
use ruma::serde::Base64;
use serde_json::{Value, json};

use crate::common::{Answer, Lost, User, canonical};

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";
const QUERY: &str = "/_matrix/client/v3/keys/query";
const CLAIM: &str = "/_matrix/client/v3/keys/claim";

/// A key pair made of a number.
fn pair(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32], "x").unwrap()
}

/// Signs an object as a user's key of this name.
fn sign(object: &mut Value, user: &str, name: &str, key: &SigningKey) {
    let mut signed = object.clone();
    for unsigned in ["signatures", "unsigned"] {
        signed.as_object_mut().unwrap().remove(unsigned);
    }
    let signature: Base64 = Base64::new(key.sign(canonical(&signed).as_bytes()).to_vec());
    object["signatures"][user][format!("ed25519:{name}")] = json!(signature.encode());
}

/// The keys of a device, signed by it.
fn device_keys(user: &User, seed: u8) -> Value {
    let device = &user.device;
    let mut keys = json!({
        "user_id": user.id, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{device}"): pair(seed.wrapping_add(100)).public_key().to_base64(),
            format!("ed25519:{device}"): pair(seed).public_key().to_base64(),
        },
    });
    sign(&mut keys, &user.id, device, &pair(seed));
    keys
}

/// One-time keys with these numbers.
fn one_time_keys(numbers: std::ops::Range<u32>) -> Value {
    let key = |n: u32| {
        (
            format!("signed_curve25519:K{n:04}"),
            json!({ "key": format!("key{n:04}"),
            "signatures": { "@a:localhost": { "ed25519:D": "s" } } }),
        )
    };
    numbers.map(key).collect::<serde_json::Map<_, _>>().into()
}

fn upload(user: &User, body: Value) -> Answer {
    user.http.post(UPLOAD, &body)
}

fn publish(user: &User, seed: u8) {
    upload(user, json!({ "device_keys": device_keys(user, seed) })).ok();
}

fn query(user: &User, of: &User) -> Answer {
    user.http.post(QUERY, &json!({ "device_keys": { &of.id: [] } })).ok()
}

fn claim(user: &User, of: &User) -> Answer {
    let wanted = json!({ "one_time_keys": { &of.id: { &of.device: "signed_curve25519" } } });
    user.http.post(CLAIM, &wanted)
}

/// The same; the server may die meanwhile.
fn try_claim(user: &User, of: &User) -> Result<Answer, Lost> {
    let wanted = json!({ "one_time_keys": { &of.id: { &of.device: "signed_curve25519" } } });
    let answer = user.http.try_send("POST", CLAIM, wanted.to_string().as_bytes())?;
    Ok(answer.ok())
}

/// The one key that a claim gave.
#[track_caller]
fn claimed(answer: &Answer, of: &User) -> Option<String> {
    let keys = answer["one_time_keys"][&of.id][&of.device].as_object()?;
    assert_eq!(keys.len(), 1, "{}", answer.body);
    keys.keys().next().cloned()
}
