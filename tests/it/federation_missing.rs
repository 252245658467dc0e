//! Events that build on others which are not there: what is asked for, within which bounds, and
//! that nobody else waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use parlour_event::json::{Object, Value as Json, to_canonical_string};
use serde_json::{Value, json};

use crate::common::{Ask, Asked, FakeServer, Server, User, Visitor, deadline, parse};

/// What a fake server knows of a room, and how it answers.
#[derive(Default)]
struct Script {
    events: Mutex<HashMap<String, Object>>,
    /// The ids of the room's state and of its auth chain.
    state: Mutex<Vec<String>>,
    /// What it cannot give just now.
    stuck: Mutex<Vec<String>>,
    /// Whether it gives missing events at all.
    gives_missing: Mutex<bool>,
    gate: Gate,
}

/// Holds answers back.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn close(&self) {
        *self.0.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.0.lock().unwrap() = false;
        self.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.lock().unwrap();
        drop(self.1.wait_while(closed, |closed| *closed).unwrap());
    }
}

fn text(event: &Object) -> String {
    to_canonical_string(&Json::Object(event.clone()))
}

fn list(events: impl Iterator<Item = Object>) -> String {
    format!("[{}]", events.map(|event| text(&event)).collect::<Vec<_>>().join(","))
}

impl Script {
    /// A fake server that plays it.
    fn play(self: &Arc<Self>) -> FakeServer {
        let script = self.clone();
        FakeServer::start(|_| {
            move |asked: &Asked| {
                script.gate.pass();
                script.answer(asked).map(|(status, body)| (status, body.into_bytes()))
            }
        })
    }

    fn answer(&self, asked: &Asked) -> Option<(u16, String)> {
        let events = self.events.lock().unwrap();
        let state = self.state.lock().unwrap();
        if asked.is("v1/get_missing_events/") && *self.gives_missing.lock().unwrap() {
            let answer = list(self.before(&events, &asked.body).into_iter());
            return Some((200, format!(r#"{{"events":{answer}}}"#)));
        }
        if asked.is("v1/state_ids/") && !state.is_empty() {
            let answer = json!({ "pdu_ids": *state, "auth_chain_ids": *state });
            return Some((200, answer.to_string()));
        }
        let known = || list(state.iter().filter_map(|id| events.get(id)).cloned());
        if asked.is("v1/state/") && !state.is_empty() {
            return Some((200, format!(r#"{{"pdus":{},"auth_chain":{}}}"#, known(), known())));
        }
        if asked.is("v1/event_auth/") && !state.is_empty() {
            return Some((200, format!(r#"{{"auth_chain":{}}}"#, known())));
        }
        if asked.is("v1/event/") {
            if self.stuck.lock().unwrap().contains(&asked.part(5)) {
                return Some((
                    503,
                    json!({ "errcode": "M_UNKNOWN", "error": "later" }).to_string(),
                ));
            }
            let event = text(events.get(&asked.part(5))?);
            let answer = format!(r#"{{"origin":"x","origin_server_ts":1,"pdus":[{event}]}}"#);
            return Some((200, answer));
        }
        None
    }

    /// The events before some others, breadth first.
    fn before(&self, events: &HashMap<String, Object>, wanted: &Value) -> Vec<Object> {
        let ids = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
        };
        let (mut front, earliest) =
            (ids(&wanted["latest_events"]), ids(&wanted["earliest_events"]));
        let mut found: Vec<Object> = Vec::new();
        while !front.is_empty() && found.len() < 20 {
            let prev: Vec<_> =
                front.iter().filter_map(|id| events.get(id)).flat_map(prev_of).collect();
            front = prev.into_iter().filter(|id| !earliest.contains(id)).collect();
            found.extend(front.iter().filter_map(|id| events.get(id)).cloned());
        }
        found.truncate(20);
        found
    }

    fn knows(&self, visitor: &Visitor<'_>, event: &Object) {
        self.events.lock().unwrap().insert(visitor.id(event), event.clone());
    }
}

fn prev_of(event: &Object) -> Vec<String> {
    let prev = event["prev_events"].as_array().unwrap();
    prev.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// So many messages, each behind the one before it; the first behind `prev`. All are known to the
/// script.
fn chain(script: &Script, visitor: &Visitor<'_>, prev: &str, texts: &[String]) -> Vec<Object> {
    let draft = visitor.draft("m.room.message", None, json!({}), &[prev]);
    let mut prev = prev.to_owned();
    let mut events = Vec::new();
    for text in texts {
        let mut event = draft.clone();
        let new = parse(&json!({ "prev_events": [prev],
            "content": { "msgtype": "m.text", "body": text } }));
        event.extend(new);
        let event = visitor.sign(event);
        script.knows(visitor, &event);
        prev = visitor.id(&event);
        events.push(event);
    }
    events
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// The ids of the room's state events, as its host sees them.
fn state_of(visitor: &Visitor<'_>) -> Vec<String> {
    let state = visitor.host.room(&visitor.room, "state").ok();
    let events = state.body.as_array().unwrap().iter();
    events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

/// Waits until somebody has said something in the room.
#[track_caller]
fn hears(alice: &User, since: &str, visitor: &Visitor<'_>, text: &str) {
    alice.sync_until(since, |answer| {
        let events = answer.timeline(&visitor.room);
        events.iter().any(|event| event["content"]["body"] == text)
    });
}

// Checklist 13.12
#[test]
fn a_gap_is_filled_oldest_first() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    *script.gives_missing.lock().unwrap() = true;
    let far = script.play();
    let alice = near.user("alice");
    for version in ["6", "11", "12"] {
        let visitor = Visitor::new(&near, &alice, &far.origin, version);
        let since = alice.sync(Ask::initial()).ok().next_batch();
        let events = chain(&script, &visitor, &visitor.newest(), &texts(45));
        visitor.accepted(&events[44..]);
        hears(&alice, &since, &visitor, "44");
        assert_eq!(visitor.said(), texts(45), "version {version}");
    }
    // Two branches that nobody has told of, and what joins them.
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let newest = visitor.newest();
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let left = chain(&script, &visitor, &newest, &["left".to_owned()]);
    let right = chain(&script, &visitor, &newest, &["right".to_owned()]);
    let joined = visitor.message("joined", &[&visitor.id(&left[0]), &visitor.id(&right[0])]);
    script.knows(&visitor, &joined);
    visitor.accepted(&[joined]);
    hears(&alice, &since, &visitor, "joined");
    let mut said = visitor.said();
    assert_eq!(said.pop().as_deref(), Some("joined"));
    said.sort_unstable();
    assert_eq!(said, ["left", "right"]);
}

// Checklist 13.12
#[test]
fn what_is_very_deep_is_cut() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    *script.gives_missing.lock().unwrap() = true;
    let far = script.play();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    *script.state.lock().unwrap() = state_of(&visitor);
    let since = alice.sync(Ask::initial()).ok().next_batch();
    // They lead to an event that is nowhere.
    let nowhere = format!("${}", "n".repeat(43));
    let events = chain(&script, &visitor, &nowhere, &texts(1_000));
    visitor.accepted(&events[999..]);
    hears(&alice, &since, &visitor, "999");
    let asked = far.asked();
    assert!(asked.len() < 20, "{} questions", asked.len());
    let said = visitor.said();
    assert!(said.len() <= 150 && said.contains(&"950".to_owned()), "{said:?}");
    // The room goes on, on both ends of what is known.
    alice.say(&visitor.room, "next").ok();
    let more = visitor.message("more", &[&visitor.newest()]);
    visitor.accepted(&[more]);
    assert!(visitor.said().ends_with(&["next".to_owned(), "more".to_owned()]));
}

// Checklist 13.12
#[test]
fn state_that_is_not_known_is_asked_for() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    let far = script.play();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let mut state = state_of(&visitor);
    let joined = visitor.newest();
    // On the other server's branch many more have come in.
    let mut prev = joined.clone();
    let mut members = Vec::new();
    for count in [3, 300] {
        for number in members.len()..count {
            let user = format!("@u{number}:{}", far.name());
            let guest = Visitor {
                near: &near,
                host: &alice,
                room: visitor.room.clone(),
                user,
                version: visitor.version,
                origin: far.origin.clone(),
            };
            let mut event =
                visitor.draft("m.room.member", Some(&visitor.user), json!({}), &[&prev]);
            event.extend(parse(&json!({ "sender": guest.user, "state_key": guest.user,
                "content": { "membership": "join" } })));
            let auth: Vec<_> = state_of_kind(
                &visitor,
                &["m.room.create", "m.room.power_levels", "m.room.join_rules"],
            );
            event.extend(parse(&json!({ "auth_events": auth })));
            let event = guest.sign(event);
            prev = guest.id(&event);
            script.knows(&guest, &event);
            state.push(prev.clone());
            members.push(event);
        }
        *script.state.lock().unwrap() = state.clone();
        let since = alice.sync(Ask::initial()).ok().next_batch();
        let text = format!("behind {count}");
        visitor.accepted(&[visitor.message(&text, &[&prev])]);
        hears(&alice, &since, &visitor, &text);
        let known = alice.room(&visitor.room, "joined_members").ok();
        assert_eq!(known.body["joined"].as_object().unwrap().len(), count + 2, "{count}");
    }
}

// Checklist 13.12
#[test]
fn a_state_that_cannot_be_had_whole_just_now_is_not_taken() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    let far = script.play();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let mut state = state_of(&visitor);
    let topic = visitor.message("a message", &[&visitor.newest()]);
    let kinds = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
    let user = format!("@guest:{}", far.name());
    let mut join = visitor.draft("m.room.member", Some(&user), json!({}), &[&visitor.id(&topic)]);
    join.extend(parse(&json!({ "sender": user, "content": { "membership": "join" },
        "auth_events": state_of_kind(&visitor, &kinds) })));
    let join = visitor.sign(join);
    script.knows(&visitor, &join);
    state.push(visitor.id(&join));
    *script.state.lock().unwrap() = state;
    // Without the guest's join the room would be another one here than there, for good.
    *script.stuck.lock().unwrap() = vec![visitor.id(&join)];
    visitor.refused(&visitor.message("too early", &[&visitor.id(&join)]), "not known");
    assert!(visitor.said().is_empty());
    script.stuck.lock().unwrap().clear();
    let since = alice.sync(Ask::initial()).ok().next_batch();
    visitor.accepted(&[visitor.message("in time", &[&visitor.id(&join)])]);
    hears(&alice, &since, &visitor, "in time");
    let known = alice.room(&visitor.room, "joined_members").ok();
    assert!(known.body["joined"].get(&user).is_some(), "{}", known.body);
}

fn state_of_kind(visitor: &Visitor<'_>, kinds: &[&str]) -> Vec<String> {
    let state = visitor.host.room(&visitor.room, "state").ok();
    let events = state.body.as_array().unwrap().iter();
    let wanted = events.filter(|event| kinds.contains(&event["type"].as_str().unwrap()));
    wanted.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

// Checklist 13.12
#[test]
fn a_server_that_does_not_answer_delays_nobody_else() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    *script.gives_missing.lock().unwrap() = true;
    let (slow, honest) = (script.play(), Script::default());
    let honest = Arc::new(honest).play();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &slow.origin, "11");
    let other = Visitor::new(&near, &alice, &slow.origin, "11");
    let third = Visitor::in_room(&near, &alice, &honest.origin, "11", visitor.room.clone());
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let newest = visitor.newest();
    let late = chain(&script, &visitor, &newest, &texts(3));
    script.gate.close();
    // The event waits; its transaction does not, nor do other rooms' events in it.
    let elsewhere = other.message("elsewhere", &[&other.newest()]);
    let body = visitor.body(&[late[2].clone(), elsewhere], &[]);
    let answer = visitor.transact_as("slow", &body).ok();
    assert!(answer.body["pdus"].as_object().unwrap().values().all(|result| *result == json!({})));
    assert_eq!(other.said(), ["elsewhere"]);
    // Neither do those who talk here, nor what other servers send.
    alice.say(&visitor.room, "local").ok();
    third.accepted(&[third.message("remote", &[&third.newest()])]);
    assert_eq!(visitor.said(), ["local", "remote"]);
    script.gate.open();
    hears(&alice, &since, &visitor, "2");
    let mut said = visitor.said();
    said.sort_unstable();
    assert_eq!(said, ["0", "1", "2", "local", "remote"]);
}

#[test]
fn garbage_in_answers_ends_as_no_answer() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    let honest = script.play();
    let alice = near.user("alice");
    let nowhere = format!("${}", "n".repeat(43));
    let elsewhere = Visitor::new(&near, &alice, &honest.origin, "11");
    let foreign = text(&elsewhere.message("foreign", &[&nowhere]));
    for answer in [
        "".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        r#"{"events":5,"pdus":5,"pdu_ids":5,"auth_chain":5,"auth_chain_ids":5}"#.to_owned(),
        r#"{"events":[5,{},[]],"pdus":[5],"pdu_ids":["x"],"auth_chain":[{}],"auth_chain_ids":["$a"]}"#
            .to_owned(),
        format!(r#"{{"events":[{foreign},{foreign}],"pdus":[{foreign}],"auth_chain":[{foreign}],
            "pdu_ids":["{nowhere}"],"auth_chain_ids":[]}}"#),
        format!(r#"{{"events":[{}]}}"#, "{},".repeat(50_000) + "{}"),
        format!(r#"{{"events":[{}1{}]}}"#, "[".repeat(50_000), "]".repeat(50_000)),
    ] {
        let body = answer.clone();
        let liar = FakeServer::start(|_| move |_: &Asked| Some((200, body.clone().into_bytes())));
        let visitor = Visitor::new(&near, &alice, &liar.origin, "11");
        visitor.refused(&visitor.message("lost", &[&nowhere]), "not known");
        visitor.accepted(&[visitor.message("found", &[&visitor.newest()])]);
        assert_eq!(visitor.said(), ["found"], "{answer}");
    }
    // In rooms whose event ids anybody can make up, events can follow each other.
    let visitor = Visitor::new(&near, &alice, &honest.origin, "1");
    *script.gives_missing.lock().unwrap() = true;
    let circle = |own: &str, prev: &str| {
        let mut draft = visitor.draft("m.room.message", None, json!({ "body": own }), &[prev]);
        draft.extend(parse(&json!({ "event_id": own })));
        let event = visitor.sign(draft);
        script.knows(&visitor, &event);
        event
    };
    let ids = ["a", "b", "c"].map(|name| format!("${name}:{}", honest.name()));
    let events = [circle(&ids[0], &ids[1]), circle(&ids[1], &ids[2]), circle(&ids[2], &ids[0])];
    visitor.refused(&events[0], "not known");
    assert!(visitor.said().is_empty());
}

#[test]
fn no_more_events_wait_than_there_is_room_for() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    let far = script.play();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let nowhere = format!("${}", "n".repeat(43));
    let lost = chain(&script, &visitor, &nowhere, &texts(150));
    script.gate.close();
    let refused = lost.chunks(50).map(|some| {
        let answer = visitor.transact(some, &[]).ok();
        let results = answer.body["pdus"].as_object().unwrap().clone();
        results.values().filter(|result| result["error"].is_string()).count()
    });
    // One of them is being looked for, a hundred wait for that.
    assert_eq!(refused.sum::<usize>(), 49);
    let taken = "parlour_memory_bytes{user=\"federation\"}";
    assert!(near.metric(taken) >= 100_000.0, "they are counted");
    alice.say(&visitor.room, "quick").ok();
    assert_eq!(visitor.said(), ["quick"]);
    script.gate.open();
    let until = deadline(Duration::from_secs(30));
    while near.metric(taken) > 0.0 {
        assert!(!until.passed(), "all is given back");
        std::thread::yield_now();
    }
}

// Checklist 12.2
#[test]
fn who_sends_many_transactions_at_once_has_to_wait() {
    let (near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    let far = script.play();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let nowhere = format!("${}", "n".repeat(43));
    let lost = chain(&script, &visitor, &nowhere, &texts(6));
    script.gate.close();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let visitor = &visitor;
        let send = |events| scope.spawn(move || visitor.transact(events, &[]));
        let sent: Vec<_> = lost.chunks(1).map(send).collect();
        // One is processed and three wait for it; the others are told so at once.
        let until = deadline(Duration::from_secs(30));
        while sent.iter().filter(|sent| sent.is_finished()).count() < 2 && !until.passed() {
            std::thread::yield_now();
        }
        script.gate.open();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    let (good, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((good.len(), refused.len()), (4, 2));
    refused.into_iter().for_each(|answer| drop(answer.refused(429, "M_LIMIT_EXCEEDED")));
}

#[test]
fn what_waited_when_the_server_stopped_comes_with_what_follows_it() {
    let (mut near, script) = (Server::start_federated(&[]), Arc::<Script>::default());
    *script.gives_missing.lock().unwrap() = true;
    let far = script.play();
    let alice = near.user("alice");
    let visitor = Visitor::new(&near, &alice, &far.origin, "11");
    let events = chain(&script, &visitor, &visitor.newest(), &texts(4));
    script.gate.close();
    // Its sender is told that it has come, and will not send it again.
    visitor.accepted(&events[2..3]);
    assert!(visitor.said().is_empty());
    let Visitor { room, user, version, origin, .. } = visitor;
    near.restart();
    script.gate.open();
    let alice = near.again(&alice);
    let visitor = Visitor { near: &near, host: &alice, room, version, origin, user };
    assert!(visitor.said().is_empty(), "it was lost");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    visitor.accepted(&events[3..]);
    hears(&alice, &since, &visitor, "3");
    assert_eq!(visitor.said(), texts(4));
}
