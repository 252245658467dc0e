//! What whoever runs a server does to its data: stopping it, backup, restore, repair, reindex.
//!
//! There is no terminal here, so every command's output is checked to be plain lines as well.

mod chat;
mod damage;

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use self::chat::Chat;
use crate::common::{Answer, Ask, Client, Server, User, deadline, path};

/// Listeners on ports that nobody else has: for a second process on the same data.
const OTHER_PORT: (&str, &str) =
    ("PARLOUR_LISTENERS", r#"[{ address = "127.0.0.1", port = 0, apis = ["client"] }]"#);

/// Everything in a directory but sockets and locks: names and content.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Waits for a condition.
#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = deadline(Duration::from_secs(30));
    while !condition() {
        assert!(!until.passed(), "it never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_backup_of_a_running_server_has_all_that_was_acknowledged_before() {
    let server = Server::start();
    let chat = Chat::new(&server);
    let enough = AtomicBool::new(false);
    let copies: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| chat.talk_until(|| enough.load(Ordering::Relaxed)));
        let mut copies = Vec::new();
        for copy in ["one", "two"] {
            let before = chat.count();
            wait_for("more talk", || chat.count() > before + 20);
            let acknowledged = chat.count();
            let told = server.run(&["backup", copy]).ok();
            assert!(told.starts_with("Backed up through position "), "{told}");
            copies.push((copy, acknowledged, position(&told)));
        }
        let before = chat.count();
        wait_for("talk after the backup", || chat.count() > before + 5);
        enough.store(true, Ordering::Relaxed);
        copies
    });
    assert!(copies[0].2 < copies[1].2);
    for (copy, acknowledged, through) in copies {
        let mut second = Server::prepare(&[]);
        let backup = server.home().join(copy);
        let told = second.run(&["restore", backup.to_str().unwrap()]).ok();
        assert_eq!(position(&told), through, "{told}");
        second.restart();
        let kept = chat.check(&second);
        assert!(kept >= acknowledged && kept < chat.count(), "{kept} of {acknowledged}");
        chat.goes_on(&second);
    }
    chat.goes_on(&server);
}

/// The position in what a command says.
fn position(told: &str) -> u64 {
    let words = told.split("position ").nth(1).unwrap();
    words.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn backup_and_restore_write_over_nothing() {
    let server = Server::start();
    assert!(server.run(&["backup", "copy"]).ok().contains("Backed up"));
    let again = server.run(&["backup", "copy"]);
    assert!(again.failed_in_one_line().contains("copy is not empty"), "{again:?}");
    let other = Server::prepare(&[]);
    let copy = server.home().join("copy");
    let copy = copy.to_str().unwrap();
    other.run(&["restore", copy]).ok();
    let again = other.run(&["restore", copy]);
    assert!(again.failed_in_one_line().contains("exists already"), "{again:?}");
    let empty = Server::prepare(&[]);
    for command in [&["backup", "copy"][..], &["repair"], &["reindex"]] {
        let refused = empty.run(command).failed_in_one_line();
        assert!(refused.contains("holds no event log"), "{command:?}: {refused}");
    }
    assert!(!empty.home().join("copy").exists() && !empty.data().exists());
    let refused = empty.run(&["restore", other.home().to_str().unwrap()]).failed_in_one_line();
    assert!(refused.contains("is not a backup"), "{refused}");
}

#[test]
fn data_belong_to_one_process_at_a_time() {
    let server = Server::start();
    let chat = Chat::new(&server);
    chat.talk(5);
    server.run(&["backup", "copy"]).ok();
    for command in
        [&["serve"][..], &["restore", "copy"], &["repair"], &["repair", "--cut"], &["reindex"]]
    {
        let refused = server.run_with(command, &[OTHER_PORT]).failed_in_one_line();
        assert!(refused.contains("in use by another process"), "{command:?}: {refused}");
        assert!(refused.contains(server.data().to_str().unwrap()), "{command:?}: {refused}");
    }
    // The port speaks first, where it is the same.
    let refused = server.run(&["serve"]).failed_in_one_line();
    assert!(refused.contains("another server"), "{refused}");
    chat.goes_on(&server);
}

#[test]
fn data_of_another_server_are_refused() {
    let mut server = Server::start();
    let chat = Chat::new(&server);
    chat.talk(3);
    assert!(server.terminate().success());
    let other = ("PARLOUR_SERVER__NAME", "example.org");
    let refused = server.run_with(&["serve"], &[other]).failed_in_one_line();
    let data = server.data();
    let names = ["server localhost", "not to example.org", data.to_str().unwrap()];
    assert!(names.iter().all(|name| refused.contains(name)), "{refused}");
    server.restart();
    chat.check(&server);
    chat.goes_on(&server);
}

#[test]
fn a_stop_answers_who_waits_and_finishes_what_is_in_flight() {
    let mut server = Server::start();
    let chat = Chat::new(&server);
    chat.talk(10);
    // Three wait for something that won't come, on connections that they would keep.
    let waiters: Vec<_> = (0..3).map(|number| server.user(&format!("waiter{number}"))).collect();
    let waiting: Vec<_> =
        waiters.into_iter().map(|user| thread::spawn(move || wait(&user))).collect();
    server.await_parked(3);
    // One has sent half a head, one half a body, one nothing after its first request.
    let halves =
        ["GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: x\r\n".to_owned(), half_a_body(&chat)];
    let halves = halves.map(|half| {
        let mut socket = TcpStream::connect(server.base().trim_start_matches("http://")).unwrap();
        socket.write_all(half.as_bytes()).unwrap();
        socket
    });
    let idle = Client::new(server.base());
    idle.get("/_matrix/client/versions").ok();
    thread::scope(|scope| {
        let before = chat.count();
        let talking = scope.spawn(|| chat.talk_until_lost());
        wait_for("talk", || chat.count() > before + 10);
        // The halves are waited for a while; nobody else has to wait for them.
        let at_once = deadline(Duration::from_secs(4));
        let answered = scope.spawn(move || {
            waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
            assert!(!at_once.passed(), "parked syncs are answered at once");
        });
        assert!(server.terminate().success());
        answered.join().unwrap();
        talking.join().unwrap();
    });
    drop(halves);
    assert!(server.log().contains("stopping"), "{}", server.log());
    server.restart();
    assert_eq!(chat.check(&server), chat.count());
    chat.goes_on(&server);
}

#[test]
fn nobody_is_left_typing_by_a_stop() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let room = alice.public_room();
    bob.join(&room).ok();
    let typing = path("/_matrix/client/v3/rooms/{}/typing/{}", &[&room, &bob.id]);
    let token = alice.sync(Ask::initial()).ok().next_batch();
    bob.http.put(&typing, &json!({ "typing": true, "timeout": 60_000 })).ok();
    let typed = |answer: &Answer| !answer.ephemeral(&room).is_empty();
    let token = alice.sync_until(&token, typed).next_batch();
    let waiting = thread::spawn(move || alice.sync(Ask::since(&token).wait(60_000)).ok());
    server.await_parked(1);
    assert!(server.terminate().success());
    let last = waiting.join().unwrap();
    assert_eq!(last.ephemeral(&room)[0]["content"]["user_ids"], json!([]));
}

/// A sync that has nothing to tell for a minute is answered, and without news.
fn wait(user: &User) {
    let token = user.sync(Ask::initial()).ok().next_batch();
    let answer = user.sync(Ask::since(&token).wait(60_000)).ok();
    assert!(answer["rooms"].is_null(), "{}: {}", user.id, answer.body);
}

/// The first bytes of a message that will never be sent whole.
fn half_a_body(chat: &Chat) -> String {
    let path = path("/_matrix/client/v3/rooms/{}/send/m.room.message/half", &[&chat.room]);
    let token = &chat.alice.token;
    format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"msgtype\":"
    )
}
