use std::collections::BTreeSet;

use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use ruma::UserId;
use ruma::serde::{Base64, base64::Standard};

use super::{AuthError, Check, StateView, types};
use crate::content::{MemberContent, Membership, SignedInvite, ThirdPartyInviteContent};
use crate::json;

/// How many pairs of signature and key are tried. One of each is usual; an event has room for
/// hundreds of both, and trying all would take half a minute.
const MAX_VERIFICATIONS: usize = 64;

impl<S: StateView + ?Sized> Check<'_, S> {
    /// "If `membership` is `invite`: If `content` has a `third_party_invite` property"
    pub(super) fn third_party_invite(
        &self,
        target: &UserId,
        content: MemberContent<'_>,
    ) -> Result<(), AuthError> {
        // If target user is banned, reject.
        if self.membership(target)? == Membership::Ban {
            return Err(AuthError::TargetBanned { user: target.to_string() });
        }
        // If content.third_party_invite does not have a signed property, reject. If signed does
        // not have mxid and token properties, reject.
        let lacks = |field| AuthError::ThirdPartyInviteLacks { field };
        let signed = content.signed_invite().ok_or_else(|| lacks("signed"))?;
        let mxid = signed.mxid().ok_or_else(|| lacks("signed.mxid"))?;
        let token = signed.token().ok_or_else(|| lacks("signed.token"))?;
        // If mxid does not match state_key, reject.
        if mxid != target.as_str() {
            return Err(AuthError::ThirdPartyInviteUser);
        }
        // If there is no m.room.third_party_invite event in the current room state with state_key
        // matching token, reject.
        let invite = self
            .state
            .event(types::THIRD_PARTY_INVITE, token)
            .ok_or(AuthError::NoThirdPartyInvite)?;
        // If sender does not match sender of the m.room.third_party_invite, reject.
        if self.event.sender() != invite.sender() {
            return Err(AuthError::ThirdPartyInviteSender);
        }
        // If any signature in signed matches any public key in the m.room.third_party_invite
        // event, allow. Otherwise, reject.
        let keys = ThirdPartyInviteContent::new(invite.content()).public_keys();
        if any_signature_matches(signed, &keys) {
            Ok(())
        } else {
            Err(AuthError::ThirdPartyInviteSignature)
        }
    }
}

fn any_signature_matches(signed: SignedInvite<'_>, keys: &BTreeSet<[u8; 32]>) -> bool {
    let mut message = Vec::new();
    json::write_canonical_object_without(
        signed.object(),
        &["signatures", "unsigned"],
        &mut message,
    );
    let keys: Vec<VerifyingKey> =
        keys.iter().filter_map(|key| VerifyingKey::from_bytes(key).ok()).collect();
    signed
        .signatures()
        .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
        .filter_map(|(_, signature)| Base64::<Standard>::parse(signature).ok())
        .filter_map(|signature| Signature::from_slice(signature.as_bytes()).ok())
        .flat_map(|signature| keys.iter().map(move |key| (signature, key)))
        .take(MAX_VERIFICATIONS)
        .any(|(signature, key)| key.verify(&message, &signature).is_ok())
}
