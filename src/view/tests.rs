//! History visibility and paging against a model that follows the specification word by word.

mod backfilled;
mod people;
mod relations;

use std::{ops::Bound, sync::Arc};

use actix::System;
use parlour_actors::{
    Engine, EngineOptions, LocalEvent, NewRoom, RoomLimits, env::Env, metrics::NoMetrics,
};
use parlour_event::{
    Pdu, RoomVersion, StreamPos,
    json::{self, Object},
    pdu::{EventReference, PduBuilder},
};
use parlour_storage::Direction;
use proptest::{prelude::*, test_runner::TestRunner};
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    api::client::filter::{FilterDefinition, RoomEventFilter},
    serde::Raw,
};

use super::{
    Access, EventFilter, GraphToken, Ignored, PageRequest, Reader, RelationFilter, Standing, View,
    sync::{Ask, Syncs},
};
use crate::push::UnreadCounts;

/// What happens in a room next.
#[derive(Debug, Clone)]
enum Step {
    Say,
    Show(&'static str),
    /// Bob's membership, by himself or by Alice.
    Bob(&'static str, bool),
}

/// What the model knows of an event: what was so before it and after it.
#[derive(Debug, Clone)]
struct Known {
    id: String,
    visibility: [String; 2],
    membership: [String; 2],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let visibility = prop::sample::select(vec!["world_readable", "shared", "invited", "joined"]);
    let membership = prop::sample::select(vec!["join", "leave", "invite", "ban", "join", "leave"]);
    let step = prop_oneof![
        2 => Just(Step::Say),
        1 => visibility.prop_map(Step::Show),
        3 => (membership, any::<bool>()).prop_map(|(is, himself)| Step::Bob(is, himself)),
    ];
    prop::collection::vec(step, 1..40)
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:parlour.test")).unwrap()
}

fn object(text: &str) -> Object {
    json::parse_strict(text.as_bytes()).unwrap().as_object().unwrap().clone()
}

pub(super) fn event(sender: &str, kind: &str, key: Option<&str>, content: &str) -> LocalEvent {
    LocalEvent {
        sender: user(sender),
        event_type: kind.to_owned(),
        state_key: key.map(str::to_owned),
        content: object(content),
        redacts: None,
        transaction: None,
        timestamp: None,
    }
}

fn member(sender: &str, target: &str, membership: &str) -> LocalEvent {
    let content = format!(r#"{{"membership":"{membership}"}}"#);
    event(sender, "m.room.member", Some(user(target).as_str()), &content)
}

pub(super) async fn engine() -> Engine {
    let options = EngineOptions {
        server_name: "parlour.test".try_into().unwrap(),
        storage: None,
        state_cache_bytes: 1 << 20,
        rooms: RoomLimits::default(),
        presence: None,
        room_version: RoomVersion::parse("12").unwrap(),
        env: Env::system(),
        metrics: Arc::new(NoMetrics),
    };
    Engine::start(options).await.unwrap()
}

pub(super) async fn new_room(engine: &Engine) -> OwnedRoomId {
    let levels = format!(r#"{{"users":{{"{}":100}}}}"#, user("alice"));
    let new = NewRoom {
        version: RoomVersion::parse("11").unwrap(),
        creator: user("alice"),
        create_content: object(r#"{"room_version":"11"}"#),
        events: vec![
            member("alice", "alice", "join"),
            event("alice", "m.room.power_levels", Some(""), &levels),
            event("alice", "m.room.join_rules", Some(""), r#"{"join_rule":"public"}"#),
        ],
        alias: None,
        published: false,
        made_for: None,
    };
    engine.rooms.create(new).await.unwrap().0
}

/// Does the steps that the rules allow, and notes what the model has to know.
async fn play(
    engine: &Engine,
    room: &OwnedRoomId,
    first: Vec<String>,
    steps: &[Step],
) -> Vec<Known> {
    let (mut visibility, mut membership) = ("shared".to_owned(), String::new());
    let same = |value: &str| [value.to_owned(), value.to_owned()];
    let known = |id| Known { id, visibility: same("shared"), membership: same("") };
    let mut story: Vec<_> = first.into_iter().map(known).collect();
    for step in steps {
        let mut next = (visibility.clone(), membership.clone());
        let event = match step {
            Step::Say => event("alice", "m.room.message", None, r#"{"body":"a"}"#),
            Step::Show(name) => {
                (*name).clone_into(&mut next.0);
                let content = format!(r#"{{"history_visibility":"{name}"}}"#);
                event("alice", "m.room.history_visibility", Some(""), &content)
            }
            Step::Bob(is, himself) => {
                (*is).clone_into(&mut next.1);
                member(if *himself { "bob" } else { "alice" }, "bob", is)
            }
        };
        let Ok(sent) = engine.rooms.send(room, event).await else { continue };
        let id = sent.event_id.to_string();
        if story.iter().all(|known| known.id != id) {
            story.push(Known {
                id,
                visibility: [visibility, next.0.clone()],
                membership: [membership, next.1.clone()],
            });
        }
        (visibility, membership) = next;
    }
    story
}

/// The specification's five rules.
fn may_see(story: &[Known], at: usize) -> bool {
    let joined_since = story[at..].iter().any(|later| later.membership[1] == "join");
    let known = &story[at];
    known.visibility.iter().any(|visibility| {
        known.membership.iter().any(|membership| match (&**visibility, &**membership) {
            ("world_readable", _) | (_, "join") => true,
            ("shared", _) => joined_since,
            ("invited", "invite") => true,
            _ => false,
        })
    })
}

fn expected_standing(story: &[Known]) -> &'static str {
    let last = story.last().unwrap();
    let was_joined = story.iter().any(|known| known.membership[1] == "join");
    match (&*last.membership[1], &*last.visibility[1]) {
        ("join", _) => "joined",
        _ if was_joined => "departed",
        (_, "world_readable") => "anybody",
        ("invite", "invited") => "invited",
        _ => "stranger",
    }
}

fn standing(access: Option<Access>) -> &'static str {
    match access.map(|access| access.standing) {
        Some(Standing::Joined) => "joined",
        Some(Standing::Departed { .. }) => "departed",
        Some(Standing::Anybody) => "anybody",
        Some(Standing::Invited) => "invited",
        None => "stranger",
    }
}

/// All pages in one direction.
fn walk(
    reader: &mut Reader,
    from: GraphToken,
    to: Option<GraphToken>,
    direction: Direction,
    limit: usize,
) -> Vec<String> {
    let (filter, ignored) = (RoomEventFilter::default(), Ignored::default());
    let mut request = PageRequest {
        from,
        to,
        direction,
        limit,
        filter: EventFilter::new(&filter),
        ignored: &ignored,
    };
    let mut found = Vec::new();
    loop {
        let page = reader.page(&request).unwrap();
        assert!(page.events.len() <= limit);
        assert!(page.events.len() == limit || !page.more, "a short page in a short room");
        found.extend(page.events.into_iter().map(|event| event.meta.event_id));
        if !page.more {
            return found;
        }
        request.from = page.next;
    }
}

fn check(view: &View, room: &OwnedRoomId, story: &[Known], limit: usize) {
    let mut bob = view.reader(room, &user("bob"), None).unwrap().unwrap();
    let mut visible = Vec::new();
    for (at, known) in story.iter().enumerate() {
        let num = view.store.event_num(&known.id).unwrap().unwrap();
        let seen = bob.judge(&view.store.event(num).unwrap().unwrap()).unwrap();
        assert_eq!(seen.visible, may_see(story, at), "event {at} of {story:#?}");
        let membership = match &*known.membership[1] {
            "" => "leave",
            membership => membership,
        };
        assert_eq!(seen.membership.map(|is| is.as_str()), Some(membership), "event {at}");
        if seen.visible {
            visible.push(known.id.clone());
        }
    }
    let access = bob.access().unwrap();
    assert_eq!(standing(access), expected_standing(story), "{story:#?}");
    let newest = GraphToken { depth: u64::MAX, pos: StreamPos(u64::MAX) };
    let mut ends = vec![(newest, visible.clone())];
    if let Some(until) = access.and_then(|access| access.until()) {
        // Those who left are shown what had happened by then.
        let left = story.iter().rposition(|known| known.membership[0] == "join").unwrap();
        let then = |id: &String| story[..=left].iter().any(|known| known.id == *id);
        ends.push((until, visible.into_iter().filter(then).collect()));
    }
    for (end, visible) in ends {
        let oldest = GraphToken::default();
        assert_eq!(walk(&mut bob, oldest, Some(end), Direction::Forward, limit), visible);
        let mut backwards = walk(&mut bob, end, None, Direction::Backward, limit);
        backwards.reverse();
        assert_eq!(backwards, visible);
    }
}

// Checklist 6.1, 6.2, 6.3
#[test]
fn visibility_and_pages_follow_the_specification() {
    let system = System::new();
    let engine = system.block_on(engine());
    let view = View::of(&engine, Env::system().clock);
    let mut runner = TestRunner::new(ProptestConfig {
        // Each case talks to real actors.
        cases: std::env::var("PROPTEST_CASES").map_or(200, |cases| cases.parse().unwrap_or(200)),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&(steps(), 1..9usize), |(steps, limit)| {
        system.block_on(async {
            let room = new_room(&engine).await;
            let num = view.room(&room).unwrap().unwrap().num;
            let all = (Bound::Unbounded, Bound::Unbounded);
            let first = view.store.graph(num, all, Direction::Forward, 100).unwrap();
            let id = |(_, num)| view.store.event_meta(num).unwrap().unwrap().event_id;
            let story = play(&engine, &room, first.into_iter().map(id).collect(), &steps).await;
            check(&view, &room, &story, limit);
        });
        Ok(())
    });
    system.block_on(engine.stop());
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// An event as it is known.
fn pdu(engine: &Engine, id: &str) -> Pdu {
    let num = engine.store.event_num(id).unwrap().unwrap();
    let version = RoomVersion::parse("11").unwrap();
    let json = engine.store.event(num).unwrap().unwrap().json;
    let json = json::parse_object(version, &json).unwrap();
    Pdu::from_trusted(version, id.try_into().unwrap(), json).unwrap()
}

/// What somebody says who has seen nothing that came after an old event.
fn late(engine: &Engine, room: &OwnedRoomId, auth: &[String], prev: &str) -> Arc<Pdu> {
    let version = RoomVersion::parse("11").unwrap();
    let reference = |id: &str| EventReference::to(version, &pdu(engine, id));
    let said = event("alice", "m.room.message", None, r#"{"body":"late"}"#);
    let builder = PduBuilder {
        room_id: Some(room.clone()),
        sender: said.sender,
        event_type: said.event_type,
        state_key: None,
        content: said.content,
        prev_events: vec![reference(prev)],
        auth_events: auth.iter().map(|id| reference(id)).collect(),
        depth: pdu(engine, prev).depth() + 1,
        origin_server_ts: 1,
        redacts: None,
        event_localpart: None,
    };
    let name = "parlour.test".try_into().unwrap();
    Arc::new(builder.build_and_sign(version, name, engine.keys.signing()).unwrap())
}

// Checklist 4.13
#[test]
fn what_comes_late_is_last_in_a_sync_and_in_pages() {
    let system = System::new();
    let engine = system.block_on(engine());
    let view = View::of(&engine, Env::system().clock);
    system.block_on(async {
        let room = new_room(&engine).await;
        let num = view.room(&room).unwrap().unwrap().num;
        let all = (Bound::Unbounded, Bound::Unbounded);
        let first = view.store.graph(num, all, Direction::Forward, 3).unwrap();
        let id = |(_, num)| view.store.event_meta(num).unwrap().unwrap().event_id;
        let auth: Vec<_> = first.into_iter().map(id).collect();
        let mut said = Vec::new();
        for _ in 0..3 {
            let message = event("alice", "m.room.message", None, r#"{"body":"a"}"#);
            said.push(engine.rooms.send(&room, message).await.unwrap().event_id.to_string());
        }
        let late = late(&engine, &room, &auth, &said[0]);
        engine.rooms.receive(&room, late.clone()).await.unwrap();
        let [late, one, two, three] = [late.event_id().as_str(), &said[0], &said[1], &said[2]];

        let counts = UnreadCounts::new(engine.users.clone());
        let syncs = Syncs::new(view.clone(), &engine, counts, 1 << 20);
        let ask = Ask {
            since: None,
            filter: Arc::new(FilterDefinition::default()),
            relations: Arc::new(RelationFilter::default()),
            user: user("alice"),
            device: "PHONE".into(),
            full_state: false,
            state_after: false,
        };
        let answer = syncs.build(&ask, syncs.now()).unwrap();
        let timeline = &answer.rooms.join[&room].timeline.events;
        let id = |event: &Raw<_>| event.get_field::<String>("event_id").unwrap().unwrap();
        let synced: Vec<_> = timeline.iter().map(id).collect();
        assert!(synced.ends_with(&[one, two, three, late].map(str::to_owned)), "{synced:?}");

        let mut reader = view.reader(&room, &user("alice"), None).unwrap().unwrap();
        let paged = walk(&mut reader, GraphToken::default(), None, Direction::Forward, 2);
        assert!(paged.ends_with(&[one, two, three, late].map(str::to_owned)), "{paged:?}");
    });
    system.block_on(engine.stop());
}
