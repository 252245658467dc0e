//! Checking signatures.

use std::collections::BTreeSet;

use ruma::{EventId, OwnedServerName, UserId};

use super::{NOT_SIGNED, PublicKey};
use crate::{
    RoomVersion, hashes,
    json::{self, Object, Value},
};

/// The only signature algorithm that Matrix defines; others are skipped.
const ALGORITHM: &str = "ed25519:";

/// What a check of an event's signatures and content hash found, if the signatures are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The content hash matches as well: the event is whole.
    All,
    /// The content hash does not match: take it for a redacted copy, so redact it.
    SignaturesOnly,
}

/// Why the signatures on something do not hold. Such an event is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature of this entity was made with a key that is known and valid for it.
    #[error("no signature of {0} with a known key")]
    Unsigned(String),
    /// A signature with a known key is not base64 of 64 bytes, or does not match.
    #[error("the signature of {entity} with {key_id} is invalid")]
    Invalid {
        /// Who is said to have signed.
        entity: String,
        /// The key with which they are said to have signed.
        key_id: String,
    },
    /// A field that says who must have signed is missing or no valid identifier.
    #[error("`{0}` does not say who must have signed")]
    BadSigner(&'static str),
}

/// Checks that an entity has signed an object.
///
/// `key` gives the entity's key of an id, and `None` for keys that are unknown or not valid:
/// their signatures are skipped, as those of unknown algorithms are. All others must be right.
///
/// # Errors
///
/// [`SignatureError`].
pub fn verify_json(
    object: &Object,
    entity: &str,
    key: impl FnMut(&str) -> Option<PublicKey>,
) -> Result<(), SignatureError> {
    let mut bytes = Vec::with_capacity(512);
    json::write_canonical_object_without(object, &NOT_SIGNED, &mut bytes);
    verify_bytes(object, entity, &bytes, key)
}

/// Checks the signatures of all servers that must have signed an event, and its content hash.
///
/// `key` gives the key of a server and a key id, and `None` for keys that are unknown, expired
/// before the event's `origin_server_ts`, or, from room version 5 on, not known to be valid then.
///
/// # Errors
///
/// [`SignatureError`]: the event must be dropped.
pub fn verify_event(
    version: &RoomVersion,
    event: &Object,
    mut key: impl FnMut(&str, &str) -> Option<PublicKey>,
) -> Result<Verified, SignatureError> {
    let bytes = hashes::essential_bytes(version, event);
    for server in required_servers(version, event)? {
        let server = server.as_str();
        verify_bytes(event, server, &bytes, |key_id| key(server, key_id))?;
    }
    let whole = hashes::verify_content_hash(event);
    Ok(if whole { Verified::All } else { Verified::SignaturesOnly })
}

/// Checks that a server has signed an event, whether or not it had to.
///
/// # Errors
///
/// [`SignatureError`].
pub fn verify_event_by(
    version: &RoomVersion,
    event: &Object,
    server: &str,
    key: impl FnMut(&str) -> Option<PublicKey>,
) -> Result<(), SignatureError> {
    verify_bytes(event, server, &hashes::essential_bytes(version, event), key)
}

/// The servers that must have signed an event: the sender's, unless it is a third-party invite;
/// the event id's in room versions 1 and 2; and that of `join_authorised_via_users_server` in
/// versions that have restricted joins.
///
/// # Errors
///
/// [`SignatureError::BadSigner`].
pub fn required_servers(
    version: &RoomVersion,
    event: &Object,
) -> Result<BTreeSet<OwnedServerName>, SignatureError> {
    let rules = &version.rules().signatures;
    let mut servers = BTreeSet::new();
    if !is_third_party_invite(event) {
        servers.insert(server_of_user(event.get("sender"), "sender")?);
    }
    if rules.check_event_id_server {
        let id = event.get("event_id").and_then(Value::as_str);
        let id = id.and_then(|id| <&EventId>::try_from(id).ok());
        let server = id.and_then(|id| id.server_name());
        servers.insert(server.ok_or(SignatureError::BadSigner("event_id"))?.to_owned());
    }
    if rules.check_join_authorised_via_users_server && is_member_event(event) {
        let field = "join_authorised_via_users_server";
        if let Some(user) = event.get("content").and_then(|content| content.get(field)) {
            servers.insert(server_of_user(Some(user), field)?);
        }
    }
    Ok(servers)
}

/// The key ids with which an entity is said to have signed, as far as the algorithm is known:
/// what a key ring has to find before the check.
pub fn server_key_ids<'a>(object: &'a Object, entity: &str) -> impl Iterator<Item = &'a str> {
    signatures_of(object, entity).map(|(key_id, _)| key_id)
}

fn signatures_of<'a>(
    object: &'a Object,
    entity: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let signatures = object.get("signatures").and_then(|signatures| signatures.get(entity));
    let signatures = signatures.and_then(Value::as_object).into_iter().flatten();
    let all = signatures.map(|(key_id, signature)| (key_id.as_str(), signature));
    all.filter(|(key_id, _)| key_id.starts_with(ALGORITHM))
}

/// Checks an entity's signatures that stand in an object on these bytes, where the caller knows what
/// was signed; else as [`verify_json`].
///
/// # Errors
///
/// [`SignatureError`].
pub fn verify_bytes(
    object: &Object,
    entity: &str,
    bytes: &[u8],
    mut key: impl FnMut(&str) -> Option<PublicKey>,
) -> Result<(), SignatureError> {
    let mut is_signed = false;
    for (key_id, signature) in signatures_of(object, entity) {
        let Some(key) = key(key_id) else { continue };
        let signature = signature.as_str().and_then(hashes::decode_base64_array);
        if !signature.is_some_and(|signature| key.verifies(bytes, &signature)) {
            let (entity, key_id) = (entity.to_owned(), key_id.to_owned());
            return Err(SignatureError::Invalid { entity, key_id });
        }
        is_signed = true;
    }
    if is_signed { Ok(()) } else { Err(SignatureError::Unsigned(entity.to_owned())) }
}

fn server_of_user(
    user: Option<&Value>,
    field: &'static str,
) -> Result<OwnedServerName, SignatureError> {
    let user = user.and_then(Value::as_str).and_then(|user| <&UserId>::try_from(user).ok());
    Ok(user.ok_or(SignatureError::BadSigner(field))?.server_name().to_owned())
}

fn is_member_event(event: &Object) -> bool {
    event.get("type").and_then(Value::as_str) == Some("m.room.member")
}

/// An invite that answers a third-party invite: another server than the sender's may have made it,
/// and the auth rules check who signed inside it.
fn is_third_party_invite(event: &Object) -> bool {
    let Some(content) = event.get("content").filter(|_| is_member_event(event)) else {
        return false;
    };
    content.get("membership").and_then(Value::as_str) == Some("invite")
        && content.get("third_party_invite").is_some_and(|invite| invite.as_object().is_some())
}
