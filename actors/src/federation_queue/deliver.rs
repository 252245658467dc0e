//! Sends what waits for one server, one transaction after the other, until nothing waits or the
//! server cannot be reached.

use std::sync::Arc;

use parlour_storage::StorageError;
use ruma::{OwnedServerName, ServerName};

use super::{
    Delivered, Failure, Queues, Transaction,
    catch_up::CatchUp,
    line::{Attempt, Behind, GivenUp, Next},
};

/// Somebody sends to a server. If that ends by a panic the server counts as unreachable, since
/// nobody would begin again otherwise.
struct Turn {
    queues: Arc<Queues>,
    server: OwnedServerName,
    is_over: bool,
}

impl Turn {
    fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over && !self.queues.lock().is_stopped {
            let why = Failure::Unreachable("sending has failed here".to_owned());
            self.queues.conclude(&self.server, Err(why));
        }
    }
}

impl Queues {
    /// Starts a task that sends to a server.
    pub(super) fn start_sending(self: &Arc<Self>, server: OwnedServerName) {
        let turn = Turn { queues: self.clone(), server, is_over: false };
        // If the thread has ended the turn is dropped, and nobody sends any more anyway.
        self.thread.spawn(async move {
            while let Some(attempt) = turn.queues.next_attempt(&turn.server) {
                let result = turn.queues.send(&turn.server, &attempt).await;
                if !turn.queues.conclude(&turn.server, result) {
                    break;
                }
            }
            turn.end();
        });
    }

    /// The next transaction, or `None` if nothing waits any more, or it cannot be read.
    fn next_attempt(&self, server: &ServerName) -> Option<Arc<Attempt>> {
        loop {
            let (now, mut table) = (self.now(), self.lock());
            let new_id = table.new_id();
            let (dispatched, floor) = (table.dispatched, table.floor);
            let (behind, acknowledged) = match table.lines.get_mut(server)?.next(now, || new_id) {
                Next::Attempt(attempt) => return Some(attempt),
                Next::Nothing => return None,
                Next::LookUp(behind, acknowledged) => (behind, acknowledged),
                Next::Read(wanted) => {
                    drop(table);
                    if let Err(error) = self.read_owed(server, wanted) {
                        self.conclude(server, Err(unreadable(&error)));
                        return None;
                    }
                    continue;
                }
            };
            drop(table);
            let (store, server_name) = (&self.store, server.as_str());
            let catch_up = CatchUp { store, server: server_name, acknowledged, dispatched, floor };
            if let Err(error) = self.look_up(server, &catch_up, behind) {
                self.conclude(server, Err(unreadable(&error)));
                return None;
            }
        }
    }

    fn look_up(
        &self,
        server: &ServerName,
        catch_up: &CatchUp<'_>,
        behind: Behind,
    ) -> Result<(), StorageError> {
        let mut found = catch_up.next(behind)?;
        let (now, mut table) = (self.now(), self.lock());
        if table.dispatched != catch_up.dispatched {
            // What has come meanwhile is not in the line.
            found.behind = found.behind.or(Some(Behind::Events));
        }
        let new_id = table.new_id();
        let Some(line) = table.lines.get_mut(server) else { return Ok(()) };
        let was_away = line.is_away();
        line.found(found, now, || new_id);
        if was_away && !line.is_away() {
            table.returns += 1;
        }
        Ok(())
    }

    async fn send(&self, server: &ServerName, attempt: &Attempt) -> Result<Delivered, Failure> {
        let is_failing = self.lock().lines.get(server).is_some_and(|line| line.health.is_failing());
        let turns = if is_failing { &self.failing } else { &self.healthy };
        let _turn = turns.acquire().await;
        let transaction = self.transaction(server, attempt).map_err(|error| unreadable(&error))?;
        self.options.courier.carry(server, &transaction).await
    }

    /// The transaction with its events as they are in storage now. Rooms may have been removed, and
    /// the oldest EDUs where too many wait.
    fn transaction(
        &self,
        server: &ServerName,
        attempt: &Attempt,
    ) -> Result<Transaction, StorageError> {
        let events = self.store.events(&attempt.events)?;
        let mut edus = attempt.parcel.updates.clone();
        edus.extend(self.store.edus_at(server.as_str(), &attempt.parcel.edus)?);
        edus.extend_from_slice(&attempt.edus);
        Ok(Transaction {
            id: attempt.id.clone(),
            time: attempt.time,
            pdus: events.into_iter().flatten().map(|event| event.json).collect(),
            edus,
        })
    }

    /// Takes note of what came of a transaction. Returns whether the next one may follow.
    fn conclude(&self, server: &ServerName, result: Result<Delivered, Failure>) -> bool {
        let (now, jitter) = (self.now(), self.jitter());
        let metrics = &self.options.metrics;
        let mut table = self.lock();
        let Some(line) = table.lines.get_mut(server) else { return false };
        let failure = match result {
            Ok(Delivered { refused }) => {
                let was_away = line.is_away();
                if line.health.is_failing() {
                    tracing::info!(%server, "the server can be reached again");
                }
                line.delivered();
                table.returns += u64::from(was_away);
                drop(table);
                metrics.transaction("ok");
                metrics.events_refused(refused.len());
                for (event, why) in refused {
                    tracing::debug!(%server, event, why, "the server does not want an event");
                }
                return true;
            }
            Err(failure) => failure,
        };
        if !line.health.is_failing() {
            tracing::info!(%server, ?failure, "the server cannot be reached");
        }
        let given_up = line.failed(&failure, now, jitter, self.options.longest_pause);
        let is_hopeless = line.is_hopeless(now);
        table.retry(server);
        table.hopeless.extend(is_hopeless.then(|| server.to_owned()));
        drop(table);
        metrics.transaction(match failure {
            Failure::Unreachable(_) => "unreachable",
            Failure::Busy(_) => "busy",
            Failure::Refused(_) => "refused",
        });
        if let Some(GivenUp { events, edus }) = given_up {
            tracing::warn!(
                %server, ?failure, events, edus,
                "a transaction that is refused again and again is given up"
            );
            metrics.transaction("given_up");
            metrics.posted_dropped("refused", edus);
        }
        self.wake.notify_one();
        false
    }
}

fn unreadable(error: &StorageError) -> Failure {
    tracing::error!(%error, "what waits for another server cannot be read");
    Failure::Unreachable("storage".to_owned())
}
