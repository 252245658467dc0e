//! A server with little memory keeps to it, says what it takes, and refuses what is too much.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::common::{Ask, Server, deadline, path};

/// The smallest budget that there is.
const LITTLE: &[(&str, &str)] = &[("PARLOUR_MEMORY__BUDGET", "16777216")];

/// What each part of the budget takes, and its share.
fn taken(server: &Server) -> BTreeMap<String, (u64, u64)> {
    let metrics = server.metrics();
    let values = |name: &str| -> BTreeMap<String, u64> {
        let start = format!("{name}{{user=\"");
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(&start));
        let parts = lines.map(|line| line.split_once("\"} ").unwrap());
        parts.map(|(user, value)| (user.to_owned(), value.parse().unwrap())).collect()
    };
    let shares = values("parlour_memory_share_bytes");
    let taken = values("parlour_memory_bytes");
    taken.into_iter().map(|(user, bytes)| (user.clone(), (bytes, shares[&user]))).collect()
}

#[track_caller]
fn assert_within(server: &Server) {
    let taken = taken(server);
    assert_eq!(taken.len(), 8, "{taken:?}");
    assert!(taken.values().map(|(_, share)| share).sum::<u64>() <= 16 << 20, "{taken:?}");
    for (user, (bytes, share)) in &taken {
        // Rooms that have been used within the last seconds stay awake.
        let is_within = bytes <= share || user == "rooms" && *bytes <= 2 * share;
        assert!(is_within, "{user} takes {bytes} of {share} bytes");
    }
}

#[test]
fn a_server_keeps_to_a_small_budget() {
    let server = Server::start_with(LITTLE);
    let alice = server.user("alice");
    let rooms: Vec<_> = (0..45).map(|_| alice.public_room()).collect();
    for (number, room) in rooms.iter().cycle().take(600).enumerate() {
        alice.say(room, &"x".repeat(1_000)).event_id();
        if number % 50 == 0 {
            alice.sync(Ask::initial()).ok();
            assert_within(&server);
        }
    }
    assert_within(&server);
    let metrics = server.metrics();
    let resident = metrics.lines().find(|line| line.starts_with("parlour_process_resident_bytes "));
    assert_ne!(resident, Some("parlour_process_resident_bytes 0"));
    let taken = taken(&server);
    for part in ["rooms", "state_cache", "index_cache"] {
        assert!(taken[part].0 > 0, "{part}: {taken:?}");
    }
}

#[test]
fn rooms_that_sleep_take_nothing_of_it() {
    let server = Server::start_with(&[("PARLOUR_ROOMS__IDLE_SECONDS", "1")]);
    let alice = server.user("alice");
    let rooms: Vec<_> = (0..20).map(|_| alice.public_room()).collect();
    assert!(taken(&server)["rooms"].0 > 0);
    let until = deadline(Duration::from_secs(60));
    while server.metric("parlour_active_rooms") > 0.0 {
        assert!(!until.passed(), "rooms that nobody asks for do not sleep");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(taken(&server)["rooms"].0, 0);
    rooms.iter().for_each(|room| drop(alice.say(room, "awake again").event_id()));
}

/// A server with 16 MiB, of which syncs have two in a hundred: 335 KB, some forty clients.
fn little_for_syncs() -> Server {
    let percents = [("SYNCS", "2"), ("INDEX_CACHE", "50")];
    let names = percents.map(|(part, _)| format!("PARLOUR_MEMORY__{part}_PERCENT"));
    let settings: Vec<_> = names.iter().map(String::as_str).zip(percents.map(|(_, n)| n)).collect();
    Server::start_with(&[LITTLE, &settings].concat())
}

#[test]
fn more_syncs_than_fit_in_are_refused() {
    let server = little_for_syncs();
    let alice = server.user("alice");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let wait = || {
            let alice = server.again(&alice);
            alice.sync(Ask::since(&since).wait(30_000)).status
        };
        let waiting: Vec<_> = (0..60).map(|_| scope.spawn(wait)).collect();
        let refused = "parlour_refused_requests_total{reason=\"memory_syncs\"}";
        let is_settled = || server.metric(refused) + server.metric("parlour_parked_syncs") >= 60.0;
        while !is_settled() {
            std::thread::yield_now();
        }
        let (bytes, share) = taken(&server)["syncs"];
        assert!(bytes <= share && bytes > share / 2, "{bytes} of {share}");
        // Whoever is in gets the answer.
        alice
            .http
            .put(&path("/_matrix/client/v3/user/{}/account_data/x", &[&alice.id]), &json!({}))
            .ok();
        waiting.into_iter().map(|waits| waits.join().unwrap()).collect()
    });
    let count = |status| statuses.iter().filter(|got| **got == status).count();
    assert!(count(200) >= 20 && count(429) >= 15, "{statuses:?}");
    assert_eq!(count(200) + count(429), 60, "{statuses:?}");
    assert_eq!(taken(&server)["syncs"].0, 0, "all is given back");
    alice.sync(Ask::since(&since)).ok();
}

#[test]
fn who_syncs_is_counted_with_a_long_filter_wherever_it_is_kept() {
    let server = little_for_syncs();
    let alice = server.user("alice");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let stored = |types: usize| {
        let types: Vec<_> = (0..types).map(|number| format!("org.example.{number}")).collect();
        let filter = json!({ "room": { "timeline": { "types": types } } });
        let id = alice.http.post(&path("/_matrix/client/v3/user/{}/filter", &[&alice.id]), &filter);
        format!("filter={}", id.text("filter_id"))
    };
    let (short, long) = (stored(10), stored(3_000));
    let another = server.again(&alice);
    std::thread::scope(|scope| {
        let ask = Ask::since(&since).with(&long).wait(30_000);
        let waiting = scope.spawn(|| another.sync(ask).ok());
        while server.metric("parlour_parked_syncs") < 1.0 {
            std::thread::yield_now();
        }
        alice.sync(Ask::since(&since).with(&short)).ok();
        alice.sync(Ask::since(&since).with(&long)).refused(429, "M_LIMIT_EXCEEDED");
        let data = path("/_matrix/client/v3/user/{}/account_data/x", &[&alice.id]);
        alice.http.put(&data, &json!({})).ok();
        waiting.join().unwrap();
    });
}

#[test]
fn bodies_count_until_their_requests_are_answered() {
    let server = Server::start_with(LITTLE);
    let alice = server.user("alice");
    let room = alice.public_room();
    // More than the share of all bodies, three times over: alone it is let in, and is too large for
    // an event.
    let body = json!({ "body": "x".repeat(1 << 20) });
    alice.send(&room, "m.room.message", body).refused(413, "M_TOO_LARGE");
    assert_eq!(taken(&server)["requests"].0, 0, "all is given back");
}
