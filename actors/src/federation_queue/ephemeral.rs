//! Tells other servers what is not an event: who types here, who has read what, who is online.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    StorageError,
    schema::{ReceiptEntry, keys},
};
use ruma::{OwnedServerName, ServerName};
use tokio::sync::broadcast::error::RecvError;

use super::{
    Queues,
    audience::Audience,
    edus::{Edu, Read, Reader},
    presence::Again,
    table::Table,
};

/// How often receipts and presence are told. Typing is told at once.
const TICK: Duration = Duration::from_secs(1);

/// After so many ticks it is said again who types: other servers forget it after a minute.
const TYPING_AGAIN: u32 = 30;

/// How many receipts wait for the next tick; older ones are lost.
const MAX_RECEIPTS: usize = 1_024;

/// The kind of receipt that other servers get.
const READ: &str = "m.read";

/// What has been told so far.
struct Told {
    /// The counter of typing.
    typing: u64,
    /// Who types, as other servers know it.
    typists: HashMap<RoomNum, BTreeSet<String>>,
    /// The counter of presence.
    presence: u64,
    again: Again,
    /// Receipts that have not been told.
    receipts: Vec<(RoomNum, StreamPos)>,
    ticks: u32,
}

impl Queues {
    /// Tells what there is to tell, for ever.
    pub(super) async fn tell_news(self: Arc<Self>) {
        let mut receipts = self.changes.receipts();
        let mut ticks = tokio::time::interval(TICK);
        let mut told = Told {
            typing: self.typing.counter(),
            typists: HashMap::new(),
            presence: self.presence.counter(),
            again: Again::default(),
            receipts: Vec::new(),
            ticks: 0,
        };
        loop {
            let result = tokio::select! {
                // Always in this order, so that simulations repeat.
                biased;
                _ = ticks.tick() => self.tick(&mut told),
                () = self.typing.changed() => self.tell_typing(&mut told),
                receipt = receipts.recv() => {
                    match receipt {
                        Ok(receipt) if told.receipts.len() < MAX_RECEIPTS => {
                            told.receipts.push(receipt);
                        }
                        Ok(_) => self.options.metrics.edus_dropped(1),
                        Err(RecvError::Lagged(lost)) => {
                            self.options.metrics.edus_dropped(usize::try_from(lost).unwrap_or(0));
                        }
                        Err(RecvError::Closed) => return,
                    }
                    Ok(())
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "other servers are not told who types, reads or is online");
            }
        }
    }

    fn tick(self: &Arc<Self>, told: &mut Told) -> Result<(), StorageError> {
        told.ticks = told.ticks.wrapping_add(1);
        if told.ticks.is_multiple_of(TYPING_AGAIN) {
            self.tell_typing_again(told)?;
        }
        self.tell_receipts(told)?;
        if self.options.tells_presence {
            self.tell_presence(&mut told.presence)?;
            self.tell_presence_again(&mut told.again)?;
        }
        Ok(())
    }

    /// A room's id, if other servers are in it.
    fn shared_room(&self, room: RoomNum) -> Result<Option<Arc<str>>, StorageError> {
        let is_shared = self.in_room(room, |_, all| Ok(!all.is_empty()))?;
        let head = is_shared.then(|| self.store.room_head(room)).transpose()?.flatten();
        Ok(head.map(|head| head.room_id.into()))
    }

    /// Does something with the servers that are in a room, while nothing is dispatched.
    fn in_room<T>(
        &self,
        room: RoomNum,
        act: impl FnOnce(&mut Table, &mut Audience) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let (mut audiences, mut table) = (self.audiences(), self.lock());
        let may_send = |server: &ServerName| self.options.courier.may_send(server);
        let returns = table.returns;
        act(&mut table, audiences.of(&self.store, room, returns, may_send)?)
    }

    pub(super) fn is_local(&self, user: &str) -> bool {
        let server = user.split_once(':').map(|(_, server)| server);
        server == Some(self.options.server_name.as_str())
    }

    /// The servers in a room that can be reached.
    pub(super) fn present_in(&self, room: RoomNum) -> Result<Vec<OwnedServerName>, StorageError> {
        let mut present = Vec::new();
        self.in_room(room, |table, all| {
            all.reach(|server, stay| {
                let is_there = !table.line(&self.store, server)?.is_away();
                present.extend((is_there && stay.until.is_none()).then(|| server.to_owned()));
                Ok::<_, StorageError>(is_there)
            })
        })?;
        Ok(present)
    }

    /// Tells something to the servers in a room that can be reached.
    fn tell_room(self: &Arc<Self>, room: RoomNum, edus: &[Edu]) -> Result<(), StorageError> {
        self.in_room(room, |table, all| {
            all.reach(|server, stay| match stay.until {
                Some(_) => Ok(true),
                None => self.tell(table, server, edus),
            })
        })
    }

    /// Tells something to a server, if that can be reached. Returns whether it can.
    pub(super) fn tell<'a>(
        self: &Arc<Self>,
        table: &mut Table,
        server: &ServerName,
        edus: impl IntoIterator<Item = &'a Edu>,
    ) -> Result<bool, StorageError> {
        let line = table.line(&self.store, server)?;
        if line.is_away() {
            return Ok(false);
        }
        let dropped = edus.into_iter().filter(|edu| !line.tell((*edu).clone())).count();
        self.options.metrics.edus_dropped(dropped);
        if table.begin(server, self.now(), self.jitter()) {
            self.start_sending(server.to_owned());
        }
        Ok(true)
    }

    fn tell_typing(self: &Arc<Self>, told: &mut Told) -> Result<(), StorageError> {
        let since = std::mem::replace(&mut told.typing, self.typing.counter());
        for room in self.typing.rooms_since(since) {
            let Some(users) = self.typing.changed_since(room, since) else { continue };
            let now: BTreeSet<_> = users.into_iter().filter(|user| self.is_local(user)).collect();
            let Some(room_id) = self.shared_room(room)? else {
                told.typists.remove(&room);
                continue;
            };
            let nobody = BTreeSet::new();
            let before = told.typists.get(&room).unwrap_or(&nobody);
            if now == *before {
                continue;
            }
            let changed = now.symmetric_difference(before);
            let edus: Vec<_> =
                changed.map(|user| typing(&room_id, user, now.contains(user))).collect();
            self.tell_room(room, &edus)?;
            match now.is_empty() {
                true => told.typists.remove(&room),
                false => told.typists.insert(room, now),
            };
        }
        Ok(())
    }

    fn tell_typing_again(self: &Arc<Self>, told: &Told) -> Result<(), StorageError> {
        for (&room, users) in &told.typists {
            if let Some(room_id) = self.shared_room(room)? {
                let edus: Vec<_> = users.iter().map(|user| typing(&room_id, user, true)).collect();
                self.tell_room(room, &edus)?;
            }
        }
        Ok(())
    }

    fn tell_receipts(self: &Arc<Self>, told: &mut Told) -> Result<(), StorageError> {
        let mut by_room = BTreeMap::<_, Vec<_>>::new();
        for (room, pos) in std::mem::take(&mut told.receipts) {
            by_room.entry(room).or_default().push(pos);
        }
        for (room, positions) in by_room {
            let Some(room_id) = self.shared_room(room)? else { continue };
            let mut edus = Vec::new();
            for pos in positions {
                let receipt: Option<ReceiptEntry> =
                    self.store.typed(&keys::receipt_feed(room, pos))?;
                // There is a newer one where it is gone.
                let is_told = |receipt: &ReceiptEntry| {
                    receipt.receipt_type == READ && self.is_local(&receipt.user)
                };
                edus.extend(receipt.filter(is_told).map(|receipt| Edu::Receipt {
                    reader: Reader {
                        room: room_id.clone(),
                        user: receipt.user.into(),
                        thread: receipt.thread.into(),
                    },
                    read: Read { event_id: receipt.event_id.into(), ts: receipt.ts },
                }));
            }
            self.tell_room(room, &edus)?;
        }
        Ok(())
    }
}

fn typing(room: &Arc<str>, user: &str, is_typing: bool) -> Edu {
    Edu::Typing { room: room.clone(), user: user.into(), is_typing }
}
