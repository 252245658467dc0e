//! Sends delayed events when they are due.

use std::{cmp, ops::Bound, time::Duration};

use parlour_event::json::{self, Value};
use parlour_storage::{Direction, StorageError, schema::delayed as keys};
use ruma::{RoomId, UserId};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{BATCH, Delayed, DelayedError, DelayedEvent, may_pass};
use crate::room::messages::{LocalEvent, RoomError, Transaction};

/// How many events are sent at the same time.
const AT_ONCE: usize = 16;

/// The first pause before what has failed is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The longest sleep: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The shortest sleep: what is on its way is due, too.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// Sends what is due, for ever.
pub(super) async fn run(delayed: Delayed) {
    let mut pause = None;
    loop {
        let all_done = delayed.pass().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "delayed events cannot be sent now");
            false
        });
        pause = match pause {
            _ if all_done => None,
            None => Some(PAUSES.0),
            Some(pause) => Some(cmp::min(pause * 2, PAUSES.1)),
        };
        let sleep = pause.unwrap_or_else(|| delayed.until_next().unwrap_or(PAUSES.0));
        drop(tokio::time::timeout(sleep, delayed.wake.notified()).await);
    }
}

impl Delayed {
    /// Goes once over all that is due; says whether nothing of it has to be tried again.
    async fn pass(&self) -> Result<bool, StorageError> {
        let now = self.env.clock.now_ms();
        let mut after = keys::due(0, "");
        let mut sending = JoinSet::new();
        let mut all_done = true;
        loop {
            let end = keys::due(now.saturating_add(1), "");
            let range = (Bound::Excluded(&after[..]), Bound::Excluded(&end[..]));
            let batch = self.store.scan(range, Direction::Forward, BATCH)?;
            let Some((last, _)) = batch.last() else { break };
            after = last.clone();
            for (_, id) in batch.iter().filter_map(|(key, _)| keys::read_due(key)) {
                if sending.len() >= AT_ONCE {
                    all_done &= sending.join_next().await.is_none_or(|done| done.unwrap_or(false));
                }
                let delayed = self.clone();
                sending.spawn(async move { delayed.send_due(&id).await });
            }
        }
        while let Some(done) = sending.join_next().await {
            all_done &= done.unwrap_or(false);
        }
        Ok(all_done)
    }

    /// How long nothing will be due.
    fn until_next(&self) -> Result<Duration, StorageError> {
        let (low, high) = (keys::due(0, ""), keys::due(u64::MAX, ""));
        let range = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
        let next = self.store.scan(range, Direction::Forward, 1)?.pop();
        let Some((due, _)) = next.and_then(|(key, _)| keys::read_due(&key)) else {
            return Ok(LONGEST_SLEEP);
        };
        let wait = due.saturating_sub(self.env.clock.now_ms());
        Ok(Duration::from_millis(wait).clamp(SHORTEST_SLEEP, LONGEST_SLEEP))
    }

    /// Sends an event that is due; says whether it need not be tried again.
    async fn send_due(&self, id: &str) -> bool {
        let result = match self.stored(id) {
            Ok(Some(event)) => self.send_or_drop(event).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(())
            | Err(DelayedError::Unknown | DelayedError::TooMany | DelayedError::Silenced) => true,
            Err(DelayedError::Room(error)) => !may_pass(&error),
            Err(DelayedError::User(error)) => {
                tracing::warn!(%error, "a delayed event cannot be sent now");
                false
            }
        }
    }

    async fn send_or_drop(&self, event: DelayedEvent) -> Result<(), DelayedError> {
        // One that was on its way already when the server stopped goes on its way again.
        if !event.entry.sending {
            if self.is_void(&event.entry)? {
                return Ok(self.strike_off(&event.id, &event.entry.user).await?);
            }
            if event.entry.due() > self.env.clock.now_ms() {
                return Ok(());
            }
            self.claim(&event).await?;
        }
        self.deliver(event).await
    }

    /// Sends an event that has been claimed, and strikes it off, unless another try may help.
    pub(super) async fn deliver(&self, event: DelayedEvent) -> Result<(), DelayedError> {
        let DelayedEvent { id, entry, content } = event;
        if !self.may_send(&entry.user, &entry.room_id)? {
            self.strike_off(&id, &entry.user).await?;
            return Err(DelayedError::Silenced);
        }
        let result = match (RoomId::parse(&entry.room_id), local_event(&id, &entry, &content)) {
            (Ok(room), Some(event)) => self.rooms.send(&room, event).await.map(drop),
            _ => Err(RoomError::UnknownRoom),
        };
        if let Err(error) = &result {
            if may_pass(error) {
                return Err(error.clone().into());
            }
            tracing::info!(room = entry.room_id, %error, "the room refuses a delayed event");
        }
        self.strike_off(&id, &entry.user).await?;
        Ok(result?)
    }
}

/// The event, with a transaction that makes sure that it is sent once, whatever happens.
fn local_event(
    id: &str,
    entry: &parlour_storage::schema::DelayedEntry,
    content: &[u8],
) -> Option<LocalEvent> {
    let Ok(Value::Object(content)) = json::parse_strict(content) else { return None };
    let digest: [u8; 32] = Sha256::new().chain_update("delayed").chain_update(id).finalize().into();
    let mut hash = [0; 16];
    hash.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    Some(LocalEvent {
        sender: UserId::parse(&entry.user).ok()?,
        event_type: entry.event_type.clone(),
        state_key: entry.state_key.clone(),
        content,
        redacts: None,
        transaction: Some(Transaction {
            hash,
            device: entry.device.clone(),
            txn_id: id.to_owned(),
        }),
        timestamp: None,
    })
}
