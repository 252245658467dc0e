//! Events that relate to others are told in the order of history, whichever way they came.

use parlour_actors::{Backfilled, LocalEvent, env::Env};
use parlour_storage::Direction;
use ruma::{OwnedEventId, RoomId, events::AnyTimelineEvent};

use super::{
    super::{ChildrenRequest, GraphToken, View},
    backfilled::support::{object, peers::Peer},
};

/// A message with three children, none of which follows another one. The second is a state event,
/// so that it can be known before it comes.
async fn family(far: &Peer, room: &RoomId) -> Vec<OwnedEventId> {
    let root = far.say(room, "alice", "root").await.event_id().clone();
    let mut family = vec![root.clone()];
    for (name, state_key) in [("one", None), ("two", Some("")), ("three", None)] {
        let relation = format!(r#"{{"rel_type":"m.reference","event_id":"{root}"}}"#);
        let content = object(&format!(r#"{{"body":"{name}","m.relates_to":{relation}}}"#));
        let state_key = state_key.map(ToOwned::to_owned);
        let child = LocalEvent { state_key, content, ..far.state("alice", "m.x", "", "{}") };
        let state = far.current(room);
        let find = |kind: &str, key: &str| &state[&(kind.to_owned(), key.to_owned())];
        let member = find("m.room.member", far.user("alice").as_str());
        let auth = [find("m.room.create", ""), find("m.room.power_levels", ""), member];
        let child = far.build(far, room, child, &[&root], &auth);
        far.receive(room, &child).await;
        family.push(child.event_id().clone());
    }
    family
}

/// All children, one a page.
fn walk(
    view: &View,
    near: &Peer,
    room: &RoomId,
    parent: &OwnedEventId,
    from: Option<GraphToken>,
    direction: Direction,
) -> Vec<OwnedEventId> {
    let mut reader = view.reader(room, &near.user("bob"), None).unwrap().unwrap();
    let mut request = ChildrenRequest {
        parent: parent.as_str(),
        rel_type: None,
        event_type: None,
        recurse: false,
        from,
        to: None,
        direction,
        limit: 1,
    };
    let mut found = Vec::new();
    while found.len() < 10 {
        let page = reader.children::<AnyTimelineEvent>(&request).unwrap();
        let ids = page.events.iter().map(|event| event.get_field("event_id").unwrap().unwrap());
        found.extend(ids);
        request.from = page.next;
        if page.next.is_none() {
            break;
        }
    }
    found
}

/// Children come in the order in which `near` has them in its history, from wherever one begins.
fn check(near: &Peer, room: &RoomId, family: &[OwnedEventId]) {
    let view = View::of(&near.engine, Env::system().clock);
    let (root, children) = family.split_first().unwrap();
    let mut history = near.graph(room);
    history.retain(|id| children.contains(id));
    assert_eq!(history.len(), children.len());
    let walk = |from, direction| walk(&view, near, room, root, from, direction);
    assert_eq!(walk(None, Direction::Forward), history);
    for (place, id) in history.iter().enumerate() {
        let meta = near.meta(id);
        let behind = Some(GraphToken::after(meta.depth, meta.pos));
        assert_eq!(walk(behind, Direction::Forward), history[place + 1..]);
    }
    history.reverse();
    assert_eq!(walk(None, Direction::Backward), history);
    for (place, id) in history.iter().enumerate() {
        let meta = near.meta(id);
        let before = Some(GraphToken::before(meta.depth, meta.pos));
        assert_eq!(walk(before, Direction::Backward), history[place + 1..]);
    }
}

#[actix_web::test]
async fn children_that_were_known_before_they_came_stand_where_history_has_them() {
    for is_past in [false, true] {
        let far = Peer::start("far.test", None).await;
        let near = Peer::start("near.test", None).await;
        let room = far.create("11", "alice").await;
        if !is_past {
            near.join(&far, &room, "bob").await;
        }
        let family = family(&far, &room).await;
        let pdus: Vec<_> = family.iter().map(|id| far.pdu(id)).collect();
        if is_past {
            // The state of the room tells of the second child, and history of all of them.
            near.join(&far, &room, "bob").await;
            let state = far.events_of(far.meta(&family[0]).state_before);
            let mut state = Some(state.iter().map(|pdu| pdu.event_id().clone()).collect());
            let history =
                pdus.into_iter().map(|pdu| Backfilled { pdu, state_before: state.take() });
            near.engine.rooms.backfill(&room, history.collect()).await.unwrap();
        } else {
            near.engine.rooms.outliers(&room, vec![pdus[2].clone()]).await.unwrap();
            for pdu in &pdus {
                near.receive(&room, pdu).await;
            }
        }
        let is_early = |id: &&OwnedEventId| **id == family[2];
        let num = |id: &OwnedEventId| near.engine.store.event_num(id.as_str()).unwrap();
        assert_eq!(family.iter().min_by_key(|id| num(id)).filter(is_early), Some(&family[2]));
        check(&near, &room, &family);
        far.engine.stop().await;
        near.engine.stop().await;
    }
}
