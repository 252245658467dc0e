//! A room shared with many other servers, some or most of them dead: how quickly people here can
//! talk, beside a room of their own, how long it takes until the others have what was said, and how
//! much CPU time of the whole process each message takes. `SECONDS` shortens each run.

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
    env::{Env, ManualClock},
    federation_queue::{
        Courier, Delivered, Failure, FederationQueues, KeyTeller, QueueOptions, Transaction,
    },
    keyring::BoxFuture,
    metrics::NoMetrics,
};
use parlour_storage::{StorageError, schema::DeviceUpdate};
use ruma::{OwnedRoomId, ServerName};
use support::{create, message, options, remote_member};

/// How long a server takes to answer, and how long it takes to see that one does not.
const ANSWER: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long people talk, in seconds, and how many of them at once where many do.
const RUN: u64 = 5;
const SENDERS: usize = 16;

/// After so many attempts in a row a server counts as dead.
const UNTIL_DEAD: usize = 6;

/// The steps in which the queues' clock goes.
const STEP: Duration = Duration::from_millis(20);

/// What is measured.
struct Scenario {
    servers: usize,
    dead: usize,
    senders: usize,
    /// What each of them waits after a message.
    pause: Duration,
}

fn run() -> Duration {
    let asked = std::env::var("SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(RUN))
}

/// The CPU time that this process has used, from the kernel's clock ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let (_, after_name) = stat.rsplit_once(')').expect("name in brackets");
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// The other servers.
#[derive(Debug, Default)]
struct World(Mutex<Arrivals>);

#[derive(Debug, Default)]
struct Arrivals {
    /// The dead are no longer dying, which goes quickly.
    is_begun: bool,
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
                let is_begun = {
                    let mut arrivals = self.0.lock().expect("lock");
                    arrivals.attempts_on_dead += 1;
                    arrivals.is_begun
                };
                if is_begun {
                    tokio::time::sleep(TIMEOUT).await;
                }
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

/// People talk for a while; how long sending took each time.
async fn talk(
    engine: &Engine,
    room: &OwnedRoomId,
    world: &World,
    scenario: &Scenario,
) -> Vec<Duration> {
    let until = now() + run();
    let one = |sender: usize| async move {
        let mut latencies = Vec::new();
        while now() < until {
            let text = format!("{room} {sender} {}", latencies.len());
            let started = now();
            world.0.lock().expect("lock").sent.insert(text.clone(), started);
            engine.rooms.send(room, message("alice", &text)).await.expect("sent");
            latencies.push(started.elapsed());
            if !scenario.pause.is_zero() {
                tokio::time::sleep(scenario.pause).await;
            }
        }
        latencies
    };
    let all = futures_util::future::join_all((0..scenario.senders).map(one)).await;
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

/// A server whose room the others are in.
struct Stage {
    engine: Engine,
    queues: FederationQueues,
    world: Arc<World>,
    clock: Arc<ManualClock>,
    room: OwnedRoomId,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn set(scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Engine::start(options(Some(dir.path()), RoomLimits::default())).await;
        let engine = engine.expect("an engine");
        let world = Arc::<World>::default();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let env = Env { clock: clock.clone(), ..Env::system() };
        let queues = QueueOptions {
            server_name: "parlour.test".try_into().expect("a name"),
            courier: world.clone(),
            teller: Arc::new(Silent),
            longest_pause: Duration::from_secs(3_600),
            tells_presence: false,
            env,
            metrics: Arc::new(NoMetrics),
        };
        let queues = FederationQueues::start(&engine, queues).expect("queues");
        let room = create(&engine, "12").await;
        for number in 0..scenario.servers {
            let kind = if number < scenario.dead { "dead" } else { "live" };
            remote_member(&engine, &room, &format!("@u:{kind}{number}.org"), "join").await;
        }
        let stage = Self { engine, queues, world, clock, room, _dir: dir };
        stage.engine.rooms.send(&stage.room, message("alice", "hello")).await.expect("sent");
        while stage.is_anybody_dying(scenario) {
            stage.pass(Duration::from_secs(30)).await;
        }
        let mut arrivals = stage.world.0.lock().expect("lock");
        *arrivals = Arrivals { is_begun: true, ..Arrivals::default() };
        drop(arrivals);
        stage
    }

    fn is_anybody_dying(&self, scenario: &Scenario) -> bool {
        self.world.0.lock().expect("lock").attempts_on_dead < scenario.dead * UNTIL_DEAD
            || self.queues.overview().waiting > scenario.dead
    }

    /// The queues' time goes on.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.queues.look_again();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn measure(name: &str, scenario: Scenario) {
    let stage = Stage::set(&scenario).await;
    let Stage { engine, queues, world, clock, room, .. } = &stage;
    let before = cpu();
    let ticking = async {
        loop {
            tokio::time::sleep(STEP).await;
            clock.advance(STEP);
        }
    };
    let latencies = tokio::select! {
        latencies = talk(engine, room, world, &scenario) => latencies,
        () = ticking => Vec::new(),
    };
    let stopped = now();
    let expected = latencies.len() * (scenario.servers - scenario.dead);
    // A server that falls behind by a thousand events gets the newest alone: not all may come.
    while queues.overview().waiting > scenario.dead {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (drained, used) = (stopped.elapsed(), cpu() - before);
    queues.stop().await;
    engine.stop().await;
    let mut arrivals = world.0.lock().expect("lock");
    arrivals.delays.sort_unstable();
    let rate = latencies.len() as f64 / run().as_secs_f64();
    println!(
        "{name}: {rate:.0} messages/s, {:.0} us of CPU per message, sending p50 {:.1?} p99 {:.1?}; \
         delivery p50 {:.1?} p99 {:.1?}, {} of {expected}, the last {drained:.1?} after the end; {} \
         transactions, {} attempts on the dead",
        used.as_secs_f64() * 1e6 / latencies.len().max(1) as f64,
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
    let shared: [(usize, usize); 3] = [(0, 0), (50, 5), (5_000, 4_990)];
    let talking = [(1, Duration::from_millis(20)), (SENDERS, Duration::ZERO)];
    let most = std::env::var("SERVERS").ok().and_then(|most| most.parse().ok());
    actix::System::new().block_on(async {
        for (senders, pause) in talking {
            for (servers, dead) in shared {
                let servers = most.map_or(servers, |most| servers.min(most));
                let dead = dead.min(servers.saturating_sub(1));
                let name = format!("{servers} servers, {dead} dead, {senders} talk");
                measure(&name, Scenario { servers, dead, senders, pause }).await;
            }
        }
    });
}
