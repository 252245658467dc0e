//! Somebody who is parked in `/sync`, and gets messages.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    bench::Bench,
    delivery::{Deliveries, Received},
    error::Failure,
    message::{Event, Page},
    meter::{Meter, Series},
    sender::rest,
    session::{Session, messages_path, part, read},
};

/// What is asked for: messages, and nothing that doesn't matter here. The server's own limit of
/// events may be lower. Each client excludes another type that nobody sends: servers give clients
/// that ask for the same one answer, and would only be asked to give it many times.
fn filter() -> String {
    let unique = fastrand::u64(..);
    let timeline = format!(r#"{{"limit":100,"not_types":["load.{unique}"]}}"#);
    let room = format!(
        r#"{{"timeline":{timeline},"state":{{"lazy_load_members":true}},"account_data":{{"types":[]}}}}"#
    );
    format!(r#"{{"room":{room},"presence":{{"types":[]}},"account_data":{{"types":[]}}}}"#)
}

/// The same for who only wants to know where to go on from.
const NOTHING: &str = r#"{"room":{"timeline":{"limit":1},"state":{"types":[]},"ephemeral":{"types":[]},"account_data":{"types":[]}},"presence":{"types":[]},"account_data":{"types":[]}}"#;

/// How long the server may wait for something to happen.
pub(crate) const PARK: Duration = Duration::from_secs(30);

/// One answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Synced {
    pub(crate) next_batch: String,
    #[serde(default)]
    pub(crate) rooms: Rooms,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Rooms {
    #[serde(default)]
    pub(crate) join: HashMap<String, Joined>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Joined {
    #[serde(default)]
    pub(crate) timeline: Timeline,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Timeline {
    #[serde(default)]
    pub(crate) events: Vec<Event>,
    #[serde(default)]
    limited: bool,
    prev_batch: Option<String>,
}

/// The path of a `/sync`.
pub(crate) fn sync_path(since: Option<&str>, wait: Duration, filter: &str) -> String {
    let since = since.map(|since| format!("&since={}", part(since))).unwrap_or_default();
    let filter =
        if filter.is_empty() { String::new() } else { format!("&filter={}", part(filter)) };
    format!("/_matrix/client/v3/sync?timeout={}{filter}{since}", wait.as_millis())
}

/// The path of an initial sync: everything; without the members that nobody has to see, as most
/// clients ask, if it is to be `lazy`. Each excludes another type that nobody sends, since servers remember what they have
/// answered the same client lately, and would only be asked to give it once more.
pub(crate) fn opening_path(lazy: bool) -> String {
    let unique = fastrand::u64(..);
    let filter = format!(
        r#"{{"room":{{"state":{{"lazy_load_members":{lazy},"not_types":["load.{unique}"]}}}}}}"#
    );
    sync_path(None, Duration::ZERO, &filter)
}

/// Where a user stands now: a token to sync on from.
pub(crate) async fn current(session: &mut Session) -> Result<String, Failure> {
    let path = sync_path(None, Duration::ZERO, NOTHING);
    session.look_up::<Synced>(&path).await.map(|synced| synced.next_batch)
}

/// Somebody who syncs until told to stop.
pub(crate) struct Syncer {
    session: Session,
    since: String,
    filter: String,
    meter: Arc<Meter>,
    series: Arc<Series>,
    run: Arc<str>,
    epoch: Instant,
    deliveries: Arc<Deliveries>,
    received: Received,
}

impl Syncer {
    /// A user who has seen everything so far.
    pub(crate) async fn new(
        bench: &Bench,
        mut session: Session,
        series: &'static str,
        epoch: Instant,
        deliveries: &Arc<Deliveries>,
    ) -> Result<Self, Failure> {
        let since = current(&mut session).await?;
        let (meter, run, deliveries) = (bench.meter.clone(), bench.run.clone(), deliveries.clone());
        let (series, received) = (meter.series(series), Received::new());
        let filter = filter();
        Ok(Self { session, since, filter, meter, series, run, epoch, deliveries, received })
    }

    /// Begins, and goes on until `stop` is true.
    pub(crate) fn spawn(self, stop: &watch::Receiver<bool>) -> JoinHandle<Received> {
        tokio::spawn(self.work(stop.clone()))
    }

    async fn work(mut self, mut stop: watch::Receiver<bool>) -> Received {
        loop {
            let path = sync_path(Some(&self.since), PARK, &self.filter);
            let answer = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return self.received,
                answer = self.session.ask(Method::GET, &path, Bytes::new(), PARK) => answer,
            };
            let taken = match answer.and_then(|body| read::<Synced>(&body)) {
                Ok(synced) => self.take(synced).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = taken {
                rest(&self.meter, &failure).await;
            }
        }
    }

    async fn take(&mut self, synced: Synced) -> Result<(), Failure> {
        let now = Instant::now();
        for (room, joined) in synced.rooms.join {
            let Timeline { events, limited, prev_batch } = joined.timeline;
            if let Some(before) = prev_batch.filter(|_| limited) {
                self.deliveries.add_gap();
                let missing = self.between(&room, &before).await?;
                self.note(&room, &missing, Instant::now());
            }
            self.note(&room, &events, now);
        }
        self.since = synced.next_batch;
        Ok(())
    }

    /// What a limited answer has left out, oldest first.
    async fn between(&mut self, room: &str, before: &str) -> Result<Vec<Event>, Failure> {
        let (mut found, mut from) = (Vec::new(), before.to_owned());
        loop {
            let path = messages_path(room, 'b', 100, &from);
            let path = format!("{path}&to={}", part(&self.since));
            let page: Page = self.session.look_up(&path).await?;
            let done = page.chunk.is_empty();
            found.extend(page.chunk);
            match page.end {
                Some(end) if end != from && !done => from = end,
                _ => break,
            }
        }
        found.reverse();
        Ok(found)
    }

    fn note(&mut self, room: &str, events: &[Event], now: Instant) {
        for event in events {
            let Some(mark) = event.mark(&self.run) else { continue };
            let due = self.epoch + Duration::from_micros(mark.at);
            self.series.record(now.saturating_duration_since(due), mark.counted);
            self.deliveries.add();
            let seen = (mark.sender, mark.number, event.event_id.clone());
            match self.received.get_mut(room) {
                Some(received) => received.push(seen),
                None => drop(self.received.insert(room.to_owned(), vec![seen])),
            }
        }
    }
}
