//! Rooms with a policy server: what it does not sign is kept from users.

use parlour_event::{
    RoomVersion,
    json::{Object, Value as Json},
    signing::{self, SigningKey},
};
use serde_json::{Value, json};

use crate::common::{
    Asked, FakeRoom, FakeServer, Origin, Server, User, Visitor, bytes, parse, path,
};

const VERSION: &str = "11";

/// The key with which the policy server signs events.
fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32], "policy_server").unwrap()
}

fn sign(event: &Object, name: &str) -> Object {
    sign_in(VERSION, event, name)
}

fn sign_in(version: &str, event: &Object, name: &str) -> Object {
    let mut event = event.clone();
    signing::sign_event(RoomVersion::parse(version).unwrap(), &mut event, name, &key());
    event
}

/// The answer with the policy server's signature on an event.
fn signature(version: &str, origin: &Origin, event: &Value) -> Vec<u8> {
    let signed = sign_in(version, &parse(event), &origin.name);
    let signature = signed["signatures"].get(&origin.name).unwrap();
    let signature = signature.get("ed25519:policy_server").unwrap();
    let by_key = Object::from([("ed25519:policy_server".to_owned(), signature.clone())]);
    bytes(Object::from([(origin.name.clone(), Json::Object(by_key))]))
}

/// A policy server that does not want spam.
fn policy_server() -> FakeServer {
    FakeServer::start(|origin: Origin| {
        move |asked: &Asked| {
            if asked.path != "/_matrix/policy/v1/sign" {
                return None;
            }
            let error = |status, json: &str| Some((status, json.as_bytes().to_vec()));
            match asked.body["content"]["body"].as_str().unwrap_or_default() {
                "spam" => return error(400, r#"{"errcode":"M_FORBIDDEN","error":"spam"}"#),
                "too fast" => {
                    let slower =
                        r#"{"errcode":"M_LIMIT_EXCEEDED","error":"?","retry_after_ms":7000}"#;
                    return error(429, slower);
                }
                "unknown room" => return error(404, r#"{"errcode":"M_NOT_FOUND","error":"?"}"#),
                "broken" => return error(500, "?"),
                "logs out" => return error(400, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"?"}"#),
                "no token" => return error(401, r#"{"errcode":"M_MISSING_TOKEN","error":"?"}"#),
                "forged" => {
                    return Some((200, signature(VERSION, &origin, &json!({ "type": "other" }))));
                }
                _ if asked.body["content"]["membership"] == "knock" => return error(403, "{}"),
                _ => {}
            }
            Some((200, signature(VERSION, &origin, &asked.body)))
        }
    })
}

/// How often it was asked for a signature.
fn asked(server: &FakeServer) -> usize {
    server.asked().iter().filter(|asked| asked.path.ends_with("/sign")).count()
}

fn set_policy(alice: &User, room: &str, via: &str, key: &str) {
    let content = json!({ "via": via, "public_keys": { "ed25519": key } });
    alice.set_state(room, "m.room.policy", "", content).ok();
}

// Checklist 13.1
#[test]
fn what_the_policy_server_does_not_sign_is_not_seen() {
    let (near, far) = (Server::start_federated(&[]), policy_server());
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, VERSION);
    let public = key().public_key().to_base64();
    let message = |text: &str| visitor.message(text, &[&visitor.newest()]);
    visitor.accepted(&[message("before")]);
    assert_eq!(asked(&far), 0);
    set_policy(&alice, &visitor.room, far.name(), &public);
    // Nobody has signed it yet, so it is asked; but not for what is signed already.
    visitor.accepted(&[message("good")]);
    assert_eq!(asked(&far), 1);
    visitor.accepted(&[sign(&message("signed"), far.name())]);
    assert_eq!(asked(&far), 1);
    visitor.accepted(&[message("spam")]);
    assert_eq!(asked(&far), 2);
    assert_eq!(visitor.said(), ["before", "good", "signed"]);
    // With another key in the room its signatures are worth nothing.
    let other = SigningKey::from_seed(&[6; 32], "policy_server").unwrap();
    set_policy(&alice, &visitor.room, far.name(), &other.public_key().to_base64());
    visitor.accepted(&[sign(&message("wrong key"), far.name())]);
    assert_eq!(visitor.said(), ["before", "good", "signed"]);
    // Where it has no user, it is none.
    set_policy(&alice, &visitor.room, "nobody.example.org", &public);
    visitor.accepted(&[message("spam")]);
    assert_eq!(visitor.said(), ["before", "good", "signed", "spam"]);
}

/// A room of alice's that has a policy server, and a visitor of that.
fn guarded<'a>(near: &'a Server, alice: &'a User, far: &FakeServer) -> Visitor<'a> {
    let visitor = Visitor::new(near, alice, &far.origin, VERSION);
    set_policy(alice, &visitor.room, far.name(), &key().public_key().to_base64());
    visitor
}

// Checklist 13.21
#[test]
fn what_is_sent_here_is_signed_first_by_the_policy_server() {
    let (near, far) = (Server::start_federated(&[]), policy_server());
    let (alice, bob) = (near.user("alice"), near.user("bob"));
    let elsewhere = alice.public_room();
    let visitor = guarded(&near, &alice, &far);
    let room = &visitor.room;
    assert_eq!(asked(&far), 0, "who is to be asked is not asked about that");
    alice.say(&elsewhere, "spam").ok();
    assert_eq!(asked(&far), 0);
    let said = alice.say(room, "hello").event_id();
    assert_eq!(asked(&far), 1);
    let at = path("/_matrix/federation/v1/event/{}", &[&said]);
    let event = far.origin.get(&near, &at).ok()["pdus"][0].clone();
    let signatures = event["signatures"].as_object().unwrap();
    assert!(signatures[&near.name()].is_object(), "{event}");
    assert!(signatures[far.name()]["ed25519:policy_server"].is_string(), "{event}");
    // Once is enough for a transaction, and for an event that changes nothing.
    let body = json!({ "msgtype": "m.text", "body": "once" });
    let first = alice.send_as(room, "m.room.message", "txn", body.clone()).event_id();
    assert_eq!(alice.send_as(room, "m.room.message", "txn", body).event_id(), first);
    alice.set_state(room, "m.room.topic", "", json!({ "topic": "peace" })).ok();
    alice.set_state(room, "m.room.topic", "", json!({ "topic": "peace" })).ok();
    assert_eq!(asked(&far), 3);
    // Members, redactions and whoever comes from elsewhere are no exception.
    bob.join(room).ok();
    bob.say(room, "me, too").ok();
    alice.redact(room, &first, "once is too often").ok();
    alice.membership(room, "kick", json!({ "user_id": bob.id })).ok();
    alice.membership(room, "unban", json!({ "user_id": bob.id })).refused(403, "M_BAD_STATE");
    assert_eq!(asked(&far), 7);
    assert_eq!(visitor.said(), ["hello", "(none)", "me, too"]);
    // The room can do without it again, whatever it thinks.
    alice.set_state(room, "m.room.policy", "", json!({})).ok();
    alice.say(room, "spam").ok();
    assert_eq!(asked(&far), 7);
}

// Checklist 13.21
#[test]
fn clients_are_told_what_the_policy_server_says() {
    let (near, far) = (Server::start_federated(&[]), policy_server());
    let alice = near.user("alice");
    let visitor = guarded(&near, &alice, &far);
    let room = &visitor.room;
    let refused = alice.say(room, "spam").refused(400, "M_FORBIDDEN");
    assert_eq!(refused["error"], "spam");
    let slower = alice.say(room, "too fast").refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(slower["retry_after_ms"], 7_000);
    alice.say(room, "unknown room").refused(404, "M_NOT_FOUND");
    alice.say(room, "broken").refused(502, "M_UNKNOWN");
    alice.say(room, "forged").refused(502, "M_UNKNOWN");
    // A client would take these for something else.
    alice.say(room, "logs out").refused(400, "M_FORBIDDEN");
    alice.say(room, "no token").refused(502, "M_UNKNOWN");
    assert_eq!(visitor.said(), Vec::<String>::new());
    alice.say(room, "hello").ok();
    assert_eq!(visitor.said(), ["hello"]);
}

/// A server with a room whose policy server it is itself; it signs joins, or does not.
fn room_with_policy(signs: bool) -> FakeServer {
    FakeServer::start(|origin: Origin| {
        let mut room = FakeRoom::new(&origin, &format!("!guarded:{}", origin.name));
        let public = key().public_key().to_base64();
        room.set(
            "m.room.policy",
            json!({ "via": origin.name, "public_keys": { "ed25519": public } }),
        );
        move |asked: &Asked| match asked.path == "/_matrix/policy/v1/sign" {
            true if signs => Some((200, signature("10", &origin, &asked.body))),
            true => Some((400, br#"{"errcode":"M_FORBIDDEN","error":"no"}"#.to_vec())),
            false => room.honest(asked),
        }
    })
}

// Checklist 13.21
#[test]
fn a_join_through_another_server_is_signed_as_soon_as_the_policy_server_is_known() {
    let near = Server::start_federated(&[]);
    let alice = near.user("alice");
    for signs in [true, false] {
        let far = room_with_policy(signs);
        let room = format!("!guarded:{}", far.name());
        let join = path("/_matrix/client/v3/join/{}?via={}", &[&room, far.name()]);
        alice.http.post(&join, &json!({})).ok();
        assert_eq!(asked(&far), 1);
        let members = alice.room(&room, "members").ok().chunk();
        let own = members.iter().find(|event| event["state_key"] == alice.id).unwrap();
        let at = path("/_matrix/federation/v1/event/{}", &[own["event_id"].as_str().unwrap()]);
        let event = far.origin.get(&near, &at).ok()["pdus"][0].clone();
        let signature = &event["signatures"][far.name()]["ed25519:policy_server"];
        assert_eq!(signature.is_string(), signs, "{event}");
        assert!(event["signatures"][&near.name()].is_object(), "{event}");
    }
}
