//! Invites with `third_party_invite`.

use ed25519_dalek::{Signer, SigningKey};
use parlour_event::json;
use ruma::serde::Base64;
use serde_json::json;

use crate::support::*;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn public(seed: u8) -> String {
    Base64::<ruma::serde::base64::Standard, _>::new(key(seed).verifying_key().to_bytes()).encode()
}

/// `signed` with a signature by the key of this seed.
pub(crate) fn signed(mxid: &str, token: &str, seed: u8) -> Json {
    let mut signed = json!({ "mxid": mxid, "token": token });
    let message = json::to_canonical(&signed.clone().into());
    let signature = key(seed).sign(&message).to_bytes();
    let signature = Base64::<ruma::serde::base64::Standard, _>::new(signature).encode();
    signed["signatures"] = json!({ "id.org": { "ed25519:0": signature } });
    signed
}

fn invite(sender: &str, third_party_invite: Json) -> Draft {
    let content = json!({ "membership": "invite", "third_party_invite": third_party_invite });
    state(sender, "m.room.member", BOB, content)
}

fn room(v: u8, keys: Json) -> Room {
    Room::joined(v).with(state(ALICE, "m.room.third_party_invite", "tok", keys))
}

#[test]
fn the_format_of_the_invite() {
    for v in 1..=12 {
        let good = signed(BOB, "tok", 1);
        let without = |field: &str| {
            let mut signed = good.clone();
            signed.as_object_mut().unwrap().remove(field);
            json!({ "signed": signed })
        };
        let room = room(v, json!({ "public_key": public(1) }));
        room.table(&[
            ("good", invite(ALICE, json!({ "signed": good })), Allow),
            ("null", invite(ALICE, json!(null)), Deny("lacks `signed`")),
            ("text", invite(ALICE, json!("x")), Deny("lacks `signed`")),
            ("empty", invite(ALICE, json!({})), Deny("lacks `signed`")),
            ("signed number", invite(ALICE, json!({ "signed": 1 })), Deny("lacks `signed`")),
            ("no mxid", invite(ALICE, without("mxid")), Deny("lacks `signed.mxid`")),
            ("no token", invite(ALICE, without("token")), Deny("lacks `signed.token`")),
            ("no signatures", invite(ALICE, without("signatures")), Deny("no signature")),
            (
                "other user",
                invite(ALICE, json!({ "signed": signed(CAROL, "tok", 1) })),
                Deny("for another user"),
            ),
            (
                "other token",
                invite(ALICE, json!({ "signed": signed(BOB, "other", 1) })),
                Deny("no third-party invite with this token"),
            ),
            ("other sender", invite(CAROL, json!({ "signed": good })), Deny("by someone else")),
        ]);
        let banned = room.member(BOB, "ban");
        banned.table(&[("banned", invite(ALICE, json!({ "signed": good })), Deny("is banned"))]);
    }
}

#[test]
fn who_sent_it_need_not_be_in_the_room_any_more() {
    for v in 1..=12 {
        let room = room(v, json!({ "public_key": public(1) })).member(ALICE, "leave");
        let good = invite(ALICE, json!({ "signed": signed(BOB, "tok", 1) }));
        room.table(&[("sender left", good, Allow)]);
    }
}

#[test]
fn signatures_and_keys() {
    let url_safe = public(1).replace('+', "-").replace('/', "_");
    let list = |seeds: &[u8]| -> Json {
        seeds.iter().map(|&seed| json!({ "public_key": public(seed) })).collect()
    };
    let good = signed(BOB, "tok", 1);
    let mut two = good.clone();
    two["signatures"]["other.org"] = signed(BOB, "tok", 9)["signatures"]["id.org"].clone();
    let mut odd_algorithm = good.clone();
    let signature = good["signatures"]["id.org"]["ed25519:0"].clone();
    odd_algorithm["signatures"] = json!({ "id.org": { "rsa:0": signature } });
    let mut changed = good.clone();
    changed["extra"] = json!("x");
    let mut unsigned = good.clone();
    unsigned["unsigned"] = json!({ "x": 1 });
    let mut noise = good.clone();
    noise["signatures"]["a"] = json!("text");
    noise["signatures"]["b"] = json!({ "ed25519:1": 5, "ed25519:2": "!", "ed25519:3": "AAAA" });
    let no = Deny("no signature of the third-party invite");
    for v in [1, 6, 12] {
        for (what, keys, signed, verdict) in [
            ("one key", json!({ "public_key": public(1) }), &good, Allow),
            ("URL-safe key", json!({ "public_key": url_safe }), &good, Allow),
            ("other key", json!({ "public_key": public(2) }), &good, no),
            ("list", json!({ "public_keys": list(&[2, 1]) }), &good, Allow),
            ("both", json!({ "public_key": public(2), "public_keys": list(&[1]) }), &good, Allow),
            ("list without it", json!({ "public_keys": list(&[2, 3]) }), &good, no),
            ("no keys", json!({}), &good, no),
            ("malformed keys", json!({ "public_key": 1, "public_keys": [1, {}] }), &good, no),
            ("short key", json!({ "public_key": "AAAA" }), &good, no),
            ("any of two signatures", json!({ "public_key": public(1) }), &two, Allow),
            ("unknown algorithm", json!({ "public_key": public(1) }), &odd_algorithm, no),
            ("changed after signing", json!({ "public_key": public(1) }), &changed, no),
            ("unsigned is not covered", json!({ "public_key": public(1) }), &unsigned, Allow),
            ("noise around it", json!({ "public_key": public(1) }), &noise, Allow),
        ] {
            room(v, keys).table(&[(what, invite(ALICE, json!({ "signed": signed })), verdict)]);
        }
    }
}

#[test]
fn the_number_of_verifications_is_limited() {
    let keys: Vec<Json> = (2..=66).map(|seed| json!({ "public_key": public(seed) })).collect();
    let mut signed = signed(BOB, "tok", 1);
    for number in 0..400 {
        let other = key(200).sign(format!("{number}").as_bytes()).to_bytes();
        let other = Base64::<ruma::serde::base64::Standard, _>::new(other).encode();
        signed["signatures"][format!("{number}.org")] = json!({ "ed25519:0": other });
    }
    let event = invite(ALICE, json!({ "signed": signed }));
    // 26,000 pairs would take seconds at best.
    let table = [("many signatures", event, Deny("no signature"))];
    room(10, json!({ "public_keys": keys })).table(&table);
}
