//! What `/sync` costs a device for which much waits: messages, of which an answer has a hundred, and
//! users whose keys have changed, all of whom are in the first answer. The cost has to follow what is
//! returned, not what waits: pages cost the same with ten times the messages behind them.

mod support;

use std::{net::SocketAddr, thread, time::Duration};

use serde_json::{Value, json};

use support::{Connection, Server, now, register, text};

/// How many messages wait, and how many users' keys have changed.
const SIZES: [(usize, usize); 2] = [(1_000, 500), (10_000, 5_000)];

/// How many connections prepare it.
const AT_ONCE: usize = 16;

fn main() {
    for (messages, changes) in SIZES {
        measure(messages, changes);
    }
}

/// Does something for each number, on many connections.
fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let work = &work;
            scope.spawn(move || (first..count).step_by(AT_ONCE).for_each(work));
        }
    });
}

/// A user and its device's id.
fn person(address: SocketAddr, name: &str) -> (Connection, String, String) {
    let mut connection = register(address, name);
    let about = connection.ask("GET", "account/whoami", "");
    (connection, text(&about, "user_id"), text(&about, "device_id"))
}

fn publish(address: SocketAddr, room: &str, number: usize) -> Connection {
    let (mut connection, user, device) = person(address, &format!("user{number}"));
    connection.ask_raw("POST", &format!("join/{room}"), "{}");
    let (id, curve) = (format!("ed25519:{device}"), format!("curve25519:{device}"));
    let keys = json!({ "device_keys": { "user_id": user, "device_id": device, "algorithms": [],
        "keys": { id: "k", curve: "k" }, "signatures": {} } });
    connection.ask_raw("POST", "keys/upload", &keys.to_string());
    connection
}

/// A sync, how long it took, and where it ended.
fn sync(me: &mut Connection, since: &str) -> (Value, Duration, String) {
    let started = now();
    let answer = me.ask("GET", &format!("sync?timeout=0&since={since}"), "");
    let (took, next) = (started.elapsed(), text(&answer, "next_batch"));
    (answer, took, next)
}

fn measure(messages: usize, changes: usize) {
    let server = Server::start("localhost");
    let address = server.address;
    let (mut me, user, device) = person(address, "me");
    let room = me.ask("POST", "createRoom", r#"{"preset":"public_chat"}"#);
    let room = text(&room, "room_id");
    for_each(changes, |number| drop(publish(address, &room, number)));
    let start = text(&me.ask("GET", "sync?timeout=0", ""), "next_batch");
    // Each of them gets a further device, whose keys are a change.
    for_each(changes, |number| {
        let login = json!({ "type": "m.login.password", "password": "benchmark", "device_id": "NEW",
            "identifier": { "type": "m.id.user", "user": format!("user{number}") } });
        let login = Connection::open(address, "").ask("POST", "login", &login.to_string());
        let mut new = Connection::open(address, &text(&login, "access_token"));
        let keys = json!({ "device_keys": { "user_id": text(&login, "user_id"), "device_id": "NEW",
            "algorithms": [], "keys": { "ed25519:NEW": "k" }, "signatures": {} } });
        new.ask_raw("POST", "keys/upload", &keys.to_string());
    });
    let body = json!({ "messages": { user: { device: { "text": "x".repeat(400) } } } }).to_string();
    thread::scope(|scope| {
        for thread in 0..AT_ONCE {
            let body = &body;
            scope.spawn(move || {
                let mut sender = register(address, &format!("sender{thread}"));
                for number in (thread..messages).step_by(AT_ONCE) {
                    sender.ask_raw("PUT", &format!("sendToDevice/m.test/{number}"), body);
                }
            });
        }
    });
    server.settle();
    let (first, took, mut since) = sync(&mut me, &start);
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    let changed = count(&first["device_lists"]["changed"]);
    let mut received = count(&first["to_device"]["events"]);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("{messages} messages and {changes} changes wait");
    println!("  first answer, {changed} changed, {received} messages: {:>8.2} ms", ms(took));
    let mut pages = Vec::new();
    loop {
        let (answer, took, next) = sync(&mut me, &since);
        since = next;
        let events = count(&answer["to_device"]["events"]);
        if events == 0 {
            break;
        }
        received += events;
        pages.push(took);
    }
    assert_eq!((changed, received), (changes, messages));
    pages.sort_unstable();
    let (median, slowest) = (pages[pages.len() / 2], pages[pages.len() - 1]);
    println!(
        "  further answers of 100: median {:>8.2} ms, slowest {:>8.2} ms",
        ms(median),
        ms(slowest)
    );
}
