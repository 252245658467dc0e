//! The promise of the house: what was acknowledged is there after a SIGKILL, once and in order.
//!
//! Sixteen users send into eight rooms while one watches by `/sync`; the server is killed at a
//! random moment and started again. `TEST_CRASH_ROUNDS` changes the number of rounds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(
    dead_code,
    unused_imports,
    reason = "shared with the other black-box tests; neither uses all of it"
)]
#[path = "../common/mod.rs"]
mod common;

mod damage;
mod ledger;
mod load;

use std::{thread, time::Duration};

use common::{Random, Server, User};
use ledger::Ledger;
use load::Sender;
use serde_json::json;

const USERS: usize = 16;
const ROOMS: usize = 8;
const ROUNDS: usize = 30;
/// In every so many rounds the index is damaged while the server is down.
const DAMAGE_EVERY: usize = 4;
/// The longest time from the start of the load to the kill, in milliseconds.
const LONGEST_LOAD_MS: u64 = 600;

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let mut random = Random::from_environment();
    let rounds = std::env::var("TEST_CRASH_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let mut server = Server::start();
    let (rooms, mut senders, mut watcher) = populate(&server);
    let mut ledger = Ledger::new(rooms.clone());
    ledger.catch_up(&watcher);
    for round in 0..rounds {
        let load_ms = 5 + random.below(LONGEST_LOAD_MS);
        thread::scope(|scope| {
            let rooms = &rooms;
            for sender in &mut senders {
                scope.spawn(move || sender.send_until_lost(rooms, round));
            }
            scope.spawn(|| ledger.watch_until_lost(&watcher));
            // Not a wait for a condition: the moment of death is what is drawn at random.
            thread::sleep(Duration::from_millis(load_ms));
            server.kill();
        });
        if round % DAMAGE_EVERY == DAMAGE_EVERY - 1 {
            damage::index(&server.data(), &mut random);
        }
        server.restart();
        watcher = server.again(&watcher);
        senders.iter_mut().for_each(|sender| sender.reconnect(&server));
        ledger.catch_up(&watcher);
        senders.iter_mut().for_each(|sender| sender.repeat_what_was_lost(&rooms, &ledger));
        ledger.catch_up(&watcher);
        senders.iter().for_each(|sender| ledger.check_sender(sender, &rooms));
        ledger.check_newest(&watcher);
    }
    ledger.check_whole_history(&watcher);
    let sent: usize = senders.iter().map(Sender::acknowledged).sum();
    println!("{rounds} rounds, {sent} acknowledged events, none lost, none doubled");
    assert!(sent >= rounds, "the load was too thin to prove anything");
}

/// Rooms where all are members, the senders, and a watcher.
fn populate(server: &Server) -> (Vec<String>, Vec<Sender>, User) {
    let watcher = server.user("watcher");
    let body = json!({ "preset": "public_chat" });
    let rooms: Vec<_> = (0..ROOMS).map(|_| watcher.create_room(body.clone()).room_id()).collect();
    let senders = (0..USERS).map(|number| {
        let user = server.user(&format!("sender{number}"));
        rooms.iter().for_each(|room| drop(user.join(room).ok()));
        Sender::new(user, number)
    });
    let senders = senders.collect();
    (rooms, senders, watcher)
}
