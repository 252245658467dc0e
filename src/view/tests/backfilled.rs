//! History that came late, and a room that was entered through another server, as readers get them.

use parlour_actors::{Backfilled, env::Env};
use parlour_storage::Direction;
use ruma::{
    OwnedEventId, RoomId,
    api::client::{filter::RoomEventFilter, sync::sync_events::v3::State},
};

use super::super::{
    EventFilter, GraphToken, Ignored, PageRequest, SyncToken, Token, View,
    sync::{Ask, Syncs},
};
use crate::push::UnreadCounts;

#[path = "../../../actors/tests/support/mod.rs"]
pub(super) mod support;

use support::peers::Peer;

/// A page of the room as bob gets it, from a token on, backwards.
fn back(view: &View, near: &Peer, room: &RoomId, from: Token, limit: usize) -> Vec<String> {
    let mut reader = view.reader(room, &near.user("bob"), None).unwrap().unwrap();
    let (filter, ignored) = (RoomEventFilter::default(), Ignored::default());
    let request = PageRequest {
        from: view.graph_point_back(near.num(room), from).unwrap(),
        to: None,
        direction: Direction::Backward,
        limit,
        filter: EventFilter::new(&filter),
        ignored: &ignored,
    };
    let page = reader.page(&request).unwrap();
    page.events.into_iter().map(|event| event.meta.event_id).collect()
}

fn ask(near: &Peer, since: Option<SyncToken>) -> Ask {
    Ask {
        user: near.user("bob"),
        device: "D".into(),
        since,
        full_state: false,
        state_after: false,
        filter: Default::default(),
        relations: Default::default(),
    }
}

// Checklist 6.1
#[actix_web::test]
async fn pages_lead_through_backfilled_history_and_syncs_do_not_tell_of_it() {
    let far = Peer::start("far.test", None).await;
    let near = Peer::start("near.test", None).await;
    let room = far.create("12", "alice").await;
    for text in ["one", "two", "three", "four"] {
        far.say(&room, "alice", text).await;
    }
    let view = View::of(&near.engine, Env::system().clock);
    let counts = UnreadCounts::new(near.engine.users.clone());
    let syncs = Syncs::new(view.clone(), &near.engine, counts, 1 << 20);
    let before = syncs.now();
    near.join(&far, &room, "bob").await;
    let said = near.say(&room, "bob", "hello").await;

    // The first sync has all of the state, and says that the room is older.
    for since in [None, Some(before)] {
        let response = syncs.build(&ask(&near, since), syncs.now()).unwrap();
        let joined = &response.rooms.join[&room];
        assert_eq!(joined.timeline.events.len(), 2, "since {since:?}");
        assert!(joined.timeline.limited, "since {since:?}");
        let State::Before(state) = &joined.state else { panic!("{:?}", joined.state) };
        assert_eq!(state.events.len(), 4, "since {since:?}: {state:?}");
    }
    let response = syncs.build(&ask(&near, None), syncs.now()).unwrap();
    let start: Token =
        response.rooms.join[&room].timeline.prev_batch.as_ref().unwrap().parse().unwrap();
    let now = syncs.now();
    let newest = Token::Graph(GraphToken::after(said.depth(), near.meta(said.event_id()).pos));
    assert_eq!(back(&view, &near, &room, start, 10), [""; 0]);
    assert_eq!(back(&view, &near, &room, newest, 10).len(), 2);

    // Two pages of history come in, the newer one first.
    let old = far.timeline(&room);
    let old = &old[..8];
    let ids = |id: &OwnedEventId| -> Vec<_> {
        let state = far.events_of(far.meta(id).state_before);
        state.iter().map(|pdu| pdu.event_id().clone()).collect()
    };
    for (from, to) in [(5, 8), (0, 5)] {
        let page = old[from..to].iter().enumerate().map(|(place, id)| Backfilled {
            pdu: far.pdu(id),
            state_before: (place == 0).then(|| ids(id)),
        });
        near.engine.rooms.backfill(&room, page.collect()).await.unwrap();
    }
    let mut expected: Vec<_> = old.iter().map(ToString::to_string).collect();
    expected.reverse();
    assert_eq!(back(&view, &near, &room, start, 10), expected);
    assert_eq!(back(&view, &near, &room, Token::Sync(before), 10), expected);
    assert_eq!(back(&view, &near, &room, newest, 20).len(), 10);
    assert_eq!(back(&view, &near, &room, newest, 20)[2..], expected);
    assert_eq!(back(&view, &near, &room, Token::Sync(now), 20)[2..], expected);
    assert_eq!(back(&view, &near, &room, Token::Sync(syncs.now()), 20)[2..], expected);

    // Nobody who follows the room hears of it.
    let later = syncs.build(&ask(&near, Some(now)), syncs.now()).unwrap();
    assert!(later.rooms.join.is_empty(), "{later:?}");
    let anew = syncs.build(&ask(&near, None), syncs.now()).unwrap();
    assert_eq!(anew.rooms.join[&room].timeline.events.len(), 2);
    let after = near.say(&room, "bob", "bye").await;
    let later = syncs.build(&ask(&near, Some(now)), syncs.now()).unwrap();
    let timeline = &later.rooms.join[&room].timeline;
    assert_eq!((timeline.events.len(), timeline.limited), (1, false));
    let mut page = back(&view, &near, &room, Token::Sync(syncs.now()), 3);
    page.reverse();
    assert_eq!(page.last(), Some(&after.event_id().to_string()));
    far.engine.stop().await;
    near.engine.stop().await;
}

#[actix_web::test]
async fn a_timeline_begins_behind_a_gap_and_leads_back_into_it() {
    let far = Peer::start("far.test", None).await;
    let near = Peer::start("near.test", None).await;
    let room = far.create("12", "alice").await;
    near.join(&far, &room, "bob").await;
    let view = View::of(&near.engine, Env::system().clock);
    let counts = UnreadCounts::new(near.engine.users.clone());
    let syncs = Syncs::new(view.clone(), &near.engine, counts, 1 << 20);
    let since = syncs.now();
    for text in ["one", "two", "three"] {
        far.say(&room, "alice", text).await;
    }
    let timeline = far.timeline(&room);
    let (missed, last) = timeline.split_at(timeline.len() - 1);
    let state = far.events_of(far.meta(&last[0]).state_before);
    let state = state.iter().map(|pdu| pdu.event_id().clone()).collect();
    near.engine.rooms.receive_at(&room, far.pdu(&last[0]), state).await.unwrap();
    let section = |since| {
        let response = syncs.build(&ask(&near, since), syncs.now()).unwrap();
        response.rooms.join[&room].timeline.clone()
    };
    // Whoever has seen what was before it, and whoever has seen nothing.
    for since in [Some(since), None] {
        let told = section(since);
        assert_eq!((told.events.len(), told.limited), (1, true), "since {since:?}");
    }
    let gaps = || view.gaps(near.num(&room)).unwrap().all();
    assert!(gaps().contains(missed.last().unwrap()));
    let from: Token = section(Some(since)).prev_batch.unwrap().parse().unwrap();
    let known = back(&view, &near, &room, from, 10).len();
    let missed = &missed[missed.len() - 2..];
    let past = missed.iter().map(|id| Backfilled { pdu: far.pdu(id), state_before: None });
    let verdicts = near.engine.rooms.backfill(&room, past.collect()).await;
    assert!(verdicts.is_ok(), "{verdicts:?}");
    assert!(!gaps().contains(&missed[1]));
    let page = back(&view, &near, &room, from, 10);
    assert_eq!(page[..2], [missed[1].to_string(), missed[0].to_string()]);
    assert_eq!(page.len(), known + 2);
    // What is told begins there all the same: it has not been told to others in its time.
    assert!(section(Some(since)).limited);
    far.engine.stop().await;
    near.engine.stop().await;
}
