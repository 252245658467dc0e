//! What servers read of rooms that they are in.

use std::collections::BTreeSet;

use parlour_event::{Pdu, RoomVersion, json as strict};
use serde_json::{Value, json};

use super::{get, join, post};
use crate::common::{Answer, Origin, Server, User, Visitor, path};

/// A room of Alice's on one server, in which Bob of another one is.
struct Shared {
    near: Server,
    far: Server,
    alice: User,
    bob: User,
    room: String,
    /// Before Bob came.
    before: Vec<String>,
    /// Since.
    after: Vec<String>,
}

impl Shared {
    fn new(body: Value, far: Server) -> Self {
        let near = Server::start_federated(&[]);
        let (alice, bob) = (near.user("alice"), far.user("bob"));
        let room = alice.create_room(body).room_id();
        let say = |text: &str, n: usize| alice.say(&room, &format!("{text} {n}")).event_id();
        let before = (0..10).map(|n| say("before", n)).collect();
        join(&bob, &room, &near).ok();
        let after = (0..10).map(|n| say("after", n)).collect();
        Self { before, after, near, far, alice, bob, room }
    }

    fn public() -> Self {
        let body = json!({ "preset": "public_chat", "room_version": "11" });
        Self::new(body, Server::start_federated(&[]))
    }

    fn origin(&self) -> Origin {
        self.far.origin()
    }

    /// All endpoints that read this room.
    fn endpoints(&self) -> Vec<(&'static str, String)> {
        let (room, event) = (&self.room, &self.after[0]);
        let at = |template: &str, values: &[&str]| {
            path(&format!("/_matrix/federation/v1/{template}"), values)
        };
        vec![
            ("GET", at("event/{}", &[event])),
            ("GET", at("event_auth/{}/{}", &[room, event])),
            ("GET", at("state/{}?event_id={}", &[room, event])),
            ("GET", at("state_ids/{}?event_id={}", &[room, event])),
            ("GET", at("backfill/{}?limit=5&v={}", &[room, event])),
            ("GET", at("timestamp_to_event/{}?ts=1&dir=f", &[room])),
            ("POST", at("get_missing_events/{}", &[room])),
        ]
    }

    #[track_caller]
    fn all(&self, origin: &Origin, check: impl Fn(Answer)) {
        let latest = json!({ "latest_events": [&self.after[0]], "earliest_events": [] });
        for (method, at) in self.endpoints() {
            let body = if method == "POST" { latest.to_string() } else { String::new() };
            check(origin.send(&self.near, method, &at, body.as_bytes()));
        }
    }
}

/// An event of a room of version 11, with its id.
fn pdu(event: &Value) -> Pdu {
    let version = RoomVersion::parse("11").unwrap();
    let json = strict::parse_object(version, event.to_string().as_bytes()).unwrap();
    Pdu::from_wire(version, json).unwrap()
}

fn ids(events: &Value) -> Vec<String> {
    let events = events.as_array().unwrap().iter();
    events.map(|event| pdu(event).event_id().to_string()).collect()
}

fn text_of(event: &Value) -> &Value {
    &event["content"]["body"]
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

// Checklist 13.12
#[test]
fn events_states_and_what_allows_them() {
    let shared = Shared::public();
    let (near, origin, room) = (&shared.near, shared.origin(), &shared.room);
    let event = get(&origin, near, "event/{}", &[&shared.before[3]]).ok();
    assert_eq!(event["origin"], near.name());
    assert_eq!(ids(&event["pdus"]), [&*shared.before[3]]);
    assert_eq!(text_of(&event["pdus"][0]), "before 3");
    assert_eq!(event["pdus"][0]["unsigned"], Value::Null);

    // The state is that before the event: the join is not part of it.
    let members = shared.alice.room(room, "members").ok();
    let is_bob = |event: &&Value| event["state_key"] == shared.bob.id;
    let joined = members["chunk"].as_array().unwrap().iter().find(is_bob).unwrap();
    let joined = joined["event_id"].as_str().unwrap();
    for (at, has_bob) in [(joined, false), (&shared.after[0], true)] {
        let state = get(&origin, near, "state/{}?event_id={}", &[room, at]).ok();
        let told = get(&origin, near, "state_ids/{}?event_id={}", &[room, at]).ok();
        let events = ids(&state["pdus"]);
        assert_eq!(events.iter().cloned().collect::<BTreeSet<_>>(), texts(&told["pdu_ids"]));
        assert_eq!(events.iter().any(|id| id == joined), has_bob);
        let types: Vec<_> = state["pdus"].as_array().unwrap().iter().map(|e| &e["type"]).collect();
        assert!(types.contains(&&json!("m.room.create")), "{types:?}");
        let chain: BTreeSet<_> = ids(&state["auth_chain"]).into_iter().collect();
        assert_eq!(chain, texts(&told["auth_chain_ids"]));
        // Every event of both is allowed by events of the chain.
        for event in
            state["pdus"].as_array().unwrap().iter().chain(state["auth_chain"].as_array().unwrap())
        {
            assert!(texts(&event["auth_events"]).is_subset(&chain));
        }
    }
    let chain = get(&origin, near, "event_auth/{}/{}", &[room, &shared.after[0]]).ok();
    let chain: BTreeSet<_> = ids(&chain["auth_chain"]).into_iter().collect();
    assert!(texts(&event["pdus"][0]["auth_events"]).is_subset(&chain));
    assert!(!chain.contains(&shared.after[0]));

    let other = shared.alice.public_room();
    let elsewhere = shared.alice.say(&other, "not for you").event_id();
    for id in [&*elsewhere, "$nothing"] {
        let values = &[room, id];
        get(&origin, near, "state/{}?event_id={}", values).refused(404, "M_NOT_FOUND");
        get(&origin, near, "state_ids/{}?event_id={}", values).refused(404, "M_NOT_FOUND");
        get(&origin, near, "event_auth/{}/{}", values).refused(404, "M_NOT_FOUND");
    }
    get(&origin, near, "event/{}", &["$nothing"]).refused(404, "M_NOT_FOUND");
    get(&origin, near, "event/{}", &[&elsewhere]).refused(403, "M_FORBIDDEN");
    get(&origin, near, "state/{}", &[room]).refused(400, "M_MISSING_PARAM");
    get(&origin, near, "state_ids/{}", &[room]).refused(400, "M_MISSING_PARAM");
    get(&origin, near, "state_ids/{}?event_id=x", &["nonsense"]).refused(400, "M_INVALID_PARAM");
}

#[test]
fn history_is_read_from_its_newer_end() {
    let shared = Shared::public();
    let (near, origin, room) = (&shared.near, shared.origin(), &shared.room);
    let last = shared.after.last().unwrap();
    let back =
        |v: &str, limit: &str| get(&origin, near, "backfill/{}?v={}&limit={}", &[room, v, limit]);
    let some = back(last, "4").ok();
    let mut expected = shared.after[6..].to_vec();
    expected.reverse();
    assert_eq!(ids(&some["pdus"]), expected);
    assert_eq!(some["origin"], near.name());
    let all = ids(&back(last, "1000").ok()["pdus"]);
    assert!(shared.before.iter().all(|id| all.contains(id)));
    let first = all.last().unwrap();
    let create = get(&origin, near, "event/{}", &[first]).ok();
    assert_eq!(create["pdus"][0]["type"], "m.room.create");
    let two = get(
        &origin,
        near,
        "backfill/{}?v={}&v={}&limit=3",
        &[room, &shared.after[5], &shared.after[2]],
    );
    let expected: Vec<_> = shared.after[3..6].iter().rev().cloned().collect();
    assert_eq!(ids(&two.ok()["pdus"]), expected);
    let other = shared.alice.public_room();
    let elsewhere = shared.alice.say(&other, "not for you").event_id();
    for unknown in [&*elsewhere, "$nothing"] {
        assert_eq!(back(unknown, "9").ok()["pdus"], json!([]));
    }
    back(last, "many").refused(400, "M_INVALID_PARAM");
    assert_eq!(get(&origin, near, "backfill/{}?limit=1", &[room]).status, 400);
    get(&origin, near, "backfill/{}?v={}", &[room, last]).refused(400, "M_MISSING_PARAM");

    let missing = |more: Value| {
        let mut body = json!({ "latest_events": [last], "earliest_events": [&shared.after[1]] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(&origin, near, "get_missing_events/{}", &[room], &body)
    };
    assert_eq!(ids(&missing(json!({})).ok()["events"]), shared.after[2..9], "oldest first");
    let nearest = missing(json!({ "limit": 2 })).ok();
    assert_eq!(ids(&nearest["events"]), shared.after[7..9]);
    let depth = get(&origin, near, "event/{}", &[last]).ok()["pdus"][0]["depth"].as_u64().unwrap();
    let shallow = missing(json!({ "min_depth": depth - 3 })).ok();
    assert_eq!(ids(&shallow["events"]), shared.after[6..9]);
    let all = missing(json!({ "limit": 1000, "earliest_events": [] })).ok();
    assert_eq!(all["events"].as_array().unwrap().len(), 20);
    let usual = missing(json!({ "earliest_events": [] })).ok();
    assert_eq!(usual["events"].as_array().unwrap().len(), 10);
    assert_eq!(missing(json!({ "latest_events": ["$nothing"] })).ok()["events"], json!([]));
    missing(json!({ "latest_events": "x" })).refused(400, "M_BAD_JSON");
    post(&origin, near, "get_missing_events/{}", &[room], &json!({})).refused(400, "M_BAD_JSON");
}

// Checklist 6.6
#[test]
fn what_no_user_of_a_server_may_see_comes_without_its_content() {
    let visibility = json!([{ "type": "m.room.history_visibility",
        "content": { "history_visibility": "joined" } }]);
    let body =
        json!({ "preset": "public_chat", "room_version": "11", "initial_state": visibility });
    let shared = Shared::new(body, Server::start_federated(&[]));
    let (near, origin, room) = (&shared.near, shared.origin(), &shared.room);
    let event = |id: &str| get(&origin, near, "event/{}", &[id]).ok()["pdus"][0].clone();
    assert_eq!(event(&shared.before[2])["content"], json!({}));
    assert_eq!(pdu(&event(&shared.before[2])).event_id(), &*shared.before[2]);
    assert_eq!(body_of(&event(&shared.after[2])), "after 2");
    let last = shared.after.last().unwrap();
    let all = get(&origin, near, "backfill/{}?v={}&limit=100", &[room, last]).ok();
    for event in all["pdus"].as_array().unwrap() {
        let text = text_of(event).as_str().unwrap_or_default();
        assert!(!text.starts_with("before"), "{event}");
    }
    let gap =
        json!({ "latest_events": [&shared.before[5]], "earliest_events": [&shared.before[1]] });
    let missing = post(&origin, near, "get_missing_events/{}", &[room], &gap).ok();
    assert_eq!(ids(&missing["events"]), shared.before[2..5]);
    for event in missing["events"].as_array().unwrap() {
        assert_eq!(event["content"], json!({}));
    }
    // State comes whole.
    let state = get(&origin, near, "state/{}?event_id={}", &[room, &shared.before[0]]).ok();
    let events = state["pdus"].as_array().unwrap();
    assert!(events.iter().any(|event| event["content"]["history_visibility"] == "joined"));
    let at = get(&origin, near, "timestamp_to_event/{}?ts=1&dir=f", &[room]).ok();
    let found = at["event_id"].as_str().unwrap();
    assert!(!shared.before.iter().any(|id| id == found));
}

fn body_of(event: &Value) -> String {
    text_of(event).as_str().unwrap().to_owned()
}

#[test]
fn what_erased_users_have_said_is_not_given_out_again() {
    let shared = Shared::public();
    let (near, origin) = (&shared.near, shared.origin());
    let carol = near.user("carol");
    carol.join(&shared.room).ok();
    let said = carol.say(&shared.room, "forget me").event_id();
    let event = || get(&origin, near, "event/{}", &[&said]).ok()["pdus"][0].clone();
    assert_eq!(text_of(&event()), "forget me");
    let deactivate = "/_matrix/client/v3/account/deactivate";
    carol.confirmed("POST", deactivate, json!({ "erase": true })).ok();
    assert_eq!(event()["content"], json!({}));
    assert_eq!(pdu(&event()).event_id(), &*said);
}

#[test]
fn rejected_events_are_not_handed_on_and_soft_failed_ones_to_those_who_know_them() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob, origin) = (near.user("alice"), far.user("bob"), far.origin());
    let visitor = Visitor::new(&near, &alice, &origin, "11");
    let room = visitor.room.as_str();
    join(&bob, room, &near).ok();
    let old = visitor.message("evading", &[&visitor.newest()]);
    alice.membership(room, "ban", json!({ "user_id": visitor.user })).ok();
    visitor.accepted(std::slice::from_ref(&old));
    let rejected = visitor.message("after the ban", &[&visitor.newest()]);
    visitor.refused(&rejected, "rules");
    let (old, rejected) = (visitor.id(&old), visitor.id(&rejected));
    let event = get(&origin, &near, "event/{}", &[&old]).ok();
    assert_eq!(text_of(&event["pdus"][0]), "evading");
    get(&origin, &near, "event/{}", &[&rejected]).refused(404, "M_NOT_FOUND");
    for (id, status) in [(&old, 200), (&rejected, 404)] {
        let state = get(&origin, &near, "state_ids/{}?event_id={}", &[room, id]);
        assert_eq!(state.status, status);
    }
    let newest = alice.say(room, "quiet now").event_id();
    let back =
        |v: &str| ids(&get(&origin, &near, "backfill/{}?v={}&limit=100", &[room, v]).ok()["pdus"]);
    assert!(!back(&newest).contains(&old), "nothing refers to it");
    assert_eq!(back(&old)[0], old);
    assert_eq!(back(&rejected).iter().find(|id| **id == rejected), None);
}

// Checklist 12.7
#[test]
fn servers_that_are_not_in_a_room_or_kept_out_read_nothing() {
    let body = json!({ "preset": "public_chat", "room_version": "11" });
    let shared = Shared::new(body, Server::start_federated_by_address());
    let third = Server::start_federated(&[]);
    shared.all(&shared.origin(), |answer| drop(answer.ok()));
    shared.all(&third.origin(), |answer| drop(answer.refused(403, "M_FORBIDDEN")));
    let origin = third.origin();
    get(&origin, &shared.near, "state_ids/{}?event_id={}", &["!none:a.org", "$x"])
        .refused(403, "M_FORBIDDEN");
    let list = json!({ "allow": ["*"], "allow_ip_literals": false });
    shared.alice.set_state(&shared.room, "m.room.server_acl", "", list).ok();
    shared.all(&shared.origin(), |answer| drop(answer.refused(403, "M_FORBIDDEN")));
    let list = json!({ "allow": ["LocalHost", "127.0.0.?"] });
    shared.alice.set_state(&shared.room, "m.room.server_acl", "", list).ok();
    shared.all(&shared.origin(), |answer| drop(answer.ok()));
    // Who has left knows what was said till then, and learns nothing more.
    let kicked = json!({ "user_id": shared.bob.id });
    shared.alice.membership(&shared.room, "kick", kicked).ok();
    shared.all(&shared.origin(), |answer| drop(answer.refused(403, "M_FORBIDDEN")));
}

#[test]
fn the_event_nearest_to_a_time() {
    let shared = Shared::public();
    let (near, origin, room) = (&shared.near, shared.origin(), &shared.room);
    let time = |id: &str| {
        let event = get(&origin, near, "event/{}", &[id]).ok();
        event["pdus"][0]["origin_server_ts"].as_u64().unwrap()
    };
    let ask = |ts: u64, dir: &str| {
        let at = "timestamp_to_event/{}?ts={}&dir={}";
        get(&origin, near, at, &[room, &ts.to_string(), dir])
    };
    let at = time(&shared.after[4]);
    let found = ask(at, "f").ok();
    assert_eq!(found["origin_server_ts"], at);
    assert_eq!(time(found["event_id"].as_str().unwrap()), at);
    let last = shared.after.last().unwrap();
    assert_eq!(ask(at + 1_000_000, "b").ok()["event_id"], **last);
    ask(at + 1_000_000, "f").refused(404, "M_NOT_FOUND");
    ask(at, "sideways").refused(400, "M_INVALID_PARAM");
    get(&origin, near, "timestamp_to_event/{}?dir=f", &[room]).refused(400, "M_MISSING_PARAM");
}
