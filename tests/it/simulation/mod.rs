//! Whole servers on a bad network: everything that Parlour is, but for sockets and disks.
//!
//! All servers of a simulation run on one thread, with its time, which passes when nobody has
//! anything to do. What people try, what the network does to what they send, clocks and randomness
//! come from a seed.
//!
//! `make simulate SEEDS=500 FIRST_SEED=1` runs many, with those of `actors/`; `make test` runs some.

mod network;
mod people;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use parlour::embed::{Homeserver, Network};
use parlour_actors::env::{Clock, SeededEntropy};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::{
    network::{Trace, Weather},
    people::{Deed, Person, Place, State},
};
use crate::common::Random;

/// How many seeds are run if nobody says.
const SEEDS: u64 = 20;

/// How many things people try.
const DEEDS: u64 = 60;

/// How often everybody speaks before servers that do not agree are a failure.
const ROUNDS: u64 = 20;

/// How long what somebody does takes to get everywhere, when all is well.
const PAUSE: Duration = Duration::from_secs(10);

/// Room versions that are played, one of each kind of state resolution and event id.
const VERSIONS: [&str; 5] = ["2", "6", "10", "11", "12"];

/// Who may come in; old versions know the first two only.
const RULES: [&str; 5] = ["public", "invite", "restricted", "knock", "knock_restricted"];

/// What must have worked somewhere after so many seeds, as the trace has it. Who may knock is seldom
/// out and tries it.
const MUST_HAPPEN: [(&str, u64); 12] = [
    (" POST join/", SEEDS),
    (" POST knock/", 200),
    ("/kick:", SEEDS),
    ("/ban:", SEEDS),
    ("/unban:", SEEDS),
    ("/invite:", SEEDS),
    ("/leave:", SEEDS),
    ("/state/m.room.power_levels/:", SEEDS),
    ("/state/m.room.join_rules/:", SEEDS),
    ("/redact/", SEEDS),
    ("/receipt/", SEEDS),
    ("/typing/", SEEDS),
];

/// The simulation's time, seen by a server whose clock is not quite right.
#[derive(Debug)]
struct Time {
    start: Instant,
    /// What it says at the start, in milliseconds since 1970.
    says: u64,
}

impl Clock for Time {
    fn now_ms(&self) -> u64 {
        self.says + u64::try_from(self.monotonic().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The servers, who is there, and what is between them.
struct World {
    random: Random,
    weather: Weather,
    servers: Vec<Homeserver>,
    people: Vec<Person>,
    place: Place,
    /// What somebody was told is sent, with who has sent it.
    sent: BTreeMap<String, usize>,
}

impl World {
    async fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather::new(random.next(), trace);
        let network = Network::new();
        let mut servers = Vec::new();
        for number in 0..3 + random.below(2) {
            let name = format!("s{number}.test");
            let says = 1_700_000_000_000 + random.below(4_000);
            let server = Homeserver::builder(&name)
                .unwrap()
                .test_mode()
                .transport(weather.line(&name, network.line()))
                .network(&network)
                .clock(Arc::new(Time { start: Instant::now(), says }))
                .entropy(Arc::new(SeededEntropy::new(random.next())));
            servers.push(server.start_here().await.unwrap());
        }
        let mut people = Vec::new();
        for number in 0..servers.len() + 1 + random.below(3) as usize {
            let at = number % servers.len();
            // Who is on the last server, and whoever is the second one anywhere.
            let is_safe = number + 1 < servers.len();
            let name = format!("user{number}");
            people.push(Person::new(&servers[at], at, &name, is_safe, &weather).await);
        }
        let (place, sent) = (Place::default(), BTreeMap::new());
        Self { random, weather, servers, people, place, sent }
    }

    /// The first one makes two rooms. All come into one of them, and some into the other.
    async fn gather(&mut self) {
        let version = VERSIONS[self.random.below(VERSIONS.len() as u64) as usize];
        let mut users = json!({ (&*self.people[1].id): 50 });
        if version != "12" {
            users[&*self.people[0].id] = 100.into();
        }
        let power = json!({ "users": users });
        let via = self.names();
        let [room, lobby] = [self.open(version, &power).await, self.open(version, &power).await];
        for (number, person) in self.people.iter().enumerate().skip(1) {
            assert!(person.join(&room, &via).await, "{} stays out", person.id);
            if number % 2 == 1 {
                assert!(person.join(&lobby, &via).await, "{} stays outside", person.id);
            }
        }
        let rules = if matches!(version, "2" | "6") { &RULES[..2] } else { &RULES[..] };
        self.place = Place { room, lobby, rules, via };
    }

    /// The first one makes a room.
    async fn open(&self, version: &str, power: &Value) -> String {
        let body = json!({ "preset": "public_chat", "room_version": version,
            "power_level_content_override": power });
        let (status, answer) = self.people[0].ask("POST", "createRoom", body).await;
        assert_eq!(status, 200, "{answer}");
        answer["room_id"].as_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.name().to_string()).collect()
    }

    /// Everybody does something, while the network is what it is.
    async fn live(&mut self) {
        self.weather.rough(self.random.below(25));
        let mut busy = Vec::new();
        for number in 0..DEEDS {
            sleep(Duration::from_millis(self.random.below(2_000))).await;
            if self.random.below(8) == 0 {
                let islands = self.servers.iter().map(|server| server.name().to_owned());
                let islands = islands.map(|name| (name, self.random.below(3) / 2));
                self.weather.part(islands.collect());
            }
            let who = self.random.below(self.people.len() as u64) as usize;
            let wild: Vec<_> = self.people.iter().filter(|person| !person.is_safe).collect();
            let whom = wild[self.random.below(wild.len() as u64) as usize].id.clone();
            let events: Vec<_> = self.sent.keys().cloned().collect();
            let event = match events.len() {
                0 => "$none".to_owned(),
                some => events[self.random.below(some as u64) as usize].clone(),
            };
            let deed = Deed::any(&mut self.random);
            let (person, place) = (self.people[who].clone(), self.place.clone());
            busy.push(actix_web::rt::spawn(async move {
                let sent = person.act(deed, &place, number, &whom, &event).await;
                (who, sent)
            }));
            // Those who are done are heard of in the order in which they began.
            while busy.first().is_some_and(actix_web::rt::task::JoinHandle::is_finished) {
                self.hear(busy.remove(0).await.unwrap());
            }
        }
        for done in busy {
            self.hear(done.await.unwrap());
        }
    }

    fn hear(&mut self, (who, sent): (usize, Option<String>)) {
        self.sent.extend(sent.map(|event| (event, who)));
    }

    /// All is well again, and whoever was put out comes back. One thing is done after the other:
    /// of two that are done at once, resolution may take either back.
    async fn heal(&mut self) {
        self.weather.clear();
        sleep(Duration::from_secs(60)).await;
        for round in 0..ROUNDS {
            let mut all_are_in = true;
            for who in 0..self.people.len() {
                let text = format!("word {round} of {who}");
                let said = self.people[who].say(&self.place.room, &text).await;
                sleep(PAUSE).await;
                let is_in = said.is_some()
                    && self.people[0].sees(&self.place.room, &self.people[who]).await;
                if !is_in {
                    all_are_in = false;
                    self.let_in(who).await;
                }
                self.hear((who, said));
            }
            if all_are_in && self.agrees(round + 1 == ROUNDS).await {
                return;
            }
        }
        panic!("the servers never agree");
    }

    /// Who is out, as the first one sees it, comes in. A server can take somebody for a member whom
    /// nobody else does: that user goes first.
    async fn let_in(&self, who: usize) {
        let (first, person) = (&self.people[0], &self.people[who]);
        person.in_room("POST", &self.place.room, "leave", json!({})).await;
        sleep(PAUSE).await;
        first.set(&self.place.room, "m.room.join_rules", json!({ "join_rule": "public" })).await;
        sleep(PAUSE).await;
        let about = json!({ "user_id": person.id });
        first.in_room("POST", &self.place.room, "unban", about).await;
        sleep(PAUSE).await;
        person.join(&self.place.room, &self.place.via).await;
        sleep(PAUSE).await;
    }

    /// Whether everybody sees the same room, and everything in it that cannot have been refused
    /// anywhere: what those say whom nobody puts out.
    async fn agrees(&self, is_last: bool) -> bool {
        let mut first = None;
        for (number, person) in self.people.iter().enumerate() {
            let Some(state) = person.state(&self.place.room).await else { return false };
            let first = first.get_or_insert_with(|| state.clone());
            if *first != state {
                let (here, there) = (difference(&state, first), difference(first, &state));
                assert!(!is_last, "{} sees {here:#?} instead of {there:#?}", person.id);
                return false;
            }
            let seen = person.messages(&self.place.room).await;
            let must = self.sent.iter().filter(|(_, who)| {
                self.people[**who].is_safe || self.people[**who].at == person.at
            });
            let must: BTreeSet<_> = must.map(|(event, _)| event.clone()).collect();
            let lost: Vec<_> = must.difference(&seen).collect();
            if !lost.is_empty() {
                assert!(!is_last, "number {number} does not see {lost:?}");
                return false;
            }
        }
        true
    }
}

fn difference(of: &State, from: &State) -> Vec<String> {
    let differs = of.iter().filter(|(place, event)| from.get(place) != Some(event));
    differs.map(|(place, event)| format!("{place:?}: {event}")).collect()
}

/// Plays a seed.
fn play(seed: u64, trace: Trace) {
    let system = actix::System::with_tokio_rt(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(async move {
        let mut world = World::new(seed, trace).await;
        world.gather().await;
        world.live().await;
        world.heal().await;
        for server in std::mem::take(&mut world.servers) {
            server.stop().await;
        }
    });
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn whole_servers_agree_in_the_end_whatever_happens() {
    let (first, seeds) = (number("FIRST_SEED", 1), number("SEEDS", SEEDS));
    let shows = env::var_os("SEEDS").is_some();
    let mut untried: Vec<_> = MUST_HAPPEN.into_iter().filter(|(_, by)| *by <= seeds).collect();
    for seed in first..first + seeds {
        let trace = Trace::default();
        if catch_unwind(AssertUnwindSafe(|| play(seed, trace.clone()))).is_err() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/simulation.txt");
            let what = trace.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
            fs::write(&file, what).unwrap();
            panic!(
                "seed {seed} failed; again with: make simulate SEEDS=1 FIRST_SEED={seed}; what \
                 happened stands in {}",
                file.display()
            );
        }
        let trace = trace.lock().unwrap();
        let happened = |what: &str| trace.iter().any(|l| l.contains(what) && l.contains(": 200 "));
        untried.retain(|(what, _)| !happened(what));
        let done = seed + 1 - first;
        if shows && (done % 10 == 0 || done == seeds) {
            writeln!(std::io::stderr(), "{done} of {seeds} seeds with whole servers").unwrap();
        }
    }
    assert!(untried.is_empty(), "in no seed could anybody {untried:?}");
}

#[test]
fn a_seed_of_whole_servers_is_replayed_to_the_letter() {
    for seed in [3, 8, 15, 22] {
        let [once, again] = [(); 2].map(|()| {
            let trace = Trace::default();
            play(seed, trace.clone());
            std::mem::take(&mut *trace.lock().unwrap())
        });
        assert!(once.len() > 200, "little happens: {}", once.len());
        let differs = once.iter().zip(&again).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let near = at.saturating_sub(5)..at + 1;
            panic!("seed {seed}: {:#?} or {:#?}", &once[near.clone()], &again[near]);
        }
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}
