//! Policy servers: which one a room has chosen, and whether that has signed an event.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use ruma::{OwnedServerName, ServerName};

use crate::{
    Pdu, RoomVersion,
    json::{Object, Value},
    signing::{self, PublicKey},
};

/// The type of the event that says who is a room's policy server; its state key is empty.
pub const EVENT_TYPE: &str = "m.room.policy";

/// The key with which policy servers sign events, whatever other keys they have.
const KEY_ID: &str = "ed25519:policy_server";

/// The policy server that a room has chosen. It is one only while it has a joined user there, which
/// is for others to check.
#[derive(Debug, Clone)]
pub struct PolicyServer {
    name: OwnedServerName,
    /// `None` if what the room has for it is no key: then nothing is ever signed.
    key: Option<PublicKey>,
}

impl PolicyServer {
    /// The one that an event of the room's state names, if the event is valid.
    #[must_use]
    pub fn named_by(event: &Pdu) -> Option<Self> {
        let content = event.content();
        let name = content.get("via").and_then(Value::as_str)?;
        let key = content.get("public_keys").and_then(|keys| keys.get("ed25519"))?.as_str()?;
        let name = OwnedServerName::try_from(name).ok()?;
        Some(Self { name, key: PublicKey::from_base64(key).ok() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.name
    }

    /// Whether anything that it signs can be checked.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether an event needs no more signature of it: it has signed, or is not asked, since the
    /// event says who is to be asked.
    #[must_use]
    pub fn has_passed(&self, version: &RoomVersion, pdu: &Pdu) -> bool {
        let is_free = pdu.event_type() == EVENT_TYPE && pdu.state_key() == Some("");
        is_free || self.has_signed(version, pdu.json())
    }

    fn has_signed(&self, version: &RoomVersion, event: &Object) -> bool {
        let key = |key_id: &str| self.key.filter(|_| key_id == KEY_ID);
        signing::verify_event_by(version, event, self.name.as_str(), key).is_ok()
    }

    /// The event with this signature beside all others; `None` if it is not valid.
    #[must_use]
    pub fn countersigned(
        &self,
        version: &RoomVersion,
        pdu: &Pdu,
        signature: String,
    ) -> Option<Pdu> {
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
