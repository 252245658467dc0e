//! Clients that wait long: the connection of one keeps nothing but its request, and nothing of what
//! is sent on it gets lost.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::common::{Ask, Server, User};

/// A connection on which bytes are sent as they are.
struct Wire {
    stream: TcpStream,
    /// What was read behind the last answer.
    rest: Vec<u8>,
}

impl Wire {
    fn to(server: &Server) -> Self {
        let address = server.base().strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, rest: Vec::new() }
    }

    fn send(&mut self, requests: &[String]) {
        self.stream.write_all(requests.concat().as_bytes()).unwrap();
    }

    /// The next answer's head and body.
    fn answer(&mut self) -> (String, Value) {
        loop {
            let text = String::from_utf8_lossy(&self.rest).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.to_lowercase();
                let length = length.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                if body.len() >= length {
                    let value = serde_json::from_str(&body[..length]).unwrap();
                    self.rest.drain(..head.len() + 4 + length);
                    return (head.to_owned(), value);
                }
            }
            let mut bytes = [0; 4_096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "the server has closed the connection after {text:?}");
            self.rest.extend(&bytes[..count]);
        }
    }
}

fn get(user: &User, path: &str) -> String {
    let token = &user.token;
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n")
}

fn sync(user: &User, since: &str) -> String {
    get(user, &Ask::since(since).wait(50_000).path())
}

fn who_am_i(user: &User) -> String {
    get(user, "/_matrix/client/v3/account/whoami")
}

/// Waits until so many requests wait aside.
fn await_aside(server: &Server, count: u64) {
    server.await_metric(&format!("parlour_requests_aside {count}"));
}

/// A server, somebody who talks in a room, and somebody who waits for that.
fn scene() -> (Server, [User; 2], String, String) {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let since = bob.sync(Ask::initial()).ok().next_batch();
    (server, [alice, bob], room, since)
}

#[test]
fn a_connection_goes_on_after_its_request_has_waited_aside() {
    let (server, [alice, bob], room, mut since) = scene();
    let mut wire = Wire::to(&server);
    for _ in 0..2 {
        wire.send(&[sync(&bob, &since)]);
        await_aside(&server, 1);
        let event = alice.say(&room, "are you there?").event_id();
        let (head, answer) = wire.answer();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(answer["rooms"]["join"][&room]["timeline"]["events"][0]["event_id"], event);
        since = answer["next_batch"].as_str().unwrap().to_owned();
        await_aside(&server, 0);
    }
    wire.send(&[who_am_i(&bob)]);
    assert_eq!(wire.answer().1["user_id"], bob.id);
}

#[test]
fn what_is_sent_while_a_request_waits_aside_is_answered_after_it() {
    let (server, [alice, bob], room, since) = scene();
    let mut wire = Wire::to(&server);
    wire.send(&[sync(&bob, &since)]);
    await_aside(&server, 1);
    let next = who_am_i(&bob);
    let (half, other_half) = next.split_at(next.len() / 2);
    wire.send(&[who_am_i(&bob), half.to_owned()]);
    let event = alice.say(&room, "now").event_id();
    let (_, answer) = wire.answer();
    assert_eq!(answer["rooms"]["join"][&room]["timeline"]["events"][0]["event_id"], event);
    assert_eq!(wire.answer().1["user_id"], bob.id);
    wire.send(&[other_half.to_owned()]);
    assert_eq!(wire.answer().1["user_id"], bob.id);
}

#[test]
fn a_request_with_another_one_behind_it_does_not_wait_aside() {
    let (server, [alice, bob], room, since) = scene();
    let [mut pipelined, mut alone] = [Wire::to(&server), Wire::to(&server)];
    pipelined.send(&[who_am_i(&bob), sync(&bob, &since), who_am_i(&bob)]);
    server.await_parked(1);
    // By the time this one is aside, the other one has stayed where it is.
    alone.send(&[sync(&bob, &since)]);
    await_aside(&server, 1);
    let event = alice.say(&room, "all of you").event_id();
    for answer in [alone.answer().1, {
        pipelined.answer();
        pipelined.answer().1
    }] {
        assert_eq!(answer["rooms"]["join"][&room]["timeline"]["events"][0]["event_id"], event);
    }
    assert_eq!(pipelined.answer().1["user_id"], bob.id);
}

#[test]
fn a_client_that_goes_is_not_waited_for() {
    let (server, [_, bob], _, since) = scene();
    let mut wire = Wire::to(&server);
    wire.send(&[sync(&bob, &since)]);
    await_aside(&server, 1);
    wire.stream.shutdown(Shutdown::Both).unwrap();
    await_aside(&server, 0);
    server.await_parked(0);
}

#[test]
fn a_stop_answers_what_waits_aside() {
    let (mut server, [_, bob], _, since) = scene();
    let mut wire = Wire::to(&server);
    wire.send(&[sync(&bob, &since)]);
    await_aside(&server, 1);
    assert!(server.terminate().success());
    let (head, answer) = wire.answer();
    assert!(head.contains("connection: close"), "{head}");
    assert!(answer["next_batch"].is_string(), "{answer}");
    assert_eq!(wire.stream.read(&mut [0]).unwrap(), 0, "the connection is closed");
}
