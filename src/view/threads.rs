//! The threads of a room, those with the latest replies first.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room>

use std::ops::Bound;

use parlour_event::redaction;
use parlour_storage::{
    Direction,
    schema::{NumberedPlace, StoredEvent},
};
use ruma::{events::AnyTimelineEvent, serde::Raw};

use super::{EventFormat, Fields, Reader, ThreadsToken, ViewError};

/// The most threads that one page has.
pub const MAX_THREADS: usize = 100;

/// The most threads that are looked at to fill one page.
const MAX_LOOKED_AT: usize = 1_024;

/// How many threads are read at once where many may be dropped.
const BATCH: usize = 64;

/// Which threads are wanted.
#[derive(Debug, Clone, Copy)]
pub struct ThreadsRequest {
    /// Where to begin: behind the last thread of another page.
    pub from: Option<ThreadsToken>,
    /// Only threads in which the reader has taken part.
    pub participated: bool,
    /// How many at most; never more than [`MAX_THREADS`].
    pub limit: usize,
}

/// Some threads.
#[derive(Debug)]
pub struct Threads {
    /// Their roots.
    pub roots: Vec<Raw<AnyTimelineEvent>>,
    /// Where the next page begins, if there may be anything more.
    pub next: Option<ThreadsToken>,
}

impl Reader {
    /// The threads that this reader may see and wants, those with the latest replies first.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn threads(&mut self, request: ThreadsRequest) -> Result<Threads, ViewError> {
        let limit = request.limit.min(MAX_THREADS);
        let mut last = request.from;
        let (mut roots, mut budget) = (Vec::new(), MAX_LOOKED_AT);
        loop {
            let high = last.map_or(Bound::Unbounded, |ThreadsToken(place)| Bound::Excluded(place));
            let range = (Bound::Unbounded, high);
            let room = self.room().num;
            let store = self.view().store.clone();
            let found = store.threads(room, range, Direction::Backward, BATCH)?;
            let events = self.roots(&found)?;
            for ((place, _), root) in found.iter().zip(events) {
                if roots.len() == limit {
                    return Ok(Threads { roots, next: last });
                }
                last = Some(ThreadsToken(*place));
                let root = root.map(|root| self.root(&root, request.participated)).transpose()?;
                roots.extend(root.flatten());
            }
            budget = budget.saturating_sub(BATCH);
            if found.len() < BATCH {
                return Ok(Threads { roots, next: None });
            }
            if budget == 0 {
                return Ok(Threads { roots, next: last });
            }
        }
    }

    /// The roots of threads, as far as they are known.
    fn roots(
        &mut self,
        found: &[(NumberedPlace, String)],
    ) -> Result<Vec<Option<StoredEvent>>, ViewError> {
        let mut roots = Vec::with_capacity(found.len());
        for (_, root) in found {
            let num = self.view().store.event_num(root)?;
            roots.push(num.map(|num| self.view().store.event(num)).transpose()?.flatten());
        }
        self.note_parents(roots.iter().flatten())?;
        Ok(roots)
    }

    /// A thread's root with what is told of the thread; `None` if the reader may not see it, or
    /// none of its replies. One by an ignored user comes redacted.
    fn root(
        &mut self,
        root: &StoredEvent,
        participated: bool,
    ) -> Result<Option<Raw<AnyTimelineEvent>>, ViewError> {
        let seen = self.judge(root)?;
        let fields = Fields::of(root)?;
        if !seen.visible {
            return Ok(None);
        }
        let bundle = self.bundle(root, &fields, EventFormat::Full, true)?;
        let thread = bundle.as_ref().and_then(|bundle| bundle.thread.as_ref());
        if !thread.is_some_and(|thread| thread.current_user_participated || !participated) {
            return Ok(None);
        }
        let json = if self.ignored()?.hides(&fields) {
            let root = self.redacted(root)?;
            self.rendered(&root, &Fields::of(&root)?, seen, EventFormat::Full, bundle)?
        } else {
            self.rendered(root, &fields, seen, EventFormat::Full, bundle)?
        };
        Ok(Some(Raw::from_json(json)))
    }

    fn redacted(&self, event: &StoredEvent) -> Result<StoredEvent, ViewError> {
        let version = self.room().version;
        let pdu = event.pdu(version)?;
        let redacted = parlour_event::Pdu::from_trusted(
            version,
            pdu.event_id().clone(),
            redaction::redact(version, pdu.into_json()),
        );
        let unreadable =
            |what: String| ViewError::Event { event_id: event.meta.event_id.clone(), what };
        let json = redacted.map_err(|error| unreadable(error.to_string()))?.to_bytes().into();
        Ok(StoredEvent { json, ..event.clone() })
    }
}
