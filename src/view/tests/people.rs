//! The user directory against a model that looks at everybody.

use std::{collections::BTreeSet, time::Duration};

use actix::System;
use parlour_actors::{
    Engine,
    users::ProfileChange,
    words::{words, words_of_user},
};
use parlour_storage::schema::User;
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use ruma::OwnedRoomId;

use super::{View, engine, event, member, new_room, user};
use crate::view::people::PeopleSearch;

const USERS: [&str; 4] = ["alice", "bob", "bobby", "zoe"];
const ROOMS: usize = 3;
const NAMES: [&str; 5] = ["Alice", "Bob Builder", "Zoé", "Alan Bo", ""];
const TERMS: [&str; 7] = ["a", "bo", "bob", "b bui", "zoe", "alan", "x"];

/// What happens next. Alice has made the rooms.
#[derive(Debug, Clone)]
enum Act {
    Member { room: usize, who: usize, himself: bool, membership: &'static str },
    JoinRule { room: usize, rule: &'static str },
    Visibility { room: usize, visibility: &'static str },
    Rename { who: usize, name: &'static str },
    Deactivate { who: usize },
    Search { who: usize, term: &'static str },
    Follow,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (room, who) = (0..ROOMS, 0..USERS.len());
    let membership = select(vec!["join", "join", "join", "leave", "leave", "invite", "ban"]);
    let rule = select(vec!["public", "invite"]);
    let visibility = select(vec!["shared", "world_readable"]);
    let act = prop_oneof![
        6 => (room.clone(), who.clone(), any::<bool>(), membership).prop_map(
            |(room, who, himself, membership)| Act::Member { room, who, himself, membership }
        ),
        2 => (room.clone(), rule).prop_map(|(room, rule)| Act::JoinRule { room, rule }),
        1 => (room, visibility)
            .prop_map(|(room, visibility)| Act::Visibility { room, visibility }),
        2 => (who.clone(), select(NAMES.to_vec()))
            .prop_map(|(who, name)| Act::Rename { who, name }),
        1 => (1..USERS.len()).prop_map(|who| Act::Deactivate { who }),
        6 => (who, select(TERMS.to_vec())).prop_map(|(who, term)| Act::Search { who, term }),
        1 => Just(Act::Follow),
    ];
    vec(act, 1..40)
}

#[derive(Debug, Clone)]
struct Room {
    id: OwnedRoomId,
    joined: BTreeSet<usize>,
    is_public: bool,
    is_readable: bool,
}

struct Story {
    engine: Engine,
    view: View,
    rooms: Vec<Room>,
    /// `None` for those who are gone.
    names: Vec<Option<&'static str>>,
}

impl Story {
    async fn begin() -> Self {
        let engine = engine().await;
        let view = View::of(&engine, parlour_actors::env::Env::system().clock);
        for name in USERS {
            engine.users.register(user(name).as_str(), User::default(), None).await.unwrap();
        }
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            let id = new_room(&engine).await;
            let joined = BTreeSet::from([0]);
            rooms.push(Room { id, joined, is_public: true, is_readable: false });
        }
        Self { engine, view, rooms, names: vec![Some(""); USERS.len()] }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Member { room, who, himself, membership } => {
                if self.names[*who].is_none() || (*who == 0 && *membership != "join") {
                    return;
                }
                let sender = if *himself { USERS[*who] } else { USERS[0] };
                let event = member(sender, USERS[*who], membership);
                let room = &mut self.rooms[*room];
                if self.engine.rooms.send(&room.id, event).await.is_ok() {
                    match *membership {
                        "join" => room.joined.insert(*who),
                        _ => room.joined.remove(who),
                    };
                }
            }
            Act::JoinRule { room, rule } => {
                let content = format!(r#"{{"join_rule":"{rule}"}}"#);
                self.set(*room, "m.room.join_rules", &content).await;
                self.rooms[*room].is_public = *rule == "public";
            }
            Act::Visibility { room, visibility } => {
                let content = format!(r#"{{"history_visibility":"{visibility}"}}"#);
                self.set(*room, "m.room.history_visibility", &content).await;
                self.rooms[*room].is_readable = *visibility == "world_readable";
            }
            Act::Rename { who, name } => {
                if self.names[*who].is_some() {
                    let change = ProfileChange::DisplayName(Some((*name).to_owned()));
                    let id = user(USERS[*who]);
                    self.engine.users.set_profile(id.as_str(), change).await.unwrap();
                    self.names[*who] = Some(name);
                }
            }
            Act::Deactivate { who } => {
                self.engine.users.deactivate(user(USERS[*who]).as_str(), false).await.unwrap();
                self.names[*who] = None;
            }
            Act::Search { who, term } => {
                if self.names[*who].is_some() {
                    assert_eq!(self.found(*who, term), self.fit(*who, term), "{who} {term}");
                }
            }
            Act::Follow => self.follow().await,
        }
    }

    async fn set(&self, room: usize, kind: &str, content: &str) {
        let event = event(USERS[0], kind, Some(""), content);
        self.engine.rooms.send(&self.rooms[room].id, event).await.unwrap();
    }

    /// Waits until the index is up to date.
    async fn follow(&self) {
        while !self.engine.store.people_news(1).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn found(&self, who: usize, term: &str) -> BTreeSet<String> {
        let searcher = user(USERS[who]);
        let search = PeopleSearch { searcher: &searcher, text: term, limit: 50, of_all: false };
        let (people, is_limited) = self.view.people(&search).unwrap();
        assert!(!is_limited);
        people.into_iter().map(|person| person.user_id).collect()
    }

    fn is_in_open_room(&self, who: usize) -> bool {
        let is_open = |room: &&Room| room.is_public || room.is_readable;
        self.rooms.iter().filter(is_open).any(|room| room.joined.contains(&who))
    }

    fn words(&self, who: usize) -> BTreeSet<String> {
        let name = self.names[who];
        name.map(|name| words_of_user(user(USERS[who]).as_str(), Some(name))).unwrap_or_default()
    }

    /// Who is to be found.
    fn fit(&self, who: usize, term: &str) -> BTreeSet<String> {
        let mut fit = BTreeSet::new();
        for (other, name) in USERS.iter().enumerate() {
            let is_near = |room: &Room| room.joined.is_superset(&BTreeSet::from([who, other]));
            let is_known =
                who == other || self.is_in_open_room(other) || self.rooms.iter().any(is_near);
            let has = self.words(other);
            let begins = |start: &String| has.iter().any(|word| word.starts_with(start.as_str()));
            if is_known && words(term).iter().all(begins) {
                fit.insert(user(name).to_string());
            }
        }
        fit
    }
}

#[test]
fn everybody_is_found_who_is_to_be_found_and_nobody_else() {
    let mut runner = TestRunner::new(Config {
        // Each case talks to real actors.
        cases: std::env::var("PROPTEST_CASES").map_or(100, |cases| cases.parse().unwrap_or(100)),
        failure_persistence: None,
        ..Config::default()
    });
    let ran = runner.run(&acts(), |acts| {
        System::new().block_on(async {
            let mut story = Story::begin().await;
            for act in &acts {
                story.act(act).await;
            }
            story.follow().await;
            for who in (0..USERS.len()).filter(|who| story.names[*who].is_some()) {
                for term in TERMS {
                    assert_eq!(story.found(who, term), story.fit(who, term), "{who} {term}");
                }
            }
            for (who, name) in USERS.iter().enumerate() {
                let is_open = story.is_in_open_room(who);
                let expected = if is_open { story.words(who) } else { BTreeSet::new() };
                let words = story.engine.store.open_words_of(user(name).as_str()).unwrap();
                assert_eq!(words, expected, "{name}");
            }
            story.engine.stop().await;
        });
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}
