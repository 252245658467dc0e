//! What a room's policy server thinks of events. Those that it does not sign are kept from users.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use std::sync::Arc;

use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object, Value},
    signing::{self, PublicKey},
};
use ruma::OwnedServerName;
use serde_json::value::RawValue;

use crate::{
    federation::outbound::rooms::RoomClient,
    view::{RoomView, View, ViewError},
};

/// The type of the event that says who is a room's policy server.
const POLICY: &str = "m.room.policy";

/// The key with which policy servers sign, whatever other keys they have.
const KEY_ID: &str = "ed25519:policy_server";

/// A room's policy server.
#[derive(Debug, Clone)]
pub(super) struct PolicyServer {
    name: OwnedServerName,
    /// `None` if what the room has for it is no key: then nothing is ever signed.
    key: Option<PublicKey>,
}

/// An event, and what the room's policy server thinks of it.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// The event; with the policy server's signature, if that wants it.
    pub(super) pdu: Arc<Pdu>,
    /// Whether the policy server wants it, or there is none.
    pub(super) is_wanted: bool,
}

impl PolicyServer {
    /// The policy server that a room has chosen and that has a user there, if there is one.
    pub(super) fn of(view: &View, room: &RoomView) -> Result<Option<Self>, ViewError> {
        let Some(event) = view.state_event(room.head.state, POLICY, "")? else { return Ok(None) };
        let event = event.pdu(room.version)?;
        let content = event.content();
        let name = content.get("via").and_then(Value::as_str);
        let key = content.get("public_keys").and_then(|keys| keys.get("ed25519"));
        let (Some(name), Some(key)) = (name, key.and_then(Value::as_str)) else { return Ok(None) };
        let Ok(name) = OwnedServerName::try_from(name) else { return Ok(None) };
        if view.store.joined_from(room.num, name.as_str())? == 0 {
            return Ok(None);
        }
        Ok(Some(Self { name, key: PublicKey::from_base64(key).ok() }))
    }

    /// What it thinks of an event: what is signed already, or else what it says now.
    pub(super) async fn judge(
        &self,
        client: &RoomClient,
        version: &RoomVersion,
        pdu: Arc<Pdu>,
    ) -> Judged {
        // It is not asked who is to be asked.
        let is_free = pdu.event_type() == POLICY && pdu.state_key() == Some("");
        if is_free || self.has_signed(version, pdu.json()) {
            return Judged { pdu, is_wanted: true };
        }
        match self.ask(client, version, &pdu).await {
            Some(signed) => Judged { pdu: Arc::new(signed), is_wanted: true },
            None => Judged { pdu, is_wanted: false },
        }
    }

    fn has_signed(&self, version: &RoomVersion, event: &Object) -> bool {
        let key = |key_id: &str| self.key.filter(|_| key_id == KEY_ID);
        signing::verify_event_by(version, event, self.name.as_str(), key).is_ok()
    }

    /// The event with the policy server's signature beside all others.
    async fn ask(&self, client: &RoomClient, version: &RoomVersion, pdu: &Pdu) -> Option<Pdu> {
        self.key?;
        let text = json::to_canonical_string(&Value::Object(pdu.json().clone()));
        let answer = client.policy_signature(&self.name, RawValue::from_string(text).ok()?).await;
        let answer = answer.inspect_err(|error| {
            tracing::debug!(server = %self.name, event = %pdu.event_id(), %error, "no policy signature");
        });
        let signature = answer.ok()??;
        let mut event = pdu.json().clone();
        let signatures = event.get_mut("signatures")?.as_object_mut()?;
        let of_server = signatures.entry(self.name.to_string());
        let of_server = of_server.or_insert_with(|| Value::Object(Object::new()));
        of_server.as_object_mut()?.insert(KEY_ID.to_owned(), signature.into());
        if !self.has_signed(version, &event) {
            return None;
        }
        Pdu::from_trusted(version, pdu.event_id().clone(), event).ok()
    }
}
