//! What is measured of an event on its way, and by which name a thread's work is found.

use std::{collections::BTreeSet, fs};

use parlour_actors::metrics::Stage;

use crate::common::{Server, User};

/// How often a stage was measured, and how many seconds it took in all.
fn measured(user: &User, stage: Stage) -> (f64, f64) {
    let text = user.http.text("/metrics");
    let value = |kind: &str| {
        let start = format!("parlour_stage_seconds_{kind}{{stage=\"{}\"}} ", stage.name());
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start}in {text}")).parse::<f64>().unwrap()
    };
    (value("count"), value("sum"))
}

#[test]
fn every_stage_of_a_message_is_measured() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let before = Stage::ALL.map(|stage| measured(&alice, stage));
    for n in 0..5 {
        alice.say(&room, &format!("message {n}")).ok();
    }
    for (stage, (count, sum)) in Stage::ALL.into_iter().zip(before) {
        let (now, seconds) = measured(&alice, stage);
        assert!(now >= count + 5.0, "{stage:?}: {count}, then {now}");
        assert!(seconds > sum && seconds < sum + 60.0, "{stage:?}: {sum}, then {seconds}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn threads_are_listed_under_what_they_do() {
    let server = Server::start_federated(&[]);
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    // A thread may end meanwhile.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names: BTreeSet<_> = names.map(|name| name.trim_end().to_owned()).collect();
    for name in
        ["parlour", "http", "rooms", "persister", "users", "federation", "receiving", "sending"]
    {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}
