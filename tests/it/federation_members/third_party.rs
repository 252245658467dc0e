//! Invites by e-mail address, across servers.

use ruma::{
    CanonicalJsonValue,
    serde::Base64,
    signatures::{Ed25519KeyPair, sign_json},
};

use super::*;

const EXCHANGE: &str = "/_matrix/federation/v1/exchange_third_party_invite/{}";

/// An identity server, as far as it can be seen.
struct Identity(Ed25519KeyPair);

impl Identity {
    fn new() -> Self {
        let document = Ed25519KeyPair::generate();
        Self(Ed25519KeyPair::from_der(&document, "1".to_owned()).unwrap())
    }

    /// Invites somebody by an address.
    fn invite(&self, inviter: &User, room: &str, token: &str) {
        let key: Base64 = Base64::new(self.0.public_key().to_vec());
        let content = json!({ "display_name": "b...", "public_key": key.encode(),
            "key_validity_url": "https://id.example/valid",
            "public_keys": [{ "public_key": key.encode() }] });
        inviter.set_state(room, "m.room.third_party_invite", token, content).ok();
    }

    /// Says that the address is this user's.
    fn signed(&self, inviter: &str, user: &str, token: &str) -> Value {
        let object = json!({ "mxid": user, "sender": inviter, "token": token });
        let Ok(CanonicalJsonValue::Object(mut object)) = object.try_into() else { panic!() };
        sign_json("id.example", &self.0, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

fn exchange(door: &Door<'_>, room: &str, sender: &str, user: &str, signed: &Value) -> Answer {
    let content = json!({ "membership": "invite",
        "third_party_invite": { "display_name": "b...", "signed": signed } });
    let body = json!({ "type": "m.room.member", "room_id": room, "sender": sender,
        "state_key": user, "content": content });
    door.origin.send(door.at, "PUT", &path(EXCHANGE, &[room]), body.to_string().as_bytes())
}

// Checklist 13.24
#[test]
fn an_address_becomes_an_invite() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let other = Server::start_federated(&[]);
    let (alice, bob, carol) = (near.user("alice"), far.user("bob"), other.user("carol"));
    let identity = Identity::new();
    let room = alice.create_room(json!({})).room_id();
    for token in ["one", "two", "three"] {
        identity.invite(&alice, &room, token);
    }
    // The identity server tells the user's server.
    let since = now(&bob);
    let invite = json!({ "medium": "email", "address": "b@example.org", "mxid": bob.id,
        "room_id": room, "sender": alice.id, "signed": identity.signed(&alice.id, &bob.id, "one") });
    let body = json!({ "medium": "email", "address": "b@example.org", "mxid": bob.id,
        "invites": [invite] });
    far.http.put("/_matrix/federation/v1/3pid/onbind", &body).ok();
    sync_to(&bob, &since, "invite", &room);
    let invited = alice.state(&room, "m.room.member", &bob.id).ok();
    assert_eq!(invited["third_party_invite"]["display_name"], "b...");
    bob.join(&room).ok();
    // Or the user does.
    let signed = identity.signed(&alice.id, &carol.id, "two");
    let at = path("/_matrix/client/v3/join/{}?via={}", &[&room, &near.name()]);
    carol.http.post(&at, &json!({ "third_party_signed": signed })).ok();
    assert_eq!(membership(&alice, &room, &carol), "join");
    // One more, whose server is in the room by now.
    let dora = far.user("dora");
    let signed = identity.signed(&alice.id, &dora.id, "three");
    dora.membership(&room, "join", json!({ "third_party_signed": signed })).ok();
    assert_eq!(membership(&bob, &room, &dora), "join");
}

// Checklist 13.24
#[test]
fn only_what_the_room_expects_is_exchanged() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob, door) = (near.user("alice"), far.user("bob"), Door::new(&near, &far));
    let (identity, other) = (Identity::new(), Identity::new());
    let room = alice.create_room(json!({})).room_id();
    identity.invite(&alice, &room, "token");
    let good = identity.signed(&alice.id, &bob.id, "token");
    let stranger = format!("@stranger:{}", near.name());
    for (room, sender, user, signed) in [
        (&room, &alice.id, &bob.id, &other.signed(&alice.id, &bob.id, "token")),
        (&room, &alice.id, &bob.id, &identity.signed(&alice.id, &bob.id, "unknown")),
        (&room, &alice.id, &bob.id, &identity.signed(&alice.id, &alice.id, "token")),
        (&room, &stranger, &bob.id, &identity.signed(&stranger, &bob.id, "token")),
        (&room, &alice.id, &alice.id, &identity.signed(&alice.id, &alice.id, "token")),
        (&room, &bob.id, &bob.id, &good),
    ] {
        exchange(&door, room, sender, user, signed).refused(403, "M_FORBIDDEN");
    }
    let nowhere = "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    exchange(&door, nowhere, &alice.id, &bob.id, &good).refused(404, "M_NOT_FOUND");
    assert_eq!(membership(&alice, &room, &bob), "none");
    exchange(&door, &room, &alice.id, &bob.id, &good).ok();
    assert_eq!(membership(&alice, &room, &bob), "invite");
    assert_eq!(sections(&bob.sync(Ask::initial()).ok(), &room), ["invite"]);
    let many = vec![json!({}); 100];
    let body = json!({ "medium": "email", "address": "b", "mxid": bob.id, "invites": many });
    assert_eq!(far.http.put("/_matrix/federation/v1/3pid/onbind", &body).status, 400);
}
