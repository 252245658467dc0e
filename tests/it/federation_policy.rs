//! Rooms with a policy server: what it does not sign is kept from users.

use parlour_event::{
    RoomVersion,
    json::{Object, Value as Json},
    signing::{self, SigningKey},
};
use serde_json::json;

use crate::common::{Asked, FakeServer, Origin, Server, User, Visitor, bytes, parse};

const VERSION: &str = "11";

/// The key with which the policy server signs events.
fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32], "policy_server").unwrap()
}

fn sign(event: &Object, name: &str) -> Object {
    let mut event = event.clone();
    signing::sign_event(RoomVersion::parse(VERSION).unwrap(), &mut event, name, &key());
    event
}

/// A policy server that does not want spam.
fn policy_server() -> FakeServer {
    FakeServer::start(|origin: Origin| {
        move |asked: &Asked| {
            if asked.path != "/_matrix/policy/v1/sign" {
                return None;
            }
            if asked.body["content"]["body"] == "spam" {
                return Some((400, br#"{"errcode":"M_FORBIDDEN","error":"spam"}"#.to_vec()));
            }
            let signed = sign(&parse(&asked.body), &origin.name);
            let signature = signed["signatures"].get(&origin.name)?.get("ed25519:policy_server")?;
            let by_key = Object::from([("ed25519:policy_server".to_owned(), signature.clone())]);
            let all = Object::from([(origin.name.clone(), Json::Object(by_key))]);
            Some((200, bytes(all)))
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
