//! Joining a large room of another server: from the client's request to its answer, by when all of
//! the room is checked and stored. The other server is a fake that has its answers at hand; all of
//! its members' events have one key, so what is measured is checking and storing, not asking for
//! keys. Prints the time and the server's CPU time for each size.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

#[allow(dead_code, unused_imports, reason = "a part of what the tests need")]
#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::{Asked, FakeRoom, FakeServer, Server};
use support::{cpu_of, now};

/// How many members the rooms have, unless `MEMBERS` says it (`10,1000`).
const SIZES: [usize; 4] = [10, 1_000, 5_000, 10_000];

/// How many users join each: the first brings the room here.
const USERS: usize = 3;

fn main() {
    let server = Server::start_federated(&[]);
    let users: Vec<_> = (0..USERS).map(|number| server.user(&format!("user{number}"))).collect();
    let asked = std::env::var("MEMBERS").ok();
    let asked = asked.map(|sizes| sizes.split(',').map(|size| size.parse().unwrap()).collect());
    for size in asked.unwrap_or_else(|| SIZES.to_vec()) {
        let fake = FakeServer::start(|origin| {
            let mut room = FakeRoom::new(&origin, &format!("!room:{}", origin.name));
            for number in 0..size {
                let user = room.user(&format!("member{number}"));
                room.join(&user);
            }
            let events = room.events.iter().map(|event| event.json().clone()).collect();
            let answer = common::bytes(FakeRoom::answer(events));
            move |asked: &Asked| match asked.is("v2/send_join") {
                true => Some((200, answer.clone())),
                false => room.honest(asked),
            }
        });
        let room = format!("!room:{}", fake.name());
        for (number, user) in users.iter().enumerate() {
            let (started, cpu) = (now(), cpu_of(server.pid()));
            user.join(&room).ok();
            let (elapsed, used) = (started.elapsed(), cpu_of(server.pid()) - cpu);
            let what = if number == 0 { "brings it here" } else { "comes later" };
            println!("{size:>6} members, who {what}: {elapsed:>8.1?}, {used:>8.1?} of server CPU");
        }
    }
}
