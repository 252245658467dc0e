//! Random histories: forks of one room in which users do all that can race.

use std::{collections::BTreeMap, sync::Arc};

use parlour_event::{EventNum, Pdu, StateKeyNum, state::StateRoot};
use serde_json::{Value, json};

use super::{NewEvent, Rng, Room, event, member};

const USERS: [&str; 8] = [
    "@alice:one.test",
    "@bob:one.test",
    "@carol:two.test",
    "@dave:two.test",
    "@erin:three.test",
    "@frank:three.test",
    "@grace:four.test",
    "@heidi:four.test",
];
const LEVELS: [i64; 5] = [0, 25, 50, 75, 100];

/// How a history is to look.
#[derive(Debug, Clone)]
pub struct Shape {
    pub version: u8,
    pub seed: u64,
    /// Events before the forks part.
    pub common: usize,
    pub forks: usize,
    /// Events over all forks.
    pub steps: usize,
    /// How often (in percent) somebody with power acts, rather than anybody.
    pub power: usize,
    /// How often (in percent) an event takes old auth events instead of the current ones.
    pub stale: usize,
    /// How often (in percent) a forbidden event gets into a fork's state all the same.
    pub forbidden: usize,
    /// Timestamps are below this, so that a small number makes many equal.
    pub clock: u64,
}

pub type Map = BTreeMap<StateKeyNum, EventNum>;

/// A history: the room and the states of its forks.
#[derive(Debug)]
pub struct History {
    pub room: Room,
    pub forks: Vec<Map>,
    shape: Shape,
    rng: Rng,
}

impl History {
    /// Makes the history of a shape.
    pub fn new(shape: &Shape) -> Self {
        let rng = Rng(shape.seed);
        let room = Room::new(shape.version, shape.seed);
        let mut history = Self { room, forks: vec![Map::new()], shape: shape.clone(), rng };
        history.found();
        for _ in 0..shape.common {
            history.act(0);
        }
        history.forks = vec![history.forks[0].clone(); shape.forks];
        for _ in 0..shape.steps {
            history.go_on();
        }
        history
    }

    /// One more random event on one of the forks.
    pub fn go_on(&mut self) {
        let fork = self.rng.below(self.forks.len());
        self.act(fork);
    }

    /// The stored states of the forks.
    pub fn roots(&self) -> Vec<StateRoot> {
        self.forks.iter().map(|fork| self.room.store(fork.clone())).collect()
    }

    /// Create, the creator's join, often power levels and join rules.
    fn found(&mut self) {
        let creator = USERS[0];
        let mut create =
            json!({ "creator": creator, "room_version": self.shape.version.to_string() });
        if self.rng.percent(10) {
            create["m.federate"] = json!(false);
        }
        if self.shape.version == 12 && self.rng.percent(30) {
            create["additional_creators"] = json!([USERS[1]]);
        }
        self.put(0, event(creator, "m.room.create", "", create));
        self.put(0, member(creator, creator, "join"));
        if self.rng.percent(85) {
            let levels = self.power_levels(creator);
            self.put(0, levels);
        }
        self.put(0, event(creator, "m.room.join_rules", "", json!({ "join_rule": "public" })));
        for user in &USERS[1..] {
            if self.rng.percent(70) {
                self.put(0, member(user, user, "join"));
            }
        }
    }

    /// One random event on a fork.
    fn act(&mut self, fork: usize) {
        let sender = if self.rng.percent(self.shape.power) {
            USERS[self.rng.below(3)]
        } else {
            *self.rng.pick(&USERS)
        };
        let target = *self.rng.pick(&USERS);
        let action = match self.rng.below(100) {
            0..18 => self.power_levels(sender),
            18..28 => self.join_rules(sender),
            28..38 => member(sender, target, "ban"),
            38..48 => member(sender, target, "leave"),
            48..53 => member(sender, sender, "leave"),
            53..61 => member(sender, target, "invite"),
            61..76 => self.join(sender),
            76..79 => member(sender, sender, "knock"),
            79..85 => self.note(sender, "m.room.topic", ""),
            85..89 => self.note(sender, "m.room.name", ""),
            89..92 => self.note(sender, "m.room.third_party_invite", "token"),
            92..94 => self.note(sender, "m.room.join_rules", "not-empty"),
            94..96 => self.note(sender, "m.room.aliases", "one.test"),
            96..98 => self.note(sender, "test.own", sender),
            _ => self.note(sender, "m.room.encryption", ""),
        };
        self.put(fork, action);
    }

    fn note(&mut self, sender: &str, event_type: &'static str, state_key: &str) -> NewEvent {
        event(sender, event_type, state_key, json!({ "n": self.rng.below(1_000) }))
    }

    fn join(&mut self, sender: &str) -> NewEvent {
        let mut join = member(sender, sender, "join");
        if self.rng.percent(25) {
            join.content["join_authorised_via_users_server"] = json!(self.rng.pick(&USERS));
        }
        join
    }

    fn join_rules(&mut self, sender: &str) -> NewEvent {
        let rules = ["public", "public", "invite", "knock", "restricted", "knock_restricted"];
        let rule = *self.rng.pick(&rules);
        let allow = json!([{ "type": "m.room_membership", "room_id": "!other:one.test" }]);
        event(sender, "m.room.join_rules", "", json!({ "join_rule": rule, "allow": allow }))
    }

    fn power_levels(&mut self, sender: &str) -> NewEvent {
        let mut content = json!({ "users": {}, "events": {} });
        for user in &USERS[1..] {
            if self.rng.percent(35) {
                content["users"][*user] = json!(self.rng.pick(&LEVELS));
            }
        }
        if self.shape.version < 12 {
            content["users"][USERS[0]] = json!(if self.rng.percent(95) { 100 } else { 50 });
        }
        for field in ["users_default", "events_default", "state_default", "ban", "kick", "invite"] {
            if self.rng.percent(15) {
                content[field] = json!(self.rng.pick(&LEVELS[..3]));
            }
        }
        if self.rng.percent(20) {
            content["events"]["m.room.topic"] = self.level_text();
        }
        event(sender, "m.room.power_levels", "", content)
    }

    /// Up to room version 9 a level may be a string.
    fn level_text(&mut self) -> Value {
        let level = *self.rng.pick(&LEVELS);
        let text = (2..10).contains(&self.shape.version) && self.rng.percent(30);
        if text { json!(level.to_string()) } else { json!(level) }
    }

    /// Adds an event to a fork if the rules allow it, or by way of exception.
    fn put(&mut self, fork: usize, mut new: NewEvent) {
        new.ts = 1_000 + self.rng.next() % self.shape.clock;
        new.depth = self.room.events.len() as u64 + 1;
        let current = self.forks[fork].clone();
        let mut from = current.clone();
        if self.rng.percent(self.shape.stale) {
            self.age(&mut from);
        }
        // There are always join rules in sight (a resolution can drop them): what holds without
        // them is not specified, and the oracle and the auth rules see it differently.
        if let Some(rules) = self.first_join_rules() {
            from.entry(self.room.key_of(rules)).or_insert(rules);
        }
        let auth_events = self.room.select_auth(&new, &|key| from.get(&key).copied());
        let made = self.room.make(&new, &auth_events);
        let allowed = self.room.allows(&made, &|key| current.get(&key).copied());
        if !allowed && !self.rng.percent(self.shape.forbidden) {
            return;
        }
        let is_join_rules = new.event_type == "m.room.join_rules";
        let rejected = !allowed && !is_join_rules && self.rng.percent(50);
        let num = self.room.add(&new, &auth_events, rejected);
        let key = self.room.key_of(num);
        self.forks[fork].insert(key, num);
    }

    fn first_join_rules(&self) -> Option<EventNum> {
        let is_rules = |event: &Arc<Pdu>| {
            event.event_type() == "m.room.join_rules" && event.state_key() == Some("")
        };
        self.room.events.iter().position(is_rules).map(|index| EventNum(index as u64))
    }

    /// Puts older events in the place of some.
    fn age(&mut self, state: &mut Map) {
        for (key, num) in state {
            if self.rng.percent(30) {
                let room = &self.room;
                let older: Vec<_> = (0..room.events.len() as u64)
                    .map(EventNum)
                    .filter(|older| room.key_of(*older) == *key)
                    .collect();
                *num = *self.rng.pick(&older);
            }
        }
    }
}
