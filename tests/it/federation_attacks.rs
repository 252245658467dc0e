//! What a hostile server does beside single bad events: keys that have expired, rooms that it is not
//! in, histories without an end. Each attack ends, and a room that it does not concern goes on
//! meanwhile.

use std::sync::{Arc, Mutex};

use parlour_event::{
    RoomVersion,
    json::{Object, Value as Json, to_canonical_string},
    signing::{self, SigningKey},
};
use serde_json::{Value, json};

use crate::common::{
    Asked, Bystander, FakeServer, Origin, Server, Visitor, encode_key, parse, path,
};

/// The visitor as one who signs with another key, which is none of its server's any more.
fn with_old_key<'a>(visitor: &Visitor<'a>, old: &SigningKey) -> Visitor<'a> {
    let origin = Origin { key: old.clone(), ..visitor.origin.clone() };
    Visitor { origin, room: visitor.room.clone(), user: visitor.user.clone(), ..*visitor }
}

// Checklist 11.7, 11.11
#[test]
fn expired_keys_count_for_their_time_alone() {
    let near = Server::start_federated(&[]);
    let (alice, other) = (near.user("alice"), Bystander::of(&near));
    let old = SigningKey::from_seed(&[8; 32], "old").unwrap();
    let public = encode_key(&old);
    // Events bear the time 1_700_000_000_000.
    let far = FakeServer::start_with_keys(move |origin| {
        json!({
            "server_name": origin.name,
            "valid_until_ts": 4_000_000_000_000_u64,
            "verify_keys": { origin.key.key_id(): { "key": encode_key(&origin.key) } },
            "old_verify_keys": { "ed25519:old": { "key": public, "expired_ts": 1_690_000_000_000_u64 } },
        })
    });
    for version in ["4", "11"] {
        let visitor = Visitor::new(&near, &alice, &far.origin, version);
        let by_old = with_old_key(&visitor, &old);
        let draft = |text: &str, time: u64| {
            let content = json!({ "msgtype": "m.text", "body": text });
            let mut draft = visitor.draft("m.room.message", None, content, &[&visitor.newest()]);
            draft.extend(parse(&json!({ "origin_server_ts": time })));
            draft
        };
        visitor.accepted(&[by_old.sign(draft("in time", 1_680_000_000_000))]);
        let late = by_old.sign(draft("late", 1_700_000_000_000));
        visitor.refused(&late, "no signature");
        // Requests are signed now.
        by_old.transact(&[], &[]).refused(401, "M_UNAUTHORIZED");
        assert_eq!(visitor.said(), ["in time"], "version {version}");
        other.is_served();
    }
    // A server whose document itself is out of date says nothing about today.
    let past = FakeServer::start_with_keys(|origin| {
        json!({
            "server_name": origin.name,
            "valid_until_ts": 1_690_000_000_000_u64,
            "verify_keys": { origin.key.key_id(): { "key": encode_key(&origin.key) } },
            "old_verify_keys": {},
        })
    });
    let at = "/_matrix/federation/v1/version";
    let answer = past.origin.send(&near, "GET", "/_matrix/federation/v1/publicRooms", b"");
    answer.refused(401, "M_UNAUTHORIZED");
    near.http.get(at).ok();
    other.is_served();
}

// Checklist 13.1, 13.2
#[test]
fn who_is_not_in_the_room_says_nothing_there() {
    let near = Server::start_federated(&[]);
    let [far, strange] = [(); 2].map(|()| FakeServer::start(|_| |_: &_| None));
    let (alice, other) = (near.user("alice"), Bystander::of(&near));
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let stranger = Visitor {
        near: &near,
        host: &alice,
        room: visitor.room.clone(),
        version: visitor.version,
        origin: strange.origin.clone(),
        user: format!("@stranger:{}", strange.name()),
    };
    let message = stranger.message("here I am", &[&visitor.newest()]);
    stranger.refused(&message, "rules");
    // Nor when it is brought by somebody who is there.
    visitor.refused(&stranger.message("and again", &[&visitor.newest()]), "rules");
    // State and memberships of others are not the stranger's either.
    let topic =
        stranger.draft("m.room.topic", Some(""), json!({ "topic": "x" }), &[&visitor.newest()]);
    stranger.refused(&stranger.sign(topic), "rules");
    let kick = json!({ "membership": "leave" });
    let kick = stranger.draft("m.room.member", Some(&visitor.user), kick, &[&visitor.newest()]);
    stranger.refused(&stranger.sign(kick), "rules");
    // What is said of its presence there neither.
    let typing = json!({ "edu_type": "m.typing", "content": { "typing": true,
        "room_id": visitor.room, "user_id": stranger.user } });
    stranger.transact(&[], &[typing]).ok();
    assert!(visitor.said().is_empty());
    other.is_served();
    // Nor does it read there.
    let at = "/_matrix/federation/v1/state_ids/{}?event_id={}";
    let at = path(at, &[&visitor.room, &visitor.newest()]);
    strange.origin.get(&near, &at).refused(403, "M_FORBIDDEN");
}

/// Makes up events as they are asked for: each follows another one that nobody knows, and is allowed
/// by two such.
#[derive(Default)]
struct Endless(Mutex<Option<(Object, &'static RoomVersion, Origin)>>);

impl Endless {
    /// Event ids of this room version are whatever a server says: `$` and a number.
    fn event(&self, number: u64) -> Option<Object> {
        let known = self.0.lock().unwrap();
        let (draft, version, origin) = known.as_ref()?;
        let id = |number: u64| format!("${number}:{}", origin.name);
        let reference = |number: u64| json!([id(number), { "sha256": "" }]);
        let mut event = draft.clone();
        event.extend(parse(&json!({
            "event_id": id(number),
            "prev_events": [reference(number + 1)],
            "auth_events": [reference(2 * number + 1_000_001), reference(2 * number + 1_000_002)],
        })));
        signing::hash_and_sign_event(version, &mut event, &origin.name, &origin.key);
        Some(event)
    }

    fn answer(&self, asked: &Asked) -> Option<(u16, Vec<u8>)> {
        let number = |id: &str| id.strip_prefix('$')?.split(':').next()?.parse::<u64>().ok();
        let list = |numbers: &mut dyn Iterator<Item = u64>| -> Option<String> {
            let events = numbers.map(|number| self.event(number)).collect::<Option<Vec<_>>>()?;
            let texts = events.into_iter().map(|event| to_canonical_string(&Json::Object(event)));
            Some(texts.collect::<Vec<_>>().join(","))
        };
        let body = if asked.is("v1/get_missing_events/") {
            let latest = number(asked.body["latest_events"][0].as_str()?)?;
            format!(r#"{{"events":[{}]}}"#, list(&mut (latest + 1..latest + 21).rev())?)
        } else if asked.is("v1/event_auth/") {
            let first = 2 * number(&asked.part(6))? + 1_000_001;
            format!(r#"{{"auth_chain":[{}]}}"#, list(&mut (first..first + 40))?)
        } else if asked.is("v1/event/") {
            let event = list(&mut std::iter::once(number(&asked.part(5))?))?;
            format!(r#"{{"origin":"x","origin_server_ts":1,"pdus":[{event}]}}"#)
        } else {
            return None;
        };
        Some((200, body.into_bytes()))
    }
}

// Checklist 13.10, 13.12
#[test]
fn a_history_without_an_end_is_not_followed_for_ever() {
    let near = Server::start_federated(&[]);
    let endless = Arc::<Endless>::default();
    let plays = endless.clone();
    let far = FakeServer::start(|_| move |asked: &Asked| plays.answer(asked));
    let (alice, other) = (near.user("alice"), Bystander::of(&near));
    let visitor = Visitor::new(&near, &alice, &far.origin, "1");
    let content = json!({ "msgtype": "m.text", "body": "endless" });
    let draft = visitor.draft("m.room.message", None, content, &[&visitor.newest()]);
    *endless.0.lock().unwrap() = Some((draft.clone(), visitor.version, far.origin.clone()));
    let name = far.name().to_owned();
    let odd = |kind: &str, prev: &str, auth: Option<&str>| {
        let mut event = draft.clone();
        let id = format!("${kind}:{name}");
        event.extend(parse(&json!({ "event_id": id, "prev_events": [[prev, { "sha256": "" }]] })));
        if let Some(auth) = auth {
            event.extend(parse(&json!({ "auth_events": [[auth, { "sha256": "" }]] })));
        }
        visitor.sign(event)
    };
    let first = format!("$1:{name}");
    for event in [
        // Its past has no end.
        odd("past", &first, None),
        // What allows it has none, and doubles with each step.
        odd("auth", &visitor.newest(), Some(&first)),
    ] {
        let before = far.asked().len();
        std::thread::scope(|scope| {
            scope.spawn(|| visitor.refused(&event, "not known"));
            (0..5).for_each(|_| other.is_served());
        });
        other.is_served();
        let asked = far.asked().len() - before;
        assert!(asked < 100, "{asked} questions");
    }
    assert!(visitor.said().is_empty());
    // The room itself goes on as well.
    visitor.accepted(&[visitor.message("and now", &[&visitor.newest()])]);
    assert_eq!(visitor.said(), ["and now"]);
}

/// All kinds of bad events at once, again and again.
#[test]
fn a_flood_of_rubbish_is_felt_by_nobody_else() {
    let near = Server::start_federated(&[]);
    let far = FakeServer::start(|_| |_: &_| None);
    let (alice, other) = (near.user("alice"), Bystander::of(&near));
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let good = visitor.message("good", &[&visitor.newest()]);
    let changed = |with: Value| {
        let mut event = good.clone();
        event.extend(parse(&with));
        event
    };
    let nowhere = format!("${}", "n".repeat(43));
    let rubbish = [
        changed(json!({ "signatures": {} })),
        changed(json!({ "content": { "body": "another hash" } })),
        changed(json!({ "room_id": "!nowhere:example.org" })),
        changed(json!({ "sender": alice.id })),
        changed(json!({ "type": 5 })),
        changed(json!({ "depth": -1 })),
        visitor.message("lost", &[&nowhere]),
        visitor.message(&"x".repeat(70_000), &[&visitor.newest()]),
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                let answer = visitor.transact(&rubbish, &[]).ok();
                let refused = answer.body["pdus"].as_object().unwrap().values();
                assert!(refused.filter(|result| result["error"].is_string()).count() >= 5);
            }
        });
        (0..20).for_each(|_| other.is_served());
    });
    // With its right content it is known already, as a redaction left it.
    visitor.accepted(&[good]);
    assert_eq!(visitor.said(), ["(none)"]);
    other.is_served();
}
