//! Account data and typing notifications, through the engine's public interface.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parlour_actors::{
    Engine, RoomLimits,
    env::{Env, ManualClock},
    users::{AccountDataError, NewReceipt},
};
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::StorageError;
use support::{engine, options};

const ALICE: &str = "@alice:parlour.test";

async fn set(engine: &Engine, room: u64, kind: &str, len: usize) -> Result<(), AccountDataError> {
    let content = Bytes::from(vec![b' '; len]);
    engine.users.set_account_data(ALICE, RoomNum(room), kind, content).await
}

fn pieces(engine: &Engine, room: u64) -> Result<Vec<(String, usize)>, StorageError> {
    let now = engine.store.applied();
    let pieces = engine.users.account_data_of_room(ALICE, RoomNum(room), now)?;
    Ok(pieces.into_iter().map(|(kind, content)| (kind, content.len())).collect())
}

#[actix::test]
async fn account_data_of_one_user_are_bounded_together() {
    let engine = engine().await;
    for number in 0..32 {
        set(&engine, 0, &format!("m.{number}"), (1 << 20) - 64).await.unwrap();
    }
    let refused = set(&engine, 0, "m.more", 1 << 20).await;
    assert!(matches!(refused, Err(AccountDataError::TooMuch)), "{refused:?}");
    set(&engine, 0, "m.0", 1_000).await.unwrap();
    set(&engine, 0, "m.more", 1 << 20).await.unwrap();
    engine.stop().await;
}

#[actix::test]
async fn a_panic_fails_one_change_and_no_other() {
    let engine = engine().await;
    let alice = ruma::user_id!("@alice:parlour.test");
    let refused = engine.users.change_push_rules(alice, |_| panic!("a mistake")).await;
    assert!(refused.is_err());
    set(&engine, 0, "m.a", 1).await.unwrap();
    engine.stop().await;
}

#[actix::test]
async fn account_data_of_a_room_are_read_alone() {
    let engine = engine().await;
    for (room, kind, len) in [(0, "m.a", 1), (1, "m.b", 2), (1, "m.a", 3), (2, "m.c", 4)] {
        set(&engine, room, kind, len).await.unwrap();
    }
    let before = engine.store.applied();
    set(&engine, 1, "m.new", 5).await.unwrap();
    let all = [("m.a", 3), ("m.b", 2), ("m.new", 5)].map(|(kind, len)| (kind.to_owned(), len));
    assert_eq!(pieces(&engine, 1).unwrap(), all);
    let old = engine.users.account_data_of_room(ALICE, RoomNum(1), before).unwrap();
    assert_eq!(old.len(), 2, "the new piece comes later");
    engine.stop().await;
}

#[actix::test]
async fn of_very_many_receipts_the_newest_are_told_and_all_of_ones_own() {
    let engine = engine().await;
    let read = async |user: &str, kind: &str, event: &str| {
        let receipt = NewReceipt {
            room: RoomNum(1),
            receipt_type: kind.to_owned(),
            thread: String::new(),
            event_id: event.to_owned(),
            ts: None,
        };
        engine.users.set_receipt(user, receipt).await.unwrap();
    };
    let told = |after: StreamPos| {
        let now = engine.store.applied();
        engine.users.receipt_changes(RoomNum(1), ALICE, after, now).unwrap()
    };
    read(ALICE, "m.read", "$old").await;
    read(ALICE, "m.read.private", "$own").await;
    read("@bob:x", "m.read.private", "$secret").await;
    let before = engine.store.applied();
    assert_eq!(told(StreamPos(0)).len(), 2, "others' private receipts are nobody's business");
    for number in 0..1_500 {
        read(&format!("@u{number}:x"), "m.read", "$e").await;
    }
    let all = told(StreamPos(0));
    assert_eq!(all.len(), 1_002);
    assert_eq!(all.iter().filter(|receipt| receipt.user == ALICE).count(), 2);
    assert!(all.iter().any(|receipt| receipt.user == "@u1499:x"));
    assert!(!all.iter().any(|receipt| receipt.user == "@u0:x" || receipt.user == "@bob:x"));
    assert!(!told(before).iter().any(|receipt| receipt.user == ALICE), "these are known");
    engine.stop().await;
}

/// Waits until the typing counter has moved on; changes are made by an actor.
async fn moved(engine: &Engine, from: u64) -> u64 {
    let wait = async {
        while engine.typing.counter() == from {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    engine.typing.counter()
}

#[actix::test]
async fn who_types_is_news_until_it_was_told() {
    let clock = Arc::new(ManualClock::at(1_000));
    let env = Env { clock: clock.clone(), ..Env::system() };
    let limits = RoomLimits::default();
    let engine = Engine::start(parlour_actors::EngineOptions { env, ..options(None, limits) });
    let engine = engine.await.unwrap();
    let (typing, room, other) = (&engine.typing, RoomNum(1), RoomNum(2));
    let start = typing.counter();
    assert_eq!(typing.rooms_since(start), []);
    typing.set(room, ALICE, Some(Duration::from_secs(30)));
    let begun = moved(&engine, start).await;
    assert_eq!(typing.changed_since(room, start), Some(vec![ALICE.to_owned()]));
    assert_eq!(typing.changed_since(room, 0), Some(vec![ALICE.to_owned()]), "an old token");
    assert_eq!(typing.changed_since(room, begun), None);
    assert_eq!(typing.changed_since(other, 0), None, "nobody has typed there");
    assert_eq!(typing.rooms_since(start), [room]);
    clock.advance(Duration::from_secs(31));
    let ended = moved(&engine, begun).await;
    assert_eq!(typing.changed_since(room, begun), Some(Vec::new()), "it has run out");
    assert_eq!((typing.rooms_since(begun), typing.rooms_since(ended)), (vec![room], vec![]));
    typing.set(room, ALICE, Some(Duration::from_secs(30)));
    let begun = moved(&engine, ended).await;
    typing.end();
    assert_eq!(typing.changed_since(room, begun), Some(Vec::new()), "nobody types at the end");
    let end = typing.counter();
    typing.set(room, ALICE, Some(Duration::from_secs(30)));
    typing.end();
    assert_eq!(typing.counter(), end);
    engine.stop().await;
}
