//! The thread that writes runs, merges them, and clears up behind itself.
//!
//! Whatever it does is one small record in the end, the manifest: what stands in the engine and not
//! in the manifest does not count, and is removed after the next start at the latest. All that it
//! writes goes into the engine in portions, between which others have their turn.

use std::{
    mem,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    super::{Direction, IndexBatch},
    Shared,
    filter::Filter,
    layout::{self, Manifest, RunMeta, Span},
    merge::Merged,
    run::{self, Run, RunWriter},
};
use crate::StorageError;

/// With so many runs, what has gathered in memory waits until some are merged.
const TOO_MANY_RUNS: usize = 64;

/// When to look again whether a run is still read that has been replaced.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long to sleep if there is nothing to look at.
const LONG: Duration = Duration::from_secs(3600);

const FORWARD: Direction = Direction::Forward;

/// Why the thread leaves what it does.
pub(super) enum Halt {
    Stop,
    Failed(StorageError),
}

impl From<StorageError> for Halt {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// See the module.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// The number of the next run.
    next_run: u64,
    /// The first piece of the journal that is in no run.
    journal: u64,
    /// Runs that have been replaced and may still be read.
    replaced: Vec<Arc<RunMeta>>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, next_run: u64, journal: u64) -> Self {
        Self { shared, next_run, journal, replaced: Vec::new() }
    }

    /// The thread.
    pub(super) fn run(mut self) {
        if let Err(Halt::Failed(error)) = self.work() {
            // What is in memory stays there, so that reading goes on.
            self.shared.signal().failed = Some(error.to_string());
        }
    }

    fn work(&mut self) -> Result<(), Halt> {
        self.sweep()?;
        self.load_filters()?;
        loop {
            self.keep_up(u8::MAX)?;
            self.remove_replaced(u8::MAX)?;
            self.await_work()?;
        }
    }

    fn await_work(&self) -> Result<(), Halt> {
        let is_done = self.replaced.is_empty();
        let mut signal = self.shared.signal();
        signal.is_idle = is_done && !signal.has_work;
        self.shared.changed.notify_all();
        let limit = if is_done { LONG } else { LOOK_AGAIN };
        let nothing = |signal: &mut super::Signal| !signal.has_work && !signal.stop;
        let waited = self.shared.changed.wait_timeout_while(signal, limit, nothing);
        let (mut signal, _) = waited.unwrap_or_else(PoisonError::into_inner);
        signal.has_work = false;
        signal.is_idle = false;
        Ok(())
    }

    /// Does what is more urgent than merging runs of a level: writes what leaves the memory, and
    /// merges runs of the levels below.
    fn keep_up(&mut self, level: u8) -> Result<(), Halt> {
        loop {
            if self.shared.signal().stop {
                return Err(Halt::Stop);
            }
            let view = self.shared.view();
            let may_spill = level == u8::MAX || view.runs.len() < TOO_MANY_RUNS;
            let full = self.full_level(&view.runs, level);
            let is_full = view.leaving.is_some();
            // Nobody must be taken for a reader of the runs.
            drop(view);
            match full {
                _ if is_full && may_spill => self.spill()?,
                Some(level) => self.merge(level)?,
                None => return Ok(()),
            }
        }
    }

    /// The lowest level below this one that has enough runs.
    fn full_level(&self, runs: &[Run], below: u8) -> Option<u8> {
        let counts = runs.chunk_by(|left, right| left.meta.level == right.meta.level);
        let full = counts.filter(|runs| runs.len() >= self.shared.limits.runs);
        full.filter_map(|runs| Some(runs.first()?.meta.level)).find(|level| *level < below)
    }

    /// Makes a run of what leaves the memory.
    fn spill(&mut self) -> Result<(), Halt> {
        let view = self.shared.view();
        let Some((recent, journal)) = view.leaving.clone() else { return Ok(()) };
        let is_oldest = view.runs.is_empty();
        drop(view);
        let changes = recent.source(super::ALL, FORWARD);
        let changes = Merged::new(vec![changes], FORWARD)?;
        let new = self.write_run(0, recent.len(), changes, is_oldest)?;
        let old = mem::replace(&mut self.journal, journal);
        let mut runs = self.shared.view().runs.clone();
        runs.splice(0..0, new);
        self.publish(runs, true)?;
        for number in (old..journal).step_by(self.shared.limits.portion) {
            let end = journal.min(number + self.shared.limits.portion as u64);
            let gone = (number..end).map(|number| (layout::piece_key(number).into(), None));
            self.shared.write(gone.collect())?;
        }
        Ok(())
    }

    /// Makes one run of all runs of a level.
    fn merge(&mut self, level: u8) -> Result<(), Halt> {
        let shared = self.shared.clone();
        let of_level = |run: &Run| run.meta.level == level;
        let (merged, is_oldest) = {
            let view = shared.view();
            let merged = view.runs.iter().filter(|run| of_level(run)).map(|run| run.meta.clone());
            (merged.collect::<Vec<_>>(), view.runs.last().is_some_and(of_level))
        };
        let source =
            |meta: &Arc<RunMeta>| run::source(&*shared.engine, meta.number, super::ALL, FORWARD);
        let sources = merged.iter().map(source).collect::<Result<_, _>>()?;
        let changes = merged.iter().map(|meta| meta.changes).sum();
        let new = self.write_run(level + 1, changes, Merged::new(sources, FORWARD)?, is_oldest)?;
        // Others have come before them meanwhile, also of this level.
        let mut runs = shared.view().runs.clone();
        let is_merged = |run: &Run| merged.iter().any(|meta| meta.number == run.meta.number);
        let at = runs.iter().position(is_merged).unwrap_or(runs.len());
        runs.retain(|run| !is_merged(run));
        runs.splice(at..at, new);
        self.publish(runs, false)?;
        self.replaced.extend(merged);
        self.remove_replaced(level)?;
        self.load_filters()
    }

    /// Writes changes into the engine as a run of a level, which does not count yet. In the oldest
    /// run there is nothing that a deletion could hide.
    fn write_run(
        &mut self,
        level: u8,
        most: u64,
        mut changes: Merged<'_>,
        is_oldest: bool,
    ) -> Result<Option<Run>, Halt> {
        let (block_bytes, portion) = (self.shared.limits.block, self.shared.limits.portion);
        let filter = self.new_filter(level, most);
        let filter_bytes = filter.as_ref().map_or(0, Filter::bytes);
        let mut writer = RunWriter::new(self.next_run, level, filter, block_bytes);
        self.next_run += 1;
        while let Some((key, value)) = changes.next()? {
            if value.is_some() || !is_oldest {
                writer.add(&key, value.as_deref());
            }
            if let Some(batch) = writer.take(portion) {
                self.write(batch, level)?;
            }
        }
        self.shared.in_the_making.fetch_sub(filter_bytes, Relaxed);
        let Some((batch, run)) = writer.finish() else { return Ok(None) };
        self.write(batch, level)?;
        self.write_filter(&run, level)?;
        Ok(Some(run))
    }

    /// An empty filter for a run of a level, if there is room for it beside those of newer runs.
    /// The oldest ones make room, among which are those of what is merged.
    fn new_filter(&self, level: u8, changes: u64) -> Option<Filter> {
        let bytes = Filter::bytes_for(changes);
        let left = self.room_for_filters().checked_sub(bytes)?;
        let view = self.shared.view();
        let newer = view.runs.iter().filter(|run| run.meta.level + 1 < level);
        (newer.map(Run::filter_bytes).sum::<u64>() <= left).then(|| {
            self.shared.change_view(|view| view.trim_filters(left));
            self.shared.in_the_making.fetch_add(bytes, Relaxed);
            Filter::new(changes)
        })
    }

    /// Bytes for the filters of all runs that count.
    fn room_for_filters(&self) -> u64 {
        self.shared.limits.filters.saturating_sub(self.shared.in_the_making.load(Relaxed))
    }

    fn write_filter(&mut self, run: &Run, level: u8) -> Result<(), Halt> {
        let mut pieces = run.filter_pieces().peekable();
        while pieces.peek().is_some() {
            let portion = pieces.by_ref().take(self.shared.limits.portion);
            self.write(portion.collect(), level)?;
        }
        Ok(())
    }

    /// Writes a portion of a run of this level, and does what is more urgent.
    fn write(&mut self, batch: IndexBatch, level: u8) -> Result<(), Halt> {
        self.shared.write(batch)?;
        match level.checked_sub(1) {
            Some(merging) => self.keep_up(merging),
            // It is the most urgent itself.
            None if self.shared.signal().stop => Err(Halt::Stop),
            None => Ok(()),
        }
    }

    /// From here on these are the runs, for readers and after a crash.
    fn publish(&self, runs: Vec<Run>, has_spilled: bool) -> Result<(), Halt> {
        let metas = runs.iter().map(|run| *run.meta).collect();
        self.shared.write(Manifest { journal: self.journal, runs: metas }.encode()?)?;
        self.shared.change_view(|view| {
            view.runs = runs;
            view.trim_filters(self.room_for_filters());
            if has_spilled {
                view.leaving = None;
            }
        });
        // Whoever waited for room has it now.
        let signal = self.shared.signal();
        self.shared.changed.notify_all();
        drop(signal);
        Ok(())
    }

    /// Removes the runs that nobody reads any more.
    fn remove_replaced(&mut self, level: u8) -> Result<(), Halt> {
        let replaced = mem::take(&mut self.replaced);
        let (read, unread) = replaced.into_iter().partition(|meta| Arc::strong_count(meta) > 1);
        self.replaced = read;
        let unread: Vec<Arc<RunMeta>> = unread;
        unread.iter().try_for_each(|meta| self.remove(&layout::run(meta.number), level))
    }

    /// Removes all keys of a range from the engine.
    fn remove(&mut self, span: &Span, level: u8) -> Result<(), Halt> {
        loop {
            let portion = self.shared.limits.portion;
            let found = self.shared.engine.scan(span.range(), FORWARD, portion)?;
            if found.is_empty() {
                return Ok(());
            }
            self.shared.write(found.into_iter().map(|(key, _)| (key, None)).collect())?;
            self.keep_up(level)?;
        }
    }

    /// Removes what a crash has left: runs that are not in the manifest, and the journal of those
    /// that are.
    fn sweep(&mut self) -> Result<(), Halt> {
        self.remove(&layout::journal(0, self.journal), 0)?;
        let new = self.next_run;
        let mut number = 0;
        loop {
            let found = layout::runs_from(number);
            let found = self.shared.engine.scan(found.range(), FORWARD, 1)?;
            let found = found.first().and_then(|(key, _)| layout::number_of(key));
            let Some(found) = found.filter(|number| *number < new) else { return Ok(()) };
            if !self.shared.view().runs.iter().any(|run| run.meta.number == found) {
                self.remove(&layout::run(found), 0)?;
            }
            number = found + 1;
        }
    }

    /// Reads filters that are not in memory, from the newest run on, as far as there is room.
    fn load_filters(&mut self) -> Result<(), Halt> {
        let runs: Vec<_> = self.shared.view().runs.iter().map(|run| *run.meta).collect();
        let mut left = self.room_for_filters();
        for meta in runs {
            let Some(rest) = left.checked_sub(Filter::bytes_for(meta.changes)) else { break };
            left = rest;
            let is_it = |run: &Run| run.meta.number == meta.number && run.filter.is_none();
            if self.shared.view().runs.iter().any(is_it) {
                let filter = run::read_filter(&*self.shared.engine, meta.number)?.map(Arc::new);
                self.shared.change_view(|view| {
                    let run = view.runs.iter_mut().find(|run| is_it(run));
                    run.into_iter().for_each(|run| run.filter.clone_from(&filter));
                });
                self.keep_up(0)?;
            }
        }
        Ok(())
    }
}

impl Drop for Worker {
    /// Nobody waits for a thread that is not there, whatever has ended it.
    fn drop(&mut self) {
        let mut signal = self.shared.signal();
        signal.failed.get_or_insert_with(|| "its thread has ended".to_owned());
        self.shared.changed.notify_all();
    }
}
