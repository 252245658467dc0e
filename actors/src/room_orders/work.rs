//! The task that deletes rooms, step by step.

use std::{cmp, time::Duration};

use parlour_event::{RoomNum, RoomVersion};
use parlour_storage::{
    Op,
    schema::{Deletion, DeletionStatus, Stored, keys, outbox},
};
use ruma::{OwnedRoomId, RoomId};

use super::{RoomOrders, evict::Eviction, purge::Purge};
use crate::{
    commit::{Announcement, Ops},
    room::messages::RoomError,
    users::UserError,
};

/// The first pause before what has failed is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often it is looked whether other servers have heard of a deletion, and how many times.
const OTHERS: (Duration, u32) = (Duration::from_millis(200), 150);

/// How many members are read from storage at once.
const BATCH: usize = 200;

/// Why a deletion did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    /// Something is amiss that may pass; the deletion is tried again.
    #[error(transparent)]
    Passing(#[from] UserError),
    /// It cannot be done.
    #[error("{0}")]
    Final(String),
}

impl From<parlour_storage::StorageError> for WorkError {
    fn from(error: parlour_storage::StorageError) -> Self {
        Self::Passing(error.into())
    }
}

impl From<crate::persister::PersistError> for WorkError {
    fn from(error: crate::persister::PersistError) -> Self {
        Self::Passing(error.into())
    }
}

impl From<RoomError> for WorkError {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::Storage(error) => Self::Passing(UserError::Storage(error)),
            RoomError::Persist(error) => error.into(),
            RoomError::Busy | RoomError::Gone => Self::Passing(UserError::Busy),
            other => Self::Final(other.to_string()),
        }
    }
}

/// See the module.
pub(super) struct Worker {
    pub(super) orders: RoomOrders,
    pub(super) version: &'static RoomVersion,
}

impl Worker {
    pub(super) async fn run(self) {
        let mut pause = None;
        loop {
            match pause {
                None => self.orders.wake.notified().await,
                Some(pause) => drop(tokio::time::timeout(pause, self.orders.wake.notified()).await),
            }
            let all_done = self.pass().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "rooms cannot be deleted now");
                false
            });
            pause = match pause {
                _ if all_done => None,
                None => Some(PAUSES.0),
                Some(pause) => Some(cmp::min(pause * 2, PAUSES.1)),
            };
        }
    }

    /// Goes once over all deletions that are not over; says whether all are.
    async fn pass(&self) -> Result<bool, WorkError> {
        let mut all_done = true;
        for (id, mut deletion) in self.orders.deletions()? {
            if deletion.status.is_over() {
                continue;
            }
            match self.carry_out(&id, &mut deletion).await {
                Ok(()) => deletion.status = DeletionStatus::Complete,
                Err(WorkError::Final(why)) => {
                    tracing::warn!(room = deletion.room_id, why, "the room is not deleted");
                    deletion.status = DeletionStatus::Failed(why);
                }
                Err(WorkError::Passing(error)) => {
                    tracing::warn!(room = deletion.room_id, %error, "deleting has to wait");
                    all_done = false;
                    continue;
                }
            }
            deletion.ts = self.orders.parts.env.clock.now_ms();
            self.note(&id, &deletion).await?;
        }
        Ok(all_done)
    }

    /// Gives other servers some time to get the events with which everybody has left, before these
    /// are removed.
    async fn let_others_hear(&self, room: RoomNum) -> Result<(), WorkError> {
        let store = &self.orders.parts.store;
        let newest = outbox::waiting(store.newest_outgoing(room)?);
        for _ in 0..OTHERS.1 {
            if store.get(&newest)?.is_none() {
                break;
            }
            tokio::time::sleep(OTHERS.0).await;
        }
        Ok(())
    }

    async fn carry_out(&self, id: &str, deletion: &mut Deletion) -> Result<(), WorkError> {
        deletion.status = DeletionStatus::Active;
        let room_id = OwnedRoomId::try_from(deletion.room_id.as_str())
            .map_err(|error| WorkError::Final(error.to_string()))?;
        // A room whose head is gone has come as far as being purged.
        if self.orders.parts.store.room_head(deletion.room)?.is_some() {
            self.empty(id, &room_id, deletion).await?;
            if deletion.purge {
                self.let_others_hear(deletion.room).await?;
            }
        }
        if deletion.purge {
            Purge::new(&self.orders.parts, deletion.room).run(&room_id).await?;
        }
        Ok(())
    }

    /// Sends everybody away, and takes the room out of the directory.
    async fn empty(
        &self,
        id: &str,
        room_id: &RoomId,
        deletion: &mut Deletion,
    ) -> Result<(), WorkError> {
        let eviction = Eviction { parts: &self.orders.parts, version: self.version };
        if let Some(replacement) = &deletion.replacement
            && deletion.new_room_id.is_none()
        {
            let new_room = eviction.new_room(id, replacement).await?;
            deletion.new_room_id = Some(new_room.to_string());
            self.note(id, deletion).await?;
        }
        let new_room = deletion.new_room_id.clone().and_then(|id| OwnedRoomId::try_from(id).ok());
        for events in eviction.member_events(deletion.room)?.chunks(BATCH) {
            for (user, was_joined) in eviction.present(events)? {
                let moved = eviction.evict(room_id, deletion.room, &user, was_joined, &new_room);
                match moved.await {
                    Ok(()) => deletion.kicked.push(user.to_string()),
                    Err(WorkError::Final(error)) => {
                        tracing::warn!(%user, room = %room_id, error, "cannot be removed");
                        deletion.failed.push(user.to_string());
                    }
                    Err(passing) => {
                        self.note(id, deletion).await?;
                        return Err(passing);
                    }
                }
            }
            self.note(id, deletion).await?;
        }
        let aliases = eviction.move_aliases(deletion.room, &new_room).await?;
        deletion.aliases.extend(aliases);
        self.note(id, deletion).await?;
        let left = eviction.local_members(deletion.room)?;
        if deletion.purge && left > 0 && !deletion.force_purge {
            let message = format!("{left} users of this server are still in the room");
            return Err(WorkError::Final(message));
        }
        Ok(())
    }

    /// Writes down how far a deletion has come.
    async fn note(&self, id: &str, deletion: &Deletion) -> Result<(), WorkError> {
        let ops = vec![Op::Put { key: keys::deletion(id), value: deletion.encode() }];
        let change = Ops { ops, announcement: Announcement::Nothing };
        self.orders.parts.persister.commit(Box::new(change)).await?;
        self.orders.progress.send_modify(|progress| *progress += 1);
        Ok(())
    }
}
