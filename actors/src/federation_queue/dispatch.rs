//! Follows the outbox: puts each event into the lines of the servers that were in its room, and
//! starts who sends to them when it is time to.

use std::{sync::Arc, time::Duration};

use parlour_event::StreamPos;
use parlour_storage::{StorageError, schema::OutboxEntry};
use ruma::ServerName;
use tokio::time::{sleep, timeout};

use super::{Queues, line::Waiting, sweep::SWEEP};

/// How many events are put into lines before others get their turn.
const BATCH: usize = 100;

/// The longest sleep: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The pause after storage could not be read.
pub(super) const AFTER_ERROR: Duration = Duration::from_secs(5);

impl Queues {
    /// Looks after everything, for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut outgoing = self.changes.outgoing();
        loop {
            outgoing.mark_unchanged();
            match self.dispatch().and_then(|is_more| Ok(self.dispatch_keys()? || is_more)) {
                Ok(true) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(false) => self.lock().is_starting = false,
                Err(error) => {
                    tracing::error!(%error, "it cannot be read what waits for other servers");
                    sleep(AFTER_ERROR).await;
                }
            }
            self.start_due();
            self.give_up_strangers().await;
            self.sweep(false).await;
            let news = async {
                tokio::select! {
                    biased;
                    _ = outgoing.changed() => {}
                    () = self.wake.notified() => {}
                }
            };
            // If the time comes first there is something to do as well.
            drop(timeout(self.until_next(), news).await);
        }
    }

    /// How long nothing is to be done unless there is news.
    fn until_next(&self) -> Duration {
        let (now, table) = (self.now(), self.lock());
        let due = table.next_time().map(|at| Duration::from_millis(at.saturating_sub(now)));
        let has_progress = table.keys_emptied < table.keys_dispatched
            || table.lines.values().any(|line| line.is_unsaved);
        let sweep = has_progress.then_some(SWEEP);
        due.into_iter().chain(sweep).fold(LONGEST_SLEEP, Duration::min)
    }

    /// Puts the next events of the outbox into lines. Returns whether there are more.
    fn dispatch(self: &Arc<Self>) -> Result<bool, StorageError> {
        let entries = self.store.outbox(self.dispatched(), BATCH)?;
        for (pos, entry) in &entries {
            self.dispatch_one(*pos, entry)?;
        }
        Ok(entries.len() == BATCH)
    }

    fn dispatch_one(
        self: &Arc<Self>,
        pos: StreamPos,
        entry: &OutboxEntry,
    ) -> Result<(), StorageError> {
        let waiting = Waiting { pos, event: entry.event, since: self.now() };
        let mut audiences = self.audiences();
        let mut table = self.lock();
        let may_send = |server: &ServerName| self.options.courier.may_send(server);
        let all = audiences.of(&self.store, entry.room, table.returns, may_send)?;
        all.reach(|server, stay| {
            if !stay.covers(pos) || entry.except.as_deref() == Some(server.as_str()) {
                return Ok(true);
            }
            let line = table.line(&self.store, server)?;
            if line.is_away() {
                return Ok(false);
            }
            if line.push(waiting) && table.begin(server, waiting.since, self.jitter()) {
                self.start_sending(server.to_owned());
            }
            Ok::<_, StorageError>(true)
        })?;
        table.dispatched = pos;
        table.in_outbox += 1;
        Ok(())
    }

    fn start_due(self: &Arc<Self>) {
        let now = self.now();
        let mut table = self.lock();
        while let Some(server) = table.next_due(now) {
            if table.begin(&server, now, 0) {
                self.start_sending(server);
            }
        }
    }
}
