//! Durable events per second over HTTP, against a server in a process of its own: one sender,
//! 16 senders in one room, 100 rooms. Prints events/s, latency percentiles and the server's CPU
//! time per event, and checks at the end that every acknowledged event is there.

mod support;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use self::support::{Connection, Server, now, register, text};

/// How long each scenario runs.
const RUN: Duration = Duration::from_secs(5);

/// Sends to a room until the time is over.
fn send_until(
    connection: &mut Connection,
    room: &str,
    sender: usize,
    until: Instant,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let body =
        json!({ "msgtype": "m.text", "body": "a message of the usual length, more or less" });
    let body = body.to_string();
    while now() < until {
        let path = format!("rooms/{room}/send/m.room.message/{sender}-{}", latencies.len());
        let started = now();
        connection.ask("PUT", &path, &body);
        latencies.push(started.elapsed());
    }
    latencies
}

fn scenario(name: &str, rooms: usize, senders: usize) {
    let server = Server::start("localhost");
    let mut alice = register(server.address, "alice");
    let create = json!({ "preset": "public_chat" }).to_string();
    let ids: Arc<Vec<_>> = Arc::new(
        (0..rooms).map(|_| text(&alice.ask("POST", "createRoom", &create), "room_id")).collect(),
    );
    let mut connections = Vec::new();
    for number in 0..senders {
        let mut sender = register(server.address, &format!("sender{number}"));
        let room = &ids[number % rooms];
        sender.ask("POST", &format!("join/{room}"), "{}");
        connections.push(sender);
    }
    let (started, cpu_before) = (now(), server.cpu());
    let until = started + RUN;
    let threads: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(number, mut connection)| {
            let ids = ids.clone();
            thread::spawn(move || {
                send_until(&mut connection, &ids[number % ids.len()], number, until)
            })
        })
        .collect();
    let mut latencies: Vec<_> =
        threads.into_iter().flat_map(|thread| thread.join().expect("sender")).collect();
    let (elapsed, used) = (started.elapsed(), server.cpu() - cpu_before);
    report(name, &mut latencies, elapsed, used);
    let found: usize = ids.iter().map(|room| count_messages(&mut alice, room)).sum();
    assert_eq!(found, latencies.len(), "every acknowledged event is there, once");
}

fn report(name: &str, latencies: &mut [Duration], elapsed: Duration, used: Duration) {
    latencies.sort_unstable();
    let percentile =
        |part: usize| latencies[(latencies.len() - 1) * part / 100].as_secs_f64() * 1e3;
    let events = latencies.len() as f64;
    println!(
        "{name:<24} {:>8.0} events/s   p50 {:>7.3} ms   p99 {:>7.3} ms   {:>6.1} us of server CPU per event",
        events / elapsed.as_secs_f64(),
        percentile(50),
        percentile(99),
        used.as_secs_f64() * 1e6 / events,
    );
}

/// Pages through a room's whole history.
fn count_messages(connection: &mut Connection, room: &str) -> usize {
    let (mut count, mut from) = (0, String::new());
    loop {
        let page =
            connection.ask("GET", &format!("rooms/{room}/messages?dir=b&limit=1000{from}"), "");
        let chunk = page["chunk"].as_array().map(Vec::as_slice).unwrap_or_default();
        count += chunk.iter().filter(|event| event["type"] == "m.room.message").count();
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return count,
        }
    }
}

fn main() {
    scenario("one sender", 1, 1);
    scenario("16 senders, one room", 1, 16);
    scenario("100 rooms", 100, 100);
}
