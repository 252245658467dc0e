//! One job, from its first account to its last message.

use std::{
    collections::BTreeMap,
    ops::Range,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, FuturesOrdered, Stream},
};
use parlour_event::json::{Object, Value};
use parlour_storage::schema::User;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::time::sleep;

use super::{BulkOrder, Count, Job, JobState, Joins, Parts, text::Dice};
use crate::{
    persister::PersistError,
    registry::Rooms,
    room::messages::{LocalEvent, RoomError},
    users::{UserError, add_profile},
};

/// How many accounts are made at once.
const USERS_AT_ONCE: usize = 2_048;

/// How many rooms are born at once.
const BIRTHS_AT_ONCE: usize = 16;

/// How many rooms are born before they are filled.
const ROOMS_AHEAD: usize = 512;

/// How many rooms are filled at once.
const ROOMS_AT_ONCE: usize = 8;

/// How many handfuls of events of one room are under way: enough for one flush to be worth it.
const HANDFULS: usize = 8;

/// How long a part that has too much to do is left alone.
const PAUSE: Duration = Duration::from_millis(20);

/// How often it is asked again.
const PATIENCE: usize = 3_000;

/// A job that is under way.
pub(super) struct Work {
    pub(super) parts: Parts,
    pub(super) job: Arc<Job>,
    pub(super) order: BulkOrder,
}

/// Why a job ends before its end.
enum Ended {
    Cancelled,
    Failed(String),
}

impl<E: std::error::Error> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Work {
    pub(super) async fn run(self) {
        let state = match self.everything().await {
            Ok(()) => JobState::Complete,
            Err(Ended::Cancelled) => JobState::Cancelled,
            Err(Ended::Failed(why)) => {
                tracing::warn!(job = %self.job.id, why, "a bulk job could not go on");
                JobState::Failed(why)
            }
        };
        let now = self.parts.env.clock.monotonic();
        self.job.state.send_replace((state, Some(now)));
    }

    async fn everything(&self) -> Result<(), Ended> {
        self.make_users().await?;
        for some in handfuls(0..self.order.rooms, ROOMS_AHEAD) {
            // In order, so that a seed gives the same ids.
            let births = stream::iter(some).map(|number| self.make_room(number));
            let born = births.buffered(BIRTHS_AT_ONCE);
            let rooms = self.all(born.inspect_ok(|(_, room)| self.job.has_made(room))).await?;
            let filled = stream::iter(rooms).map(|(number, room)| self.fill(number, room));
            self.all(filled.buffer_unordered(ROOMS_AT_ONCE)).await?;
        }
        for (number, Joins { room, users, messages }) in (0..).zip(&self.order.joins) {
            self.let_in(room, users).await?;
            let sender = |lot: u64| {
                let user = usize::try_from(lot).ok().and_then(|lot| users.get(lot));
                user.cloned().ok_or_else(|| Ended::Failed(format!("nobody speaks in {room}")))
            };
            self.talk(room, *messages, number, users.len() as u64, sender).await?;
        }
        Ok(())
    }

    /// Waits for all of it: when one goes wrong, the others end as soon as they can.
    async fn all<T>(&self, work: impl Stream<Item = Result<T, Ended>>) -> Result<Vec<T>, Ended> {
        let (mut done, mut ended) = (Vec::new(), None);
        let mut work = pin!(work);
        while let Some(result) = work.next().await {
            match result {
                Ok(value) => done.push(value),
                Err(error) => {
                    self.job.cancel();
                    ended.get_or_insert(error);
                }
            }
        }
        ended.map_or(Ok(done), Err)
    }

    fn check(&self) -> Result<(), Ended> {
        match self.job.is_cancelled.load(Ordering::Relaxed) {
            true => Err(Ended::Cancelled),
            false => Ok(()),
        }
    }

    /// One of the order's users; the last is followed by the first.
    fn user(&self, number: u64) -> Result<OwnedUserId, Ended> {
        let number = number.checked_rem(self.order.users).unwrap_or_default();
        let id = format!("@{}-{number}:{}", self.order.prefix, self.parts.server_name);
        Ok(UserId::parse(id)?)
    }

    async fn make_users(&self) -> Result<(), Ended> {
        for some in handfuls(0..self.order.users, USERS_AT_ONCE) {
            self.check()?;
            let count = some.clone().count();
            let accounts = some.map(|number| {
                let account = User {
                    password_hash: self.order.password_hash.clone(),
                    created_ts: self.parts.env.clock.now_ms(),
                    display_name: Some(format!("{} {number}", self.order.prefix)),
                    ..User::default()
                };
                Ok((self.user(number)?.to_string(), account))
            });
            let accounts = accounts.collect::<Result<BTreeMap<_, _>, Ended>>()?;
            let make = || self.parts.users.register_many(accounts.clone());
            let is_busy = |error: &UserError| {
                matches!(error, UserError::Busy | UserError::Persist(PersistError::Busy))
            };
            patiently(make, is_busy).await?;
            self.job.users.add(count);
        }
        Ok(())
    }

    async fn make_room(&self, number: u64) -> Result<(u64, OwnedRoomId), Ended> {
        self.check()?;
        let creator = self.user(self.first_member(number))?;
        let account = self.parts.users.account(creator.as_str())?.unwrap_or_default();
        let make = || self.parts.rooms.create((self.order.found)(number, &creator, &account));
        let (room, _) = patiently(make, is_busy).await?;
        self.job.members.add(1);
        Ok((number, room))
    }

    /// The number of the user who makes a room.
    fn first_member(&self, room: u64) -> u64 {
        room.wrapping_mul(self.order.members)
    }

    async fn fill(&self, number: u64, room: OwnedRoomId) -> Result<(), Ended> {
        let (first, members) = (self.first_member(number), self.order.members);
        let others = (1..members).map(|member| self.user(first + member));
        self.let_in(&room, &others.collect::<Result<Vec<_>, Ended>>()?).await?;
        let sender = |lot| self.user(first + lot);
        self.talk(&room, self.order.messages, number, members, sender).await
    }

    /// Has some of so many users say something in a room, the `number`th of the order.
    async fn talk(
        &self,
        room: &RoomId,
        messages: u64,
        number: u64,
        users: u64,
        sender: impl Fn(u64) -> Result<OwnedUserId, Ended>,
    ) -> Result<(), Ended> {
        let dice = Dice::new(self.order.seed.wrapping_add(number));
        let messages = handfuls(0..messages, Rooms::AT_ONCE).map(|some| {
            let said = some.map(|number| {
                let sender = sender(dice.below(users))?;
                let text = Value::from(dice.message(number));
                let mut content = object([("msgtype", "m.text".into()), ("body", text)]);
                content.extend(self.order.run.as_deref().map(|run| mark(run, number)));
                Ok(event(sender, "m.room.message", None, content))
            });
            said.collect()
        });
        self.send_all(room, messages, &self.job.messages).await
    }

    /// Has users join a room, with the names and avatars that they have.
    async fn let_in(&self, room: &RoomId, users: &[OwnedUserId]) -> Result<(), Ended> {
        let joins = users.chunks(Rooms::AT_ONCE).map(|some| {
            let joins = some.iter().filter_map(|user| self.join(user).transpose());
            joins.collect()
        });
        self.send_all(room, joins, &self.job.members).await
    }

    /// A user's join; none if there is no such user who may go anywhere.
    fn join(&self, user: &OwnedUserId) -> Result<Option<LocalEvent>, Ended> {
        let account = self.parts.users.account(user.as_str())?;
        let Some(account) = account.filter(|account| !account.deactivated && !account.guest) else {
            self.job.refuse(format!("{user} is no user of this server who could join"));
            return Ok(None);
        };
        let mut content = object([("membership", "join".into())]);
        add_profile(&account, &mut content);
        Ok(Some(event(user.clone(), "m.room.member", Some(user.to_string()), content)))
    }

    /// Sends handfuls of events to a room, in order, and counts those that it has taken.
    async fn send_all(
        &self,
        room: &RoomId,
        events: impl Iterator<Item = Result<Vec<LocalEvent>, Ended>>,
        count: &Count,
    ) -> Result<(), Ended> {
        let (mut events, mut sent, mut end) = (events, FuturesOrdered::new(), Ok(()));
        loop {
            while end.is_ok() && sent.len() < HANDFULS {
                match events.next() {
                    Some(Ok(events)) => sent.push_back(self.send(room, events)),
                    Some(Err(error)) => end = Err(error),
                    None => break,
                }
            }
            // What is under way is waited for, also when something has gone wrong.
            match sent.next().await {
                Some(Ok(taken)) => count.add(taken),
                Some(Err(error)) => end = end.and(Err(error)),
                None => return end,
            }
        }
    }

    /// Sends some events to a room; says how many it has taken.
    async fn send(&self, room: &RoomId, events: Vec<LocalEvent>) -> Result<usize, Ended> {
        self.check()?;
        let taken = patiently(|| self.parts.rooms.send_many(room, &events), is_busy).await?;
        let mut count = 0;
        for event in taken {
            match event {
                Ok(_) => count += 1,
                Err(error @ (RoomError::Storage(_) | RoomError::Persist(_))) => {
                    return Err(error.into());
                }
                Err(refusal) => self.job.refuse(refusal),
            }
        }
        Ok(count)
    }
}

/// By what `parlour load` knows a message of a run again: as if its first sender had sent all of
/// them, before anything was measured.
fn mark(run: &str, number: u64) -> (String, Value) {
    let number = Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let mark = object([
        ("run", run.into()),
        ("sender", Value::Integer(0)),
        ("number", number),
        ("at", Value::Integer(0)),
        ("counted", Value::Bool(false)),
    ]);
    ("parlour.load".to_owned(), Value::Object(mark))
}

/// The numbers of a range, so many at a time.
fn handfuls(all: Range<u64>, size: usize) -> impl Iterator<Item = Range<u64>> {
    let end = all.end;
    all.step_by(size).map(move |begin| begin..end.min(begin + size as u64))
}

fn is_busy(error: &RoomError) -> bool {
    matches!(error, RoomError::Busy)
}

/// Asks again for a while if there is too much to do.
async fn patiently<T, E, F: Future<Output = Result<T, E>>>(
    ask: impl Fn() -> F,
    is_busy: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 0..PATIENCE {
        match ask().await {
            Err(error) if is_busy(&error) => sleep(PAUSE).await,
            answered => return answered,
        }
    }
    ask().await
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Object {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn event(
    sender: OwnedUserId,
    event_type: &str,
    state_key: Option<String>,
    content: Object,
) -> LocalEvent {
    LocalEvent {
        sender,
        event_type: event_type.to_owned(),
        state_key,
        content,
        redacts: None,
        transaction: None,
        timestamp: None,
    }
}
