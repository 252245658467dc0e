//! Key rings of several servers that ask each other: no network, only what each would answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use parlour_actors::{
    Engine, EngineOptions, RoomLimits,
    env::{Env, ManualClock},
    keyring::{
        BoxFuture, KeyRing, KeyRingOptions, KeySource, NotaryQuery, Purpose, SourceError, Wanted,
    },
};
use parlour_event::json;
use ruma::{OwnedServerName, ServerName};
use support::options;

const DAY: u64 = 24 * 60 * 60 * 1000;

/// All the key rings there are, and what they were asked.
#[derive(Debug, Default)]
struct World {
    rings: Mutex<HashMap<OwnedServerName, KeyRing>>,
    asked: Mutex<Vec<String>>,
    /// Who does not answer.
    dead: Mutex<Vec<OwnedServerName>>,
}

impl World {
    fn ring(&self, server: &ServerName) -> Result<KeyRing, SourceError> {
        let found = self.rings.lock().unwrap().get(server).cloned();
        let is_dead = self.dead.lock().unwrap().contains(&server.to_owned());
        found.filter(|_| !is_dead).ok_or_else(|| SourceError("dead".to_owned()))
    }

    async fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
        tokio::task::yield_now().await;
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn kill(&self, server: &str) {
        self.dead.lock().unwrap().push(name(server));
    }

    fn revive(&self) {
        self.dead.lock().unwrap().clear();
    }
}

impl KeySource for World {
    fn ask_server<'a>(
        &'a self,
        server: &'a ServerName,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(async move {
            self.note(server.to_string()).await;
            Ok(self.ring(server)?.own_document())
        })
    }

    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        queries: &'a [NotaryQuery],
    ) -> BoxFuture<'a, Result<Vec<Bytes>, SourceError>> {
        Box::pin(async move {
            self.note(format!("{notary} for {}", queries.len())).await;
            let ring = self.ring(notary)?;
            let documents = queries.iter().map(|query| ring.notarised(&query.server).unwrap());
            Ok(documents.flatten().collect())
        })
    }
}

fn name(text: &str) -> OwnedServerName {
    text.try_into().unwrap()
}

struct Server {
    engine: Engine,
    ring: KeyRing,
    key: String,
}

/// A server that asks these notaries.
async fn server(
    world: &Arc<World>,
    clock: &Arc<ManualClock>,
    me: &str,
    notaries: &[&str],
) -> Server {
    let env = Env { clock: clock.clone(), ..Env::system() };
    let server_name = name(me);
    let options = EngineOptions {
        env: env.clone(),
        server_name: server_name.clone(),
        ..options(None, RoomLimits::default())
    };
    let engine = Engine::start(options).await.unwrap();
    let key = engine.keys.signing().key_id().to_owned();
    let about = KeyRingOptions {
        server_name: server_name.clone(),
        old_keys: Vec::new(),
        notaries: notaries.iter().map(|notary| name(notary)).collect(),
        source: world.clone(),
    };
    let (keys, store) = (engine.keys.clone(), engine.store.clone());
    let ring = KeyRing::new(about, keys, store, engine.persister.clone(), env);
    world.rings.lock().unwrap().insert(server_name, ring.clone());
    Server { engine, ring, key }
}

fn wanted(server: &str, key_id: &str, purpose: Purpose) -> Wanted {
    Wanted { server: name(server), key_id: key_id.to_owned(), purpose }
}

fn event(origin_server_ts: u64) -> Purpose {
    Purpose::Event { origin_server_ts, enforce_validity: true }
}

#[actix::test]
async fn a_server_is_asked_once_and_remembered() {
    let (world, clock) = (Arc::new(World::default()), Arc::new(ManualClock::at(1_000 * DAY)));
    let near = server(&world, &clock, "near.org", &[]).await;
    let far = server(&world, &clock, "far.org", &[]).await;
    let far_name = name("far.org");
    let find = || near.ring.key(&far_name, &far.key, Purpose::Request);
    assert_eq!(near.ring.known(&name("far.org"), &far.key, Purpose::Request).unwrap(), None);
    let all = futures_util::future::join_all((0..20).map(|_| find())).await;
    assert!(all.into_iter().all(|found| found.unwrap().is_some()));
    assert_eq!(world.asked(), ["far.org"]);
    // Keys that it does not have are no reason to ask again at once.
    for number in 0..5 {
        let key = format!("ed25519:none{number}");
        assert_eq!(near.ring.key(&name("far.org"), &key, Purpose::Request).await.unwrap(), None);
    }
    assert_eq!(world.asked(), [""; 0]);
    // Another ring on the same storage knows it, too.
    let about = KeyRingOptions {
        server_name: name("near.org"),
        old_keys: Vec::new(),
        notaries: Vec::new(),
        source: world.clone(),
    };
    let (keys, store) = (near.engine.keys.clone(), near.engine.store.clone());
    let env = Env { clock: clock.clone(), ..Env::system() };
    let again = KeyRing::new(about, keys, store, near.engine.persister.clone(), env);
    assert!(again.known(&name("far.org"), &far.key, Purpose::Request).unwrap().is_some());
    // After its time it is asked for again; while it is dead, old events can still be checked.
    clock.advance(Duration::from_millis(2 * DAY));
    world.kill("far.org");
    assert_eq!(find().await.unwrap(), None);
    let old = near.ring.key(&name("far.org"), &far.key, event(1_000 * DAY)).await;
    assert!(old.unwrap().is_some());
    world.revive();
    clock.advance(Duration::from_secs(60));
    assert!(find().await.unwrap().is_some());
    assert_eq!(world.asked(), ["far.org", "far.org"]);
    near.engine.stop().await;
    far.engine.stop().await;
}

#[actix::test]
async fn a_dead_server_is_left_alone_for_longer_and_longer() {
    let (world, clock) = (Arc::new(World::default()), Arc::new(ManualClock::at(1_000 * DAY)));
    let near = server(&world, &clock, "near.org", &[]).await;
    let mut asked = 0;
    for _ in 0..720 {
        near.ring.find(vec![wanted("dead.org", "ed25519:a", event(0))]).await.unwrap();
        asked += world.asked().len();
        clock.advance(Duration::from_secs(5));
    }
    assert_eq!(asked, 10, "within an hour");
    // It says that it is there: worth another question, but not one for each request.
    for _ in 0..5 {
        near.ring.key(&name("dead.org"), "ed25519:a", Purpose::Request).await.unwrap();
    }
    assert_eq!(world.asked().len(), 1);
    near.engine.stop().await;
}

// Checklist 11.8
#[actix::test]
async fn notaries_are_asked_for_many_at_once_and_checked() {
    let (world, clock) = (Arc::new(World::default()), Arc::new(ManualClock::at(1_000 * DAY)));
    let near = server(&world, &clock, "near.org", &["liar.org", "notary.org"]).await;
    let notary = server(&world, &clock, "notary.org", &[]).await;
    let names: Vec<_> = (0..8).map(|number| format!("far{number}.org")).collect();
    let mut far = Vec::new();
    for name in &names {
        far.push(server(&world, &clock, name, &[]).await);
    }
    notary.ring.refresh(names.iter().map(|far| (name(far), 0)).collect()).await.unwrap();
    names.iter().for_each(|far| world.kill(far));
    world.asked();
    // Besides the keys that there are, some that nobody has.
    let all = names.iter().zip(&far).flat_map(|(name, far)| {
        let none = (0..15).map(|number| format!("ed25519:none{number}"));
        let keys = none.chain([far.key.clone()]);
        keys.map(|key| wanted(name, &key, event(0))).collect::<Vec<_>>()
    });
    near.ring.find(all.collect()).await.unwrap();
    for (far_name, far) in names.iter().zip(&far) {
        assert!(near.ring.known(&name(far_name), &far.key, event(0)).unwrap().is_some());
    }
    let asked: Vec<_> = world.asked().into_iter().filter(|who| !who.starts_with("far")).collect();
    let notaries = ["liar.org for 100", "liar.org for 28", "notary.org for 100", "notary.org"];
    assert_eq!(asked, [&notaries[..], &["notary.org for 28"]].concat());
    near.engine.stop().await;
    notary.engine.stop().await;
    for far in far {
        far.engine.stop().await;
    }
}

#[actix::test]
async fn what_a_notary_has_not_signed_is_not_believed() {
    let (world, clock) = (Arc::new(World::default()), Arc::new(ManualClock::at(1_000 * DAY)));
    let near = server(&world, &clock, "near.org", &["notary.org"]).await;
    let far = server(&world, &clock, "far.org", &[]).await;
    // Its place is taken by one with another key: what it gives away is not signed by what the
    // real one publishes.
    let real = server(&world, &clock, "notary.org", &[]).await;
    near.ring.refresh(vec![(name("notary.org"), 0)]).await.unwrap();
    let false_one = server(&world, &clock, "notary.org", &[]).await;
    false_one.ring.refresh(vec![(name("far.org"), 0)]).await.unwrap();
    world.kill("far.org");
    let far_name = name("far.org");
    let find = |purpose| near.ring.key(&far_name, &far.key, purpose);
    assert_eq!(find(event(0)).await.unwrap(), None);
    assert_eq!(world.asked().last().unwrap(), "notary.org for 1");
    // With the real one in its place again, it is.
    world.rings.lock().unwrap().insert(name("notary.org"), real.ring.clone());
    world.revive();
    real.ring.refresh(vec![(name("far.org"), 0)]).await.unwrap();
    world.kill("far.org");
    clock.advance(Duration::from_secs(60));
    assert!(find(event(0)).await.unwrap().is_some());
    for server in [near, far, real, false_one] {
        server.engine.stop().await;
    }
}

// Checklist 11.9
#[actix::test]
async fn the_own_document_is_renewed_before_others_have_to_ask_again() {
    let (world, clock) = (Arc::new(World::default()), Arc::new(ManualClock::at(1_000 * DAY)));
    let near = server(&world, &clock, "near.org", &[]).await;
    let until = || {
        let document = json::parse_strict(&near.ring.own_document()).unwrap();
        document.get("valid_until_ts").and_then(json::Value::as_u64).unwrap()
    };
    let (first, mut seen) = (until(), Vec::new());
    for hour in 0..48 {
        let left = until() - (1_000 * DAY + hour * DAY / 24);
        assert!(left > DAY / 24, "{left} left after {hour} hours");
        seen.push(until());
        clock.advance(Duration::from_millis(DAY / 24));
    }
    seen.dedup();
    assert!(seen[0] == first && seen.len() <= 5, "{seen:?}");
    near.engine.stop().await;
}
