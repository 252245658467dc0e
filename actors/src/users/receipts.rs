//! Read receipts: how far a user has read a room, by kind of receipt and by thread.

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{ReceiptEntry, Stored, keys},
};

use super::{Decision, UserError, Users};
use crate::commit::{Announcement, At};

/// A receipt that a client sends.
#[derive(Debug, Clone)]
pub struct NewReceipt {
    /// The room.
    pub room: RoomNum,
    /// `m.read` or `m.read.private`.
    pub receipt_type: String,
    /// Empty for an unthreaded receipt, else `main` or the id of the thread's root.
    pub thread: String,
    /// The event that was read.
    pub event_id: String,
    /// When, in milliseconds since the epoch, if not now.
    pub ts: Option<u64>,
}

/// How many of a room's receipts a client is told of at once: the newest, and its user's own.
const MAX_CHANGES: usize = 1_000;

/// The kind of receipt that nobody but its owner sees.
const PRIVATE: &str = "m.read.private";

impl Users {
    /// Stores a receipt.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn set_receipt(&self, user: &str, new: NewReceipt) -> Result<(), UserError> {
        let entry = ReceiptEntry {
            user: user.to_owned(),
            receipt_type: new.receipt_type,
            thread: new.thread,
            event_id: new.event_id,
            ts: new.ts.unwrap_or_else(|| self.env.clock.now_ms()),
        };
        let room = new.room;
        let decide = move |store: &Store| {
            let key = keys::receipt(room, &entry.user, &entry.receipt_type, &entry.thread);
            let old = store.get(&key)?;
            let old =
                old.and_then(|old| old.value.as_ref().try_into().ok()).map(u64::from_be_bytes);
            if let Some(pos) = old {
                let known =
                    store.typed::<ReceiptEntry>(&keys::receipt_feed(room, StreamPos(pos)))?;
                if known.is_some_and(|known| known.event_id == entry.event_id) {
                    return Ok(Decision::Keep(()));
                }
            }
            let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
                if let Some(old) = old {
                    ops.push(Op::Delete { key: keys::receipt_feed(room, StreamPos(old)) });
                }
                ops.push(Op::Put { key, value: pos.0.to_be_bytes().to_vec().into() });
                ops.push(Op::Put { key: keys::receipt_feed(room, pos), value: entry.encode() });
                let private = entry.receipt_type == PRIVATE;
                Announcement::Receipt { room, private_to: private.then_some(entry.user) }
            });
            Ok(Decision::Write(Box::new(change), ()))
        };
        self.change(user, decide).await
    }

    /// A room's receipts that changed within `(after, until]`, as `reader` may see them: of very
    /// many the newest, and all of the reader's own.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn receipt_changes(
        &self,
        room: RoomNum,
        reader: &str,
        after: StreamPos,
        until: StreamPos,
    ) -> Result<Vec<ReceiptEntry>, StorageError> {
        use std::ops::Bound::{Excluded, Included};
        let (low, high) = (keys::receipt_feed(room, after), keys::receipt_feed(room, until));
        let range = (Excluded(&low[..]), Included(&high[..]));
        let newest = self.store.scan(range, Direction::Backward, MAX_CHANGES)?;
        let are_all = newest.len() < MAX_CHANGES;
        let mut changes = Vec::new();
        for (key, entry) in newest {
            let receipt = ReceiptEntry::decode(&key, &entry.value)?;
            let is_own = receipt.user == reader;
            if is_own && are_all || !is_own && receipt.receipt_type != PRIVATE {
                changes.push(receipt);
            }
        }
        changes.reverse();
        if !are_all {
            let own = self.own_receipts(room, reader)?.into_iter();
            let new = own.filter(|(pos, _)| *pos > after && *pos <= until);
            changes.extend(new.map(|(_, receipt)| receipt));
        }
        Ok(changes)
    }

    /// A user's own receipts in a room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn receipts_of(
        &self,
        room: RoomNum,
        user: &str,
    ) -> Result<Vec<ReceiptEntry>, StorageError> {
        Ok(self.own_receipts(room, user)?.into_iter().map(|(_, receipt)| receipt).collect())
    }

    /// A user's own receipts in a room, with the positions at which they were set.
    fn own_receipts(
        &self,
        room: RoomNum,
        user: &str,
    ) -> Result<Vec<(StreamPos, ReceiptEntry)>, StorageError> {
        let prefix = keys::KeyBuilder::new(keys::RECEIPT).number(room.0).text(user).build();
        let mut receipts = Vec::new();
        for (_, entry) in self.store.scan_prefix(&prefix, Direction::Forward, usize::MAX)? {
            let pos = entry.value.as_ref().try_into().map(u64::from_be_bytes).unwrap_or_default();
            let pos = StreamPos(pos);
            let receipt = self.store.typed(&keys::receipt_feed(room, pos))?;
            receipts.extend(receipt.map(|receipt| (pos, receipt)));
        }
        Ok(receipts)
    }
}
