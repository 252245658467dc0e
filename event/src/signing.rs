//! Signing JSON and events, and checking signatures.
//!
//! Specification: <https://spec.matrix.org/v1.19/appendices/#signing-json> and
//! <https://spec.matrix.org/v1.19/server-server-api/#signing-events>

mod check;
mod key;

pub use self::{
    check::{
        SignatureError, Verified, required_servers, server_key_ids, verify_bytes, verify_event,
        verify_event_by, verify_json,
    },
    key::{KeyError, PublicKey, SigningKey},
};
use crate::{
    RoomVersion,
    hashes::{self, Hash},
    json::{self, Object, Value},
};

/// What neither is signed nor counts for the reference hash.
const NOT_SIGNED: [&str; 2] = ["signatures", "unsigned"];

/// Signs any object in the name of an entity (a server or a user); signatures that it has stay.
pub fn sign_json(object: &mut Object, entity: &str, key: &SigningKey) {
    let mut bytes = Vec::with_capacity(512);
    json::write_canonical_object_without(object, &NOT_SIGNED, &mut bytes);
    insert_signature(object, entity, key, &bytes);
}

/// Signs an event in the name of a server, by its redacted form; signatures that it has stay.
/// `hashes` must be there already: [`hash_and_sign_event`] adds both.
pub fn sign_event(version: &RoomVersion, event: &mut Object, server: &str, key: &SigningKey) {
    let bytes = hashes::essential_bytes(version, event);
    insert_signature(event, server, key, &bytes);
}

/// Gives a new event its content hash and a server's signature. Returns its reference hash, which
/// is made of the same bytes as the signature.
pub fn hash_and_sign_event(
    version: &RoomVersion,
    event: &mut Object,
    server: &str,
    key: &SigningKey,
) -> Hash {
    use sha2::Digest as _;

    let content_hash = hashes::encode_base64(&hashes::content_hash(event));
    let entry = Object::from([("sha256".to_owned(), Value::String(content_hash))]);
    event.insert("hashes".to_owned(), Value::Object(entry));
    let bytes = hashes::essential_bytes(version, event);
    insert_signature(event, server, key, &bytes);
    sha2::Sha256::digest(&bytes).into()
}

fn insert_signature(object: &mut Object, entity: &str, key: &SigningKey, bytes: &[u8]) {
    let signature = Value::String(hashes::encode_base64(&key.sign(bytes)));
    let signatures = object_entry(object, "signatures");
    object_entry(signatures, entity).insert(key.key_id().to_owned(), signature);
}

/// The object under a key; whatever else is there is no signatures and is replaced.
fn object_entry<'a>(parent: &'a mut Object, key: &str) -> &'a mut Object {
    let entry = parent.entry(key.to_owned()).or_insert(Value::Null);
    if entry.as_object().is_none() {
        *entry = Value::Object(Object::new());
    }
    entry.as_object_mut().expect("it was made an object just now")
}
