//! The rules on required power and on changes of the power levels.

use serde_json::json;

use crate::support::*;

/// Alice and Bob are in the room.
fn room(v: u8) -> Room {
    Room::joined(v).member(BOB, "join")
}

fn levels(sender: &str, content: Json) -> Draft {
    state(sender, "m.room.power_levels", "", content)
}

#[test]
fn only_members_send() {
    for v in 1..=12 {
        for now in ["invite", "leave", "ban", "knock"] {
            let room = Room::joined(v).member(BOB, now);
            let not_joined = Deny("you are not in this room");
            room.table(&[
                ("message", message(BOB, "m.room.message", json!({})), not_joined),
                ("state", state(BOB, "m.room.name", "", json!({})), not_joined),
                (
                    "third party",
                    state(BOB, "m.room.third_party_invite", "t", json!({})),
                    not_joined,
                ),
            ]);
        }
    }
}

// Checklist 14.8
#[test]
fn required_power() {
    for v in 1..=12 {
        let creator = Allow;
        room(v).table(&[
            ("message", message(BOB, "m.room.message", json!({})), Allow),
            (
                "state",
                state(BOB, "m.room.name", "", json!({})),
                Deny("you need power 50 to send m.room.name, you have 0"),
            ),
            ("creator", state(ALICE, "m.room.name", "", json!({})), creator),
        ]);
        let room = room(v).levels(json!({
            "events": { "m.room.name": 10, "m.room.message": 20, "m.low": -5 },
            "events_default": 5, "state_default": 15, "users_default": 10, "users": { BOB: 15 },
        }));
        let power = |needed| Deny(needed).since(12, v, Deny(needed));
        let alice = |needed| Allow.since(12, v, power(needed));
        room.member(CAROL, "join").table(&[
            ("type", state(CAROL, "m.room.name", "", json!({})), Allow),
            ("type, above", message(CAROL, "m.room.message", json!({})), Deny("power 20 to send")),
            (
                "type, as state",
                state(BOB, "m.room.message", "", json!({})),
                Deny("power 20 to send"),
            ),
            ("default", message(CAROL, "m.other", json!({})), Allow),
            ("state default", state(CAROL, "m.other", "", json!({})), Deny("power 15 to send")),
            ("state default, enough", state(BOB, "m.other", "", json!({})), Allow),
            ("negative", state(CAROL, "m.low", "", json!({})), Allow),
            ("creator", state(ALICE, "m.other", "", json!({})), alice("power 15 to send m.other")),
        ]);
    }
}

#[test]
fn state_keys_that_name_users() {
    for v in 1..=12 {
        let own = |key: &str| state(ALICE, "m.x", key, json!({}));
        room(v).table(&[
            ("own", own(ALICE), Allow),
            ("another's", own(BOB), Deny("another user's ID")),
            ("no user id, but @", own("@"), Deny("another user's ID")),
            ("own with more", own("@alice:a.org_x"), Deny("another user's ID")),
            ("anything else", own("alice"), Allow),
        ]);
    }
}

#[test]
fn third_party_invites_need_the_invite_level_only() {
    for v in 1..=12 {
        let invite = |sender| state(sender, "m.room.third_party_invite", "tok", json!({}));
        room(v).table(&[("default", invite(BOB), Allow)]);
        let high = room(v).levels(json!({ "invite": 5, "users": { BOB: 4 } }));
        high.table(&[(
            "too little",
            invite(BOB),
            Deny("you need power 5 to invite users, you have 4"),
        )]);
        let enough = json!({
            "invite": 5, "events": { "m.room.third_party_invite": 100 }, "users": { BOB: 5 },
        });
        room(v).levels(enough).table(&[
            ("enough", invite(BOB), Allow),
            (
                "another's state key",
                state(BOB, "m.room.third_party_invite", CAROL, json!({})),
                Allow,
            ),
        ]);
    }
}

#[test]
fn redactions() {
    for v in 1..=12 {
        let redact =
            |id: &str| message(BOB, "m.room.redaction", json!({})).extra("redacts", json!(id));
        let only_old = |part| Allow.since(3, v, Deny(part));
        room(v).table(&[
            ("same domain", redact("$x:a.org"), Allow),
            ("other domain", redact("$x:c.org"), only_old("power 50 to redact events of other")),
            ("no domain", redact("$x"), only_old("power 50 to redact")),
            (
                "of nothing",
                message(BOB, "m.room.redaction", json!({})),
                only_old("power 50 to redact"),
            ),
        ]);
        let enough = json!({ "redact": 10, "users": { BOB: 10 } });
        room(v).levels(enough).table(&[("enough power", redact("$x:c.org"), Allow)]);
        let sends = json!({ "events": { "m.room.redaction": 10 }, "users": { BOB: 9 } });
        let table = [("required power", redact("$x:a.org"), Deny("you need power 10 to send"))];
        room(v).levels(sends).table(&table);
    }
}

#[test]
fn the_first_power_levels() {
    for v in 1..=12 {
        let first = |content| levels(ALICE, content);
        let ints = |part| Deny(part).since(10, v, Allow);
        let creator = Deny("created this room").since(12, v, Allow);
        room(v).table(&[
            ("empty", first(json!({})), Allow),
            ("by a member", levels(BOB, json!({})), Deny("you need power 50")),
            ("any height", first(json!({ "ban": 1000, "users": { BOB: 2000 } })), Allow),
            ("creator", first(json!({ "users": { ALICE: 100 } })), creator),
            (
                "users null",
                first(json!({ "users": null })),
                Deny("`users` in the power levels is not"),
            ),
            ("users array", first(json!({ "users": [] })), Deny("is not an object")),
            ("no user id", first(json!({ "users": { "bob": 1 } })), Deny("`bob` in the `users`")),
            (
                "user null",
                first(json!({ "users": { BOB: null } })),
                Deny("`users.@bob:a.org` is not"),
            ),
            ("user true", first(json!({ "users": { BOB: true } })), Deny("is not an integer")),
            ("user text", first(json!({ "users": { BOB: "x" } })), Deny("is not an integer")),
            (
                "user level in text",
                first(json!({ "users": { BOB: "7" } })),
                ints("is not an integer"),
            ),
            ("field", first(json!({ "ban": "x" })), ints("power level `ban` is not an integer")),
            ("field null", first(json!({ "kick": null })), ints("`kick` is not an integer")),
            ("events", first(json!({ "events": 1 })), ints("`events` in the power levels is not")),
            (
                "event",
                first(json!({ "events": { "x": [] } })),
                ints("`events.x` is not an integer"),
            ),
            ("notifications", first(json!({ "notifications": "" })), ints("is not an object")),
            (
                "kind",
                first(json!({ "notifications": { "room": "5" } })),
                ints("`notifications.room`"),
            ),
            ("unknown property", first(json!({ "x": "y" })), Allow),
        ]);
    }
}

#[test]
fn creators_of_version_12_have_no_place_in_users() {
    let content = json!({ "additional_creators": [BOB] });
    let room = Room::created(12, state(ALICE, "m.room.create", "", content)).member(ALICE, "join");
    for room in [room.clone(), room.levels(json!({}))] {
        room.table(&[
            (
                "sender",
                levels(ALICE, json!({ "users": { ALICE: 1 } })),
                Deny("@alice:a.org created"),
            ),
            (
                "additional",
                levels(ALICE, json!({ "users": { BOB: 1 } })),
                Deny("@bob:a.org created"),
            ),
            ("others", levels(ALICE, json!({ "users": { CAROL: 1 } })), Allow),
        ]);
    }
}

#[test]
fn changes_of_single_fields() {
    // What stands there, what is to stand there, and whether power 50 is enough for it. A missing
    // field counts as its default.
    let with_default_50 = [
        (json!(40), json!(45), true),
        (json!(50), json!(0), true),
        (json!(40), json!(50), true),
        (json!(40), json!(51), false),
        (json!(51), json!(40), false),
        (json!(60), json!(70), false),
        (json!(60), json!(60), true),
        (json!(null), json!(50), true),
        (json!(null), json!(51), false),
        (json!(51), json!(null), false),
        (json!(1), json!(null), true),
        (json!(-5), json!(-6), true),
    ];
    for v in 1..=12 {
        for field in
            ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"]
        {
            for (old, new, enough) in &with_default_50 {
                let content = |level: &Json| {
                    let mut content =
                        json!({ "users": { BOB: 50 }, "events": { "m.room.power_levels": 50 } });
                    if !level.is_null() {
                        content[field] = level.clone();
                    }
                    content
                };
                let expected = if *enough { Allow } else { Deny("above your power, 50") };
                let what = format!("{field} from {old} to {new}");
                let room = room(v).levels(content(old));
                room.table(&[(&what, levels(BOB, content(new)), expected)]);
            }
        }
    }
}

#[test]
fn a_missing_field_counts_as_its_default() {
    for v in 1..=12 {
        let content = |ban: Json| {
            let mut content =
                json!({ "users": { BOB: 40 }, "events": { "m.room.power_levels": 40 } });
            if !ban.is_null() {
                content["ban"] = ban;
            }
            content
        };
        let denied = Deny("`ban`: 50 is above your power, 40");
        let table = [
            ("added", levels(BOB, content(json!(30))), denied),
            ("added, the default itself", levels(BOB, content(json!(50))), denied),
        ];
        room(v).levels(content(json!(null))).table(&table);
        let table = [("removed", levels(BOB, content(json!(null))), denied)];
        room(v).levels(content(json!(30))).table(&table);
    }
}

#[test]
fn changes_of_events_and_notifications() {
    let cases = [
        ("{}", r#"{"x":50}"#, true),
        ("{}", r#"{"x":51}"#, false),
        (r#"{"x":50}"#, "{}", true),
        (r#"{"x":51}"#, "{}", false),
        (r#"{"x":51}"#, r#"{"x":51}"#, true),
        (r#"{"x":51}"#, r#"{"x":50}"#, false),
        (r#"{"x":50}"#, r#"{"x":51}"#, false),
        (r#"{"x":1,"y":60}"#, r#"{"x":2,"y":60}"#, true),
        (r#"{"x":1,"y":60}"#, r#"{"a":2,"y":61}"#, false),
        ("null", r#"{"x":1}"#, true),
        (r#"{"x":51}"#, "null", false),
    ];
    for v in 1..=12 {
        for field in ["events", "notifications"] {
            for (old, new, enough) in cases {
                let content = |map: &str| {
                    let mut content = json!({ "users": { BOB: 50 }, "state_default": 50 });
                    let map: Json = serde_json::from_str(map).unwrap();
                    if !map.is_null() {
                        content[field] = map;
                    }
                    content
                };
                let unchecked = field == "notifications" && v < 6;
                let expected =
                    if enough || unchecked { Allow } else { Deny("above your power, 50") };
                let what = format!("{field} from {old} to {new}");
                let room = room(v).levels(content(old));
                room.table(&[(&what, levels(BOB, content(new)), expected)]);
            }
        }
    }
}

#[test]
fn changes_of_users() {
    let peer = Deny("cannot change the power of @carol:c.org");
    let high = Deny("is above your power, 50");
    let cases = [
        (json!({}), json!({ CAROL: 50 }), Allow),
        (json!({}), json!({ CAROL: 51 }), high),
        (json!({ CAROL: 49 }), json!({}), Allow),
        (json!({ CAROL: 49 }), json!({ CAROL: 50 }), Allow),
        (json!({ CAROL: 49 }), json!({ CAROL: 51 }), high),
        (json!({ CAROL: 50 }), json!({ CAROL: 49 }), peer),
        (json!({ CAROL: 50 }), json!({}), peer),
        (json!({ CAROL: 50 }), json!({ CAROL: 50 }), Allow),
        (json!({ CAROL: 90 }), json!({ CAROL: 90, DAVE: 10 }), Allow),
        (json!({ CAROL: 90 }), json!({ CAROL: 10 }), peer),
        (json!({ CAROL: -1 }), json!({ CAROL: -2 }), Allow),
    ];
    for v in 1..=12 {
        for (old, new, expected) in &cases {
            let content = |users: &Json, bob: Json| {
                let mut users = users.clone();
                if !bob.is_null() {
                    users[BOB] = bob;
                }
                json!({ "users": users })
            };
            let what = format!("users from {old} to {new}");
            let room = room(v).levels(content(old, json!(50)));
            room.table(&[(&what, levels(BOB, content(new, json!(50))), *expected)]);
            // One's own level can go down, or away, but not up.
            let raised = if matches!(expected, Allow) { high } else { Deny("you cannot change") };
            room.table(&[
                ("down as well", levels(BOB, content(new, json!(1))), *expected),
                ("away as well", levels(BOB, content(new, json!(null))), *expected),
                ("up as well", levels(BOB, content(new, json!(51))), raised),
            ]);
        }
    }
}

#[test]
fn malformed_changes() {
    for v in 1..=12 {
        let room = room(v).levels(json!({ "users": { ALICE: 100 } }));
        let old_only = |part, first: u8| Deny(part).since(first, v, Allow);
        room.table(&[
            ("field", levels(ALICE, json!({ "ban": {} })), Deny("`ban` is not an integer")),
            ("event", levels(ALICE, json!({ "events": { "a": "" } })), Deny("`events.a` is not")),
            (
                "events",
                levels(ALICE, json!({ "events": [] })),
                Deny("`events` in the power levels"),
            ),
            (
                "notifications",
                levels(ALICE, json!({ "notifications": [] })),
                old_only("`notifications` in the power levels", 6),
            ),
        ]);
    }
}

#[test]
fn text_and_numbers_mean_the_same_level() {
    for v in 1..=9 {
        let old = json!({ "ban": "060", "users": { BOB: " +50 " }, "events": { "x": "60" } });
        let new = json!({ "ban": 60, "users": { BOB: 50 }, "events": { "x": 60 } });
        let room = room(v).levels(old);
        room.table(&[("rewritten", levels(BOB, new), Allow)]);
    }
}

#[test]
fn creators_of_version_12_change_everything() {
    let room = room(12).levels(json!({
        "ban": 1000, "users": { BOB: 1000 }, "events": { "m.room.power_levels": 9_000_000 },
    }));
    let new = json!({ "ban": 2000, "users": { CAROL: 9_007_199_254_740_991_i64 } });
    room.table(&[("creator", levels(ALICE, new), Allow)]);
}
