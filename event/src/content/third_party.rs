use std::collections::BTreeSet;

use ruma::third_party_invite::IdentityServerBase64PublicKey;

use super::text;
use crate::json::{Object, Value};

/// The object `third_party_invite.signed` of an invite: an identity server's statement that a
/// third-party identifier belongs to a Matrix user.
///
/// Specification: <https://spec.matrix.org/v1.19/client-server-api/#third-party-invites>
#[derive(Debug, Clone, Copy)]
pub struct SignedInvite<'a>(&'a Object);

impl<'a> SignedInvite<'a> {
    /// The view of this object.
    #[must_use]
    pub fn new(signed: &'a Object) -> Self {
        Self(signed)
    }

    /// The whole object, which the signatures cover.
    #[must_use]
    pub fn object(&self) -> &'a Object {
        self.0
    }

    /// The user whom the identity server names.
    #[must_use]
    pub fn mxid(&self) -> Option<&'a str> {
        text(self.0, "mxid")
    }

    /// The state key of the `m.room.third_party_invite` to which this is the answer.
    #[must_use]
    pub fn token(&self) -> Option<&'a str> {
        text(self.0, "token")
    }

    /// Key id and signature of all signatures, by whatever entity. Malformed ones are left out.
    pub fn signatures(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let entities = match self.0.get("signatures") {
            Some(Value::Object(entities)) => Some(entities),
            _ => None,
        };
        entities
            .into_iter()
            .flat_map(Object::values)
            .filter_map(|entity| match entity {
                Value::Object(signatures) => Some(signatures),
                _ => None,
            })
            .flatten()
            .filter_map(|(key_id, signature)| match signature {
                Value::String(signature) => Some((key_id.as_str(), signature.as_str())),
                _ => None,
            })
    }
}

/// The content of `m.room.third_party_invite`.
///
/// Specification: <https://spec.matrix.org/v1.19/client-server-api/#mroomthird_party_invite>
#[derive(Debug, Clone, Copy)]
pub struct ThirdPartyInviteContent<'a>(&'a Object);

impl<'a> ThirdPartyInviteContent<'a> {
    /// The view of this content.
    #[must_use]
    pub fn new(content: &'a Object) -> Self {
        Self(content)
    }

    /// The decoded keys of `public_key` and `public_keys`, each once. Those that are not 32 bytes
    /// of base64 are left out: no signature can match them.
    #[must_use]
    pub fn public_keys(&self) -> BTreeSet<[u8; 32]> {
        let list = match self.0.get("public_keys") {
            Some(Value::Array(keys)) => keys.as_slice(),
            _ => &[],
        };
        list.iter()
            .filter_map(|entry| match entry {
                Value::Object(entry) => text(entry, "public_key"),
                _ => None,
            })
            .chain(text(self.0, "public_key"))
            .filter_map(|key| IdentityServerBase64PublicKey(key.to_owned()).decode().ok())
            .filter_map(|key| key.try_into().ok())
            .collect()
    }
}
