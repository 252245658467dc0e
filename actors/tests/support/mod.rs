//! An engine in memory (or in a folder) and a few people who talk in it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "benchmarks use it, too, and there the lint does not know a test"
)]

pub(crate) mod peers;

use std::{path::Path, sync::Arc};

use parlour_actors::{
    Engine, EngineOptions, LocalEvent, NewRoom, RoomLimits, Verdict,
    commit::{Announcement, Ops},
    env::Env,
    metrics::NoMetrics,
};
use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object},
    pdu::{EventReference, PduBuilder},
    state::ReadState as _,
};
use parlour_storage::{MonotonicClock, StoreOptions, faults::Faults, fs::RealFiles};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

/// Waits until what follows in the background has come to an end, and is counted.
pub(crate) async fn settle(engine: &Engine) {
    while !engine.store.people_news(1).unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let last = Ops { ops: Vec::new(), announcement: Announcement::Nothing };
    engine.persister.commit(Box::new(last)).await.unwrap();
}

pub(crate) fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:parlour.test")).unwrap()
}

pub(crate) fn object(json: &str) -> Object {
    match json::parse_strict(json.as_bytes()).unwrap() {
        json::Value::Object(object) => object,
        other => panic!("not an object: {other:?}"),
    }
}

pub(crate) fn options(dir: Option<&Path>, rooms: RoomLimits) -> EngineOptions {
    EngineOptions {
        server_name: "parlour.test".try_into().unwrap(),
        storage: dir.map(StoreOptions::new),
        state_cache_bytes: 1 << 20,
        rooms,
        presence: None,
        room_version: parlour_event::RoomVersion::parse("12").unwrap(),
        env: Env::system(),
        metrics: Arc::new(NoMetrics),
    }
}

/// An engine on a disk that can be made to fail.
pub(crate) async fn engine_on_failing_disk(dir: &Path, rooms: RoomLimits) -> (Engine, Faults) {
    let faults = Faults::default();
    let files = faults.of(Arc::new(RealFiles));
    let mut options = options(None, rooms);
    let clock = options.env.clock.clone();
    let clock: Option<MonotonicClock> = Some(Arc::new(move || clock.monotonic()));
    options.storage = Some(StoreOptions { files, clock, ..StoreOptions::new(dir) });
    (Engine::start(options).await.unwrap(), faults)
}

pub(crate) async fn engine() -> Engine {
    Engine::start(options(None, RoomLimits::default())).await.unwrap()
}

pub(crate) fn state(sender: &str, event_type: &str, state_key: &str, content: &str) -> LocalEvent {
    LocalEvent {
        sender: user(sender),
        event_type: event_type.to_owned(),
        state_key: Some(state_key.to_owned()),
        content: object(content),
        redacts: None,
        transaction: None,
        timestamp: None,
    }
}

pub(crate) fn member(sender: &str, target: &str, membership: &str) -> LocalEvent {
    let target = user(target);
    state(sender, "m.room.member", target.as_str(), &format!(r#"{{"membership":"{membership}"}}"#))
}

pub(crate) fn message(sender: &str, body: &str) -> LocalEvent {
    LocalEvent {
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: object(&format!(r#"{{"msgtype":"m.text","body":"{body}"}}"#)),
        ..state(sender, "", "", "{}")
    }
}

/// A public room of this version, made by `creator`.
pub(crate) fn public_room(version: &str, creator: &str) -> NewRoom {
    let version = RoomVersion::parse(version).unwrap();
    let rules = &version.rules().authorization;
    let creator_id = user(creator);
    let mut create_content = object(&format!(r#"{{"room_version":"{}"}}"#, version.id()));
    if !rules.use_room_create_sender {
        create_content.insert("creator".to_owned(), creator_id.to_string().into());
    }
    let users = match rules.explicitly_privilege_room_creators {
        true => String::new(),
        false => format!(r#""{creator_id}":100"#),
    };
    NewRoom {
        version,
        creator: creator_id,
        create_content,
        events: vec![
            member(creator, creator, "join"),
            state(creator, "m.room.power_levels", "", &format!(r#"{{"users":{{{users}}}}}"#)),
            state(creator, "m.room.join_rules", "", r#"{"join_rule":"public"}"#),
        ],
        alias: None,
        published: false,
        made_for: None,
    }
}

pub(crate) async fn create(engine: &Engine, version: &str) -> OwnedRoomId {
    engine.rooms.create(public_room(version, "alice")).await.unwrap().0
}

/// The ids of a room's forward extremities, and of what its state has of these types and keys.
fn latest(engine: &Engine, room: &RoomId, types: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let head = engine.store.room_head(num).unwrap().unwrap();
    let id = |num| engine.store.event_meta(num).unwrap().unwrap().event_id;
    let find = |(event_type, state_key): &(&str, &str)| {
        let key = engine.store.state_key_num(event_type, state_key).unwrap()?;
        engine.nodes.get(head.state, key).unwrap().map(id)
    };
    (head.extremities.iter().copied().map(id).collect(), types.iter().filter_map(find).collect())
}

/// Has another server's user become (or stop being) a member, as that server says.
pub(crate) async fn remote_member(engine: &Engine, room: &RoomId, user_id: &str, is: &str) {
    let content = format!(r#"{{"membership":"{is}"}}"#);
    let event = LocalEvent {
        sender: UserId::parse(user_id).unwrap(),
        ..state("nobody", "m.room.member", user_id, &content)
    };
    remote_event(engine, room, event).await;
}

/// Has another server's user send something on the room's latest events.
pub(crate) async fn remote_event(engine: &Engine, room: &RoomId, event: LocalEvent) -> String {
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let head = engine.store.room_head(num).unwrap().unwrap();
    let version = RoomVersion::parse(&head.version).unwrap();
    let sender = event.sender.to_string();
    let mut types = vec![("m.room.power_levels", ""), ("m.room.member", sender.as_str())];
    if !version.rules().authorization.room_create_event_id_as_room_id {
        types.push(("m.room.create", ""));
    }
    if event.content.get("membership").is_some_and(|is| is.as_str() == Some("join")) {
        types.push(("m.room.join_rules", ""));
    }
    let (prev, auth) = latest(engine, room, &types);
    let prev: Vec<_> = prev.iter().map(String::as_str).collect();
    let auth: Vec<_> = auth.iter().map(String::as_str).collect();
    let branch = Branch { engine, version, room: room.to_owned() };
    let pdu = branch.build(event, &prev, &auth, engine.store.applied().0);
    let id = pdu.event_id().to_string();
    let verdict = engine.rooms.receive(room, pdu).await.unwrap();
    assert_eq!(verdict, Verdict::Accepted);
    id
}

/// Builds events of another branch, signed with the server's own key.
pub(crate) struct Branch<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) version: &'static RoomVersion,
    pub(crate) room: OwnedRoomId,
}

impl Branch<'_> {
    pub(crate) fn pdu(&self, id: &str) -> Pdu {
        let num = self.engine.store.event_num(id).unwrap().unwrap();
        let stored = self.engine.store.event(num).unwrap().unwrap();
        let json = parlour_event::json::parse_object(self.version, &stored.json).unwrap();
        Pdu::from_trusted(self.version, id.try_into().unwrap(), json).unwrap()
    }

    pub(crate) fn build(
        &self,
        event: LocalEvent,
        prev: &[&str],
        auth: &[&str],
        ts: u64,
    ) -> Arc<Pdu> {
        let reference = |id: &&str| EventReference::to(self.version, &self.pdu(id));
        let depth = prev.iter().map(|id| self.pdu(id).depth()).max().unwrap() + 1;
        let builder = PduBuilder {
            room_id: Some(self.room.clone()),
            sender: event.sender,
            event_type: event.event_type,
            state_key: event.state_key,
            content: event.content,
            prev_events: prev.iter().map(reference).collect(),
            auth_events: auth.iter().map(reference).collect(),
            depth,
            origin_server_ts: ts,
            redacts: None,
            event_localpart: Some(format!("branch{ts}")),
        };
        let name = "parlour.test".try_into().unwrap();
        Arc::new(builder.build_and_sign(self.version, name, self.engine.keys.signing()).unwrap())
    }
}
