//! The power goes while a server that was away gets the newest events of its rooms.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{collections::HashSet, fs, path::Path, sync::Arc, time::Duration};

use futures_util::poll;
use parlour_actors::{
    commit::{Announcement, Ops},
    env::ManualClock,
};
use parlour_event::StreamPos;
use parlour_storage::{
    Op,
    schema::{DestinationEntry, keys, outbox},
};
use tokio::sync::MutexGuard;
use world::{START, Server, start};

/// More than go with one transaction.
const ROOMS: usize = 60;

/// Lets one transaction through, and holds the next one.
async fn one_more<'a>(server: &'a Server, held: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
    let (before, far) = (server.world.tried("far.org").len(), "far.org");
    server.pass_until(Duration::from_secs(10), |world| world.under_way(far)).await;
    let mut next = Box::pin(server.world.gate.lock());
    assert!(poll!(&mut next).is_pending());
    drop(held);
    let next = next.await;
    server.until(|world| world.tried(far).len() > before && world.under_way(far)).await;
    next
}

/// What is on the disk at this moment; the index is made again from it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true if entry.file_name() == "index" => {}
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Takes all out of the outbox, as if very much had been said meanwhile.
async fn empty_outbox(server: &Server) {
    let store = &server.engine.store;
    let waiting = store.outbox(StreamPos(0), 10_000).unwrap().into_iter();
    let mut ops: Vec<_> =
        waiting.map(|(pos, _)| Op::Delete { key: outbox::waiting(pos) }).collect();
    let floor = store.applied().0.to_be_bytes().to_vec().into();
    ops.push(Op::Put { key: keys::setting("outbox_floor"), value: floor });
    let change = Ops { ops, announcement: Announcement::Nothing };
    server.engine.persister.commit(Box::new(change)).await.unwrap();
}

// Checklist 12.5
#[actix::test]
async fn who_is_catching_up_when_the_power_goes_gets_the_rest_afterwards() {
    let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(Some(dir.path()), Arc::default(), Arc::new(ManualClock::at(START))).await;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(server.room_with(&["far.org"]).await);
    }
    server.world.fail("far.org");
    for (number, room) in rooms.iter().enumerate() {
        for text in ["a", "b", "c", "newest"] {
            server.say(room, &format!("{text} {number}")).await;
        }
    }
    server.pass_until(Duration::from_secs(60), |world| world.tried("far.org").len() > 8).await;
    let held = server.world.gate.lock().await;
    server.world.heal("far.org");
    // The one that failed again and again, and the first with the newest of rooms.
    let held = one_more(&server, held).await;
    let held = one_more(&server, held).await;
    let entry = || {
        let key = outbox::destination("far.org");
        server.engine.store.typed::<DestinationEntry>(&key).unwrap().unwrap_or_default()
    };
    server.pass_until(Duration::from_secs(3), |_| entry().failures == 0).await;
    let got: HashSet<_> = server.world.texts("far.org").into_iter().collect();
    let is_new = |text: &String| text.starts_with("newest");
    let got: HashSet<_> = got.into_iter().filter(is_new).collect();
    assert!(!got.is_empty() && got.len() < ROOMS, "{}", got.len());
    empty_outbox(&server).await;
    copy(dir.path(), after.path());
    let clock = server.clock.clone();
    let again = start(Some(after.path()), Arc::default(), clock).await;
    let has_all = |world: &world::World| {
        let mut all = got.clone();
        all.extend(world.texts("far.org").into_iter().filter(is_new));
        all.len() == ROOMS
    };
    again.pass_until(Duration::from_secs(1), has_all).await;
    again.stop().await;
    drop(held);
    server.stop().await;
}
