//! A room shared with 50 other servers, of which 5 are dead: how quickly people here can talk,
//! beside a room of their own, and how long it takes until the others have what was said.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parlour_actors::{
    Engine, RoomLimits,
    env::Env,
    federation_queue::{
        Courier, Delivered, Failure, FederationQueues, KeyTeller, QueueOptions, Transaction,
    },
    keyring::BoxFuture,
    metrics::NoMetrics,
};
use parlour_storage::{StorageError, schema::DeviceUpdate};
use ruma::{OwnedRoomId, ServerName};
use support::{create, message, options, remote_member};

/// How many other servers, and how many of them are dead.
const SERVERS: usize = 50;
const DEAD: usize = 5;

/// How long a server takes to answer, and how long it takes to see that one does not.
const ANSWER: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long people talk, and how many of them at once.
const RUN: Duration = Duration::from_secs(5);
const SENDERS: usize = 16;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// The other servers.
#[derive(Debug, Default)]
struct World(Mutex<Arrivals>);

#[derive(Debug, Default)]
struct Arrivals {
    sent: HashMap<String, Instant>,
    delays: Vec<Duration>,
    transactions: usize,
    attempts_on_dead: usize,
}

impl Courier for World {
    fn may_send(&self, _: &ServerName) -> bool {
        true
    }

    fn carry<'a>(
        &'a self,
        to: &'a ServerName,
        transaction: &'a Transaction,
    ) -> BoxFuture<'a, Result<Delivered, Failure>> {
        Box::pin(async move {
            if to.as_str().starts_with("dead") {
                self.0.lock().expect("lock").attempts_on_dead += 1;
                tokio::time::sleep(TIMEOUT).await;
                return Err(Failure::Unreachable("it is dead".to_owned()));
            }
            self.note(transaction);
            tokio::time::sleep(ANSWER).await;
            Ok(Delivered::default())
        })
    }
}

impl World {
    fn note(&self, transaction: &Transaction) {
        let mut arrivals = self.0.lock().expect("lock");
        arrivals.transactions += 1;
        for pdu in &transaction.pdus {
            let event: serde_json::Value = serde_json::from_slice(pdu).expect("JSON");
            let body = event["content"]["body"].as_str().unwrap_or_default();
            let sent = arrivals.sent.get(body).map(Instant::elapsed);
            arrivals.delays.extend(sent);
        }
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// People talk for a while, with a pause after each message; how long sending took each time.
async fn talk(
    engine: &Engine,
    room: &OwnedRoomId,
    world: &World,
    senders: usize,
    pause: Duration,
) -> Vec<Duration> {
    let until = now() + RUN;
    let one = |sender: usize| async move {
        let mut latencies = Vec::new();
        while now() < until {
            let text = format!("{room} {sender} {}", latencies.len());
            let started = now();
            world.0.lock().expect("lock").sent.insert(text.clone(), started);
            engine.rooms.send(room, message("alice", &text)).await.expect("sent");
            latencies.push(started.elapsed());
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        latencies
    };
    let all = futures_util::future::join_all((0..senders).map(one)).await;
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

/// Says nothing of keys.
#[derive(Debug)]
struct Silent;

impl KeyTeller for Silent {
    fn device(&self, _: &str, _: &DeviceUpdate) -> Result<Option<Bytes>, StorageError> {
        Ok(None)
    }

    fn signing_keys(&self, _: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(None)
    }
}

async fn scenario(name: &str, servers: usize, dead: usize, senders: usize, pause: Duration) {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::start(options(Some(dir.path()), RoomLimits::default())).await;
    let engine = engine.expect("an engine");
    let world = Arc::<World>::default();
    let queues = QueueOptions {
        server_name: "parlour.test".try_into().expect("a name"),
        courier: world.clone(),
        teller: Arc::new(Silent),
        longest_pause: Duration::from_secs(3_600),
        tells_presence: false,
        env: Env::system(),
        metrics: Arc::new(NoMetrics),
    };
    let queues = FederationQueues::start(&engine, queues).expect("queues");
    let room = create(&engine, "12").await;
    for number in 0..servers {
        let kind = if number < dead { "dead" } else { "live" };
        remote_member(&engine, &room, &format!("@u:{kind}{number}.org"), "join").await;
    }
    let latencies = talk(&engine, &room, &world, senders, pause).await;
    let stopped = now();
    let expected = latencies.len() * (servers - dead);
    // A server that falls behind by a thousand events gets the newest alone: not all may come.
    while queues.overview().waiting > dead {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let drained = stopped.elapsed();
    queues.stop().await;
    engine.stop().await;
    let mut arrivals = world.0.lock().expect("lock");
    arrivals.delays.sort_unstable();
    let rate = latencies.len() as f64 / RUN.as_secs_f64();
    println!(
        "{name}: {rate:.0} messages/s, sending p50 {:.1?} p99 {:.1?}; delivery p50 {:.1?} p99 \
         {:.1?}, {} of {expected}, the last {drained:.1?} after the end; {} transactions, {} attempts on the dead",
        percentile(&latencies, 50),
        percentile(&latencies, 99),
        percentile(&arrivals.delays, 50),
        percentile(&arrivals.delays, 99),
        arrivals.delays.len(),
        arrivals.transactions,
        arrivals.attempts_on_dead,
    );
}

fn main() {
    actix::System::new().block_on(async {
        let (gentle, none) = (Duration::from_millis(20), Duration::ZERO);
        scenario("a room of their own, one talks", 0, 0, 1, gentle).await;
        scenario("50 servers, 5 dead, one talks", SERVERS, DEAD, 1, gentle).await;
        scenario("a room of their own, many talk", 0, 0, SENDERS, none).await;
        scenario("50 servers, 5 dead, many talk", SERVERS, DEAD, SENDERS, none).await;
    });
}
