//! Which events are an event's auth events, and the rule on its own list.

use std::sync::Arc;

use parlour_event::{Pdu, auth};
use serde_json::json;

use crate::support::*;

fn selected(v: u8, draft: &Draft) -> Vec<String> {
    let event = draft.build(version(v), "$event");
    auth::auth_types(
        version(v),
        event.event_type(),
        event.sender(),
        event.state_key(),
        event.content(),
    )
    .into_iter()
    .map(|(event_type, key)| format!("{} {key}", event_type.trim_start_matches("m.room.")))
    .collect()
}

#[test]
fn selection() {
    let with = |target: &str, content: Json| state(ALICE, "m.room.member", target, content);
    let via = |membership, user: Json| {
        with(ALICE, json!({ "membership": membership, "join_authorised_via_users_server": user }))
    };
    let third = |membership, token: Json| {
        let signed = json!({ "signed": { "token": token } });
        with(BOB, json!({ "membership": membership, "third_party_invite": signed }))
    };
    for v in 1..=12 {
        // `$` stands for what every event selects.
        let cases = [
            ("message", message(ALICE, "m.room.message", json!({})), "$"),
            ("state", state(ALICE, "m.room.name", "", json!({})), "$"),
            ("own join", member(ALICE, ALICE, "join"), "$, join_rules "),
            ("knock", member(ALICE, ALICE, "knock"), "$, join_rules "),
            ("own leave", member(ALICE, ALICE, "leave"), "$"),
            ("kick", member(ALICE, BOB, "leave"), "$, member @bob:a.org"),
            ("ban", member(ALICE, BOB, "ban"), "$, member @bob:a.org"),
            ("invite", member(ALICE, BOB, "invite"), "$, member @bob:a.org, join_rules "),
            (
                "third party",
                third("invite", json!("tok")),
                "$, member @bob:a.org, join_rules , third_party_invite tok",
            ),
            ("token is no text", third("invite", json!(1)), "$, member @bob:a.org, join_rules "),
            ("third party, ban", third("ban", json!("tok")), "$, member @bob:a.org"),
            ("via self", via("join", json!(ALICE)), "$, join_rules "),
            ("via, leave", via("leave", json!(CAROL)), "$"),
            ("via no user", via("join", json!("x")), "$, join_rules "),
            ("no membership", with(BOB, json!({})), "$, member @bob:a.org"),
            ("no state key", message(ALICE, "m.room.member", json!({})), "$"),
        ];
        let create = if v < 12 { "create , " } else { "" };
        let always = format!("{create}power_levels , member @alice:a.org");
        for (what, draft, expected) in cases {
            let expected = expected.replace('$', &always);
            assert_eq!(selected(v, &draft).join(", "), expected, "version {v}: {what}");
        }
        let via = selected(v, &via("join", json!(CAROL))).join(", ");
        let restricted = if v < 8 { "" } else { ", member @carol:c.org" };
        assert_eq!(via, format!("{always}, join_rules {restricted}"), "version {v}");
        let create = state(ALICE, "m.room.create", "", json!({})).after(&[]);
        assert_eq!(selected(v, &create), Vec::<String>::new());
    }
}

#[test]
fn the_events_own_list() {
    for v in 1..=12 {
        let room = Room::joined(v).member(BOB, "join").levels(json!({})).join_rule("public");
        let of = |event_type: &str, key: &str| {
            let key = (format!("m.room.{event_type}"), key.to_owned());
            (room.state[&key].clone(), false)
        };
        let create = of("create", "");
        let elsewhere = |draft: Draft| {
            let pdu: Arc<Pdu> = draft.build_in(room.version, "$x", "!other:a.org").into();
            (pdu, false)
        };
        let base = if v < 12 { vec![create.clone()] } else { Vec::new() };
        let list = |more: &[(Arc<Pdu>, bool)]| [base.clone(), more.to_vec()].concat();
        let alice = of("member", ALICE);
        let no_key: Arc<Pdu> =
            message(BOB, "m.room.member", json!({})).build(room.version, "$n").into();
        let cases = [
            ("whole", list(&[of("power_levels", ""), alice.clone()]), Allow),
            ("part", list(std::slice::from_ref(&alice)), Allow),
            ("least", base.clone(), Allow),
            (
                "twice the same",
                list(&[alice.clone(), alice.clone()]),
                Deny("two of the auth events"),
            ),
            ("beyond the selection", list(&[of("join_rules", "")]), Deny("must not be among")),
            ("other member", list(&[of("member", BOB)]), Deny("must not be among")),
            ("no state key", list(&[(no_key, false)]), Deny("must not be among")),
            ("rejected", list(&[(alice.0.clone(), true)]), Deny("was rejected")),
            ("other room", list(&[elsewhere(member(ALICE, ALICE, "join"))]), Deny("another room")),
            ("no create", vec![alice.clone()], Allow.since(12, v, Deny("lack the event that"))),
            ("nothing", vec![], Allow.since(12, v, Deny("lack the event that created"))),
            ("create", vec![create], Deny("must not be among").since(12, v, Allow)),
        ];
        let event = message(ALICE, "m.room.message", json!({})).build(room.version, "$event");
        for (what, auth_events, verdict) in cases {
            let result = auth::check_auth_events(room.version, &event, &auth_events);
            verdict.assert(&result, &format!("version {v}: {what}"));
        }
    }
}
