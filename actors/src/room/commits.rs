//! A room's commits on their way to disk, as the room and the persister see them.
//!
//! Whoever waits for a commit is answered from the persister's thread. The room itself looks at
//! what has become durable when it does something anyway: waking its thread for each commit would
//! cost more than the commit's own work.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use parlour_event::StreamPos;
use ruma::OwnedEventId;

use super::messages::{Admission, Output, Reply, RoomError, Sent, Verdict};
use crate::{directory::AliasClaim, persister::PersistError};

/// The position of a commit, for those that are made before it has one: they are written after it,
/// and by then it is there. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommitPos(Arc<OnceLock<StreamPos>>);

impl CommitPos {
    /// The commit is numbered, which happens once.
    pub(super) fn set(&self, pos: StreamPos) {
        self.0.get_or_init(|| pos);
    }

    pub(super) fn get(&self) -> Option<StreamPos> {
        self.0.get().copied()
    }
}

/// Somebody who waits for a commit.
pub(super) struct Waiter {
    pub(super) reply: Reply,
    pub(super) answer: Answer,
    pub(super) permit: Admission,
}

/// What a waiter is told once the commit is durable.
pub(super) enum Answer {
    Sent(OwnedEventId),
    /// The room is there. Its alias is held for as long as this is not sure.
    Born(OwnedEventId, #[allow(dead_code, reason = "it is held")] Option<AliasClaim>),
    Received(Verdict),
    Backfilled(Vec<Verdict>),
    Many(Vec<Result<OwnedEventId, RoomError>>),
    Done,
}

/// What has become of commits since the room last looked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// How many have become durable or failed.
    pub(super) count: usize,
    /// The newest one that became durable.
    pub(super) durable: Option<u64>,
    /// One has failed, and with it all that build on it.
    pub(super) failed: bool,
}

/// Shared by the room and the persister. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Commits(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    waiting: HashMap<u64, Vec<Waiter>>,
    /// The last commit that was settled, and how: commits are settled in their order.
    last: Option<(u64, Result<StreamPos, PersistError>)>,
    unseen: Settled,
    /// The room wants to be told of the next one.
    wanted: bool,
}

impl Commits {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers somebody once this commit is settled, at once if it is already.
    pub(super) fn wait(&self, seq: u64, waiter: Waiter) {
        let mut inner = self.lock();
        match &inner.last {
            Some((last, result)) if seq <= *last => {
                let result = result.clone();
                drop(inner);
                waiter.tell(result);
            }
            _ => inner.waiting.entry(seq).or_default().push(waiter),
        }
    }

    /// The persister says what became of a commit. Returns whether the room is to be told.
    pub(super) fn settle(&self, seq: u64, result: Result<StreamPos, PersistError>) -> bool {
        let mut inner = self.lock();
        inner.unseen.count += 1;
        match &result {
            Ok(_) => inner.unseen.durable = Some(seq),
            Err(_) => inner.unseen.failed = true,
        }
        inner.last = Some((seq, result.clone()));
        let waiters = inner.waiting.remove(&seq).unwrap_or_default();
        let is_wanted = mem::take(&mut inner.wanted) || result.is_err();
        drop(inner);
        waiters.into_iter().for_each(|waiter| waiter.tell(result.clone()));
        is_wanted
    }

    /// What has been settled since the last call.
    pub(super) fn look(&self) -> Settled {
        mem::take(&mut self.lock().unseen)
    }

    /// As [`Commits::look`]; the room is told of the next one.
    pub(super) fn look_and_ask(&self) -> Settled {
        let mut inner = self.lock();
        inner.wanted = true;
        mem::take(&mut inner.unseen)
    }
}

impl Waiter {
    fn tell(self, result: Result<StreamPos, PersistError>) {
        let Self { reply, answer, permit } = self;
        // First the place in the queue: whoever is answered may ask again at once.
        drop(permit);
        let output = result.map_err(RoomError::from).map(|pos| match answer {
            Answer::Sent(event_id) | Answer::Born(event_id, _) => {
                Output::Sent(Sent { event_id, pos })
            }
            Answer::Received(verdict) => Output::Received(verdict),
            Answer::Backfilled(verdicts) => Output::Backfilled(verdicts),
            Answer::Many(taken) => Output::Many(taken),
            Answer::Done => Output::Done,
        });
        // Whoever asked may have gone; then the answer concerns nobody.
        drop(reply.send(output));
    }
}
