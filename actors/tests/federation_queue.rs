//! What goes to other servers, with servers that are made up and a clock that is moved by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parlour_actors::{
    LocalEvent, env::ManualClock, federation_queue::Failure, room_orders::DeletionOrder,
    users::NewReceipt,
};
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::schema::DeletionStatus;
use ruma::ServerName;
use support::{state, user};
use world::{START, Server, server, start};

fn numbered(start: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{start} {number}")).collect()
}

fn out(target: &str) -> LocalEvent {
    state("alice", "m.room.member", target, r#"{"membership":"leave"}"#)
}

// Checklist 12.1, 12.2
#[actix::test]
async fn events_go_in_order_in_few_transactions() {
    let server = server().await;
    let room = server.room_with(&["far.org", "denied.org"]).await;
    let texts = numbered("message", 130);
    {
        let _closed = server.world.gate.lock().await;
        server.say_all(&room, &texts).await;
    }
    server.until(|world| world.texts("far.org").len() == texts.len()).await;
    assert_eq!(server.world.texts("far.org"), texts);
    let got = server.world.got("far.org");
    assert!(got.iter().all(|transaction| transaction.pdus.len() <= 50));
    assert!(got.len() < 10, "{} transactions", got.len());
    let ids: HashSet<_> = got.iter().map(|transaction| &transaction.id).collect();
    assert_eq!(ids.len(), got.len());
    assert!(server.world.tried("denied.org").is_empty());
    assert!(server.world.tried("parlour.test").is_empty());
    server.stop().await;
}

// Checklist 12.2, 12.5
#[actix::test]
async fn what_failed_is_repeated_as_it_was_with_growing_pauses() {
    let server = server().await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    server.world.fail("far.org");
    server.say(&room, "one").await;
    server.until(|world| world.tried("far.org").len() == 1).await;
    server.say(&room, "two").await;
    server.until(|world| world.texts("near.org").len() == 2).await;
    server.pass(Duration::from_millis(700));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.world.tried("far.org").len(), 1, "the pause is not over");
    server.pass_until(Duration::from_secs(1), |world| world.tried("far.org").len() == 4).await;
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(5), |world| world.texts("far.org").len() == 2).await;
    assert_eq!(server.world.texts("far.org"), ["one", "two"]);
    let tried = server.world.tried("far.org");
    assert!(tried[..5].iter().all(|transaction| *transaction == tried[0]), "{tried:?}");
    assert_eq!(server.queues.overview().failing, 0);
    server.stop().await;
}

// Checklist 12.5
#[actix::test]
async fn whoever_contacts_this_server_is_tried_at_once() {
    let server = server().await;
    let room = server.room_with(&["far.org"]).await;
    server.world.fail("far.org");
    server.say(&room, "one").await;
    server.pass_until(Duration::from_secs(300), |world| world.tried("far.org").len() > 20).await;
    let far = <&ServerName>::try_from("far.org").unwrap();
    let entry = server.queues.destination(far).unwrap().unwrap();
    assert!(entry.retry_at > entry.last_attempt + 100_000, "{entry:?}");
    server.world.heal("far.org");
    server.pass(Duration::from_secs(16));
    assert!(server.world.got("far.org").is_empty());
    server.queues.is_back(far);
    server.until(|world| world.texts("far.org") == ["one"]).await;
    server.queues.is_back(far);
    assert!(!server.queues.reset(far));
    server.stop().await;
}

#[actix::test]
async fn a_server_that_missed_little_gets_all_of_it() {
    let server = server().await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    let other = server.room_with(&["near.org"]).await;
    server.world.fail("far.org");
    server.say(&room, "first").await;
    server.pass_until(Duration::from_secs(60), |world| world.tried("far.org").len() > 10).await;
    let texts = numbered("while away", 120);
    for text in &texts {
        server.say(&room, text).await;
        server.say(&other, "not for far.org").await;
    }
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(60), |world| world.texts("far.org").len() > 120).await;
    server.say(&room, "last").await;
    server.until(|world| world.texts("far.org").len() > 121).await;
    let expected = [&["first".to_owned()][..], &texts, &["last".to_owned()]].concat();
    assert_eq!(server.world.texts("far.org"), expected);
    server.until(|world| world.texts("near.org").len() == 242).await;
    server.stop().await;
}

#[actix::test]
async fn a_server_that_missed_much_gets_the_newest_of_each_room() {
    let server = server().await;
    let rooms =
        [server.room_with(&["far.org", "near.org"]).await, server.room_with(&["far.org"]).await];
    let quiet = server.room_with(&["far.org"]).await;
    server.say(&quiet, "quiet").await;
    server.until(|world| world.texts("far.org") == ["quiet"]).await;
    server.world.fail("far.org");
    server.say(&rooms[0], "first").await;
    server.pass_until(Duration::from_secs(60), |world| world.tried("far.org").len() > 10).await;
    let texts = numbered("while away", 250);
    server.say_all(&rooms[0], &texts).await;
    server.say_all(&rooms[1], &numbered("elsewhere", 3)).await;
    server.until(|world| world.texts("near.org").len() == 251).await;
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(60), |world| world.texts("far.org").len() >= 4).await;
    server.say(&rooms[0], "and on").await;
    server.until(|world| world.texts("far.org").len() >= 5).await;
    let got = server.world.texts("far.org");
    assert_eq!(got[..2], ["quiet", "first"]);
    let newest: HashSet<_> = got[2..4].iter().map(String::as_str).collect();
    assert_eq!(newest, HashSet::from(["while away 249", "elsewhere 2"]));
    assert_eq!(got[4..], ["and on"]);
    server.stop().await;
}

#[actix::test]
async fn a_restart_loses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(Some(dir.path()), Arc::default(), Arc::new(ManualClock::at(START))).await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    server.world.fail("far.org");
    let before = numbered("before", 3);
    server.say_all(&room, &before).await;
    server.until(|world| world.texts("near.org").len() == 3).await;
    server.until(|world| !world.tried("far.org").is_empty()).await;
    let (world, clock) = server.stop().await;
    let tried = world.tried("far.org").len();
    let server = start(Some(dir.path()), world, clock).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.world.tried("far.org").len(), tried, "the pause outlives the restart");
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(1), |world| world.texts("far.org").len() == 3).await;
    server.say(&room, "after").await;
    server.until(|world| world.texts("far.org").len() == 4).await;
    server.until(|world| world.texts("near.org").len() == 4).await;
    let expected = [&before[..], &["after".to_owned()]].concat();
    assert_eq!(server.world.texts("far.org"), expected);
    assert_eq!(server.world.texts("near.org"), expected);
    let ids: Vec<_> = server.world.got("near.org").into_iter().map(|t| t.id).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    server.stop().await;
}

#[actix::test]
async fn what_everybody_has_got_leaves_the_outbox() {
    let server = server().await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    server.world.fail("far.org");
    server.say_all(&room, &numbered("message", 5)).await;
    server.until(|world| world.texts("near.org").len() == 5).await;
    server.pass(Duration::from_secs(3));
    let outbox = |server: &Server| server.engine.store.outbox(StreamPos(0), 100).unwrap().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(outbox(&server), 5);
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(3), |world| world.texts("far.org").len() == 5).await;
    for _ in 0..500 {
        server.pass(Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(5)).await;
        if outbox(&server) == 0 {
            break;
        }
    }
    assert_eq!(outbox(&server), 0);
    server.stop().await;
}

#[actix::test]
async fn who_is_put_out_hears_of_it_and_of_nothing_else() {
    let server = server().await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    server.world.fail("far.org");
    server.say(&room, "before").await;
    server.until(|world| !world.tried("far.org").is_empty()).await;
    server.engine.rooms.send(&room, out("@guest:far.org")).await.unwrap();
    server.say(&room, "among ourselves").await;
    server.until(|world| world.texts("near.org").len() == 3).await;
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(1), |world| world.texts("far.org").len() == 2).await;
    for _ in 0..500 {
        server.pass(Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(5)).await;
        if server.engine.store.stays_of(server.num(&room), "far.org").unwrap().is_empty() {
            break;
        }
    }
    assert_eq!(server.world.texts("far.org"), ["before", "m.room.member"]);
    assert!(server.engine.store.stays_of(server.num(&room), "far.org").unwrap().is_empty());
    let none = server.engine.store.rooms_of_server("far.org", (RoomNum(0), None), 9).unwrap();
    assert!(none.is_empty(), "{none:?}");
    server.stop().await;
}

#[actix::test]
async fn a_dead_server_that_is_put_out_hears_of_it_when_it_is_back() {
    let server = server().await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    server.world.fail("far.org");
    server.say(&room, "first").await;
    server.pass_until(Duration::from_secs(60), |world| world.tried("far.org").len() > 10).await;
    server.say_all(&room, &numbered("while away", 210)).await;
    server.engine.rooms.send(&room, out("@guest:far.org")).await.unwrap();
    server.say(&room, "among ourselves").await;
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(60), |world| world.texts("far.org").len() >= 2).await;
    server.pass(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.world.texts("far.org"), ["first", "m.room.member"]);
    server.stop().await;
}

#[actix::test]
async fn what_is_refused_again_and_again_is_given_up() {
    let server = server().await;
    let room = server.room_with(&["far.org"]).await;
    server.world.fail_with("far.org", Failure::Refused("no".to_owned()));
    server.say(&room, "unwanted").await;
    server.pass_until(Duration::from_secs(60), |world| world.tried("far.org").len() == 8).await;
    server.world.heal("far.org");
    server.say(&room, "wanted").await;
    server.pass_until(Duration::from_secs(60), |world| !world.got("far.org").is_empty()).await;
    assert_eq!(server.world.texts("far.org"), ["wanted"]);
    server.stop().await;
}

#[actix::test]
async fn a_busy_server_says_when_to_come_again() {
    let server = server().await;
    let room = server.room_with(&["far.org"]).await;
    server.world.fail_with("far.org", Failure::Busy(Some(Duration::from_secs(100))));
    server.say(&room, "hello").await;
    server.until(|world| !world.tried("far.org").is_empty()).await;
    server.world.heal("far.org");
    server.pass(Duration::from_secs(70));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(server.world.got("far.org").is_empty());
    server.pass_until(Duration::from_secs(10), |world| !world.got("far.org").is_empty()).await;
    server.stop().await;
}

// Checklist 9.6, 9.7
#[actix::test]
async fn typing_and_receipts_of_users_here_are_told() {
    let server = server().await;
    let room = server.room_with(&["far.org"]).await;
    let alone = server.room_with(&[]).await;
    let (num, alone) = (server.num(&room), server.num(&alone));
    let typing = &server.engine.typing;
    for (room, user) in
        [(num, "@alice:parlour.test"), (num, "@x:far.org"), (alone, "@a:parlour.test")]
    {
        typing.set(room, user, Some(Duration::from_secs(30)));
    }
    server.until(|world| !world.edus("far.org").is_empty()).await;
    typing.set(num, "@alice:parlour.test", None);
    server.until(|world| world.edus("far.org").len() == 2).await;
    let said: Vec<_> = server
        .world
        .edus("far.org")
        .iter()
        .map(|edu| {
            assert_eq!(edu["edu_type"], "m.typing");
            assert_eq!(edu["content"]["user_id"], "@alice:parlour.test");
            edu["content"]["typing"].as_bool().unwrap()
        })
        .collect();
    assert_eq!(said, [true, false]);
    for (kind, thread, event) in [
        ("m.read", "", "$old"),
        ("m.read", "", "$new"),
        ("m.read.private", "", "$private"),
        ("m.read", "main", "$main"),
    ] {
        let receipt = NewReceipt {
            room: num,
            receipt_type: kind.to_owned(),
            thread: thread.to_owned(),
            event_id: event.to_owned(),
            ts: None,
        };
        server.engine.users.set_receipt(user("alice").as_str(), receipt).await.unwrap();
    }
    server
        .until(|world| {
            let all = format!("{:?}", world.edus("far.org"));
            all.contains("$new") && all.contains("$main")
        })
        .await;
    assert!(!format!("{:?}", server.world.edus("far.org")).contains("$private"));
    server.stop().await;
}

#[actix::test]
async fn nothing_ephemeral_waits_for_a_server_that_is_away() {
    let server = server().await;
    let room = server.room_with(&["far.org", "near.org"]).await;
    server.world.fail("far.org");
    server.say(&room, "hello").await;
    server.until(|world| !world.tried("far.org").is_empty()).await;
    let num = server.num(&room);
    server.engine.typing.set(num, "@alice:parlour.test", Some(Duration::from_secs(30)));
    server.until(|world| !world.edus("near.org").is_empty()).await;
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(1), |world| !world.got("far.org").is_empty()).await;
    assert!(server.world.edus("far.org").is_empty());
    server.stop().await;
}

#[actix::test]
async fn others_hear_of_everybody_leaving_before_the_room_is_removed() {
    let server = server().await;
    let room = server.room_with(&["far.org"]).await;
    server.world.fail("far.org");
    let order = DeletionOrder {
        room_id: room.clone(),
        replacement: None,
        blocked_by: None,
        purge: true,
        force_purge: false,
    };
    let deletion = server.engine.room_orders.delete(order).await.unwrap();
    server.until(|world| !world.tried("far.org").is_empty()).await;
    server.world.heal("far.org");
    server.pass_until(Duration::from_secs(1), |world| !world.got("far.org").is_empty()).await;
    assert_eq!(server.world.texts("far.org"), ["m.room.member"]);
    let num = server.num(&room);
    for _ in 0..1_000 {
        server.pass(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let known = server.engine.room_orders.deletion(&deletion).unwrap().unwrap();
        if known.status == DeletionStatus::Complete {
            break;
        }
    }
    assert!(server.engine.store.room_num(room.as_str()).unwrap().is_none());
    assert!(server.engine.store.stays_in(num, 9).unwrap().is_empty());
    let rooms = server.engine.store.rooms_of_server("far.org", (RoomNum(0), None), 9).unwrap();
    assert!(rooms.is_empty(), "{rooms:?}");
    server.stop().await;
}

#[actix::test]
async fn many_dead_servers_slow_no_other_down() {
    let server = server().await;
    let dead: Vec<_> = (0..300).map(|number| format!("dead{number}.org")).collect();
    let mut names: Vec<_> = dead.iter().map(String::as_str).collect();
    names.push("near.org");
    let room = server.room_with(&names).await;
    dead.iter().for_each(|name| server.world.fail(name));
    server.say_all(&room, &numbered("message", 20)).await;
    server.until(|world| world.texts("near.org").len() == 20).await;
    server.until(|world| dead.iter().all(|name| !world.tried(name).is_empty())).await;
    let overview = server.queues.overview();
    assert_eq!((overview.failing, overview.waiting), (300, 300));
    let mut by_tries = BTreeMap::<_, usize>::new();
    dead.iter().for_each(|name| *by_tries.entry(server.world.tried(name).len()).or_default() += 1);
    assert_eq!(by_tries, BTreeMap::from([(1, 300)]), "nothing is tried again without a pause");
    server.stop().await;
}

// Checklist 12.8
#[actix::test]
async fn events_go_out_to_servers_that_an_acl_keeps_out() {
    let server = server().await;
    let room = server.room_with(&["far.org"]).await;
    let acl = state("alice", "m.room.server_acl", "", r#"{"allow":["*"],"deny":["far.org"]}"#);
    server.engine.rooms.send(&room, acl).await.unwrap();
    server.say(&room, "you are not heard, but you hear").await;
    server.until(|world| world.texts("far.org").len() == 2).await;
    let expected = ["m.room.server_acl", "you are not heard, but you hear"];
    assert_eq!(server.world.texts("far.org"), expected);
    server.stop().await;
}
