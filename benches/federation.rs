//! What another server sends, through the real `/send`: messages in one room and in twenty, and
//! forks, each of which is two topics that disagree and a message that joins them. Everything is
//! signed beforehand; one transaction is under way at a time, as servers do it. Prints events/s,
//! the times of transactions, the server's CPU time per event, and for forks how many states were
//! resolved in a second.
//!
//! `EVENTS` says how many events each scenario has. With `OTHER_NAME`, `OTHER_ADDRESS` and
//! `OTHER_PID` another homeserver gets the same: its name, where it speaks plain HTTP to clients and
//! servers, and its process. With `BENCH_JSON` each scenario is a line of JSON in that file, too.
//! `make bench-federation` does both, Parlour and Synapse, and lays them side by side.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

#[allow(dead_code, unused_imports, reason = "a part of what the tests need")]
#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use std::{
    collections::{BTreeMap, HashMap},
    fs::OpenOptions,
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use common::{Asked, FakeRoom, FakeServer, Origin, Server, path};
use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object, Value as Json},
    pdu::{EventReference, PduBuilder},
};
use ruma::OwnedEventId;
use serde_json::{Value, json};
use support::{Connection, cpu_of, now, register};

/// How many events each scenario has.
const EVENTS: usize = 5_000;

/// As many as a transaction may have.
const IN_TRANSACTION: usize = 50;

/// Who is measured.
struct Target {
    name: String,
    address: SocketAddr,
    pid: u32,
    /// If it was started here.
    server: Option<Server>,
}

impl Target {
    fn find() -> Self {
        let given = |key: &str| std::env::var(key).ok();
        if let (Some(name), Some(address)) = (given("OTHER_NAME"), given("OTHER_ADDRESS")) {
            let pid = given("OTHER_PID").unwrap().parse().unwrap();
            return Self { name, address: address.parse().unwrap(), pid, server: None };
        }
        let server = Server::start_federated(&[("PARLOUR_LOG__LEVEL", "warn")]);
        let address = server.base().trim_start_matches("http://").parse().unwrap();
        Self { name: server.name(), address, pid: server.pid(), server: Some(server) }
    }

    /// What the server says of itself; nothing, if it is another one.
    fn told(&self) -> Told {
        let metrics = self.server.as_ref().map(|server| server.http.text("/metrics"));
        let mut told = Told::default();
        for line in metrics.iter().flat_map(|metrics| metrics.lines()) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            if name.contains("state_resolution_seconds_count") {
                told.resolved = value;
            }
            let stage = name.strip_prefix(r#"parlour_stage_seconds_sum{stage=""#);
            if let Some(stage) = stage.and_then(|rest| rest.strip_suffix(r#""}"#)) {
                told.stages.insert(stage.to_owned(), value);
            }
        }
        told
    }
}

/// What Parlour has counted by a moment.
#[derive(Default)]
struct Told {
    /// States that were resolved.
    resolved: f64,
    /// Seconds that events have spent in each stage: time, not CPU.
    stages: BTreeMap<String, f64>,
}

impl Told {
    /// Since another moment: how many states were resolved, and microseconds of each stage for one
    /// of so many events.
    fn since(&self, before: &Self, events: usize) -> (f64, BTreeMap<&str, f64>) {
        let stages = self.stages.iter().map(|(name, seconds)| {
            let spent = seconds - before.stages.get(name).unwrap_or(&0.0);
            (name.as_str(), spent * 1e6 / events as f64)
        });
        (self.resolved - before.resolved, stages.filter(|(_, spent)| *spent > 0.0).collect())
    }
}

/// A room of the fake server in which one of the target's users is.
struct Room {
    id: String,
    /// What allows its creator to speak.
    auth: Vec<OwnedEventId>,
    last: OwnedEventId,
    depth: u64,
}

impl Room {
    fn event(&self, origin: &Origin, kind: &str, text: &str, prev: &[OwnedEventId]) -> Pdu {
        let is_state = kind == "m.room.topic";
        let content = match is_state {
            true => json!({ "topic": text }),
            false => json!({ "msgtype": "m.text", "body": text }),
        };
        let reference = |id: &OwnedEventId| EventReference::from(id.clone());
        let builder = PduBuilder {
            room_id: Some(self.id.as_str().try_into().unwrap()),
            sender: format!("@eve:{}", origin.name).try_into().unwrap(),
            event_type: kind.to_owned(),
            state_key: is_state.then(String::new),
            content: common::parse(&content),
            prev_events: prev.iter().map(reference).collect(),
            auth_events: self.auth.iter().map(reference).collect(),
            depth: self.depth + 1,
            origin_server_ts: 1_700_000_000_000 + self.depth,
            redacts: None,
            event_localpart: None,
        };
        let version = RoomVersion::parse("10").unwrap();
        let name = origin.name.as_str().try_into().unwrap();
        builder.build_and_sign(version, name, &origin.key).unwrap()
    }

    fn add(&mut self, origin: &Origin, kind: &str, text: &str, prev: &[OwnedEventId]) -> Pdu {
        let event = self.event(origin, kind, text, prev);
        (self.last, self.depth) = (event.event_id().clone(), event.depth());
        event
    }

    fn message(&mut self, origin: &Origin, text: &str) -> Pdu {
        let prev = [self.last.clone()];
        self.add(origin, "m.room.message", text, &prev)
    }

    /// Two topics that disagree, and a message that follows both.
    fn fork(&mut self, origin: &Origin, text: &str) -> [Pdu; 3] {
        let fork = [self.last.clone()];
        let one = self.event(origin, "m.room.topic", &format!("{text} one"), &fork);
        let other = self.event(origin, "m.room.topic", &format!("{text} other"), &fork);
        self.depth += 1;
        let both = [one.event_id().clone(), other.event_id().clone()];
        let joined = self.add(origin, "m.room.message", text, &both);
        [one, other, joined]
    }
}

/// The server that sends.
struct Sender {
    fake: FakeServer,
    rooms: Arc<RwLock<HashMap<String, FakeRoom>>>,
    transactions: usize,
}

impl Sender {
    fn start() -> Self {
        let rooms = Arc::<RwLock<HashMap<String, FakeRoom>>>::default();
        let known = rooms.clone();
        let fake = FakeServer::start(|_| {
            move |asked: &Asked| known.read().unwrap().get(&asked.part(5))?.honest(asked)
        });
        Self { fake, rooms, transactions: 0 }
    }

    /// A new room that a user of the target joins.
    fn room(&self, user: &mut Connection, number: usize) -> Room {
        let origin = &self.fake.origin;
        let id = format!("!room{number}:{}", origin.name);
        let fake = FakeRoom::new(origin, &id);
        let auth = fake.events.iter().take(3).map(|event| event.event_id().clone()).collect();
        let depth = fake.events.len() as u64 + 1;
        self.rooms.write().unwrap().insert(id.clone(), fake);
        user.ask("POST", &path("join/{}?server_name={}", &[&id, &origin.name]), "{}");
        let asked = self.fake.asked();
        let is_join = |asked: &&Asked| asked.is("v2/send_join") && asked.part(5) == id;
        let join = asked.iter().rfind(is_join).unwrap().part(6);
        Room { id, auth, last: join.try_into().unwrap(), depth }
    }

    /// Requests for the target, ready to be sent: path, `Authorization`, body.
    fn requests(&mut self, target: &Target, events: &[Pdu]) -> Vec<(String, String, String)> {
        let Origin { name, key } = &self.fake.origin;
        let mut requests = Vec::new();
        for events in events.chunks(IN_TRANSACTION) {
            self.transactions += 1;
            let pdus = events.iter().map(|event| Json::Object(event.json().clone())).collect();
            let body = Json::Object(Object::from([
                ("edus".to_owned(), Json::Array(Vec::new())),
                ("origin".to_owned(), name.as_str().into()),
                ("origin_server_ts".to_owned(), 1_700_000_000_000_i64.into()),
                ("pdus".to_owned(), Json::Array(pdus)),
            ]));
            let body = json::to_canonical_string(&body);
            let path = format!("/_matrix/federation/v1/send/{}", self.transactions);
            let origin = &self.fake.origin;
            let signature = origin.signature(&target.name, "PUT", &path, body.as_bytes());
            let header = format!(
                r#"X-Matrix origin="{name}",destination="{}",key="{}",sig="{signature}""#,
                target.name,
                key.key_id()
            );
            requests.push((path, header, body));
        }
        requests
    }
}

fn measure(name: &str, target: &Target, sender: &mut Sender, events: &[Pdu]) {
    let requests = sender.requests(target, events);
    let mut connection = Connection::open(target.address, "");
    let mut times = Vec::with_capacity(requests.len());
    let before = target.told();
    let (started, cpu) = (now(), cpu_of(target.pid));
    for (path, authorization, body) in &requests {
        let started = now();
        let answer = connection.send("PUT", path, authorization, body);
        times.push(started.elapsed());
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let refused =
            answer["pdus"].as_object().unwrap().iter().find(|(_, one)| one["error"] != Value::Null);
        assert!(refused.is_none(), "{refused:?}");
    }
    let (elapsed, used) = (started.elapsed(), cpu_of(target.pid) - cpu);
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    let rate = events.len() as f64 / elapsed.as_secs_f64();
    let each = used / u32::try_from(events.len()).unwrap();
    println!(
        "{name:<20} {rate:>7.0} events/s, a transaction p50 {:>7.1?} p99 {:>7.1?}, {each:>7.1?} of server CPU per event",
        at(50),
        at(99)
    );
    let after = target.told();
    let (resolved, stages) = after.since(&before, events.len());
    if resolved > 0.0 {
        println!("{:<20} {:>7.0} states resolved/s", "", resolved / elapsed.as_secs_f64());
    }
    record(&json!({ "scenario": name, "events": events.len(), "per_second": rate,
        "p50_ms": at(50).as_secs_f64() * 1e3, "p99_ms": at(99).as_secs_f64() * 1e3,
        "cpu_us": each.as_secs_f64() * 1e6, "stages_us": stages }));
}

/// Adds a line to the file for those who read it by program.
fn record(line: &Value) {
    let Some(file) = std::env::var_os("BENCH_JSON") else { return };
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    writeln!(file, "{line}").unwrap();
}

fn main() {
    let count = std::env::var("EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(EVENTS);
    let target = Target::find();
    let mut user = register(target.address, "reader");
    let mut sender = Sender::start();
    let origin = sender.fake.origin.clone();
    let mut rooms: Vec<_> = (0..22).map(|number| sender.room(&mut user, number)).collect();
    let warm_up: Vec<_> = rooms.iter_mut().map(|room| room.message(&origin, "warm")).collect();
    let one: Vec<_> = (0..count).map(|n| rooms[0].message(&origin, &format!("{n}"))).collect();
    let many =
        (0..count).map(|n| rooms[1 + n % 20].message(&origin, &format!("{n}"))).collect::<Vec<_>>();
    let forks = (0..count.div_ceil(3)).flat_map(|n| rooms[21].fork(&origin, &format!("{n}")));
    let forks: Vec<_> = forks.collect();
    for (path, authorization, body) in sender.requests(&target, &warm_up) {
        Connection::open(target.address, "").send("PUT", &path, &authorization, &body);
    }
    std::thread::sleep(Duration::from_millis(500));
    measure("1 room", &target, &mut sender, &one);
    measure("20 rooms", &target, &mut sender, &many);
    measure("forks", &target, &mut sender, &forks);
}
