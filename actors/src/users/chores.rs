//! Work that follows a change and takes its time: a user's new name has to come into all rooms, a
//! deactivated user out of them.
//!
//! What has to be done stands in storage, written together with the change, and is struck off when
//! it is done. So nothing is lost in a crash, many changes of one kind cost one pass, and there is
//! no queue that could overflow.

use std::{cmp, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use parlour_event::RoomNum;
use parlour_storage::{Direction, Op, StorageError, Store, schema::keys};
use ruma::OwnedRoomId;
use tokio::{sync::Notify, task::JoinSet};

use super::{Decision, UserError, Users, sessions::quiet};
use crate::room::messages::RoomError;

/// How many marks are read at once.
const MARKS_PER_PASS: usize = 100;

/// How many rooms are asked at the same time.
const ROOMS_AT_ONCE: usize = 16;

/// How long a room may take. One that takes longer, since it resolves its state, is asked again
/// later: it must not keep all other users waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause before what has failed is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A kind of work.
pub(super) trait Chore: Send + Sync + 'static {
    /// The keyspace of its marks.
    const MARKS: u8;

    /// What it does, for the log.
    const NAME: &'static str;

    /// Does what a mark, given by its key, asks for.
    fn perform(&self, mark: &[u8]) -> impl Future<Output = Result<Progress, StorageError>> + Send;
}

/// How far the work for one mark has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is done, and the mark is struck off.
    Done,
    /// It is done until the next call: the mark stays.
    Kept,
    /// Some of it has to be tried again.
    Unfinished,
}

impl Progress {
    /// Done, or not.
    pub(super) fn of(all_done: bool) -> Self {
        if all_done { Self::Done } else { Self::Unfinished }
    }
}

impl Users {
    /// Begins to do a kind of work, with what was left undone when the server stopped.
    pub(super) fn begin(&self, chore: impl Chore, wake: &Arc<Notify>) {
        let worker = Worker { users: self.clone(), chore };
        wake.notify_one();
        self.thread.spawn(worker.run(wake.clone()));
    }

    pub(super) fn room_id(&self, room: RoomNum) -> Result<Option<OwnedRoomId>, StorageError> {
        let head = self.store.room_head(room)?;
        Ok(head.and_then(|head| OwnedRoomId::try_from(head.room_id).ok()))
    }
}

struct Worker<C> {
    users: Users,
    chore: C,
}

impl<C: Chore> Worker<C> {
    async fn run(self, wake: Arc<Notify>) {
        let mut pause = None;
        loop {
            match pause {
                None => wake.notified().await,
                Some(pause) => drop(tokio::time::timeout(pause, wake.notified()).await),
            }
            let all_done = self.pass().await.unwrap_or_else(|error| {
                tracing::warn!(%error, chore = C::NAME, "this cannot be done now");
                false
            });
            pause = match pause {
                _ if all_done => None,
                None => Some(PAUSES.0),
                Some(pause) => Some(cmp::min(pause * 2, PAUSES.1)),
            };
        }
    }

    /// Goes once over all marks; says whether all is done.
    async fn pass(&self) -> Result<bool, UserError> {
        let mut all_done = true;
        let mut after = keys::KeyBuilder::new(C::MARKS).build();
        loop {
            let marks = self.marks(&after)?;
            let Some((last, _)) = marks.last() else { return Ok(all_done) };
            after = last.clone();
            // Those of one owner that follow each other are struck off together.
            let mut done: Vec<(Bytes, Bytes)> = Vec::new();
            for (key, value) in marks {
                if done.first().is_some_and(|(first, _)| owner(first) != owner(&key)) {
                    self.strike_off(std::mem::take(&mut done)).await?;
                }
                match self.chore.perform(&key).await? {
                    Progress::Done => done.push((key, value)),
                    Progress::Kept => {}
                    Progress::Unfinished => all_done = false,
                }
            }
            self.strike_off(done).await?;
        }
    }

    /// The next marks.
    fn marks(&self, after: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        use std::ops::Bound::Excluded;
        let end = [C::MARKS + 1];
        let range = (Excluded(after), Excluded(&end[..]));
        let marks = self.users.store.scan(range, Direction::Forward, MARKS_PER_PASS)?;
        Ok(marks.into_iter().map(|(key, entry)| (key, entry.value)).collect())
    }

    /// Removes marks of one owner, but for those that were made anew meanwhile.
    async fn strike_off(&self, marks: Vec<(Bytes, Bytes)>) -> Result<(), UserError> {
        let Some((first, _)) = marks.first() else { return Ok(()) };
        let owner = owner(first);
        let decide = move |store: &Store| {
            let mut ops = Vec::with_capacity(marks.len());
            for (key, value) in marks {
                if store.get(&key)?.is_some_and(|entry| entry.value == value) {
                    ops.push(Op::Delete { key });
                }
            }
            Ok::<_, UserError>(match ops.is_empty() {
                true => Decision::Keep(()),
                false => Decision::Write(quiet(ops), ()),
            })
        };
        self.users.change(&owner, decide).await
    }
}

/// The user whose mark it is. News of people are nobody's.
fn owner(mark: &[u8]) -> String {
    keys::KeyReader::new(mark).text().unwrap_or_default()
}

/// Asks rooms for something, a few at a time; says whether none has to be asked again.
pub(super) async fn ask_rooms<F>(rooms: Vec<OwnedRoomId>, ask: impl Fn(OwnedRoomId) -> F) -> bool
where
    F: Future<Output = Result<(), RoomError>> + Send + 'static,
{
    let mut rooms = rooms.into_iter();
    let mut asked = JoinSet::new();
    let mut all_done = true;
    loop {
        while asked.len() < ROOMS_AT_ONCE
            && let Some(room) = rooms.next()
        {
            let answer = tokio::time::timeout(PATIENCE, ask(room.clone()));
            asked.spawn(async move { answer.await.is_ok_and(|result| is_settled(&room, result)) });
        }
        match asked.join_next().await {
            Some(settled) => all_done &= settled.unwrap_or(false),
            None => return all_done,
        }
    }
}

/// Whether a room need not be asked again.
fn is_settled(room: &OwnedRoomId, result: Result<(), RoomError>) -> bool {
    match result {
        Ok(()) => true,
        Err(RoomError::Busy | RoomError::Gone | RoomError::Persist(_) | RoomError::Storage(_)) => {
            false
        }
        Err(error) => {
            tracing::warn!(%room, %error, "a room does not take a member's change");
            true
        }
    }
}
