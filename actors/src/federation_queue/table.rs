//! The lines of all servers for which something waits, or which cannot be reached, and when those
//! are tried again.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use parlour_event::StreamPos;
use parlour_storage::{
    StorageError, Store,
    schema::{DestinationEntry, keys, outbox},
};
use ruma::{OwnedServerName, ServerName};

use super::{Overview, PAGE, QueueOptions, health::Health, line::Line};

/// The setting that says up to where the outbox has been emptied though not all had been
/// delivered.
pub(super) const FLOOR: &str = "outbox_floor";

/// Within this time after the start, in milliseconds, what has waited since before begins to go
/// out.
const SPREAD: u64 = 5_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) lines: HashMap<OwnedServerName, Line>,
    /// When which server is to be sent to. More than one time of a server does no harm.
    due: BTreeSet<(u64, OwnedServerName)>,
    /// Everything in the outbox up to here is in the lines.
    pub(super) dispatched: StreamPos,
    /// The outbox has been emptied up to here.
    pub(super) emptied: StreamPos,
    /// How many events are in the outbox, of those that are dispatched.
    pub(super) in_outbox: usize,
    /// Up to here not all that was taken out of the outbox had been delivered.
    pub(super) floor: StreamPos,
    /// Of all changes of keys up to here the lines know.
    pub(super) keys_dispatched: StreamPos,
    /// What is to be said of keys has been taken out of storage up to here.
    pub(super) keys_emptied: StreamPos,
    /// The first part of all transaction ids of this process.
    id_start: String,
    last_id: u64,
    /// How often a server that was away ([`Line::is_away`]) has been found not to be any more.
    pub(super) returns: u64,
    /// What has waited since before the start is not sent all at once.
    pub(super) is_starting: bool,
    pub(super) is_stopped: bool,
    /// Servers that are to be given up.
    pub(super) hopeless: BTreeSet<OwnedServerName>,
    /// When the progress was last made durable.
    pub(super) last_sweep: u64,
}

impl Table {
    /// With the lines of the servers that could not be reached, or have not caught up.
    pub(super) fn load(store: &Store, options: &QueueOptions) -> Result<Self, StorageError> {
        let now = options.env.clock.now_ms();
        let floor = store
            .get(&keys::setting(FLOOR))?
            .and_then(|entry| Some(u64::from_be_bytes(entry.value.as_ref().try_into().ok()?)));
        let mut table = Self {
            lines: HashMap::new(),
            due: BTreeSet::new(),
            dispatched: StreamPos(0),
            emptied: StreamPos(0),
            in_outbox: 0,
            floor: StreamPos(floor.unwrap_or_default()),
            keys_dispatched: StreamPos(0),
            keys_emptied: StreamPos(0),
            id_start: format!("{now}{}", options.env.random_string(6)),
            last_id: 0,
            returns: 0,
            is_starting: true,
            is_stopped: false,
            hopeless: BTreeSet::new(),
            last_sweep: now,
        };
        let mut last = String::new();
        loop {
            let page = store.destinations(&last, PAGE)?;
            let Some((name, _)) = page.last() else { return Ok(table) };
            last.clone_from(name);
            let has_work = |entry: &DestinationEntry| {
                entry.failures > 0 || entry.is_behind || entry.misses_events
            };
            for (name, entry) in page.into_iter().filter(|(_, entry)| has_work(entry)) {
                let Ok(server) = OwnedServerName::try_from(name) else { continue };
                let health = Health::of(&entry, now, options.longest_pause);
                table.due.insert((health.retry_at, server.clone()));
                table.lines.insert(server, Line::new(&entry, health));
            }
        }
    }

    /// The line of a server; how far the server has got is read if it has none.
    pub(super) fn line(
        &mut self,
        store: &Store,
        server: &ServerName,
    ) -> Result<&mut Line, StorageError> {
        if !self.lines.contains_key(server) {
            let entry: Option<DestinationEntry> =
                store.typed(&outbox::destination(server.as_str()))?;
            // Servers that failed have their line since the start.
            let line = Line::new(&entry.unwrap_or_default(), Health::default());
            self.lines.insert(server.to_owned(), line);
        }
        Ok(self.lines.entry(server.to_owned()).or_default())
    }

    /// A new transaction id.
    pub(super) fn new_id(&mut self) -> String {
        self.last_id += 1;
        format!("{}{}", self.id_start, self.last_id)
    }

    /// Something waits for a server. Returns whether a task is to be started for it now; `random`
    /// spreads those at the start of the process.
    pub(super) fn begin(&mut self, server: &ServerName, now: u64, random: u8) -> bool {
        let Some(line) = self.lines.get_mut(server) else { return false };
        if line.is_running || !line.has_work() || self.is_stopped {
            return false;
        }
        let at = match line.health.is_failing() {
            true => line.health.retry_at,
            false if self.is_starting => now + SPREAD * u64::from(random) / 255,
            false => now,
        };
        line.is_running = at <= now;
        if at > now {
            self.due.insert((at, server.to_owned()));
        }
        at <= now
    }

    /// A server cannot be reached; when it is to be tried again.
    pub(super) fn retry(&mut self, server: &ServerName) {
        if let Some(line) = self.lines.get(server) {
            self.due.insert((line.health.retry_at, server.to_owned()));
        }
    }

    /// The next server whose time has come.
    pub(super) fn next_due(&mut self, now: u64) -> Option<OwnedServerName> {
        let is_due = self.due.first().is_some_and(|(at, _)| *at <= now);
        let (_, server) = is_due.then(|| self.due.pop_first()).flatten()?;
        Some(server)
    }

    /// When the next server's time comes.
    pub(super) fn next_time(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A server has shown that it is there. Returns whether something is to be done about it.
    pub(super) fn is_back(&mut self, server: &ServerName, now: u64) -> bool {
        let Some(line) = self.lines.get_mut(server) else { return false };
        line.is_unsaved |= !line.was_reached;
        (line.was_reached, line.was_heard) = (true, true);
        if !line.health.is_failing() || line.is_running {
            return false;
        }
        let before = line.health.retry_at;
        line.health.is_back(now);
        let is_sooner = line.health.retry_at < before;
        if is_sooner {
            self.due.insert((line.health.retry_at, server.to_owned()));
        }
        is_sooner
    }

    /// A server is to be tried as if nothing had happened. Returns whether something had.
    pub(super) fn reset(&mut self, server: &ServerName, now: u64) -> bool {
        let Some(line) = self.lines.get_mut(server) else { return false };
        let was_failing = line.health.is_failing();
        line.health = Health::default();
        line.is_unsaved |= was_failing;
        self.due.insert((now, server.to_owned()));
        was_failing
    }

    pub(super) fn overview(&self, now: u64) -> Overview {
        let waiting = self.lines.values().filter(|line| line.oldest().is_some()).count();
        let failing = self.lines.values().filter(|line| line.health.is_failing()).count();
        let oldest = self.lines.values().filter_map(Line::oldest).min();
        let oldest_wait =
            Duration::from_millis(oldest.map_or(0, |oldest| now.saturating_sub(oldest)));
        Overview { waiting, failing, oldest_wait }
    }

    pub(super) fn destination(&mut self, server: &ServerName) -> Option<DestinationEntry> {
        let dispatched = self.keys_dispatched;
        self.lines.get_mut(server).map(|line| line.entry(dispatched))
    }

    pub(super) fn destinations(&mut self) -> HashMap<String, DestinationEntry> {
        let dispatched = self.keys_dispatched;
        let lines = self.lines.iter_mut();
        lines.map(|(server, line)| (server.to_string(), line.entry(dispatched))).collect()
    }
}
