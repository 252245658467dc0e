//! Servers inside another program.

use std::{fs, process::Command, sync::Arc, thread, time::Duration};

use parlour::{
    embed::{Builder, Bytes, Homeserver, Network, http::Request},
    http::Api,
    server::DoorError,
};
use parlour_actors::env::{ManualClock, SeededEntropy};
use serde_json::{Value, json};

// What is shown to others works.
#[path = "../../examples/embedded.rs"]
mod example;

use crate::common::{Answer, Ask, Client, Embedded, PASSWORD, Site as _, User, deadline, path};

fn small(name: &str) -> Builder {
    Homeserver::builder(name).unwrap()
}

fn join(user: &User, room: &str, via: &str) -> Answer {
    user.http.post(&path("/_matrix/client/v3/join/{}?via={}", &[room, via]), &json!({}))
}

fn hears(user: &User, text: &str) {
    let since = user.sync(Ask::initial()).ok();
    let has = |answer: &Answer| {
        let rooms = answer["rooms"]["join"].as_object().cloned().unwrap_or_default();
        rooms.values().any(|room| {
            let events = room["timeline"]["events"].as_array().cloned().unwrap_or_default();
            events.iter().any(|event| event["content"]["body"] == text)
        })
    };
    if !has(&since) {
        user.sync_until(&since.next_batch(), has);
    }
}

#[test]
fn who_asks_without_a_socket_gets_the_answers_of_http() {
    let builder = small("example.org").listen(([127, 0, 0, 1], 0).into(), [Api::Client]);
    let server = Embedded::start(builder);
    let socket = Client::new(&format!("http://{}", server.server.addresses()[0].address));
    let alice = server.register("alice");
    let too_long = vec![b'x'; 9 << 20];
    let whoami = "/_matrix/client/v3/account/whoami";
    let asked: [(&str, &str, &[u8]); 9] = [
        ("GET", "/_matrix/client/versions", b""),
        ("OPTIONS", whoami, b""),
        ("GET", whoami, b""),
        ("GET", "/_matrix/client/v3/no/such/endpoint", b""),
        ("DELETE", whoami, b""),
        ("POST", "/_matrix/client/v3/login", b"{"),
        ("POST", "/_matrix/client/v3/login", b"{}"),
        ("POST", "/_matrix/client/v3/login", &too_long),
        ("PUT", "/_matrix/client/v3/profile/%ff/displayname", b"{}"),
    ];
    let mut statuses = Vec::new();
    for (method, path, body) in asked {
        for token in [None, Some("wrong"), Some(alice.token.as_str())] {
            let [inside, outside] = [&server.http, &socket].map(|client| {
                let client = token.map_or_else(|| client.clone(), |token| client.with_token(token));
                client.send(method, path, body)
            });
            assert_eq!((inside.status, &inside.page), (outside.status, &outside.page), "{path}");
            for (name, value) in &inside.headers {
                assert_eq!(outside.headers.get(name), Some(value), "{path}: {name}");
            }
            statuses.push(inside.status);
        }
    }
    for status in [200, 204, 400, 401, 404, 405, 413] {
        assert!(statuses.contains(&status), "{status}: {statuses:?}");
    }
    let head = Request::head("/_matrix/client/versions").body(Bytes::new()).unwrap();
    let head = server.server.client().call_blocking(head).unwrap();
    assert!(head.status() == 200 && head.body().is_empty());
}

#[test]
fn limits_hold_without_sockets_too() {
    let server = small("example.org").start_blocking().unwrap();
    let client = Client::inside(server.client());
    let body = json!({ "type": "m.login.password", "password": "wrong",
        "identifier": { "type": "m.id.user", "user": "alice" } });
    let mut answers = (0..20).map(|_| client.post("/_matrix/client/v3/login", &body));
    assert!(answers.any(|answer| answer.status == 429));
    // What is not for clients is not behind their door.
    client.get("/_matrix/key/v2/server").refused(404, "M_UNRECOGNIZED");
}

#[test]
fn the_example_works() {
    example::main().unwrap();
}

#[test]
fn twenty_servers_of_one_process_talk_to_each_other() {
    let network = Network::new();
    let start = |number| Embedded::start(small(&format!("s{number}.test")).network(&network));
    let servers: Vec<_> = (0..20).map(start).collect();
    let users: Vec<_> = servers.iter().map(|server| server.register("user")).collect();
    let room = users[0].public_room();
    for user in &users[1..] {
        join(user, &room, "s0.test").ok();
    }
    users[19].say(&room, "from the last").event_id();
    users.iter().for_each(|user| hears(user, "from the last"));
    users[0].say(&room, "from the first").event_id();
    users.iter().for_each(|user| hears(user, "from the first"));
    let taken = small("s7.test").network(&network).start_blocking().unwrap_err();
    assert!(taken.to_string().contains("s7.test"), "{taken}");
}

#[test]
fn any_runtime_will_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let network = Network::new();
        let near = small("near.test").network(&network).test_mode().start().await.unwrap();
        let far = small("far.test").network(&network).test_mode().start();
        let far = tokio::spawn(far).await.unwrap().unwrap();
        let asking = (0..50).map(|number| {
            let client = [near.client(), far.client()][number % 2].clone();
            tokio::spawn(async move {
                let body = json!({ "username": format!("user{number}"), "password": PASSWORD,
                    "auth": { "type": "m.login.dummy" } });
                let request = Request::post("/_matrix/client/v3/register");
                let request = request.body(Bytes::from(body.to_string())).unwrap();
                client.call(request).await.unwrap().status().as_u16()
            })
        });
        for asked in asking.collect::<Vec<_>>() {
            assert_eq!(asked.await.unwrap(), 200);
        }
        let client = near.client();
        near.stop().await;
        let request = Request::get("/_matrix/client/versions").body(Bytes::new()).unwrap();
        assert_eq!(client.call(request).await.unwrap_err(), DoorError::Closed);
        far.stop().await;
    });
}

#[test]
fn a_long_poll_without_a_socket_ends_with_the_server() {
    let server = Embedded::start(small("example.org"));
    let alice = server.register("alice");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let ask = Ask::since(&since).wait(60_000);
    let parked = thread::spawn(move || alice.sync(ask).ok());
    let until = deadline(Duration::from_secs(30));
    let metrics = || String::from_utf8(server.server.metrics().render().unwrap()).unwrap();
    while !metrics().contains("parlour_parked_syncs 1") {
        assert!(!until.passed());
        thread::yield_now();
    }
    drop(server);
    parked.join().unwrap();
}

#[test]
fn each_server_has_a_memory_budget_of_its_own() {
    let [near, far] = ["near.example", "far.example"].map(|name| Embedded::start(small(name)));
    let alice = near.register("alice");
    let since = alice.sync(Ask::initial()).ok().next_batch();
    let ask = Ask::since(&since).wait(60_000);
    let parked = thread::spawn(move || alice.sync(ask).ok());
    let takes_none = |server: &Embedded| {
        let request = Request::get("/metrics").body(Bytes::new()).unwrap();
        let metrics = server.server.client().call_blocking(request).unwrap().into_body();
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
        metrics.contains("parlour_memory_bytes{user=\"syncs\"} 0\n")
    };
    let until = deadline(Duration::from_secs(30));
    while takes_none(&near) {
        assert!(!until.passed());
        thread::yield_now();
    }
    assert!(takes_none(&far));
    drop(near);
    parked.join().unwrap();
}

/// What a server with this clock and this randomness makes of the same requests.
fn history(clock: u64, seed: u64) -> Value {
    let builder = small("example.org")
        .clock(Arc::new(ManualClock::at(clock)))
        .entropy(Arc::new(SeededEntropy::new(seed)))
        .on_one_thread();
    let server = Embedded::start(builder);
    let alice = server.register("alice");
    let room = alice.public_room();
    let text = json!({ "msgtype": "m.text", "body": "hello" });
    let event = alice.send_as(&room, "m.room.message", "t", text).event_id();
    let mut event = alice.room(&room, &path("event/{}", &[&event])).ok().body;
    event["token"] = alice.token.into();
    event
}

#[test]
fn clock_and_randomness_are_those_that_are_given() {
    let start = 1_700_000_000_000;
    let event = history(start, 7);
    assert_eq!(event["origin_server_ts"], start);
    assert_eq!(event, history(start, 7));
    assert_ne!(event["token"], history(start, 8)["token"]);
    assert_ne!(event["event_id"], history(start + 1, 7)["event_id"]);
}

/// Runs a test again, in a process where nothing else runs. Says whether this is that process.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "EMBEDDING_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let test = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let run = Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&run.stdout);
    assert!(out.contains("1 passed"), "{out}\n{}", String::from_utf8_lossy(&run.stderr));
    out.lines().filter(|line| line.contains("servers:")).for_each(|line| println!("{line}"));
    false
}

fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(|task| name(task.unwrap())).collect()
}

/// Memory of this process that is not just the program itself.
fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Threads end a moment after whoever waited for them.
fn await_threads(count: usize, what: &str) {
    let until = deadline(Duration::from_secs(10));
    while threads().len() > count {
        assert!(!until.passed(), "{what}: {:?}", threads());
        thread::yield_now();
    }
}

#[test]
fn a_stopped_server_leaves_no_thread_and_its_data_are_free() {
    if !is_alone("a_stopped_server_leaves_no_thread_and_its_data_are_free") {
        return;
    }
    let before = threads().len();
    let address = ([127, 0, 0, 1], 0).into();
    for _ in 0..3 {
        let server = Embedded::start(small("example.org").listen(address, [Api::Client]));
        server.register("alice").public_room();
        drop(server);
        await_threads(before, "in memory");
        let server = Embedded::start(small("example.org").on_one_thread());
        server.register("alice").public_room();
        assert_eq!(threads().len(), before + 1);
        drop(server);
        await_threads(before, "on one thread");
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let on_disk = || small("example.org").data_dir(&data);
    let room = Embedded::start(on_disk()).register("alice").public_room();
    // sled keeps some threads for the whole process.
    let before = threads().len();
    for number in 0..3 {
        let server = Embedded::start(on_disk());
        let login = json!({ "type": "m.login.password", "password": PASSWORD,
            "identifier": { "type": "m.id.user", "user": "alice" } });
        let answer = server.http.post("/_matrix/client/v3/login", &login).ok();
        let alice = User::from_login(&server.http, &answer);
        alice.say(&room, &format!("the {number}. time")).event_id();
        let taken = on_disk().start_blocking().unwrap_err();
        assert!(taken.to_string().contains("data"), "{taken}");
        drop(server);
        // Half of it has started when it turns out whose data these are.
        let wrong = small("other.org").data_dir(&data).start_blocking().unwrap_err();
        assert!(wrong.to_string().contains("example.org"), "{wrong}");
        // And nearly all of it when the search index cannot be opened.
        let search = data.join("search");
        fs::remove_dir_all(&search).unwrap();
        fs::write(&search, "").unwrap();
        on_disk().start_blocking().unwrap_err();
        fs::remove_file(&search).unwrap();
        await_threads(before, "on disk");
    }
}

#[test]
fn an_idle_server_costs_little() {
    if !is_alone("an_idle_server_costs_little") {
        return;
    }
    let (threads_before, memory_before) = (threads().len(), resident_kib());
    let measure = |count: usize, most: usize, start: fn(Builder) -> Builder| {
        let network = Network::new();
        let name = |number| format!("s{number}.test");
        let begin = |number| Embedded::start(start(small(&name(number)).network(&network)));
        let servers: Vec<_> = (0..count).map(begin).collect();
        let (threads, memory) = (threads().len() - threads_before, resident_kib() - memory_before);
        println!("{count} servers: {threads} threads, {memory} KiB");
        assert!(threads <= count * most, "{threads} threads");
        assert!(memory <= 8_192 + count * 4_096, "{memory} KiB");
        drop(servers);
        await_threads(threads_before, "stopped");
    };
    let (many, one): (fn(Builder) -> Builder, _) = (|builder| builder, Builder::on_one_thread);
    // What was freed may stay with the process: those that take least come first.
    measure(1, 1, one);
    measure(1, 12, many);
    measure(20, 1, one);
    measure(20, 12, many);
}

#[test]
fn a_server_in_test_mode_is_not_for_others() {
    let open = "0.0.0.0:0".parse().unwrap();
    let builder = small("near.test").test_mode().listen(open, [Api::Client]);
    let refused = builder.start_blocking().unwrap_err().to_string();
    assert!(refused.contains("0.0.0.0") && refused.contains("test mode"), "{refused}");
}
