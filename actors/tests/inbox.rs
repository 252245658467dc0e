//! What becomes of messages for a device when very many wait for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use parlour_actors::{
    Engine, RoomLimits,
    commit::{Announcement, Ops},
    metrics::Metrics,
    users::Messages,
};
use parlour_event::StreamPos;
use parlour_storage::{
    Op,
    schema::{Device, Stored as _, keys},
};
use support::options;

const ALICE: &str = "@alice:parlour.test";

/// What an inbox holds.
const MAX_WAITING: u64 = 50_000;

#[derive(Debug, Default)]
struct Dropped(AtomicUsize);

impl Metrics for Dropped {
    fn messages_dropped(&self, messages: usize) {
        self.0.fetch_add(messages, Ordering::Relaxed);
    }
}

#[actix::test]
async fn a_full_inbox_loses_its_oldest_messages_and_says_so() {
    let dropped = Arc::<Dropped>::default();
    let mut options = options(None, RoomLimits::default());
    options.metrics = dropped.clone();
    let engine = Engine::start(options).await.unwrap();
    let waiting = |number: u64| {
        let key = keys::inbox(ALICE, "PHONE", StreamPos(1), number);
        Op::PutBlob { key, value: Bytes::new(), blob: Bytes::from(number.to_string()) }
    };
    let device = keys::device(ALICE, "PHONE");
    let mut ops: Vec<_> = [0, 1, 2, MAX_WAITING - 2].map(waiting).into();
    ops.push(Op::Put { key: device, value: Device::default().encode() });
    let change = Ops { ops, announcement: Announcement::Nothing };
    engine.persister.commit(Box::new(change)).await.unwrap();
    let read = || {
        let all = (StreamPos(0), StreamPos(u64::MAX));
        let waiting = engine.users.inbox(ALICE, "PHONE", all, 100).unwrap();
        waiting.into_iter().map(|one| one.message).collect::<Vec<_>>().concat()
    };
    for (n, expected) in [(0, 0), (1, 1), (2, 2)] {
        let message = Some(Bytes::from(format!("[{n}]")));
        let messages =
            vec![Messages { user: ALICE.to_owned(), for_all: message, by_device: Vec::new() }];
        engine.users.send_to_devices("@bob:parlour.test", [n; 16], messages).await.unwrap();
        assert_eq!(dropped.0.load(Ordering::Relaxed), expected);
    }
    assert_eq!(read(), b"249998[0][1][2]");
    engine.stop().await;
}
