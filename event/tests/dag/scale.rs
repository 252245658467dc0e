//! Big rooms with small conflicts, and conflicts that are expensive in themselves.

use parlour_event::{EventNum, StateKeyNum, state::StateRoot};
use serde_json::json;

use super::{NewEvent, Room, event, member};

const CREATOR: &str = "@creator:one.test";

/// A room and the states of its forks.
#[derive(Debug)]
pub struct Scene {
    pub room: Room,
    pub states: Vec<StateRoot>,
}

impl Scene {
    fn at(&mut self, root: StateRoot, mut new: NewEvent) -> (EventNum, StateRoot) {
        new.ts = 1_000 + self.room.events.len() as u64;
        new.depth = self.room.events.len() as u64 + 1;
        self.room.add_on(root, &new)
    }
}

fn moderator(n: usize) -> String {
    format!("@moderator{n}:mods.test")
}

fn visitor(n: usize) -> String {
    format!("@visitor{n}:s{}.test", n % 100)
}

/// A public room with `members` visitors and `moderators` moderators, in one state.
pub fn room(version: u8, members: usize, moderators: usize) -> Scene {
    let mut scene = Scene { room: Room::new(version, 7), states: Vec::new() };
    let create = json!({ "creator": CREATOR, "room_version": version.to_string() });
    let (_, root) = scene.at(StateRoot::EMPTY, event(CREATOR, "m.room.create", "", create));
    let (_, root) = scene.at(root, member(CREATOR, CREATOR, "join"));
    let mut users = serde_json::Map::new();
    if version < 12 {
        users.insert(CREATOR.to_owned(), json!(100));
    }
    users.extend((0..moderators).map(|n| (moderator(n), json!(50))));
    let levels = event(CREATOR, "m.room.power_levels", "", json!({ "users": users }));
    let (_, root) = scene.at(root, levels);
    let rules = event(CREATOR, "m.room.join_rules", "", json!({ "join_rule": "public" }));
    let (_, mut root) = scene.at(root, rules);
    for n in 0..moderators {
        let user = moderator(n);
        (_, root) = scene.at(root, member(&user, &user, "join"));
    }
    root = scene.join_visitors(root, members);
    scene.states = vec![root];
    scene
}

impl Scene {
    /// Joins by the thousand: stored as one change, since all have the same auth events.
    fn join_visitors(&mut self, root: StateRoot, members: usize) -> StateRoot {
        let mut joined = Vec::with_capacity(members);
        let first = visitor(0);
        let join = member(&first, &first, "join");
        let nodes = &self.room.nodes;
        let get = |key| parlour_event::state::ReadState::get(nodes, root, key).unwrap();
        let auth_events = self.room.select_auth(&join, &get);
        for n in 0..members {
            let user = visitor(n);
            let mut join = member(&user, &user, "join");
            join.ts = 2_000 + n as u64;
            join.depth = self.room.events.len() as u64 + 1;
            let key = StateKeyNum::new(1_000_000 + n as u64, true);
            self.room.keys.entry("m.room.member".to_owned()).or_default().insert(user, key);
            joined.push((key, Some(self.room.add(&join, &auth_events, false))));
        }
        self.room.store_change(root, &joined)
    }

    /// Parts the only state into forks; on each one another moderator bans one visitor and changes
    /// the topic, and the first one also changes the power levels.
    pub fn fork(mut self, forks: usize) -> Self {
        let start = self.states[0];
        self.states = (0..forks)
            .map(|n| {
                let user = moderator(n);
                let (_, mut root) = self.at(start, member(&user, &visitor(n), "ban"));
                let topic = event(&user, "m.room.topic", "", json!({ "topic": user }));
                (_, root) = self.at(root, topic);
                if n == 0 {
                    let levels = json!({ "users": { moderator(0): 50 }, "ban": 50 });
                    let mut levels = event(CREATOR, "m.room.power_levels", "", levels);
                    if self.room.version.number() < 12 {
                        levels.content["users"][CREATOR] = json!(100);
                    }
                    (_, root) = self.at(root, levels);
                }
                root
            })
            .collect();
        self
    }
}

/// A conflict whose cost lies in itself: `forks` forks, on each of which the creator and the
/// moderators change the power levels and ban and unban the same visitors, `rounds` times over.
/// Everything that happened is in the auth difference, is sorted and is checked again.
///
/// The full conflicted set has about `forks * rounds * (visitors * 2 + 1)` events: 10 forks, 30
/// rounds and 40 visitors make 24,000.
pub fn expensive(version: u8, forks: usize, rounds: usize, visitors: usize) -> Scene {
    let mut scene = room(version, visitors.max(1), 5);
    let start = scene.states[0];
    scene.states = (0..forks)
        .map(|fork| {
            let mut root = start;
            for round in 0..rounds {
                let mut levels = json!({ "users": {}, "kick": (fork + round) % 50 });
                if version < 12 {
                    levels["users"][CREATOR] = json!(100);
                }
                for n in 0..5 {
                    levels["users"][moderator(n)] = json!(50 + (fork + n) % 10);
                }
                (_, root) = scene.at(root, event(CREATOR, "m.room.power_levels", "", levels));
                for n in 0..visitors {
                    let user = moderator((n + round) % 5);
                    (_, root) = scene.at(root, member(&user, &visitor(n), "ban"));
                    (_, root) = scene.at(root, member(&user, &visitor(n), "leave"));
                }
            }
            let topic = event(CREATOR, "m.room.topic", "", json!({ "topic": fork }));
            scene.at(root, topic).1
        })
        .collect();
    scene
}
