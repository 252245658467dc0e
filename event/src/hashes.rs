//! The content hash and the reference hash, and unpadded base64.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#signing-events>

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ruma::{OwnedEventId, room_version_rules::EventIdFormatVersion};
use sha2::{Digest as _, Sha256};

use crate::{
    RoomVersion,
    json::{self, Object, Value},
    redaction,
};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Lenient in reading, as the specification's own example seed has stray bits at its end and
/// some implementations pad.
const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

/// Bytes as unpadded base64.
#[must_use]
pub fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes as unpadded base64 with the URL-safe alphabet.
#[must_use]
pub fn encode_base64_url(bytes: &[u8]) -> String {
    URL_SAFE.encode(bytes)
}

/// Reads base64, padded or not; `None` if it is no base64.
#[must_use]
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Reads base64 with the URL-safe alphabet, padded or not; `None` if it is none.
#[must_use]
pub fn decode_base64_url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE.decode(text).ok()
}

/// Reads base64 that must hold exactly `N` bytes.
#[must_use]
pub fn decode_base64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode_base64(text)?.try_into().ok()
}

/// The hash over the whole event, unredacted, without `unsigned`, `signatures` and `hashes`.
#[must_use]
pub fn content_hash(event: &Object) -> Hash {
    let mut bytes = Vec::with_capacity(1_024);
    json::write_canonical_object_without(event, &["hashes", "signatures", "unsigned"], &mut bytes);
    Sha256::digest(&bytes).into()
}

/// The hash over the redacted event, which identifies it.
#[must_use]
pub fn reference_hash(version: &RoomVersion, event: &Object) -> Hash {
    Sha256::digest(essential_bytes(version, event)).into()
}

/// Whether the event's own `hashes.sha256` is its content hash. If not, what came is taken for a
/// redacted copy, and the caller must redact it.
#[must_use]
pub fn verify_content_hash(event: &Object) -> bool {
    let claimed = event.get("hashes").and_then(|hashes| hashes.get("sha256"));
    let claimed = claimed.and_then(Value::as_str).and_then(decode_base64_array);
    claimed == Some(content_hash(event))
}

/// The canonical form of the redacted event without `signatures` and `unsigned`: both what is
/// signed and what the reference hash is made of.
pub(crate) fn essential_bytes(version: &RoomVersion, event: &Object) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_024);
    redaction::write_redacted(version, event, &["signatures", "unsigned"], &mut bytes);
    bytes
}

/// The event id that a reference hash gives; `None` in room versions 1 and 2, where servers
/// choose event ids.
pub(crate) fn event_id(version: &RoomVersion, reference_hash: &Hash) -> Option<OwnedEventId> {
    let encoded = match version.rules().event_id_format {
        EventIdFormatVersion::V1 => return None,
        EventIdFormatVersion::V2 => encode_base64(reference_hash),
        _ => encode_base64_url(reference_hash),
    };
    let id = OwnedEventId::try_from(format!("${encoded}"));
    Some(id.expect("`$` and base64 make an event id"))
}
