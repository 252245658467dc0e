//! `/sync` against a model: whatever happens in rooms, and whenever a client asks, with whatever
//! filter, it ends with the same view of its rooms as a client that asks once at the end, and with
//! the view that the rules of the specification lead to (`truth.rs`).
//!
//! Histories are drawn by proptest and made as short as can be when one fails. All cases run
//! against one server, each with users and rooms of its own. `PROPTEST_CASES` says how many.

mod client;
mod truth;

use std::cell::RefCell;

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    sample::select,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use self::{
    client::{Client, Kind},
    truth::{Kept, Room},
};
use crate::common::{Server, User, fresh_txn, path};

/// Users of a case; the first one made the rooms and never leaves.
const USERS: usize = 3;

/// Rooms of a case.
const ROOMS: usize = 2;

/// Clients of a case, each a device of its own.
const CLIENTS: usize = 4;

/// What somebody does, or a client that asks what is new.
#[derive(Clone, Debug)]
enum Act {
    Say {
        room: usize,
        user: usize,
    },
    Set {
        room: usize,
        key: u8,
    },
    Visibility {
        room: usize,
        to: &'static str,
    },
    JoinRule {
        room: usize,
        to: &'static str,
    },
    Join {
        room: usize,
        user: usize,
    },
    Leave {
        room: usize,
        user: usize,
    },
    /// By the first user: `invite`, `kick`, `ban` or `unban`.
    Moderate {
        room: usize,
        user: usize,
        verb: &'static str,
    },
    Redact {
        room: usize,
        nth: usize,
    },
    Receipt {
        room: usize,
        user: usize,
        private: bool,
    },
    Data {
        room: usize,
        user: usize,
    },
    Tag {
        room: usize,
        user: usize,
        add: bool,
    },
    Name {
        user: usize,
    },
    Sync {
        client: usize,
        answer_is_lost: bool,
        full_state: bool,
    },
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (room, user) = (0..ROOMS, 0..USERS);
    let place = (room.clone(), user.clone());
    let visibility = select(&["shared", "joined", "invited", "world_readable"][..]);
    let join_rule = select(&["public", "knock", "invite"][..]);
    let verb = select(&["invite", "kick", "ban", "unban"][..]);
    let act = prop_oneof![
        12 => place.clone().prop_map(|(room, user)| Act::Say { room, user }),
        3 => (room.clone(), 0..3_u8).prop_map(|(room, key)| Act::Set { room, key }),
        1 => (room.clone(), visibility)
            .prop_map(|(room, to)| Act::Visibility { room, to }),
        1 => (room.clone(), join_rule)
            .prop_map(|(room, to)| Act::JoinRule { room, to }),
        6 => place.clone().prop_map(|(room, user)| Act::Join { room, user }),
        2 => place.clone().prop_map(|(room, user)| Act::Leave { room, user }),
        4 => (place.clone(), verb)
            .prop_map(|((room, user), verb)| Act::Moderate { room, user, verb }),
        2 => (room.clone(), 0..40_usize).prop_map(|(room, nth)| Act::Redact { room, nth }),
        2 => (place.clone(), any::<bool>())
            .prop_map(|((room, user), private)| Act::Receipt { room, user, private }),
        1 => place.clone().prop_map(|(room, user)| Act::Data { room, user }),
        1 => (place, any::<bool>()).prop_map(|((room, user), add)| Act::Tag { room, user, add }),
        1 => user.prop_map(|user| Act::Name { user }),
        12 => (0..CLIENTS, 0..8, 0..8).prop_map(|(client, lost, full)| Act::Sync {
            client,
            answer_is_lost: lost == 0,
            full_state: full == 0,
        }),
        1 => Just(Act::Restart),
    ];
    vec(act, 1..60)
}

/// One drawn history in the making.
struct Story<'a> {
    server: &'a mut Server,
    users: Vec<User>,
    clients: Vec<Client>,
    rooms: Vec<Room>,
}

impl<'a> Story<'a> {
    fn begin(server: &'a mut Server, kinds: &[(usize, Kind)]) -> Self {
        let case = fresh_txn();
        let names: Vec<_> = (0..USERS).map(|n| format!("user{n}-{case}")).collect();
        let users: Vec<_> = names.iter().map(|name| server.user(name)).collect();
        let clients =
            kinds.iter().map(|(user, kind)| Client::new(server.login(&names[*user]), *kind));
        let clients = clients.collect();
        let ids: Vec<_> = users.iter().map(|user| user.id.clone()).collect();
        let rooms = (0..ROOMS).map(|_| Room::new(users[0].public_room(), &ids)).collect();
        Self { server, users, clients, rooms }
    }

    /// Does what is drawn, if it is allowed at this point.
    fn perform(&mut self, act: &Act, number: usize) {
        match *act {
            Act::Say { room, user } if self.rooms[room].is_joined(user) => {
                let event = self.users[user].say(&self.rooms[room].id, &number.to_string());
                self.rooms[room].said(event.event_id());
            }
            Act::Set { room, key } => {
                let (kind, key) =
                    [("m.room.topic", ""), ("org.example.a", "x"), ("org.example.a", "y")]
                        [usize::from(key)];
                self.set(room, kind, key, json!({ "topic": number.to_string() }));
            }
            Act::Visibility { room, to } if self.rooms[room].visibility() != to => {
                self.set(
                    room,
                    "m.room.history_visibility",
                    "",
                    json!({ "history_visibility": to }),
                );
            }
            Act::JoinRule { room, to } if self.rooms[room].join_rule() != to => {
                self.set(room, "m.room.join_rules", "", json!({ "join_rule": to }));
            }
            Act::Redact { room, nth } => self.redact(room, nth),
            Act::Receipt { room, user, private } => self.receipt(room, user, private),
            Act::Data { room, user } if self.rooms[room].is_joined(user) => {
                self.account_data(
                    room,
                    user,
                    "account_data/org.example.data",
                    json!({ "n": number }),
                );
            }
            Act::Tag { room, user, add } if self.rooms[room].is_joined(user) => {
                self.tag(room, user, add);
            }
            Act::Name { user } => self.rename(user, &format!("name {number}")),
            Act::Sync { client, answer_is_lost, full_state } => {
                self.clients[client].sync(answer_is_lost, full_state);
            }
            Act::Restart => self.restart(),
            _ => self.change_membership(act),
        }
    }

    fn set(&mut self, room: usize, kind: &str, key: &str, content: Value) {
        let room = &mut self.rooms[room];
        let event = self.users[0].set_state(&room.id, kind, key, content.clone()).event_id();
        room.set(event, kind, key, content);
    }

    fn change_membership(&mut self, act: &Act) {
        let (index, user, by, verb) = match *act {
            Act::Join { room, user } => (room, user, user, "join"),
            Act::Leave { room, user } => (room, user, user, "leave"),
            Act::Moderate { room, user, verb } => (room, user, 0, verb),
            _ => return,
        };
        let room = &mut self.rooms[index];
        let Some(becomes) = room.may(user, verb).filter(|_| user != 0) else { return };
        let body = if by == user { json!({}) } else { json!({ "user_id": self.users[user].id }) };
        self.users[by].membership(&room.id, verb, body).ok();
        room.became(user, becomes);
    }

    fn redact(&mut self, room: usize, nth: usize) {
        let room = &mut self.rooms[room];
        let Some(target) = room.message(nth) else { return };
        let event = self.users[0].redact(&room.id, &target, "").event_id();
        room.redacted(event, target);
    }

    /// Marks the newest message as read.
    fn receipt(&mut self, index: usize, user: usize, private: bool) {
        let room = &mut self.rooms[index];
        let Some(event) = room.newest_message().filter(|_| room.is_joined(user)) else { return };
        let kind = if private { "m.read.private" } else { "m.read" };
        let at = path("/_matrix/client/v3/rooms/{}/receipt/{}/{}", &[&room.id, kind, &event]);
        // Members who came later may not see it.
        if self.users[user].http.post(&at, &json!({})).status == 200 {
            room.read(user, kind, event);
        }
    }

    fn account_data(&mut self, room: usize, user: usize, what: &str, content: Value) {
        let (room, who) = (&mut self.rooms[room], &self.users[user]);
        let at = path("/_matrix/client/v3/user/{}/rooms/{}/", &[&who.id, &room.id]) + what;
        who.http.put(&at, &content).ok();
        room.keep(user, Kept::Data(content));
    }

    fn tag(&mut self, room: usize, user: usize, add: bool) {
        let tags = if add { json!({ "u.tag": { "order": 0.5 } }) } else { json!({}) };
        let (room, who) = (&mut self.rooms[room], &self.users[user]);
        let at =
            path("/_matrix/client/v3/user/{}/rooms/{}/account_data/m.tag", &[&who.id, &room.id]);
        who.http.put(&at, &json!({ "tags": tags })).ok();
        room.keep(user, Kept::Tag(add));
    }

    /// A new name, which becomes a member event in every joined room some time later.
    fn rename(&mut self, user: usize, name: &str) {
        let who = &self.users[user];
        let at = path("/_matrix/client/v3/profile/{}/displayname", &[&who.id]);
        who.http.put(&at, &json!({ "displayname": name })).ok();
        for room in self.rooms.iter_mut().filter(|room| room.is_joined(user)) {
            let until = crate::common::deadline(std::time::Duration::from_secs(30));
            while who.state(&room.id, "m.room.member", &who.id).ok()["displayname"] != name {
                assert!(!until.passed(), "{} has no new name in {}", who.id, room.id);
            }
            room.became(user, "join");
        }
    }

    fn restart(&mut self) {
        self.server.restart();
        self.users = self.users.iter().map(|user| self.server.again(user)).collect();
        for client in &mut self.clients {
            client.user = self.server.again(&client.user);
        }
    }

    /// At the end everybody asks once more, and is held against the truth and against somebody
    /// who asks for the first time.
    fn end(mut self) {
        for room in &mut self.rooms {
            room.learn_ids(&self.users[0]);
        }
        for client in &mut self.clients {
            client.sync(false, false);
            let index = self.users.iter().position(|user| user.id == client.user.id).unwrap();
            let mut fresh = Client::new(client.user.clone(), client.kind);
            fresh.sync(false, true);
            for room in &self.rooms {
                client.must_have(room, index);
                fresh.must_have(room, index);
                client.must_equal(&fresh, room, index);
            }
        }
    }
}

fn kinds() -> impl Strategy<Value = Vec<(usize, Kind)>> {
    vec((0..USERS, client::kind()), CLIENTS)
}

// Checklist 4.1, 4.2, 4.4, 4.5, 4.7, 4.14, 6.1, 6.2, 6.3
#[test]
fn every_way_of_syncing_leads_to_the_same_view() {
    let cases = std::env::var("PROPTEST_CASES").map_or(20, |text| text.parse().unwrap());
    let config =
        Config { cases, max_shrink_iters: 400, failure_persistence: None, ..Config::default() };
    let server = RefCell::new(Server::start());
    let run = |(kinds, acts): (Vec<_>, Vec<_>)| {
        let mut server = server.borrow_mut();
        let mut story = Story::begin(&mut server, &kinds);
        for (number, act) in acts.iter().enumerate() {
            story.perform(act, number);
        }
        story.end();
        Ok(())
    };
    TestRunner::new(config).run(&(kinds(), acts()), run).unwrap();
}
