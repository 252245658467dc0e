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
}

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
            ts: self.env.clock.now_ms(),
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

    /// A room's receipts that changed within `(after, until]`, as `reader` may see them.
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
        let mut changes = Vec::new();
        for (key, entry) in self.store.scan(range, Direction::Forward, usize::MAX)? {
            let receipt = ReceiptEntry::decode(&key, &entry.value)?;
            if receipt.receipt_type != PRIVATE || receipt.user == reader {
                changes.push(receipt);
            }
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
        let prefix = keys::KeyBuilder::new(keys::RECEIPT).number(room.0).text(user).build();
        let mut receipts = Vec::new();
        for (_, entry) in self.store.scan_prefix(&prefix, Direction::Forward, usize::MAX)? {
            let pos = entry.value.as_ref().try_into().map(u64::from_be_bytes).unwrap_or_default();
            receipts.extend(self.store.typed(&keys::receipt_feed(room, StreamPos(pos)))?);
        }
        Ok(receipts)
    }
}
