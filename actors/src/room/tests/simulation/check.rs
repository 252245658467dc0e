//! What must be so when all is well again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
};

use parlour_event::state::StateRoot;
use parlour_storage::Direction;
use ruma::OwnedEventId;

use super::server::Server;

/// A state by type and key.
type State = BTreeMap<(String, String), OwnedEventId>;

/// States of one server that have been looked at.
#[derive(Default)]
struct States(HashMap<StateRoot, State>);

impl States {
    fn of(&mut self, server: &Server, root: StateRoot) -> &State {
        self.0.entry(root).or_insert_with(|| {
            let key = |kind: &str, key: Option<&str>| (kind.to_owned(), key.unwrap().to_owned());
            let events = server.state(root).into_iter();
            events.map(|e| (key(e.event_type(), e.state_key()), e.event_id().clone())).collect()
        })
    }
}

/// All servers have the same latest event, the same state, and the same past, of which nothing is
/// lost that somebody was told is sent.
pub(super) fn all_have_the_same_room(servers: &[Server]) {
    let tips: Vec<BTreeSet<_>> = servers
        .iter()
        .map(|server| {
            server.core.as_ref().unwrap().tips.iter().map(|t| t.event_id().clone()).collect()
        })
        .collect();
    if tips[0].len() != 1 || tips.iter().any(|tip| *tip != tips[0]) {
        let all: BTreeSet<_> = tips.iter().flatten().collect();
        let all: Vec<_> = all.into_iter().map(|id| describe(servers, id)).collect();
        panic!("the latest events differ: {tips:#?}\n{}", all.join("\n"));
    }
    let mut states: Vec<_> = servers.iter().map(|_| States::default()).collect();
    let current = |server: &Server| server.core.as_ref().unwrap().state;
    let first = states[0].of(&servers[0], current(&servers[0])).clone();
    for (server, states) in servers.iter().zip(&mut states) {
        let state = states.of(server, current(server));
        assert_eq!(*state, first, "the state on {} differs", server.name());
        check_counts(server);
        check_places(server);
    }
    let past = same_past(servers, &mut states, tips[0].iter().cloned().collect());
    for server in servers {
        for (at, id) in server.acknowledged.iter().enumerate() {
            let is_there = past.get(id) == Some(&false);
            // A server that comes back begins anew, where the others are: what it had sent at its
            // end of history stays there if the others did not want it.
            let may_be_missing = at < server.left_behind && !past.contains_key(id);
            assert!(
                is_there || may_be_missing && is_soft_failed_by_others(servers, server, id),
                "{} has lost {}",
                server.name(),
                describe(servers, id)
            );
        }
    }
}

/// Whether others have soft-failed an event, all but those who have begun anew themselves since.
fn is_soft_failed_by_others(servers: &[Server], sender: &Server, id: &OwnedEventId) -> bool {
    let others = servers.iter().filter(|server| server.place != sender.place);
    let known = others.filter_map(|server| {
        let flags = server.core.as_ref()?.meta(server.placed(id)?).unwrap().flags;
        Some((server, flags.soft_failed && !flags.rejected))
    });
    let (unwanted, wanted): (Vec<_>, Vec<_>) = known.partition(|(_, soft_failed)| *soft_failed);
    !unwanted.is_empty() && wanted.into_iter().all(|(server, _)| server.has_come_back)
}

/// What the servers know of an event.
fn describe(servers: &[Server], id: &OwnedEventId) -> String {
    let mut text = format!("{id}");
    for server in servers {
        let core = server.core.as_ref().unwrap();
        let known = core.event_num(id.as_str()).unwrap().map(|num| core.stored(num).unwrap());
        text += &match known {
            Some((pdu, meta)) => format!(
                "\n  {}: {} of {} {:?} after {:?}, {:?}",
                server.name(),
                pdu.event_type(),
                pdu.sender(),
                pdu.content(),
                pdu.prev_events(),
                meta.flags
            ),
            None => format!("\n  {}: unknown; others there: {:?}", server.name(), server.others()),
        };
    }
    text
}

/// What is counted as the state changes is what can be counted in it.
fn check_counts(server: &Server) {
    let core = server.core.as_ref().unwrap();
    let mut joined: HashMap<String, u64> = HashMap::new();
    for event in server.state(core.state) {
        let membership = event.content().get("membership").and_then(|value| value.as_str());
        if event.event_type() == "m.room.member" && membership == Some("join") {
            let (_, name) = event.state_key().unwrap().split_once(':').unwrap();
            *joined.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(core.joined, joined.values().sum::<u64>(), "on {}", server.name());
    assert_eq!(core.servers, joined, "on {}", server.name());
}

/// Events know where they stand in history, whatever has happened to them on their way to disk.
fn check_places(server: &Server) {
    let core = server.core.as_ref().unwrap();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let graph = server.store.graph(core.num, all, Direction::Forward, usize::MAX).unwrap();
    for (place, num) in graph {
        let meta = core.meta(num).unwrap();
        assert_eq!((meta.depth, meta.pos), place, "{} on {}", meta.event_id, server.name());
    }
}

/// All events that the latest one builds on, with whether they were rejected: the same on all
/// servers, on the same states.
fn same_past(
    servers: &[Server],
    states: &mut [States],
    latest: VecDeque<OwnedEventId>,
) -> HashMap<OwnedEventId, bool> {
    let mut queue = latest;
    let mut past = HashMap::new();
    while let Some(id) = queue.pop_front() {
        if past.contains_key(&id) {
            continue;
        }
        let mut found = None;
        for (server, states) in servers.iter().zip(states.iter_mut()) {
            let num = server.placed(&id);
            let num = num.unwrap_or_else(|| panic!("{} does not have {id}", server.name()));
            let meta = server.core.as_ref().unwrap().meta(num).unwrap();
            let state = states.of(server, meta.state_before);
            let (rejected, before) =
                found.get_or_insert_with(|| (meta.flags.rejected, state.clone()));
            assert_eq!(meta.flags.rejected, *rejected, "{id} on {}", server.name());
            assert_eq!(*state, *before, "the state before {id} differs on {}", server.name());
        }
        let num = servers[0].placed(&id).unwrap();
        queue.extend(servers[0].stored(num).prev_events().iter().cloned());
        past.insert(id, found.unwrap().0);
    }
    past
}
