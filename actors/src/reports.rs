//! Reports: what users find inappropriate, until an administrator has dealt with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use parlour_event::StreamPos;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{Report, ReportSubject, Stored, keys, keys::KeyReader},
};

use crate::{
    commit::{Announcement, At, Ops},
    env::Env,
    users::{Decision, UserError, Users},
};

/// How many reports may be open.
const MAX_OPEN: usize = 10_000;

/// How many of them may be one user's, so that nobody takes the place of all others.
const MAX_PER_USER: usize = 200;

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Very many are open already.
    #[error("too many reports wait for an administrator")]
    TooMany,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

/// How others reach reports. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reports {
    store: Store,
    /// Its actors serialise the reports of one user.
    users: Users,
    env: Env,
    open: Arc<Mutex<Open>>,
}

/// How many reports are open, by reporter.
#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_reporter: HashMap<String, usize>,
}

/// A place among the open reports; given back unless a report takes it.
struct Place<'a> {
    open: &'a Mutex<Open>,
    reporter: Option<&'a str>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(reporter) = self.reporter {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).close(reporter);
        }
    }
}

impl Open {
    fn add(&mut self, reporter: &str) {
        self.total += 1;
        *self.by_reporter.entry(reporter.to_owned()).or_default() += 1;
    }

    fn close(&mut self, reporter: &str) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.by_reporter.get_mut(reporter) {
            *count -= 1;
            if *count == 0 {
                self.by_reporter.remove(reporter);
            }
        }
    }
}

impl Reports {
    /// Counts what is open.
    pub(crate) fn new(store: Store, users: Users, env: Env) -> Result<Self, StorageError> {
        let reports = Self { store, users, env, open: Arc::default() };
        {
            let mut open = reports.open.lock().unwrap_or_else(PoisonError::into_inner);
            for (_, report) in reports.all()? {
                open.add(&report.reporter);
            }
        }
        Ok(reports)
    }

    /// All open reports with their ids, oldest first. They are few.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn all(&self) -> Result<Vec<(u64, Report)>, StorageError> {
        let found = self.store.scan_prefix(&[keys::REPORT], Direction::Forward, MAX_OPEN)?;
        found
            .into_iter()
            .map(|(key, entry)| {
                let id = KeyReader::new(&key).number().unwrap_or_default();
                Ok((id, Report::decode(&key, &entry.value)?))
            })
            .collect()
    }

    /// An open report.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn get(&self, id: u64) -> Result<Option<Report>, StorageError> {
        self.store.typed(&keys::report(id))
    }

    /// Takes a report.
    ///
    /// # Errors
    ///
    /// [`ReportError`]
    pub async fn add(
        &self,
        reporter: &str,
        subject: ReportSubject,
        reason: Option<String>,
    ) -> Result<(), ReportError> {
        let mut place = self.place(reporter)?;
        let (ts, name) = (self.env.clock.now_ms(), reporter.to_owned());
        let report = Report { subject, reporter: name, reason, ts };
        let decide = move |_: &Store| {
            let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
                // The position makes an id that no other report has had.
                ops.push(Op::Put { key: keys::report(pos.0), value: report.encode() });
                Announcement::Nothing
            });
            Ok::<_, ReportError>(Decision::Write(Box::new(change), ()))
        };
        self.users.change(reporter, decide).await?;
        place.reporter = None;
        Ok(())
    }

    /// Strikes a report off; says whether there was one.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn remove(&self, id: u64) -> Result<bool, UserError> {
        let Some(Report { reporter, .. }) = self.get(id)? else { return Ok(false) };
        let decide = move |store: &Store| {
            let key = keys::report(id);
            if store.get(&key)?.is_none() {
                return Ok::<_, UserError>(Decision::Keep(false));
            }
            let change = Ops { ops: vec![Op::Delete { key }], announcement: Announcement::Nothing };
            Ok(Decision::Write(Box::new(change), true))
        };
        let removed = self.users.change(&reporter, decide).await?;
        if removed {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).close(&reporter);
        }
        Ok(removed)
    }

    fn place<'a>(&'a self, reporter: &'a str) -> Result<Place<'a>, ReportError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.by_reporter.get(reporter).copied().unwrap_or_default();
        if open.total >= MAX_OPEN || own >= MAX_PER_USER {
            return Err(ReportError::TooMany);
        }
        open.add(reporter);
        Ok(Place { open: &self.open, reporter: Some(reporter) })
    }
}
