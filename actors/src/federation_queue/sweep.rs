//! Makes durable how far each server has got, and takes out of the outbox what all have got. If
//! servers are away for so long that too much would be kept, the oldest goes, too: these servers
//! get the newest events of their rooms later.

use std::time::Duration;

use parlour_event::StreamPos;
use parlour_storage::{
    Op, StorageError,
    schema::{
        OutboxEntry, Stored as _, device_list,
        edu_outbox::{self, EduPlace, FIRST},
        keys, outbox,
        outbox::RoomStay,
    },
};
use ruma::{OwnedServerName, ServerName};

use super::{Queues, line::Line, table::FLOOR};
use crate::commit::{Announcement, Ops};

/// How often, if few servers are sent to.
pub(super) const SWEEP: Duration = Duration::from_millis(SWEEP_MS);
const SWEEP_MS: u64 = 2_000;

/// How many events the outbox keeps for servers that are away.
const MAX_OUTBOX: usize = 20_000;

/// How many events are taken out at once.
const BATCH: usize = 4_000;

/// What one sweep does.
#[derive(Default)]
struct Sweep {
    ops: Vec<Op>,
    /// Whose progress is in it.
    saved: Vec<OwnedServerName>,
    /// Up to where whose EDUs are delivered.
    delivered: Vec<(OwnedServerName, EduPlace)>,
    emptied: Option<StreamPos>,
    taken_out: usize,
    keys_emptied: Option<StreamPos>,
    floor: Option<StreamPos>,
}

impl Queues {
    /// Sweeps if it is time to, or if it `must`.
    pub(super) async fn sweep(&self, must: bool) {
        let now = self.now();
        {
            let mut table = self.lock();
            // A millisecond more for each server: what is written in a second is bounded.
            let pause = SWEEP_MS + table.lines.len() as u64;
            if now.abs_diff(table.last_sweep) < pause && !must {
                return;
            }
            table.last_sweep = now;
        }
        let swept = match self.plan() {
            Ok(sweep) if sweep.ops.is_empty() => Ok(()),
            Ok(sweep) => self.carry_out(sweep).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = swept {
            tracing::warn!(error, "how far other servers have got cannot be kept");
        }
        self.lock().lines.retain(|_, line| {
            line.is_unsaved
                || line.is_running
                || line.has_work()
                || line.health.is_failing()
                || line.owed.is_unswept()
        });
    }

    async fn carry_out(&self, sweep: Sweep) -> Result<(), String> {
        let Sweep { ops, saved, emptied, taken_out, floor, keys_emptied, delivered: _ } = sweep;
        let change = Ops { ops, announcement: Announcement::Nothing };
        let kept = self.persister.commit(Box::new(change)).await;
        let mut table = self.lock();
        match kept {
            Ok(_) => {
                table.emptied = emptied.unwrap_or(table.emptied);
                table.keys_emptied = keys_emptied.unwrap_or(table.keys_emptied);
                table.floor = floor.unwrap_or(table.floor);
                table.in_outbox = table.in_outbox.saturating_sub(taken_out);
                Ok(())
            }
            Err(error) => {
                for server in saved {
                    if let Some(line) = table.lines.get_mut(&server) {
                        line.is_unsaved = true;
                        line.owed.keep_sweeping();
                    }
                }
                Err(error.to_string())
            }
        }
    }

    fn plan(&self) -> Result<Sweep, StorageError> {
        let mut sweep = Sweep::default();
        let (emptied, through, too_many, dispatched) = {
            let mut table = self.lock();
            let keys = (table.keys_emptied, table.keys_dispatched);
            for (server, line) in table.lines.iter_mut().filter(|(_, line)| line.is_unsaved) {
                line.is_unsaved = false;
                let key = outbox::destination(server.as_str());
                let value = line.entry(keys.1).encode();
                sweep.ops.push(Op::Put { key, value });
                line.take_over().into_iter().for_each(|stay| sweep.forget(server.as_str(), stay));
                let delivered = line.owed.sweep().map(|until| (server.clone(), until));
                sweep.delivered.extend(delivered);
                sweep.saved.push(server.clone());
            }
            let needed = table.lines.values().filter_map(|line| line.owed.unheard.needs_after());
            sweep.keys_emptied = needed.chain([keys.1]).min().filter(|through| *through > keys.0);
            let needed = table.lines.values().filter_map(Line::needs_after).min();
            let through = needed.map_or(table.dispatched, |needed| needed.min(table.dispatched));
            let too_many = table.in_outbox.saturating_sub(MAX_OUTBOX);
            (table.emptied, through, too_many, table.dispatched)
        };
        self.take_out_edus(&mut sweep)?;
        self.take_out_news(&mut sweep)?;
        if through <= emptied && too_many == 0 {
            return Ok(sweep);
        }
        for (number, (pos, entry)) in self.store.outbox(emptied, BATCH)?.into_iter().enumerate() {
            let is_delivered = pos <= through;
            if !is_delivered && (number >= too_many || pos > dispatched) {
                break;
            }
            if !is_delivered {
                sweep.floor = Some(pos);
            }
            self.take_out(pos, &entry, &mut sweep)?;
        }
        if let Some(floor) = sweep.floor {
            let value = floor.0.to_be_bytes().to_vec().into();
            sweep.ops.push(Op::Put { key: keys::setting(FLOOR), value });
        }
        Ok(sweep)
    }

    fn take_out_edus(&self, sweep: &mut Sweep) -> Result<(), StorageError> {
        for (server, until) in std::mem::take(&mut sweep.delivered) {
            let edus = self.store.waiting_edus(server.as_str(), (FIRST, until), BATCH)?;
            if edus.len() == BATCH
                && let Some(line) = self.lock().lines.get_mut(&server)
            {
                line.owed.keep_sweeping();
                line.is_unsaved = true;
            }
            let key = |place| edu_outbox::waiting_edu(server.as_str(), place);
            sweep.ops.extend(edus.into_iter().map(|(place, _)| Op::Delete { key: key(place) }));
        }
        Ok(())
    }

    /// News of keys that nobody needs who is told of them. Whoever is behind looks elsewhere.
    fn take_out_news(&self, sweep: &mut Sweep) -> Result<(), StorageError> {
        let Some(through) = sweep.keys_emptied else { return Ok(()) };
        let news = self.store.key_news(self.lock().keys_emptied, BATCH)?;
        let old = news.iter().filter(|(pos, _)| *pos <= through);
        sweep.ops.extend(old.map(|(pos, _)| Op::Delete { key: device_list::key_news(*pos) }));
        if let Some((last, _)) = news.last().filter(|_| news.len() == BATCH) {
            sweep.keys_emptied = Some(through.min(*last));
        }
        Ok(())
    }

    fn take_out(
        &self,
        pos: StreamPos,
        entry: &OutboxEntry,
        sweep: &mut Sweep,
    ) -> Result<(), StorageError> {
        sweep.ops.push(Op::Delete { key: outbox::waiting(pos) });
        sweep.emptied = Some(pos);
        sweep.taken_out += 1;
        for server in &entry.left {
            // One that has not heard of it will, when it catches up.
            if self.has_got(server, pos)? {
                sweep.forget(server, (entry.room, Some(pos)));
            }
        }
        Ok(())
    }

    /// Whether a server has got what there was for it up to here, or will never get it.
    fn has_got(&self, server: &str, pos: StreamPos) -> Result<bool, StorageError> {
        let Ok(server) = <&ServerName>::try_from(server) else { return Ok(true) };
        if !self.options.courier.may_send(server) {
            return Ok(true);
        }
        Ok(self.lock().line(&self.store, server)?.acknowledged >= pos)
    }
}

impl Sweep {
    /// A server that was put out of a room has heard of it.
    fn forget(&mut self, server: &str, (room, until): RoomStay) {
        self.ops.push(Op::Delete { key: outbox::stay(room, server, until) });
        self.ops.push(Op::Delete { key: outbox::room_of(server, (room, until)) });
    }
}
