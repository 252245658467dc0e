//! What reading costs, over HTTP against a server in a process of its own: `/sync` for somebody in
//! many rooms of which one has changed, a first `/sync` of rooms with many members, and pages of
//! `/messages` at several depths of a long history. Then what the server's memory is for clients that
//! wait in `/sync`.
//!
//! Each figure is printed at two sizes of what does *not* change, with the ratio of the two: it
//! should be near 1. `BENCH_SHRINK=n` divides all sizes by n, to see that it works; names of parts after
//! `--` (parked, incremental, first, pages) run those alone.
//!
//! The rooms are filled below HTTP, by the engine in this process on the data of the server, which
//! is stopped meanwhile.

#[path = "../actors/tests/support/mod.rs"]
mod engine;
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use parlour_actors::{Engine, LocalEvent, RoomLimits, Rooms};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};

use self::support::{Connection, Server, now, register, text};

/// The name that `engine` gives its users.
const NAME: &str = "parlour.test";

/// How many events wait at once for the engine that fills rooms.
const AT_ONCE: usize = 8 * Rooms::AT_ONCE;

/// How often each request is measured.
const ROUNDS: usize = 50;

/// A size, or the smaller one that is asked for.
fn size(full: usize) -> usize {
    let shrink = std::env::var("BENCH_SHRINK").ok().and_then(|text| text.parse().ok());
    (full / shrink.unwrap_or(1)).max(2)
}

/// A server with a reader and a writer, and the data that `fill` makes while it stands still.
fn serve<T>(fill: impl AsyncFnOnce(&Engine) -> T) -> (Server, Connection, Connection, T) {
    let mut server = Server::start(NAME);
    let (reader, writer) = (register(server.address, "bob"), register(server.address, "alice"));
    let (reader, writer) = (reader.token, writer.token);
    server.stop();
    let made = actix::System::new().block_on(async {
        let options = engine::options(Some(&server.data()), RoomLimits::default());
        let engine = Engine::start(options).await.expect("engine");
        let made = fill(&engine).await;
        engine.stop().await;
        made
    });
    server.launch();
    let connect = |token: &str| Connection::open(server.address, token);
    server.settle();
    let (reader, writer) = (connect(&reader), connect(&writer));
    (server, reader, writer, made)
}

/// Sends events to a room, many at once, and gives the ids.
async fn send_all(
    engine: &Engine,
    room: &RoomId,
    events: impl Iterator<Item = LocalEvent>,
) -> Vec<String> {
    let (mut events, mut ids) = (events.peekable(), Vec::new());
    while events.peek().is_some() {
        let some: Vec<_> = events.by_ref().take(AT_ONCE).collect();
        let sent = some.chunks(Rooms::AT_ONCE).map(|some| engine.rooms.send_many(room, some));
        for event in join_all(sent).await.into_iter().flat_map(|sent| sent.expect("sent")) {
            ids.push(event.expect("taken").to_string());
        }
    }
    ids
}

/// Public rooms of alice with bob and so many others in each.
async fn rooms_with_members(engine: &Engine, rooms: usize, others: usize) -> Vec<OwnedRoomId> {
    let mut made = Vec::new();
    for _ in 0..rooms {
        let room = engine::create(engine, "12").await;
        let names = (0..others).map(|n| format!("member{n}")).chain(["bob".to_owned()]);
        let joins = names.map(|name| engine::member(&name, &name, "join"));
        send_all(engine, &room, joins).await;
        made.push(room);
    }
    made
}

/// The median of the latencies of `ask`, and the length of the last answer.
fn measure(mut ask: impl FnMut() -> (Duration, usize)) -> (f64, usize) {
    let (mut latencies, mut length) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let (latency, bytes) = ask();
        latencies.push(latency);
        length = bytes;
    }
    latencies.sort_unstable();
    (latencies[latencies.len() / 2].as_secs_f64() * 1e3, length)
}

/// A `/sync` with this filter.
fn sync_with(filter: &Value) -> String {
    format!("sync?filter={}", utf8_percent_encode(&filter.to_string(), NON_ALPHANUMERIC))
}

fn timed(connection: &mut Connection, path: &str) -> (Duration, Vec<u8>) {
    let started = now();
    let body = connection.ask_raw("GET", path, "");
    (started.elapsed(), body)
}

fn print(what: &str, (ms, bytes): (f64, usize)) -> f64 {
    println!("{what:<58} {ms:>9.3} ms {bytes:>10} bytes");
    ms
}

fn print_ratio(what: &str, small: f64, large: f64) {
    println!("{what:<58} {:>9.2} times\n", large / small);
}

/// `/sync` for somebody in so many rooms, of which one has changed.
fn incremental_sync(rooms: usize) -> f64 {
    let (_server, mut bob, mut alice, ids) =
        serve(async |engine| rooms_with_members(engine, rooms, 0).await);
    let filter = json!({ "room": { "timeline": { "limit": 1 } } });
    let first = bob.ask("GET", &sync_with(&filter), "");
    assert_eq!(first["rooms"]["join"].as_object().map(serde_json::Map::len), Some(rooms));
    let (mut since, mut count) = (text(&first, "next_batch"), 0);
    let changed = measure(|| {
        count += 1;
        let path = format!("rooms/{}/send/m.room.message/{count}", ids[count % ids.len()]);
        alice.ask("PUT", &path, &json!({ "msgtype": "m.text", "body": "hello" }).to_string());
        let (latency, body) = timed(&mut bob, &format!("sync?since={since}"));
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer["rooms"]["join"].as_object().map(serde_json::Map::len), Some(1));
        since = text(&answer, "next_batch");
        (latency, body.len())
    });
    print(&format!("sync, 1 of {rooms} rooms changed"), changed)
}

/// A first `/sync` of rooms with so many members each, lazy and not.
fn first_sync(rooms: usize, members: usize) -> [f64; 2] {
    let (_server, mut bob, ..) =
        serve(async |engine| rooms_with_members(engine, rooms, members.saturating_sub(2)).await);
    [true, false].map(|lazy| {
        let path = sync_with(&json!({ "room": { "state": { "lazy_load_members": lazy } } }));
        let figures = measure(|| {
            let (latency, body) = timed(&mut bob, &path);
            (latency, body.len())
        });
        let how = if lazy { "lazy" } else { "all members" };
        print(&format!("first sync, {rooms} rooms of {members} members, {how}"), figures)
    })
}

/// Pages of a hundred events at the end, in the middle and at the beginning of a history.
fn pages(events: usize) -> [f64; 3] {
    let (_server, mut bob, _, (room, ids)) = serve(async |engine| {
        let room = rooms_with_members(engine, 1, 0).await.remove(0);
        let said = (0..events).map(|n| engine::message("alice", &format!("message {n}")));
        let ids = send_all(engine, &room, said).await;
        (room, ids)
    });
    ["end", "middle", "beginning"].map(|place| {
        let index = match place {
            "end" => ids.len() - 1,
            "middle" => ids.len() / 2,
            _ => (ids.len() - 1).min(150),
        };
        let around = bob.ask("GET", &format!("rooms/{room}/context/{}?limit=0", ids[index]), "");
        let from = text(&around, "end");
        let path = format!("rooms/{room}/messages?dir=b&limit=100&from={from}");
        let figures = measure(|| {
            let (latency, body) = timed(&mut bob, &path);
            (latency, body.len())
        });
        print(&format!("100 events at the {place} of {events}"), figures)
    })
}

/// What the server's memory grows by with each of so many clients that wait, in bytes.
fn parked(clients: usize) -> f64 {
    let server = Server::start(NAME);
    let register = |n| register(server.address, &format!("waiting{n}")).token;
    let tokens: Vec<_> = (0..clients).map(register).collect();
    // Where they wait from; the server closes connections on which nothing happens.
    let ask = |token: &String| {
        let mut connection = Connection::open(server.address, token);
        text(&connection.ask("GET", "sync", ""), "next_batch")
    };
    let since: Vec<_> = tokens.iter().map(ask).collect();
    let before = server.memory();
    let wait = |(token, since): (&String, &String)| {
        let mut connection = Connection::open(server.address, token);
        connection.begin("GET", &format!("sync?timeout=60000&since={since}"), "");
        connection
    };
    let _waiting: Vec<_> = tokens.iter().zip(&since).map(wait).collect();
    server.settle();
    let each = server.memory().saturating_sub(before) as f64 / clients as f64;
    println!("{:<58} {:>9.1} KiB each", format!("{clients} syncs that wait"), each / 1024.0);
    each
}

/// What can be asked for by name on the command line.
const PARTS: [(&str, fn()); 4] = [
    ("parked", || {
        let (few, many) = (parked(size(1_000)), parked(size(5_000)));
        print_ratio("five times the clients, memory of each", few, many);
    }),
    ("incremental", || {
        let (few, many) = (incremental_sync(size(200)), incremental_sync(size(2_000)));
        print_ratio("ten times the rooms", few, many);
    }),
    ("first", || {
        let (few, many) = (first_sync(size(200), size(50)), first_sync(size(200), size(500)));
        print_ratio("ten times the members, lazy", few[0], many[0]);
        print_ratio("ten times the members, all of them sent", few[1], many[1]);
        let (few, many) = (first_sync(size(20), size(500)), first_sync(size(20), size(5_000)));
        print_ratio("ten times the members, lazy", few[0], many[0]);
        print_ratio("ten times the members, all of them sent", few[1], many[1]);
    }),
    ("pages", || {
        let (short, long) = (pages(size(10_000)), pages(size(1_000_000)));
        let places = ["end", "middle", "beginning"].iter().zip(short.into_iter().zip(long));
        for (place, (short, long)) in places {
            print_ratio(&format!("a hundred times the history, at its {place}"), short, long);
        }
    }),
];

fn main() {
    let asked: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    for (name, part) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            part();
        }
    }
}
