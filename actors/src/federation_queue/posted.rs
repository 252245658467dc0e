//! Follows the EDUs that come to wait for other servers and must not be lost.

use std::sync::Arc;

use parlour_storage::StorageError;
use ruma::OwnedServerName;
use tokio::{sync::broadcast::error::RecvError, time::sleep};

use super::{Queues, dispatch::AFTER_ERROR};

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
        if self.is_one_too_many(&mut table, &server)? {
            return Ok(());
        }
        table.line(&self.store, &server)?.owed.waits(now);
        if table.begin(&server, now, self.jitter()) {
            self.start_sending(server);
        }
        Ok(())
    }
}
