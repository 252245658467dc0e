//! Which event is nearest to a time.

use super::rooms_read::{event, room_with, say_all};
use crate::common::{Answer, Server, User, path};

fn nearest(user: &User, room: &str, more: &str) -> Answer {
    user.http.get(&(path("/_matrix/client/v1/rooms/{}/timestamp_to_event?", &[room]) + more))
}

fn time(user: &User, room: &str, id: &str) -> u64 {
    event(user, room, id).ok()["origin_server_ts"].as_u64().unwrap()
}

#[test]
fn the_event_nearest_to_a_time_is_found_in_both_directions() {
    let mut server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let sent = say_all(&alice, &room, (0..20).map(|n| n.to_string()));
    server.restart();
    let alice = server.again(&alice);
    let times: Vec<_> = sent.iter().map(|id| time(&alice, &room, id)).collect();
    let ask = |ts: u64, dir: &str| nearest(&alice, &room, &format!("ts={ts}&dir={dir}"));
    // The first may bear the same time as what made the room.
    for at in &times[5..] {
        // Of those at the same time, the one that is nearest to where one comes from.
        let first = times.iter().position(|time| time == at).unwrap();
        let last = times.iter().rposition(|time| time == at).unwrap();
        let after = ask(*at, "f").ok();
        assert_eq!(
            (&after["event_id"], &after["origin_server_ts"]),
            (&sent[first].clone().into(), &(*at).into())
        );
        assert_eq!(ask(*at, "b").ok()["event_id"], sent[last].as_str());
    }
    assert_eq!(ask(times[19] + 1_000_000, "b").ok()["event_id"], sent[19].as_str());
    ask(times[19] + 1, "f").refused(404, "M_NOT_FOUND");
    ask(1, "b").refused(404, "M_NOT_FOUND");
    let first = ask(0, "f").text("event_id");
    assert_eq!(event(&alice, &room, &first).ok()["type"], "m.room.create");
}

// Checklist 6.4
#[test]
fn events_that_may_not_be_seen_are_passed_over() {
    let server = Server::start();
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|name| server.user(name));
    let room = room_with(&alice, "joined");
    let unseen = say_all(&alice, &room, (0..200).map(|n| n.to_string()));
    let then = time(&alice, &room, &unseen[0]);
    bob.join(&room).ok();
    let found = nearest(&bob, &room, &format!("ts={then}&dir=f")).text("event_id");
    assert_eq!(event(&bob, &room, &found).ok()["content"]["membership"], "join");
    let before = nearest(&bob, &room, &format!("ts={then}&dir=b")).text("event_id");
    assert!(event(&bob, &room, &before).ok()["state_key"].is_string());
    nearest(&eve, &room, "ts=1&dir=f").refused(403, "M_FORBIDDEN");
    nearest(&eve, "!nowhere:localhost", "ts=1&dir=f").refused(403, "M_FORBIDDEN");
    for more in ["ts=1&dir=x", "ts=x&dir=f", "ts=-1&dir=b"] {
        nearest(&alice, &room, more).refused(400, "M_INVALID_PARAM");
    }
    for more in ["ts=1", "dir=f", ""] {
        nearest(&alice, &room, more).refused(400, "M_MISSING_PARAM");
    }
}
