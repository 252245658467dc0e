//! Follows the EDUs that come to wait for other servers and must not be lost, and reads them.

use std::sync::Arc;

use parlour_event::StreamPos;
use parlour_storage::StorageError;
use ruma::{OwnedServerName, ServerName};
use tokio::{sync::broadcast::error::RecvError, time::sleep};

use super::{Queues, dispatch::AFTER_ERROR, owed::Parcel};

/// How many of these EDUs go with one transaction; the other places are for what is ephemeral.
pub(super) const MAX_POSTED: usize = 80;

/// How long they are together, in bytes: a transaction must not be larger than others take.
const MAX_BYTES: usize = 2 << 20;

impl Queues {
    /// Has those sent to for whom something comes to wait, for ever.
    pub(super) async fn follow_posted(self: Arc<Self>) {
        let mut news = self.changes.posted();
        let mut has_missed = true;
        loop {
            let looked = match has_missed {
                true => self.look_for_posted(),
                false => Ok(()),
            };
            if let Err(error) = looked {
                tracing::error!(%error, "it cannot be read for whom EDUs wait");
                sleep(AFTER_ERROR).await;
                continue;
            }
            has_missed = match news.recv().await {
                Ok(server) => self.is_posted(&server).is_err(),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            };
        }
    }

    /// All for whom something waits, as storage knows them.
    fn look_for_posted(self: &Arc<Self>) -> Result<(), StorageError> {
        let mut last = String::new();
        while let Some(server) = self.store.next_with_edus(&last)? {
            self.is_posted(&server)?;
            last = server;
        }
        Ok(())
    }

    fn is_posted(self: &Arc<Self>, server: &str) -> Result<(), StorageError> {
        let Ok(server) = OwnedServerName::try_from(server) else { return Ok(()) };
        if !self.options.courier.may_send(&server) {
            return Ok(());
        }
        let (now, mut table) = (self.now(), self.lock());
        table.line(&self.store, &server)?.owed.waits(now);
        if table.begin(&server, now, self.jitter()) {
            self.start_sending(server);
        }
        Ok(())
    }

    /// Reads what goes with a server's next transaction.
    pub(super) fn read_posted(
        &self,
        server: &ServerName,
        after: (StreamPos, u64),
    ) -> Result<(), StorageError> {
        let end = (StreamPos(u64::MAX), u64::MAX);
        let read = self.store.waiting_edus(server.as_str(), (after, end), MAX_POSTED);
        let (now, mut table) = (self.now(), self.lock());
        let Some(line) = table.lines.get_mut(server) else { return Ok(()) };
        let waiting = read.inspect_err(|_| line.owed.waits(now))?;
        let (mut bytes, mut parcel) = (0, Parcel::default());
        for (place, blob) in &waiting {
            bytes += blob.len as usize;
            if bytes > MAX_BYTES && !parcel.is_empty() {
                break;
            }
            parcel.edus.push(*place);
        }
        let is_more = parcel.len() < waiting.len() || waiting.len() == MAX_POSTED;
        line.owed.has_read(parcel, is_more);
        Ok(())
    }
}
