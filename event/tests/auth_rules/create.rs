//! Rule 1, and what the create event means for every other event.

use parlour_event::auth::{self, AuthError};
use serde_json::json;

use crate::support::*;

fn create(content: Json) -> Draft {
    state(ALICE, "m.room.create", "", content).after(&[])
}

#[test]
fn the_create_event() {
    for v in 1..=12 {
        let creator = |content: Json| {
            let mut content = content;
            content["creator"] = json!(ALICE);
            create(content)
        };
        let v12 = |part| Deny(part).since(12, v, Allow);
        let room = Room::new(v);
        room.table(&[
            ("plain", creator(json!({})), Allow),
            ("prev events", creator(json!({})).after(&["$x"]), Deny("cannot follow")),
            ("no creator", create(json!({})), Allow.since(11, v, Deny("has no `creator`"))),
            ("creator of any type", create(json!({ "creator": null })), Allow),
            ("known version", creator(json!({ "room_version": "7" })), Allow),
            (
                "unknown version",
                creator(json!({ "room_version": "x" })),
                Deny("version is unknown"),
            ),
            ("version 10 as number", creator(json!({ "room_version": 10 })), Deny("is unknown")),
            ("version null", creator(json!({ "room_version": null })), Deny("is unknown")),
            ("no more creators", creator(json!({ "additional_creators": [] })), Allow),
            ("more creators", creator(json!({ "additional_creators": [BOB, CAROL] })), Allow),
            ("creators null", creator(json!({ "additional_creators": null })), v12("not an array")),
            ("creators text", creator(json!({ "additional_creators": BOB })), v12("not an array")),
            (
                "creators number",
                creator(json!({ "additional_creators": [5] })),
                v12("not an array"),
            ),
            (
                "no user id",
                creator(json!({ "additional_creators": [BOB, "x"] })),
                v12("not an array"),
            ),
            (
                "user id of 256 bytes",
                creator(json!({ "additional_creators": [format!("@{}:a.org", "x".repeat(249))] })),
                v12("not an array"),
            ),
            (
                "user id of 255 bytes",
                creator(json!({ "additional_creators": [format!("@{}:a.org", "x".repeat(248))] })),
                Allow,
            ),
        ]);
    }
}

#[test]
fn the_create_events_room_id() {
    for v in 1..=12 {
        let with_id = |id: &str| create(json!({ "creator": ALICE })).extra("room_id", json!(id));
        let wrong = Deny("cannot have a room ID").since(12, v, Deny("does not belong"));
        Room::new(v).table(&[
            ("own domain", with_id("!x:a.org"), Deny("cannot have a room ID").since(12, v, Allow)),
            ("other domain", with_id("!x:b.org"), wrong),
            ("port", with_id("!x:a.org:80"), wrong),
            ("no domain", with_id("!x"), wrong),
        ]);
    }
}

#[test]
fn a_room_without_create_event_allows_nothing() {
    for v in 1..=12 {
        let event = message(ALICE, "m.room.message", json!({})).build(version(v), "$event");
        let nothing = |_: &str, _: &str| None;
        assert_eq!(auth::check(version(v), &event, &nothing), Err(AuthError::NoCreateEvent));
    }
}

#[test]
fn in_version_12_the_room_id_is_that_of_the_create_event() {
    for v in 1..=12 {
        let room = Room::joined(v);
        let other =
            message(ALICE, "m.x", json!({})).build_in(room.version, "$event", "!other:a.org");
        Deny("not made from")
            .since(12, v, Allow)
            .assert(&auth::check(room.version, &other, &room), "other room id");
    }
}

#[test]
fn rooms_that_do_not_federate() {
    for v in 1..=12 {
        for (federate, closed) in [
            (json!(false), true),
            (json!(true), false),
            (json!(null), false),
            (json!("false"), false),
            (json!(0), false),
        ] {
            let content = json!({ "creator": ALICE, "m.federate": federate });
            let room = Room::created(v, create(content))
                .member(ALICE, "join")
                .member(CAROL, "join")
                .join_rule("public");
            let guest = if closed { Deny("users of other servers") } else { Allow };
            room.table(&[
                ("other domain", message(CAROL, "m.room.message", json!({})), guest),
                ("join from other domain", member(DAVE, DAVE, "join"), guest),
                ("own domain", member(BOB, BOB, "join"), Allow),
                ("a guest may be invited", member(ALICE, DAVE, "invite"), Allow),
            ]);
        }
    }
}

#[test]
fn aliases() {
    for v in 1..=12 {
        let aliases = |sender, key| state(sender, "m.room.aliases", key, json!({}));
        // From version 6 on these are state events like any other.
        let not_in_room = Deny("not in this room").since(6, v, Allow);
        Room::joined(v).member(CAROL, "join").table(&[
            ("own domain, not joined", aliases(DAVE, "d.org"), not_in_room),
            ("own domain", aliases(CAROL, "c.org"), Deny("you need power 50").since(6, v, Allow)),
            ("other domain", aliases(ALICE, "c.org"), Allow.since(6, v, Deny("own server's name"))),
            (
                "no state key",
                message(ALICE, "m.room.aliases", json!({})),
                Allow.since(6, v, Deny("own server's name")),
            ),
        ]);
    }
}
