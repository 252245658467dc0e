//! `room_summary`

use serde_json::{Value, json};

use super::room_with_rule;
use crate::common::{Answer, Client, Server, path};

fn summary(http: &Client, room: &str) -> Answer {
    http.get(&path("/_matrix/client/v1/room_summary/{}?via=elsewhere.example", &[room]))
}

#[test]
fn a_summary_says_what_the_room_is() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let club = alice.public_room();
    let body = json!({ "name": "Name", "topic": "Topic", "room_alias_name": "knock", "room_version": "10",
        "creation_content": { "type": "m.space" }, "invite": [bob.id], "initial_state": [
            { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }] });
    let allow =
        json!([{ "type": "m.room_membership", "room_id": club }, { "type": "org.example" }]);
    let room =
        room_with_rule(&alice, json!({ "join_rule": "knock_restricted", "allow": allow }), body);
    let expected = json!({ "room_id": room, "name": "Name", "topic": "Topic", "room_version": "10",
        "canonical_alias": "#knock:localhost", "num_joined_members": 1, "guest_can_join": true,
        "world_readable": false, "join_rule": "knock_restricted", "allowed_room_ids": [club],
        "room_type": "m.space", "encryption": "m.megolm.v1.aes-sha2" });
    for at in [&*room, "#knock:localhost"] {
        assert_eq!(summary(&server.http, at).ok().body, expected);
    }
    for (user, membership) in [(&alice, "join"), (&bob, "invite")] {
        let found = summary(&user.http, &room).ok();
        assert_eq!((&found["name"], &found["membership"]), (&json!("Name"), &json!(membership)));
    }
    let old = path("/_matrix/client/unstable/im.nheko.summary/rooms/{}/summary", &[&room]);
    assert_eq!(server.http.get(&old).ok().body, expected);
    summary(&server.http.with_token("nonsense"), &room).refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn strangers_learn_of_no_room_that_is_closed_to_them() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let club = alice.public_room();
    bob.join(&club).ok();
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let restricted = json!({ "join_rule": "restricted", "allow": allow });
    let readable = json!({ "initial_state": [{ "type": "m.room.history_visibility",
        "content": { "history_visibility": "world_readable" } }] });
    // Who sees it: somebody without an account, a member of the club, everybody else.
    for (rule, more, [nobody, member, stranger]) in [
        (json!({ "join_rule": "public" }), json!({}), [true; 3]),
        (json!({ "join_rule": "knock" }), json!({}), [true; 3]),
        (json!({ "join_rule": "knock" }), json!({ "room_version": "6" }), [false; 3]),
        (restricted.clone(), json!({}), [false, true, false]),
        (restricted, json!({ "room_version": "7" }), [false; 3]),
        (json!({ "join_rule": "invite" }), json!({}), [false; 3]),
        (json!({ "join_rule": "org.example" }), json!({}), [false; 3]),
        (json!({ "join_rule": "invite" }), readable, [true; 3]),
    ] {
        let room = room_with_rule(&alice, rule.clone(), more);
        for (http, sees) in [(&server.http, nobody), (&bob.http, member), (&carol.http, stranger)] {
            match sees {
                true => assert_eq!(summary(http, &room).ok()["room_id"], *room, "{rule}"),
                false => same_as_unknown(http, &summary(http, &room)),
            }
        }
        summary(&alice.http, &room).ok();
    }
    summary(&alice.http, "#nothing:localhost").refused(404, "M_NOT_FOUND");
    summary(&alice.http, "#nothing:elsewhere.example").refused(404, "M_NOT_FOUND");
    assert_eq!(summary(&alice.http, "nonsense").status, 400);
}

#[track_caller]
fn same_as_unknown(http: &Client, answer: &Answer) {
    let unknown = summary(http, "!nothing:localhost").refused(404, "M_NOT_FOUND");
    assert_eq!((answer.status, &answer.body), (404, &unknown.body));
}

#[test]
fn a_banned_user_is_told_so() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    assert_eq!(summary(&bob.http, &room).ok()["membership"], Value::Null);
    alice.membership(&room, "ban", json!({ "user_id": bob.id })).ok();
    assert_eq!(summary(&bob.http, &room).ok()["membership"], "ban");
}
