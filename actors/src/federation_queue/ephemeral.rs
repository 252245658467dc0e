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
use ruma::OwnedServerName;
use tokio::sync::broadcast::error::RecvError;

use super::{
    Queues,
    edus::{Edu, Read, Reader},
};

/// How often receipts and presence are told. Typing is told at once.
const TICK: Duration = Duration::from_secs(1);

/// After so many ticks it is said again who types: other servers forget it after a minute.
const TYPING_AGAIN: u32 = 30;

/// How many receipts wait for the next tick; older ones are lost.
const MAX_RECEIPTS: usize = 1_024;

/// How many users' presence in one room is told with one tick.
const MAX_PRESENT: usize = 100;

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
    /// Receipts that have not been told.
    receipts: Vec<(RoomNum, StreamPos)>,
    ticks: u32,
}

/// A room's id, and the other servers in it.
type Others = (Arc<str>, Vec<OwnedServerName>);

impl Queues {
    /// Tells what there is to tell, for ever.
    pub(super) async fn tell_news(self: Arc<Self>) {
        let mut receipts = self.changes.receipts();
        let mut ticks = tokio::time::interval(TICK);
        let mut told = Told {
            typing: self.typing.counter(),
            typists: HashMap::new(),
            presence: self.presence.counter(),
            receipts: Vec::new(),
            ticks: 0,
        };
        loop {
            let result = tokio::select! {
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
                () = self.typing.changed() => self.tell_typing(&mut told),
                _ = ticks.tick() => self.tick(&mut told),
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
        match self.options.tells_presence {
            true => self.tell_presence(told),
            false => Ok(()),
        }
    }

    /// A room's id and the other servers in it, if there are any.
    fn others_in(&self, room: RoomNum) -> Result<Option<Others>, StorageError> {
        let names: Vec<_> = self.servers_in(room)?.into_iter().collect();
        if names.is_empty() {
            return Ok(None);
        }
        let head = self.store.room_head(room)?;
        Ok(head.map(|head| (head.room_id.into(), names)))
    }

    pub(super) fn is_local(&self, user: &str) -> bool {
        let server = user.split_once(':').map(|(_, server)| server);
        server == Some(self.options.server_name.as_str())
    }

    fn tell(
        self: &Arc<Self>,
        servers: impl IntoIterator<Item = OwnedServerName>,
        edus: &[Edu],
    ) -> Result<(), StorageError> {
        let now = self.now();
        let mut dropped = 0;
        for server in servers {
            let mut table = self.lock();
            let line = table.line(&self.store, &server)?;
            dropped += edus.iter().filter(|edu| !line.tell((*edu).clone())).count();
            if table.begin(&server, now, self.jitter()) {
                self.start_sending(server);
            }
        }
        self.options.metrics.edus_dropped(dropped);
        Ok(())
    }

    fn tell_typing(self: &Arc<Self>, told: &mut Told) -> Result<(), StorageError> {
        let since = std::mem::replace(&mut told.typing, self.typing.counter());
        for room in self.typing.rooms_since(since) {
            let Some(users) = self.typing.changed_since(room, since) else { continue };
            let now: BTreeSet<_> = users.into_iter().filter(|user| self.is_local(user)).collect();
            let before = told.typists.remove(&room).unwrap_or_default();
            if now == before {
                continue;
            }
            let Some((room_id, servers)) = self.others_in(room)? else { continue };
            let changed = now.symmetric_difference(&before);
            let edus: Vec<_> =
                changed.map(|user| typing(&room_id, user, now.contains(user))).collect();
            self.tell(servers, &edus)?;
            if !now.is_empty() {
                told.typists.insert(room, now);
            }
        }
        Ok(())
    }

    fn tell_typing_again(self: &Arc<Self>, told: &Told) -> Result<(), StorageError> {
        for (room, users) in &told.typists {
            if let Some((room_id, servers)) = self.others_in(*room)? {
                let edus: Vec<_> = users.iter().map(|user| typing(&room_id, user, true)).collect();
                self.tell(servers, &edus)?;
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
            let Some((room_id, servers)) = self.others_in(room)? else { continue };
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
            self.tell(servers, &edus)?;
        }
        Ok(())
    }

    fn tell_presence(self: &Arc<Self>, told: &mut Told) -> Result<(), StorageError> {
        let since = std::mem::replace(&mut told.presence, self.presence.counter());
        let rooms = self.presence.rooms_since(since).unwrap_or_default();
        let mut audience = BTreeMap::<Arc<str>, BTreeSet<OwnedServerName>>::new();
        for room in rooms {
            let Some((_, servers)) = self.others_in(room)? else { continue };
            let users = self.presence.changed_in(room, since, MAX_PRESENT).into_iter();
            for user in users.filter(|user| self.is_local(user)) {
                audience.entry(user).or_default().extend(servers.iter().cloned());
            }
        }
        for (user, servers) in audience {
            let status = self.presence.status(&user)?;
            self.tell(servers, &[Edu::Presence { user, status }])?;
        }
        Ok(())
    }
}

fn typing(room: &Arc<str>, user: &str, is_typing: bool) -> Edu {
    Edu::Typing { room: room.clone(), user: user.into(), is_typing }
}
