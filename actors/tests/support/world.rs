//! A server whose queues send to servers that are made up, and a clock that is moved by hand.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use parlour_actors::{
    Engine, RoomLimits,
    env::{Env, ManualClock, SeededEntropy},
    federation_queue::{
        Courier, Delivered, Failure, FederationQueues, KeyTeller, QueueOptions, Transaction,
    },
    keyring::BoxFuture,
    metrics::Metrics,
    presence::PresenceOptions,
};
use parlour_event::RoomNum;
use parlour_storage::{StorageError, schema::DeviceUpdate};
use ruma::{OwnedRoomId, RoomId, ServerName};
use serde_json::{Value, json};

use crate::support::{create, message, options, remote_member};

/// Other servers, as far as transactions go.
#[derive(Debug, Default)]
pub(crate) struct World {
    inner: Mutex<Inner>,
    /// Nothing gets through while this is held.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What came of all attempts.
    attempts: Vec<(String, Transaction, bool)>,
    failing: HashMap<String, Failure>,
    under_way: HashSet<String>,
    /// How many EDUs were dropped, by why.
    dropped: HashMap<&'static str, usize>,
}

impl Metrics for World {
    fn posted_dropped(&self, reason: &'static str, edus: usize) {
        *self.inner.lock().unwrap().dropped.entry(reason).or_default() += edus;
    }
}

impl Courier for World {
    fn may_send(&self, to: &ServerName) -> bool {
        to != "denied.org"
    }

    fn carry<'a>(
        &'a self,
        to: &'a ServerName,
        transaction: &'a Transaction,
    ) -> BoxFuture<'a, Result<Delivered, Failure>> {
        Box::pin(async move {
            let is_alone = self.inner.lock().unwrap().under_way.insert(to.to_string());
            assert!(is_alone, "{to} has a transaction already");
            drop(self.gate.lock().await);
            let mut inner = self.inner.lock().unwrap();
            inner.under_way.remove(to.as_str());
            let failure = inner.failing.get(to.as_str()).cloned();
            inner.attempts.push((to.to_string(), transaction.clone(), failure.is_none()));
            failure.map_or(Ok(Delivered::default()), Err)
        })
    }
}

/// Says who and what, but not more.
#[derive(Debug)]
struct Teller;

impl KeyTeller for Teller {
    fn device(&self, user: &str, update: &DeviceUpdate) -> Result<Option<Bytes>, StorageError> {
        let DeviceUpdate { stream_id, prev_id, device } = update;
        let content = json!({ "user": user, "device": device, "id": stream_id, "prev": prev_id });
        let edu = json!({ "edu_type": "m.device_list_update", "content": content });
        Ok(Some(edu.to_string().into()))
    }

    fn signing_keys(&self, user: &str) -> Result<Option<Bytes>, StorageError> {
        let content = json!({ "user": user });
        let edu = json!({ "edu_type": "m.signing_key_update", "content": content });
        Ok(Some(edu.to_string().into()))
    }
}

impl World {
    pub(crate) fn fail(&self, server: &str) {
        self.fail_with(server, Failure::Unreachable("made up".to_owned()));
    }

    pub(crate) fn fail_with(&self, server: &str, failure: Failure) {
        self.inner.lock().unwrap().failing.insert(server.to_owned(), failure);
    }

    pub(crate) fn heal(&self, server: &str) {
        self.inner.lock().unwrap().failing.remove(server);
    }

    /// How many EDUs were dropped for this reason.
    pub(crate) fn dropped(&self, reason: &str) -> usize {
        self.inner.lock().unwrap().dropped.get(reason).copied().unwrap_or_default()
    }

    /// Whether a transaction to a server is under way.
    pub(crate) fn under_way(&self, server: &str) -> bool {
        self.inner.lock().unwrap().under_way.contains(server)
    }

    /// All transactions that were tried with a server.
    pub(crate) fn tried(&self, server: &str) -> Vec<Transaction> {
        let inner = self.inner.lock().unwrap();
        let all = inner.attempts.iter().filter(|(to, ..)| to == server);
        all.map(|(_, transaction, _)| transaction.clone()).collect()
    }

    /// What a server has got.
    pub(crate) fn got(&self, server: &str) -> Vec<Transaction> {
        let inner = self.inner.lock().unwrap();
        let all = inner.attempts.iter().filter(|(to, _, delivered)| to == server && *delivered);
        all.map(|(_, transaction, _)| transaction.clone()).collect()
    }

    /// The bodies of the messages that a server has got, in order; of other events their type.
    pub(crate) fn texts(&self, server: &str) -> Vec<String> {
        self.got(server).iter().flat_map(texts).collect()
    }

    pub(crate) fn edus(&self, server: &str) -> Vec<Value> {
        let got = self.got(server);
        let edus = got.iter().flat_map(|transaction| &transaction.edus);
        edus.map(|edu| serde_json::from_slice(edu).unwrap()).collect()
    }
}

pub(crate) fn texts(transaction: &Transaction) -> Vec<String> {
    let text = |pdu: &bytes::Bytes| {
        let event: Value = serde_json::from_slice(pdu).unwrap();
        let text = event["content"]["body"].as_str().or(event["type"].as_str());
        text.unwrap().to_owned()
    };
    transaction.pdus.iter().map(text).collect()
}

pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) queues: FederationQueues,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) world: Arc<World>,
}

pub(crate) const START: u64 = 1_700_000_000_000;

pub(crate) async fn server() -> Server {
    start(None, Arc::default(), Arc::new(ManualClock::at(START))).await
}

pub(crate) async fn start(
    dir: Option<&Path>,
    world: Arc<World>,
    clock: Arc<ManualClock>,
) -> Server {
    let env = Env::new(clock.clone(), Arc::new(SeededEntropy::new(START)));
    let mut options = options(dir, RoomLimits::default());
    options.env = env.clone();
    let day = Duration::from_secs(86_400);
    options.presence = Some(PresenceOptions { idle: day, grace: day });
    let engine = Engine::start(options).await.unwrap();
    let queues = QueueOptions {
        server_name: "parlour.test".try_into().unwrap(),
        courier: world.clone(),
        teller: Arc::new(Teller),
        longest_pause: Duration::from_secs(3_600),
        tells_presence: true,
        env,
        metrics: world.clone(),
    };
    let queues = FederationQueues::start(&engine, queues).unwrap();
    Server { engine, queues, clock, world }
}

impl Server {
    /// A room that users of these servers have joined.
    pub(crate) async fn room_with(&self, servers: &[&str]) -> OwnedRoomId {
        let room = create(&self.engine, "12").await;
        for server in servers {
            remote_member(&self.engine, &room, &format!("@guest:{server}"), "join").await;
        }
        room
    }

    pub(crate) async fn say(&self, room: &RoomId, text: &str) {
        self.engine.rooms.send(room, message("alice", text)).await.unwrap();
    }

    pub(crate) async fn say_all(&self, room: &RoomId, texts: &[String]) {
        for text in texts {
            self.say(room, text).await;
        }
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.queues.look_again();
    }

    /// Lets time pass until something is true.
    pub(crate) async fn pass_until(&self, step: Duration, is_true: impl Fn(&World) -> bool) {
        for _ in 0..2_000 {
            if is_true(&self.world) {
                return;
            }
            self.pass(step);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("this never happens: {:?}", self.world);
    }

    pub(crate) async fn until(&self, is_true: impl Fn(&World) -> bool) {
        self.pass_until(Duration::ZERO, is_true).await;
    }

    pub(crate) async fn stop(self) -> (Arc<World>, Arc<ManualClock>) {
        self.queues.stop().await;
        self.engine.stop().await;
        (self.world, self.clock)
    }

    pub(crate) fn num(&self, room: &RoomId) -> RoomNum {
        self.engine.store.room_num(room.as_str()).unwrap().unwrap()
    }
}
