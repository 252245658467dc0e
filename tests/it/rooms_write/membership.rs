//! Joining, inviting, leaving, kicking, banning, forgetting, and aliases to join by.

use ruma::{
    CanonicalJsonValue,
    serde::Base64,
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use super::{alias_path, join_path, joined_rooms, member, put_alias, set_name};
use crate::common::{Server, User, path};

fn about(user: &User) -> Value {
    json!({ "user_id": user.id })
}

#[test]
fn a_join_says_who_it_is_and_why() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    set_name(&bob, "Bob B.");
    let room = alice.public_room();
    let answer = bob.membership(&room, "join", json!({ "reason": "curious" }));
    assert_eq!(answer.room_id(), room);
    let joined = member(&alice, &room, &bob);
    assert_eq!(joined["membership"], "join");
    assert_eq!((&joined["displayname"], &joined["reason"]), (&json!("Bob B."), &json!("curious")));
    assert_eq!(joined_rooms(&bob), json!([room]));
    // A second join is the same join.
    assert_eq!(join_path(&bob, &room).room_id(), room);
    assert_eq!(member(&alice, &room, &bob), joined);
}

#[test]
fn rooms_that_are_not_here_cannot_be_joined() {
    let server = Server::start();
    let alice = server.user("alice");
    for (room, code) in [
        ("!nothing:localhost", "M_NOT_FOUND"),
        ("!nothing:elsewhere.example", "M_UNKNOWN"),
        ("!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "M_UNKNOWN"),
    ] {
        alice.join(room).refused(404, code);
        join_path(&alice, room).refused(404, code);
    }
    join_path(&alice, "#nothing:localhost").refused(404, "M_NOT_FOUND");
    join_path(&alice, "#nothing:elsewhere.example").refused(403, "M_FORBIDDEN");
    assert!(join_path(&alice, "nothing").status == 400);
    for verb in ["leave", "kick", "ban", "unban", "invite"] {
        alice.membership("!nothing:localhost", verb, about(&alice)).refused(403, "M_FORBIDDEN");
    }
    alice.membership("!nothing:localhost", "forget", json!({})).refused(404, "M_NOT_FOUND");
}

#[test]
fn an_alias_leads_to_its_room_until_it_is_removed() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let (room, other) = (alice.public_room(), alice.public_room());
    let alias = "#the.pub/ä:localhost";
    put_alias(&bob, alias, &room).refused(403, "M_FORBIDDEN");
    put_alias(&alice, alias, &room).ok();
    put_alias(&alice, alias, &room).refused(409, "M_UNKNOWN");
    put_alias(&alice, alias, &other).refused(409, "M_UNKNOWN");
    put_alias(&alice, "#x:elsewhere.example", &room).refused(400, "M_INVALID_PARAM");
    put_alias(&alice, "#with space:localhost", &room).refused(400, "M_INVALID_PARAM");
    assert_eq!(put_alias(&alice, "no alias", &room).status, 400);
    let found = server.http.get(&alias_path(alias)).ok();
    assert_eq!((&found["room_id"], &found["servers"]), (&json!(room), &json!(["localhost"])));
    assert_eq!(join_path(&bob, alias).room_id(), room);
    assert_eq!(bob.room(&room, "aliases").ok()["aliases"], json!([alias]));
    carol.room(&room, "aliases").refused(403, "M_FORBIDDEN");
    carol.room("no room", "aliases").refused(400, "M_INVALID_PARAM");
    let delete = |user: &User, alias: &str| user.http.send("DELETE", &alias_path(alias), b"");
    delete(&carol, alias).refused(403, "M_FORBIDDEN");
    delete(&bob, alias).refused(403, "M_FORBIDDEN");
    put_alias(&bob, "#bobs:localhost", &room).ok();
    delete(&alice, "#bobs:localhost").ok();
    delete(&alice, alias).ok();
    delete(&alice, alias).refused(404, "M_NOT_FOUND");
    server.http.get(&alias_path(alias)).refused(404, "M_NOT_FOUND");
    join_path(&carol, alias).refused(404, "M_NOT_FOUND");
    assert_eq!(bob.room(&room, "aliases").ok()["aliases"], json!([]));
    put_alias(&alice, alias, &other).ok();
}

#[test]
fn invites_reach_users_of_this_server() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    set_name(&bob, "Bob B.");
    let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    let invite = |by: &User, body: Value| by.membership(&room, "invite", body);
    invite(&alice, json!({ "user_id": bob.id, "reason": "come in" })).ok();
    let invited = member(&alice, &room, &bob);
    assert_eq!((&invited["membership"], &invited["reason"]), (&json!("invite"), &json!("come in")));
    assert_eq!(invited["displayname"], "Bob B.");
    invite(&alice, about(&bob)).ok();
    // Who is only invited cannot invite, and does not learn who has an account.
    invite(&bob, about(&carol)).refused(403, "M_FORBIDDEN");
    invite(&bob, json!({ "user_id": "@nobody:localhost" })).refused(403, "M_FORBIDDEN");
    bob.join(&room).ok();
    invite(&alice, about(&bob)).refused(403, "M_FORBIDDEN");
    invite(&alice, json!({ "user_id": "@nobody:localhost" })).refused(404, "M_NOT_FOUND");
    invite(&alice, json!({ "user_id": "@x:elsewhere.example" })).refused(403, "M_FORBIDDEN");
    let pid =
        json!({ "id_server": "x", "id_access_token": "x", "medium": "email", "address": "x" });
    invite(&alice, pid).refused(403, "M_SERVER_NOT_TRUSTED");
    invite(&alice, json!({ "user_id": "bob" })).refused(400, "M_BAD_JSON");
    let levels = json!({ "users": {}, "invite": 50 });
    alice.set_state(&room, "m.room.power_levels", "", levels).ok();
    invite(&bob, about(&carol)).refused(403, "M_FORBIDDEN");
}

// Checklist 8.8
#[test]
fn moderators_need_power_and_somebody_to_use_it_on() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let act = |by: &User, verb: &str, whom: &User| by.membership(&room, verb, about(whom));
    // Carol is not there yet.
    act(&alice, "kick", &carol).refused(403, "M_FORBIDDEN");
    act(&alice, "unban", &carol).refused(403, "M_BAD_STATE");
    let told = act(&carol, "unban", &bob);
    assert!(!told["error"].to_string().contains("`join`"), "who is in the room: {}", told.body);
    told.refused(403, "M_FORBIDDEN");
    act(&carol, "kick", &bob).refused(403, "M_FORBIDDEN");
    carol.join(&room).ok();
    act(&alice, "unban", &carol).refused(403, "M_BAD_STATE");
    assert_eq!(member(&alice, &room, &carol)["membership"], "join");
    for verb in ["kick", "ban"] {
        act(&bob, verb, &carol).refused(403, "M_FORBIDDEN");
        act(&bob, verb, &alice).refused(403, "M_FORBIDDEN");
    }
    let body = json!({ "user_id": carol.id, "reason": "noise" });
    alice.membership(&room, "ban", body).ok();
    let banned = member(&alice, &room, &carol);
    assert_eq!((&banned["membership"], &banned["reason"]), (&json!("ban"), &json!("noise")));
    // A kick must not end a ban.
    act(&alice, "kick", &carol).refused(403, "M_FORBIDDEN");
    assert_eq!(member(&alice, &room, &carol)["membership"], "ban");
    carol.join(&room).refused(403, "M_FORBIDDEN");
    carol.leave(&room).refused(403, "M_FORBIDDEN");
    act(&bob, "unban", &carol).refused(403, "M_FORBIDDEN");
    // To unban takes the power to ban and the power to kick.
    let levels = |kick: i64| json!({ "users": { (&*bob.id): 60 }, "ban": 50, "kick": kick });
    alice.set_state(&room, "m.room.power_levels", "", levels(70)).ok();
    act(&bob, "unban", &carol).refused(403, "M_FORBIDDEN");
    alice.set_state(&room, "m.room.power_levels", "", levels(60)).ok();
    act(&bob, "unban", &carol).ok();
    assert_eq!(member(&alice, &room, &carol)["membership"], "leave");
    carol.join(&room).ok();
}

// Checklist 8.5, 8.10
#[test]
fn who_leaves_can_say_why_and_forget_the_room() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "invite": [bob.id, carol.id] })).room_id();
    bob.membership(&room, "forget", json!({})).refused(400, "M_UNKNOWN");
    bob.leave(&room).ok();
    bob.leave(&room).ok();
    carol.join(&room).ok();
    carol.membership(&room, "forget", json!({})).refused(400, "M_UNKNOWN");
    carol.membership(&room, "leave", json!({ "reason": "tired" })).ok();
    let left = member(&alice, &room, &carol);
    assert_eq!((&left["membership"], &left["reason"]), (&json!("leave"), &json!("tired")));
    assert_eq!(joined_rooms(&carol), json!([]));
    carol.room(&room, "messages?dir=b").ok();
    carol.membership(&room, "forget", json!({})).ok();
    carol.room(&room, "messages?dir=b").refused(403, "M_FORBIDDEN");
    carol.membership(&room, "forget", json!({})).ok();
    // An invitation brings the room back.
    alice.invite(&room, &carol).ok();
    carol.join(&room).ok();
    assert_eq!(joined_rooms(&carol), json!([room]));
}

// Checklist 8.7
#[test]
fn a_restricted_room_lets_members_of_the_other_room_in() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let club = alice.public_room();
    bob.join(&club).ok();
    for (version, rule) in [("8", "restricted"), ("10", "knock_restricted"), ("12", "restricted")] {
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let rules = json!({ "join_rule": rule, "allow": allow });
        let room = alice.create_room(json!({ "room_version": version, "preset": "private_chat",
            "initial_state": [{ "type": "m.room.join_rules", "content": rules }] }));
        let room = room.room_id();
        carol.join(&room).refused(403, "M_FORBIDDEN");
        // Clients cannot choose who vouches for them.
        let forged = json!({ "membership": "join", "join_authorised_via_users_server": alice.id });
        carol.set_state(&room, "m.room.member", &carol.id, forged).refused(403, "M_FORBIDDEN");
        bob.join(&room).ok();
        let joined = member(&alice, &room, &bob);
        assert_eq!(joined["join_authorised_via_users_server"], alice.id.as_str(), "{version}");
        // With an invitation nobody needs to vouch.
        alice.invite(&room, &carol).ok();
        carol.join(&room).ok();
        assert!(member(&alice, &room, &carol)["join_authorised_via_users_server"].is_null());
        // When all who could invite are gone, nobody vouches.
        bob.leave(&room).ok();
        if version == "8" {
            carol.leave(&room).ok();
            alice.leave(&room).ok();
            bob.join(&room).refused(403, "M_FORBIDDEN");
        }
    }
    let unknown_rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership",
        "room_id": club }] });
    let room = alice.create_room(json!({ "room_version": "7", "preset": "private_chat",
        "initial_state": [{ "type": "m.room.join_rules", "content": unknown_rule }] }));
    bob.join(&room.room_id()).refused(403, "M_FORBIDDEN");
}

#[test]
fn an_identity_servers_signature_opens_the_room() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    let document = Ed25519KeyPair::generate();
    let key = Ed25519KeyPair::from_der(&document, "0".to_owned()).unwrap();
    let public_key: Base64 = Base64::new(key.public_key().to_vec());
    let invite = json!({ "display_name": "b...@example.org", "public_key": public_key.encode(),
        "key_validity_url": "https://id.example/valid" });
    alice.set_state(&room, "m.room.third_party_invite", "token", invite).ok();
    let signed = |mxid: &str, token: &str| {
        let object = json!({ "mxid": mxid, "sender": alice.id, "token": token });
        let Ok(CanonicalJsonValue::Object(mut object)) = object.try_into() else { panic!() };
        sign_json("id.example", &key, &mut object).unwrap();
        json!({ "third_party_signed": serde_json::to_value(object).unwrap() })
    };
    let mut forged = signed(&bob.id, "token");
    forged["third_party_signed"]["mxid"] = json!(carol.id);
    carol.membership(&room, "join", forged).refused(403, "M_FORBIDDEN");
    carol.membership(&room, "join", signed(&bob.id, "token")).refused(403, "M_FORBIDDEN");
    bob.membership(&room, "join", signed(&bob.id, "other")).refused(403, "M_FORBIDDEN");
    bob.join(&room).refused(403, "M_FORBIDDEN");
    bob.membership(&room, "join", signed(&bob.id, "token")).ok();
    assert_eq!(member(&alice, &room, &bob)["membership"], "join");
    let other = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    let at = path("/_matrix/client/v3/join/{}", &[&other]);
    bob.http.post(&at, &signed(&bob.id, "token")).refused(403, "M_FORBIDDEN");
}

// Checklist 8.4
#[test]
fn state_events_change_memberships_like_the_endpoints_do() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    set_name(&bob, "Bob B.");
    let knocking = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    let room = alice.create_room(json!({ "initial_state": knocking })).room_id();
    let set = |by: &User, whom: &str, membership: Value| {
        by.set_state(&room, "m.room.member", whom, json!({ "membership": membership }))
    };
    set(&bob, &bob.id, json!("knock")).ok();
    let knocked = member(&alice, &room, &bob);
    assert_eq!(
        (&knocked["membership"], &knocked["displayname"]),
        (&json!("knock"), &json!("Bob B."))
    );
    set(&alice, &bob.id, json!("invite")).ok();
    set(&bob, &bob.id, json!("knock")).refused(403, "M_FORBIDDEN");
    set(&bob, &bob.id, json!("join")).ok();
    let named = json!({ "membership": "join", "displayname": "Bobby" });
    bob.set_state(&room, "m.room.member", &bob.id, named).ok();
    assert_eq!(member(&alice, &room, &bob)["displayname"], "Bobby");
    set(&bob, &alice.id, json!("leave")).refused(403, "M_FORBIDDEN");
    set(&alice, &bob.id, json!("leave")).ok();
    set(&alice, &bob.id, json!("leave")).refused(403, "M_FORBIDDEN");
    set(&alice, &bob.id, json!("ban")).ok();
    set(&alice, &bob.id, json!("join")).refused(403, "M_FORBIDDEN");
    set(&alice, &bob.id, json!("leave")).ok();
    set(&carol, &carol.id, json!("join")).refused(403, "M_FORBIDDEN");
    set(&alice, "@nobody:localhost", json!("invite")).refused(404, "M_NOT_FOUND");
    set(&alice, "@x:elsewhere.example", json!("invite")).refused(403, "M_FORBIDDEN");
    set(&alice, &carol.id, json!("dancing")).refused(400, "M_BAD_JSON");
    set(&alice, &carol.id, json!(1)).refused(400, "M_BAD_JSON");
    set(&alice, "carol", json!("invite")).refused(400, "M_INVALID_PARAM");
}
