//! The user directory with 10,000 and with 100,000 users: how long a search takes, by what is looked for and by how
//! many people the searcher may see. Prints the median and the slowest of many searches. No room is open, so that
//! whoever sees few has the most to pass over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parlour::view::{View, people::PeopleSearch};
use parlour_actors::{
    Engine, EngineOptions, RoomLimits,
    commit::{Announcement, Ops},
    env::Env,
    metrics::NoMetrics,
};
use parlour_event::{
    EventNum, RoomNum, StateKeyNum, StreamPos,
    state::{Overlay, StateRoot},
};
use parlour_storage::{
    Op,
    schema::{MembershipEntry, RoomHead, Stored as _, User, keys},
};
use ruma::UserId;

/// How many users there are.
const USERS: [usize; 2] = [10_000, 100_000];

/// How many of them share one room, of many.
const CIRCLE: usize = 20;

/// Where the searcher is together with all others.
const EVERYWHERE: RoomNum = RoomNum(1);

/// How often each search is done.
const ROUNDS: usize = 20;

const FIRST: [&str; 10] =
    ["Alice", "Boris", "Chloé", "Dmitri", "Élodie", "Fatima", "Gustav", "Hana", "Igor", "Júlia"];
const LAST: [&str; 10] =
    ["Anders", "Brown", "Čapek", "Díaz", "Eriksen", "Fischer", "García", "Hansen", "Ito", "Jones"];

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn name(number: usize) -> String {
    format!("@user{number}:parlour.test")
}

/// What a user's place in states is.
fn place(number: usize) -> StateKeyNum {
    StateKeyNum::new(number as u64 + 1, true)
}

fn joined(user: &str, room: RoomNum) -> Op {
    let entry =
        MembershipEntry { membership: "join".to_owned(), event: EventNum(1), pos: StreamPos(1) };
    Op::Put { key: keys::membership(user, room), value: entry.encode() }
}

/// Has a room have these members.
async fn fill(engine: &Engine, room: RoomNum, members: std::ops::Range<usize>) {
    let mut overlay = Overlay::new(&engine.nodes);
    let mut state = StateRoot::EMPTY;
    let joined = members.len() as u64;
    for number in members {
        let inserted = overlay.insert(state, place(number), EventNum(number as u64 + 1));
        state = inserted.expect("a state");
    }
    let head = RoomHead {
        room_id: format!("!{}:parlour.test", room.0),
        version: "12".to_owned(),
        create: EventNum(1),
        extremities: Vec::new(),
        state,
        joined,
        invited: 0,
        depth: 1,
        pos: StreamPos(1),
        partial_state: false,
    };
    let nodes = overlay.into_new_nodes(&[state]).into_iter();
    let nodes =
        nodes.map(|(id, node)| Op::Put { key: keys::node(id), value: node.encode().into() });
    let head = Op::Put { key: keys::room(room), value: head.encode() };
    for ops in nodes.chain([head]).collect::<Vec<_>>().chunks(1_000) {
        write(engine, ops.to_vec()).await;
    }
}

async fn write(engine: &Engine, ops: Vec<Op>) {
    let change = Ops { ops, announcement: Announcement::Nothing };
    engine.persister.commit(Box::new(change)).await.expect("written");
}

/// Users with names of two words and a number; each is in a small room, some in a large one.
async fn populate(engine: &Engine, users: usize) {
    for numbers in (0..users).collect::<Vec<_>>().chunks(1_000) {
        let accounts = numbers.iter().map(|number| {
            let (first, last) = (FIRST[number % 10], LAST[number / 10 % 10]);
            let display_name = Some(format!("{first} {last} {}", number / 100));
            (name(*number), User { display_name, ..User::default() })
        });
        engine.users.register_many(accounts.collect()).await.expect("registered");
        let ops = numbers.iter().flat_map(|number| {
            let user = name(*number);
            let circle = RoomNum((number / CIRCLE) as u64 + 10);
            // The first user is only in a circle, the second is with everybody.
            let all = (*number != 0).then(|| joined(&user, EVERYWHERE));
            let name = keys::state_key("m.room.member", &user).slice(1..);
            let name = Op::Put { key: keys::state_key_name(place(*number)), value: name };
            all.into_iter().chain([joined(&user, circle), name])
        });
        write(engine, ops.collect()).await;
    }
    for circle in 0..users / CIRCLE {
        fill(engine, RoomNum(circle as u64 + 10), circle * CIRCLE..(circle + 1) * CIRCLE).await;
    }
    fill(engine, EVERYWHERE, 1..users).await;
}

fn measure(view: &View, searcher: &str, text: &str, of_all: bool) {
    let searcher = <&UserId>::try_from(searcher).expect("a user id");
    let search = PeopleSearch { searcher, text, limit: 10, of_all };
    let mut times = Vec::new();
    let mut count = 0;
    for _ in 0..ROUNDS {
        let started = now();
        count = view.people(&search).expect("a search").0.len();
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{text:<16} {count:>3} found   median {:>8.2} ms   slowest {:>8.2} ms",
        ms(times[ROUNDS / 2]),
        ms(times[ROUNDS - 1])
    );
}

#[actix::main]
async fn main() {
    for users in USERS {
        search_among(users).await;
    }
}

async fn search_among(users: usize) {
    let engine = Engine::start(EngineOptions {
        server_name: "parlour.test".try_into().expect("a server name"),
        storage: None,
        state_cache_bytes: 1 << 20,
        rooms: RoomLimits::default(),
        room_version: parlour_event::RoomVersion::parse("12").expect("a known version"),
        presence: None,
        env: Env::system(),
        metrics: Arc::new(NoMetrics),
    });
    let engine = engine.await.expect("engine");
    let started = now();
    populate(&engine, users).await;
    println!("{users} users in {:.1} s", started.elapsed().as_secs_f64());
    let view = View::of(&engine, Env::system().clock);
    for (who, searcher, of_all) in [
        ("in a room with everybody", name(1), false),
        ("in a room with 19 others", name(0), false),
        ("may see all", name(0), true),
    ] {
        println!("{who}:");
        for text in ["a", "alice", "elodie garcia", "user9999", "alice jones 99", "nobody"] {
            measure(&view, &searcher, text, of_all);
        }
    }
    engine.stop().await;
}
