//! The rule on `m.room.member`, except third-party invites.

use serde_json::json;

use crate::support::*;

const MEMBERSHIPS: [&str; 6] = ["", "join", "invite", "leave", "ban", "knock"];

/// The room with this user in it; `""` for none.
fn given(room: Room, user: &str, membership: &str) -> Room {
    if membership.is_empty() { room } else { room.member(user, membership) }
}

#[test]
fn format() {
    for v in 1..=12 {
        let odd = |content: Json| state(ALICE, "m.room.member", ALICE, content);
        Room::joined(v).table(&[
            ("no state key", message(ALICE, "m.room.member", json!({})), Deny("must be a user ID")),
            ("state key is no user", member(ALICE, "x", "ban"), Deny("must be a user ID")),
            ("no membership", odd(json!({})), Deny("has no `membership`")),
            ("membership number", odd(json!({ "membership": 1 })), Deny("has no `membership`")),
            ("membership null", odd(json!({ "membership": null })), Deny("has no `membership`")),
            ("unknown", odd(json!({ "membership": "dance" })), Deny("`dance` is unknown")),
            ("case matters", odd(json!({ "membership": "Join" })), Deny("`Join` is unknown")),
            (
                "knock",
                odd(json!({ "membership": "knock" })),
                Deny("cannot knock").since(7, v, Deny("`knock` is unknown")),
            ),
        ]);
    }
}

#[test]
fn the_creators_first_join() {
    for v in 1..=12 {
        let first = |user| member(user, user, "join").after(&["$create"]);
        let rule = "not invited";
        Room::new(v).table(&[
            ("creator", first(ALICE), Allow),
            ("someone else", first(BOB), Deny(rule)),
            ("later", member(ALICE, ALICE, "join"), Deny(rule)),
            ("two", member(ALICE, ALICE, "join").after(&["$create", "$b"]), Deny(rule)),
            ("none", member(ALICE, ALICE, "join").after(&[]), Deny(rule)),
        ]);
        let content = json!({ "creator": BOB, "additional_creators": [CAROL] });
        let room = Room::created(v, state(ALICE, "m.room.create", "", content));
        // Before version 11 the creator is the one whom the content names.
        room.table(&[
            ("sender of create", first(ALICE), Allow.since(11, v, Deny(rule))),
            ("creator in content", first(BOB), Deny(rule).since(11, v, Allow)),
            ("additional creator", first(CAROL), Deny(rule)),
        ]);
    }
}

#[test]
fn join_by_rule_and_membership() {
    for v in 1..=12 {
        for rule in ["public", "invite", "knock", "restricted", "knock_restricted", "private", "x"]
        {
            let known = match rule {
                "knock" => v >= 7,
                "restricted" => v >= 8,
                "knock_restricted" => v >= 10,
                _ => true,
            };
            for now in MEMBERSHIPS {
                let room = given(Room::joined(v).join_rule(rule), BOB, now);
                let expected = match (rule, now) {
                    (_, "ban") => Deny("banned from this room"),
                    ("public", _) => Allow,
                    ("private" | "x", _) => Deny("nobody can join"),
                    _ if !known => Deny("nobody can join"),
                    (_, "join" | "invite") => Allow,
                    ("restricted" | "knock_restricted", _) => Deny("consent of a member's server"),
                    _ => Deny("not invited"),
                };
                let what = format!("join from `{now}` under {rule}");
                room.table(&[
                    (&what, member(BOB, BOB, "join"), expected),
                    ("for another", member(ALICE, BOB, "join"), Deny("join only for yourself")),
                ]);
            }
        }
    }
}

#[test]
fn join_rules_that_are_missing_or_malformed() {
    for v in 1..=12 {
        let rules = |content: Json| {
            let room = Room::joined(v).member(BOB, "invite");
            room.with(state(ALICE, "m.room.join_rules", "", content))
        };
        let join = [BOB, CAROL].map(|user| member(user, user, "join"));
        for room in [Room::joined(v).member(BOB, "invite"), rules(json!({}))] {
            room.table(&[
                ("invited", join[0].clone(), Allow),
                ("not invited", join[1].clone(), Deny("not invited")),
            ]);
        }
        for odd in [json!(null), json!(["public"]), json!(1)] {
            let room = rules(json!({ "join_rule": odd }));
            room.table(&[("malformed rule", join[0].clone(), Deny("nobody can join"))]);
        }
    }
}

#[test]
fn restricted_joins() {
    for v in 8..=12 {
        for rule in ["restricted", "knock_restricted"] {
            if rule == "knock_restricted" && v < 10 {
                continue;
            }
            let room = Room::joined(v)
                .member(BOB, "join")
                .member(CAROL, "leave")
                .levels(json!({ "invite": 30, "users": { BOB: 29, CAROL: 100 } }))
                .join_rule(rule);
            let via = |user: Json| {
                let content =
                    json!({ "membership": "join", "join_authorised_via_users_server": user });
                state(DAVE, "m.room.member", DAVE, content)
            };
            let alice = Allow.since(12, v, Deny("needs power 30 to invite users, and has 0"));
            room.table(&[
                ("creator, who is in version 12 above all levels", via(json!(ALICE)), alice),
                ("too little power", via(json!(BOB)), Deny("power 30 to invite users, and has 29")),
                ("not joined", via(json!(CAROL)), Deny("consent of a member's server")),
                ("never joined", via(json!("@eve:e.org")), Deny("consent of a member's server")),
                ("no user id", via(json!("eve")), Deny("is not a user ID")),
                ("null", via(json!(null)), Deny("is not a user ID")),
                ("number", via(json!(1)), Deny("is not a user ID")),
            ]);
            let enough = room.levels(json!({ "invite": 30, "users": { BOB: 30 } }));
            enough.table(&[("enough power", via(json!(BOB)), Allow)]);
        }
    }
}

#[test]
fn the_authorising_user_counts_only_where_rooms_can_be_restricted() {
    for v in 1..=12 {
        let content = |membership: &str, user: Json| json!({ "membership": membership, "join_authorised_via_users_server": user });
        let odd = Deny("is not a user ID").since(8, v, Allow);
        Room::joined(v).join_rule("public").table(&[
            ("valid", state(BOB, "m.room.member", BOB, content("join", json!(CAROL))), Allow),
            ("malformed", state(BOB, "m.room.member", BOB, content("join", json!(5))), odd),
            ("on leave", state(ALICE, "m.room.member", ALICE, content("leave", json!("x"))), odd),
        ]);
        let invite = Room::joined(v).join_rule("invite");
        let event = state(BOB, "m.room.member", BOB, content("join", json!(ALICE)));
        invite.table(&[("under invite", event, Deny("not invited"))]);
    }
}

#[test]
fn invites() {
    for v in 1..=12 {
        for now in MEMBERSHIPS {
            let room = given(Room::joined(v), CAROL, now);
            let expected = match now {
                "join" => Deny("@carol:c.org is already in the room"),
                "ban" => Deny("@carol:c.org is banned"),
                _ => Allow,
            };
            room.table(&[(&format!("invite `{now}`"), member(ALICE, CAROL, "invite"), expected)]);
            let outside = given(Room::joined(v), BOB, now);
            let expected = if now == "join" { Allow } else { Deny("you are not in this room") };
            outside.table(&[(
                &format!("invite by `{now}`"),
                member(BOB, CAROL, "invite"),
                expected,
            )]);
        }
        let room = Room::joined(v).member(BOB, "join").levels(json!({ "invite": 1 }));
        room.table(&[(
            "too little power",
            member(BOB, CAROL, "invite"),
            Deny("you need power 1 to invite users, you have 0"),
        )]);
    }
}

#[test]
fn leaving() {
    for v in 1..=12 {
        for now in MEMBERSHIPS {
            let expected = match now {
                "join" | "invite" => Allow,
                "knock" => Allow.since(7, v, Deny("cannot leave")),
                _ => Deny("cannot leave"),
            };
            given(Room::joined(v), BOB, now).table(&[(now, member(BOB, BOB, "leave"), expected)]);
        }
    }
}

#[test]
fn kicks_and_unbans() {
    for v in 1..=12 {
        let room = |target: &str, bob: i64| {
            given(Room::joined(v).member(BOB, "join"), CAROL, target)
                .levels(json!({ "kick": 30, "ban": 40, "users": { BOB: bob, CAROL: 35 } }))
        };
        let kick = || member(BOB, CAROL, "leave");
        for target in MEMBERSHIPS {
            let ban = target == "ban";
            let low = if ban { "power 40 to unban" } else { "power 30 to kick users, you have 29" };
            room(target, 29).table(&[("too little power", kick(), Deny(low))]);
            let peer =
                if ban { "power 40 to unban" } else { "their power, 35, is not below yours" };
            room(target, 35).table(&[("as much power", kick(), Deny(peer))]);
            let more = if ban { Deny("power 40 to unban") } else { Allow };
            room(target, 36).table(&[("more power", kick(), more)]);
            room(target, 40).table(&[("enough to unban", kick(), Allow)]);
        }
        // To unban needs both levels.
        let both = room("ban", 45).levels(json!({ "kick": 60, "ban": 40, "users": { BOB: 45 } }));
        both.table(&[("ban but not kick", kick(), Deny("power 60 to unban"))]);
        let outside = Room::joined(v).member(BOB, "invite").member(CAROL, "join");
        outside.table(&[("not joined", kick(), Deny("you are not in this room"))]);
    }
}

#[test]
fn bans() {
    for v in 1..=12 {
        for target in MEMBERSHIPS {
            let room = |bob: i64| {
                given(Room::joined(v).member(BOB, "join"), CAROL, target)
                    .levels(json!({ "ban": 40, "users": { BOB: bob, CAROL: 45 } }))
            };
            let ban = || member(BOB, CAROL, "ban");
            room(39).table(&[(
                "too little power",
                ban(),
                Deny("power 40 to ban users, you have 39"),
            )]);
            room(45).table(&[(
                "as much power",
                ban(),
                Deny("cannot ban @carol:c.org: their power"),
            )]);
            room(46).table(&[
                ("more power", ban(), Allow),
                ("stranger", member(BOB, DAVE, "ban"), Allow),
            ]);
        }
        let outside = Room::joined(v).member(BOB, "leave");
        outside.table(&[(
            "not joined",
            member(BOB, CAROL, "ban"),
            Deny("you are not in this room"),
        )]);
    }
}

#[test]
fn creators_of_version_12_stand_above_each_other() {
    for v in 1..=12 {
        let content = json!({ "creator": ALICE, "additional_creators": [BOB] });
        let room = Room::created(v, state(ALICE, "m.room.create", "", content))
            .member(ALICE, "join")
            .member(BOB, "join")
            .member(CAROL, "join")
            .levels(json!({ "users": { CAROL: 100 } }));
        let weak = Deny("you need power 50 to ban users, you have 0");
        room.table(&[
            ("creator bans admin", member(ALICE, CAROL, "ban"), Allow.since(12, v, weak)),
            ("additional creator", member(BOB, CAROL, "ban"), Allow.since(12, v, weak)),
            (
                "creator bans creator",
                member(BOB, ALICE, "ban"),
                Deny("their power, infinite power, is not below").since(12, v, weak),
            ),
            (
                "admin bans creator",
                member(CAROL, ALICE, "ban"),
                Deny("their power, infinite power, is not below").since(12, v, Allow),
            ),
        ]);
    }
}

#[test]
fn knocks() {
    for v in 7..=12 {
        for rule in ["public", "invite", "knock", "restricted", "knock_restricted", "private"] {
            for now in MEMBERSHIPS {
                let room = given(Room::joined(v).join_rule(rule), BOB, now);
                let expected = match (rule, now) {
                    ("knock_restricted", _) if v < 10 => Deny("cannot knock on this room"),
                    ("knock" | "knock_restricted", "ban" | "invite" | "join") => {
                        Deny("cannot knock while your membership is")
                    }
                    ("knock" | "knock_restricted", _) => Allow,
                    _ => Deny("cannot knock on this room"),
                };
                room.table(&[(
                    &format!("{now} under {rule}"),
                    member(BOB, BOB, "knock"),
                    expected,
                )]);
            }
        }
        let room = Room::joined(v).join_rule("knock");
        room.table(&[("other", member(ALICE, BOB, "knock"), Deny("knock only for yourself"))]);
    }
}

#[test]
fn a_state_with_a_malformed_membership_allows_nothing() {
    for v in 1..=12 {
        let odd = state(BOB, "m.room.member", BOB, json!({ "membership": 5 }));
        let room = Room::joined(v).join_rule("public").with(odd);
        room.table(&[
            ("join", member(BOB, BOB, "join"), Deny("is malformed")),
            ("message", message(BOB, "m.room.message", json!({})), Deny("is malformed")),
        ]);
    }
}
