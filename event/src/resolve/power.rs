//! Power events and the reverse topological power ordering.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use ruma::OwnedEventId;

use super::{
    EventSource,
    context::{Context, Result},
};
use crate::{
    EventNum,
    auth::types,
    content::{MemberContent, Membership, PowerLevel, PowerLevels},
    pdu::Pdu,
};

/// Events that might remove someone's ability to do something in the room.
///
/// The specification names the types alone; like every server in use this takes only those with
/// an empty state key, which are the ones that mean something. The create event counts too, as it
/// does elsewhere: it cannot fail its check, so that changes no result.
fn is_power_event(event: &Pdu) -> bool {
    match event.event_type() {
        types::POWER_LEVELS | types::JOIN_RULES | types::CREATE => event.state_key() == Some(""),
        types::MEMBER => {
            let membership = MemberContent::new(event.content()).membership();
            matches!(membership, Some(Membership::Leave | Membership::Ban))
                && event.state_key() != Some(event.sender().as_str())
        }
        _ => false,
    }
}

/// The power events of the full conflicted set, and what their auth chains have in common with it,
/// in reverse topological power ordering.
///
/// Auth chains are followed within the full conflicted set only, as all servers do.
pub(super) fn sorted<S: EventSource, N>(
    context: &Context<'_, S>,
    full: &BTreeSet<EventNum>,
    create: Option<&Arc<Pdu>>,
) -> Result<Vec<EventNum>, S, N> {
    let mut found = HashSet::new();
    let mut waiting = Vec::new();
    for num in full {
        if context.state_event(*num)?.is_some_and(|event| is_power_event(&event)) {
            found.insert(*num);
            waiting.push(*num);
        }
    }
    let mut graph = Graph::default();
    while let Some(num) = waiting.pop() {
        context.step()?;
        let mut cited: Vec<_> = context.auth_events(num)?.to_vec();
        cited.retain(|cited| full.contains(cited));
        cited.sort_unstable();
        cited.dedup();
        waiting.extend(cited.iter().filter(|cited| found.insert(**cited)));
        graph.add(num, &cited);
    }
    graph.sort::<S, N>(|num| rank(context, num, create))
}

/// What the ordering compares: more power first, then the older, then the smaller id.
type Rank = (Reverse<PowerLevel>, u64, OwnedEventId);

fn rank<S: EventSource, N>(
    context: &Context<'_, S>,
    num: EventNum,
    create: Option<&Arc<Pdu>>,
) -> Result<Option<Rank>, S, N> {
    let Some(event) = context.state_event(num)? else { return Ok(None) };
    let own_create = match create {
        Some(_) => None,
        None => context.auth_event_of_type(num, types::CREATE)?.map(|(_, event)| event),
    };
    let create = create.or(own_create.as_ref());
    let levels = context.auth_event_of_type(num, types::POWER_LEVELS)?;
    let levels = levels.as_ref().map(|(_, levels)| &**levels);
    let levels = PowerLevels::new(context.version, create.map(|create| &**create), levels);
    // Levels that nobody can read give no power.
    let power = levels.user_level(event.sender()).unwrap_or(PowerLevel::Int(0));
    Ok(Some((Reverse(power), event.origin_server_ts(), event.event_id().clone())))
}

/// The events to sort with their auth events among them.
#[derive(Default)]
struct Graph {
    /// How many of its auth events an event waits for.
    missing: HashMap<EventNum, usize>,
    citing: HashMap<EventNum, Vec<EventNum>>,
}

impl Graph {
    fn add(&mut self, num: EventNum, cited: &[EventNum]) {
        self.missing.insert(num, cited.len());
        for cited in cited {
            self.citing.entry(*cited).or_default().push(num);
        }
    }

    /// Kahn's algorithm: of all events whose auth events are sorted already, the first by rank is
    /// the next. Events without a rank, and events in a cycle, are left out.
    fn sort<S: EventSource, N>(
        mut self,
        rank: impl Fn(EventNum) -> Result<Option<Rank>, S, N>,
    ) -> Result<Vec<EventNum>, S, N> {
        let mut ready = BinaryHeap::new();
        for (num, missing) in &self.missing {
            if *missing == 0
                && let Some(rank) = rank(*num)?
            {
                ready.push(Reverse((rank, *num)));
            }
        }
        let mut sorted = Vec::with_capacity(self.missing.len());
        while let Some(Reverse((_, num))) = ready.pop() {
            sorted.push(num);
            for citing in self.citing.remove(&num).unwrap_or_default() {
                let Some(missing) = self.missing.get_mut(&citing) else { continue };
                *missing -= 1;
                if *missing == 0
                    && let Some(rank) = rank(citing)?
                {
                    ready.push(Reverse((rank, citing)));
                }
            }
        }
        Ok(sorted)
    }
}
