//! EDUs that must not be lost, with servers that are made up and a clock that is moved by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use parlour_actors::{env::ManualClock, federation_queue::Failure, users::OutgoingEdu};
use parlour_event::StreamPos;
use serde_json::{Value, json};
use support::user;
use world::{START, Server, World, server, start};

async fn post(server: &Server, to: &str, numbers: Range<u64>) {
    for number in numbers {
        let json = json!({ "edu_type": "m.direct_to_device", "content": number });
        let edu = OutgoingEdu { server: to.to_owned(), json: json.to_string().into() };
        let mut hasher = DefaultHasher::new();
        to.hash(&mut hasher);
        let mut transaction = [0; 16];
        transaction[..8].copy_from_slice(&number.to_be_bytes());
        transaction[8..].copy_from_slice(&hasher.finish().to_be_bytes());
        let sender = user("alice");
        // Whoever repeats a request changes nothing.
        for _ in 0..2 {
            let edus = vec![edu.clone()];
            let post =
                server.engine.users.post_to_devices(sender.as_str(), transaction, Vec::new(), edus);
            assert_eq!(post.await.unwrap(), 0);
        }
    }
}

fn waiting(server: &Server, to: &str) -> usize {
    let all = ((StreamPos(0), 0), (StreamPos(u64::MAX), u64::MAX));
    server.engine.store.waiting_edus(to, all, 9_999).unwrap().len()
}

fn numbers(world: &World, server: &str) -> Vec<u64> {
    let edus = world.edus(server).into_iter();
    let posted = edus.filter(|edu| edu["edu_type"] == "m.direct_to_device");
    posted.map(|edu| edu["content"].as_u64().unwrap()).collect()
}

async fn until_empty(server: &Server, to: &str) {
    for _ in 0..2_000 {
        if waiting(server, to) == 0 {
            return;
        }
        server.pass(Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("something is left");
}

// Checklist 12.1, 12.6
#[actix::test]
async fn edus_go_in_order_beside_events_and_leave_room_for_what_is_ephemeral() {
    let server = server().await;
    let room = server.room_with(&["far.org"]).await;
    {
        let _closed = server.world.gate.lock().await;
        server.say(&room, "first").await;
        server.until(|world| world.under_way("far.org")).await;
        post(&server, "far.org", 0..170).await;
        post(&server, "denied.org", 0..1).await;
        server.say(&room, "second").await;
        let typing = |name: &str| user(name).to_string();
        for number in 0..60 {
            let name = typing(&format!("user{number}"));
            let time = Some(Duration::from_secs(30));
            server.engine.typing.set(server.num(&room), &name, time);
        }
    }
    server.until(|world| numbers(world, "far.org").len() == 170).await;
    assert!(numbers(&server.world, "far.org").into_iter().eq(0..170));
    server.until(|world| world.texts("far.org") == ["first", "second"]).await;
    let typing = |edu: &Value| edu["edu_type"] == "m.typing";
    server
        .until(|world| world.edus("far.org").iter().filter(|edu| typing(edu)).count() == 60)
        .await;
    for transaction in server.world.got("far.org") {
        let edus = transaction.edus.iter().map(|edu| serde_json::from_slice(edu).unwrap());
        let (typing, posted): (Vec<Value>, Vec<_>) = edus.partition(typing);
        assert!(posted.len() <= 80 && typing.len() + posted.len() <= 100);
    }
    until_empty(&server, "far.org").await;
    assert!(server.world.tried("denied.org").is_empty());
    server.stop().await;
}

// Checklist 12.2, 12.6
#[actix::test]
async fn they_wait_through_any_outage_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(Some(dir.path()), Arc::default(), Arc::new(ManualClock::at(START))).await;
    server.world.fail("far.org");
    post(&server, "far.org", 0..1).await;
    server.until(|world| world.tried("far.org").len() == 1).await;
    post(&server, "far.org", 1..200).await;
    server.pass_until(Duration::from_secs(60), |world| world.tried("far.org").len() > 10).await;
    let tried = server.world.tried("far.org");
    assert!(tried.iter().all(|transaction| *transaction == tried[0]), "each is a repetition");
    assert_eq!(server.queues.overview().waiting, 1);
    let (world, clock) = server.stop().await;
    let server = start(Some(dir.path()), world, clock).await;
    server.world.heal("far.org");
    server
        .pass_until(Duration::from_secs(60), |world| numbers(world, "far.org").len() >= 200)
        .await;
    assert!(numbers(&server.world, "far.org").into_iter().eq(0..200));
    until_empty(&server, "far.org").await;
    let (world, clock) = server.stop().await;
    // What one process has left is found by the next one, which is told of nothing.
    let server = start(Some(dir.path()), world, clock).await;
    {
        let _closed = server.world.gate.lock().await;
        post(&server, "near.org", 0..3).await;
        server.queues.stop().await;
    }
    server.engine.stop().await;
    // What was under way then is not known to the new world.
    let server = start(Some(dir.path()), Arc::default(), server.clock.clone()).await;
    server.pass_until(Duration::from_secs(1), |world| numbers(world, "near.org").len() >= 3).await;
    assert_eq!(numbers(&server.world, "near.org"), [0, 1, 2]);
    assert!(server.world.tried("far.org").is_empty(), "nothing is repeated");
    server.stop().await;
}

// Checklist 12.6
#[actix::test]
async fn a_transaction_is_no_longer_than_others_take() {
    let server = server().await;
    let long = "x".repeat(60_000);
    let edu = json!({ "edu_type": "m.direct_to_device", "content": 0, "long": long });
    let edu = OutgoingEdu { server: "far.org".to_owned(), json: edu.to_string().into() };
    let post =
        server.engine.users.post_to_devices("@a:parlour.test", [1; 16], vec![], vec![edu; 79]);
    post.await.unwrap();
    server.until(|world| world.edus("far.org").len() == 79).await;
    let len = |edus: &[bytes::Bytes]| edus.iter().map(bytes::Bytes::len).sum::<usize>();
    let got = server.world.got("far.org");
    assert!(got.len() == 3 && got.iter().all(|got| len(&got.edus) <= 2 << 20));
    server.stop().await;
}

#[actix::test]
async fn a_server_that_was_never_there_is_given_up_unless_a_room_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(Some(dir.path()), Arc::default(), Arc::new(ManualClock::at(START))).await;
    let all = ["nowhere.org", "shared.org", "known.org"];
    server.room_with(&["shared.org"]).await;
    post(&server, "known.org", 0..1).await;
    server.until(|world| world.edus("known.org").len() == 1).await;
    for name in all {
        server.world.fail(name);
        post(&server, name, 1..4).await;
    }
    server.until(|world| all.iter().all(|name| !world.tried(name).is_empty())).await;
    let hour = Duration::from_secs(3_600);
    server.pass_until(hour, |world| world.tried("nowhere.org").len() > 10).await;
    assert_eq!(waiting(&server, "nowhere.org"), 3);
    // It is the outage that counts, not the process.
    let (world, clock) = server.stop().await;
    let server = start(Some(dir.path()), world, clock).await;
    server.pass_until(hour, |world| world.dropped("unreachable") == 3).await;
    until_empty(&server, "nowhere.org").await;
    let name = "nowhere.org".try_into().unwrap();
    assert_eq!(server.queues.destination(name).unwrap(), None);
    assert_eq!(server.queues.overview().waiting, 2);
    let tried = server.world.tried("nowhere.org").len();
    server.pass_until(hour, |world| world.tried("known.org").len() > 40).await;
    assert_eq!(server.world.tried("nowhere.org").len(), tried);
    all[1..].iter().for_each(|name| server.world.heal(name));
    server.pass_until(hour, |world| numbers(world, "shared.org") == [1, 2, 3]).await;
    server.pass_until(hour, |world| numbers(world, "known.org") == [0, 1, 2, 3]).await;
    // Whoever is spoken to again is tried again.
    server.world.heal("nowhere.org");
    post(&server, "nowhere.org", 9..10).await;
    server.until(|world| numbers(world, "nowhere.org") == [9]).await;
    server.stop().await;
}

#[actix::test]
async fn not_any_number_of_names_is_tried() {
    let server = server().await;
    let names: Vec<_> = (0..1_010).map(|number| format!("made-up-{number}.org")).collect();
    for name in &names {
        server.world.fail(name);
        post(&server, name, 0..1).await;
    }
    let second = Duration::from_secs(1);
    server.pass_until(second, |world| world.dropped("unreachable") == 10).await;
    server.room_with(&["shared.org"]).await;
    post(&server, "shared.org", 0..1).await;
    server.pass_until(second, |world| numbers(world, "shared.org") == [0]).await;
    server.pass_until(second, |_| server.queues.overview().failing == 1_000).await;
    server.stop().await;
}

#[actix::test]
async fn what_is_refused_again_and_again_is_counted() {
    let server = server().await;
    server.world.fail_with("far.org", Failure::Refused("no".to_owned()));
    post(&server, "far.org", 0..3).await;
    server.pass_until(Duration::from_secs(60), |world| world.dropped("refused") > 0).await;
    server.world.heal("far.org");
    post(&server, "far.org", 3..4).await;
    server
        .pass_until(Duration::from_secs(60), |world| numbers(world, "far.org").contains(&3))
        .await;
    let got = numbers(&server.world, "far.org").len();
    assert_eq!(server.world.dropped("refused") + got, 4);
    server.stop().await;
}
