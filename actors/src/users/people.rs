//! Keeps the index of those whom everybody finds in the user directory: users in rooms that anybody
//! may enter or read.
//!
//! Rooms write down who may be concerned by what has happened in them; here it is looked up how
//! things are now. So it does not matter in which order that is done, or how often. A user's new
//! name goes into the index with the account, since both are changed one after the other.

use std::{collections::BTreeSet, sync::Arc};

use parlour_event::{
    RoomNum, StateKeyNum,
    state::{ReadState as _, StateError},
};
use parlour_storage::{
    StorageError, Store,
    schema::{PeopleNews, User, keys, people},
};
use ruma::OwnedServerName;
use serde::Deserialize;
use tokio::{sync::Notify, task::JoinSet};

use super::{
    Decision, UserError, Users,
    accounts::words,
    chores::{Chore, Progress},
    sessions::quiet,
};
use crate::{nodes::Nodes, words::words_of_user};

/// How many users are looked at before others get their turn on the thread.
const BATCH: usize = 64;

/// What of a member event says how a user of another server is called.
#[derive(Deserialize)]
struct Member {
    content: Name,
}

#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    displayname: Option<String>,
}

impl Users {
    /// Begins to follow who is in open rooms.
    pub(crate) fn follow_people(
        &self,
        nodes: Nodes,
        server_name: OwnedServerName,
        news: &Arc<Notify>,
    ) {
        let source = Source { store: self.store.clone(), nodes, server_name };
        self.begin(People { users: self.clone(), source }, news);
    }
}

struct People {
    users: Users,
    source: Source,
}

/// Where it is looked up how things are.
#[derive(Clone)]
struct Source {
    store: Store,
    nodes: Nodes,
    server_name: OwnedServerName,
}

impl Chore for People {
    const MARKS: u8 = keys::PEOPLE_NEWS;
    const NAME: &'static str = "noting who is found by everybody";

    async fn perform(&self, mark: &[u8]) -> Result<Progress, StorageError> {
        let Some(news) = self.source.store.typed::<PeopleNews>(mark)? else {
            return Ok(Progress::Done);
        };
        let mut all_done = self.look_at(&news.users).await?;
        for room in news.rooms {
            for places in self.source.members(room)?.chunks(BATCH) {
                all_done &= self.look_at(&self.source.store.members_named(places)?).await?;
            }
        }
        Ok(Progress::of(all_done))
    }
}

impl People {
    /// Corrects the entries of some users; says whether that is done.
    async fn look_at(&self, users: &[String]) -> Result<bool, StorageError> {
        let mut all_done = true;
        for users in users.chunks(BATCH) {
            let mut changes = JoinSet::new();
            for user in users {
                let (before, now) = self.source.both(user)?;
                if before != now {
                    changes.spawn(correct(self.users.clone(), self.source.clone(), user.clone()));
                }
            }
            while let Some(change) = changes.join_next().await {
                all_done &= matches!(change, Ok(Ok(())));
            }
            tokio::task::yield_now().await;
        }
        Ok(all_done)
    }
}

async fn correct(users: Users, source: Source, user: String) -> Result<(), UserError> {
    let name = user.clone();
    let decide = move |_: &Store| {
        let (before, now) = source.both(&name)?;
        let ops = people::open_ops(&name, &before, &now);
        Ok::<_, UserError>(match ops.is_empty() {
            true => Decision::Keep(()),
            false => Decision::Write(quiet(ops), ()),
        })
    };
    users.change(&user, decide).await
}

impl Source {
    /// Under which words everybody finds a user as it is written, and as it should be.
    fn both(&self, user: &str) -> Result<(BTreeSet<String>, BTreeSet<String>), StorageError> {
        let server = user.split_once(':').map_or("", |(_, server)| server);
        let now = match server == self.server_name.as_str() {
            true => self.words_of_local(user)?,
            false => self.words_of_other(user)?,
        };
        Ok((self.store.open_words_of(user)?, now))
    }

    fn words_of_local(&self, user: &str) -> Result<BTreeSet<String>, StorageError> {
        if self.store.open_room_of(user)?.is_none() {
            return Ok(BTreeSet::new());
        }
        let account = self.store.typed::<User>(&keys::user(user))?;
        Ok(account.map(|account| words(user, &account)).unwrap_or_default())
    }

    /// Somebody of another server is called what the first open room says.
    fn words_of_other(&self, user: &str) -> Result<BTreeSet<String>, StorageError> {
        let room = self.store.open_room_among(&self.store.rooms_with(user)?)?;
        let Some(room) = room else { return Ok(BTreeSet::new()) };
        let (Some(head), Some(place)) =
            (self.store.room_head(room)?, self.store.state_key_num("m.room.member", user)?)
        else {
            return Ok(BTreeSet::new());
        };
        let num = self.nodes.get(head.state, place).map_err(|error| unreadable(room, error))?;
        let event = num.map(|num| self.store.event(num)).transpose()?.flatten();
        let member = event.and_then(|event| serde_json::from_slice::<Member>(&event.json).ok());
        let name = member.and_then(|member| member.content.displayname);
        Ok(words_of_user(user, name.as_deref()))
    }

    /// Everybody whose membership a room's state has.
    fn members(&self, room: RoomNum) -> Result<Vec<StateKeyNum>, StorageError> {
        let Some(head) = self.store.room_head(room)? else { return Ok(Vec::new()) };
        let members = self.nodes.iter_members(head.state);
        let places = members.map(|member| Ok(member?.0));
        places.collect::<Result<_, _>>().map_err(|error| unreadable(room, error))
    }
}

fn unreadable(room: RoomNum, error: StateError<StorageError>) -> StorageError {
    match error {
        StateError::Store(error) => error,
        misplaced @ StateError::Misplaced(_) => StorageError::Value {
            key: keys::readable(&keys::room(room)),
            what: misplaced.to_string(),
        },
    }
}
