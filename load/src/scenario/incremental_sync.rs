//! `incremental-sync`: users in many rooms ask what is new, and it is one message.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Args;
use http::Method;
use serde::Serialize;
use tokio::time::Instant;

use super::Outcome;
use crate::{
    bench::Bench,
    error::LoadError,
    meter::{Meter, Series},
    record::Verdict,
    schedule::{Due, Pacer},
    sender::{Acknowledged, Room, Sender, ledger, rest},
    session::{Session, read},
    syncer::{Synced, current, sync_path},
};

/// The server may wait this long for what has just been acknowledged.
const WAIT: Duration = Duration::from_secs(10);

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many users sync at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// How many rooms each of them is in: what a sync costs should not depend on it.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let count = options.users as usize;
    let mut users = bench.users(1 + count).await?;
    let owner = users.swap_remove(0);
    // Each has rooms of its own, so that what is new for one is not new for the others.
    let ids = bench.rooms(&owner, count * options.rooms as usize).await?;
    let own: Vec<_> = ids.chunks(options.rooms as usize).map(<[String]>::to_vec).collect();
    let pairs = users.iter().zip(&own).flat_map(|(user, own)| own.iter().map(move |id| (user, id)));
    bench.join(pairs).await?;
    let series = bench.meter.series("incremental sync");
    let epoch = Instant::now();
    let mut workers = Vec::new();
    for (number, mut user) in users.into_iter().enumerate() {
        let since = current(&mut user).await.map_err(LoadError::setup("syncing"))?;
        let sender = Sender::new(bench, owner.another(), "send", number, (80, epoch));
        let (meter, series) = (bench.meter.clone(), series.clone());
        workers.push(Worker { user, since, sender, meter, series, verdict: Verdict::default() });
    }
    let rooms: Vec<_> =
        Room::all(&ids).chunks(options.rooms as usize).map(<[Room]>::to_vec).collect();
    let ended = bench.measure(bench.plan.clone(), |schedule| {
        let workers = workers.into_iter().zip(rooms).enumerate();
        let work = workers
            .map(|(number, (worker, rooms))| worker.work(schedule.pacer(number, count), rooms));
        work.collect()
    });
    let mut verdict = Verdict::about("messages in incremental syncs");
    let mut acknowledged = Vec::new();
    for (sent, judged) in ended.await? {
        acknowledged.extend(sent);
        verdict = verdict.and(judged);
    }
    let ledger = ledger(bench, &owner.account, &ids, acknowledged);
    Ok(Outcome { ledger: Some(ledger), verdict: Some(verdict), ..Outcome::default() })
}

/// A user who syncs, and somebody who sees to it that there is something new.
struct Worker {
    user: Session,
    since: String,
    sender: Sender,
    meter: Arc<Meter>,
    series: Arc<Series>,
    verdict: Verdict,
}

impl Worker {
    async fn work(mut self, mut pacer: Pacer, rooms: Vec<Room>) -> (Acknowledged, Verdict) {
        for room in rooms.iter().cycle() {
            let Some(due) = pacer.due().await else { break };
            if !self.sender.send(due, room).await {
                continue;
            }
            // Only the sync is measured here, and it is due when the message is there.
            self.sync(Due { at: Instant::now(), ..due }).await;
        }
        (self.sender.into_acknowledged(), self.verdict)
    }

    async fn sync(&mut self, due: Due) {
        let path = sync_path(Some(&self.since), WAIT, "");
        let answer = self.user.ask(Method::GET, &path, Bytes::new(), WAIT).await;
        let done = answer.inspect(|_| self.series.done(due));
        match done.and_then(|body| read::<Synced>(&body)) {
            Ok(synced) => self.judge(synced),
            Err(failure) => rest(&self.meter, &failure).await,
        }
    }

    /// The answer has what was acknowledged last, once.
    fn judge(&mut self, synced: Synced) {
        let Some(event_id) = self.sender.last().map(ToOwned::to_owned) else { return };
        let events = synced.rooms.join.values().flat_map(|joined| &joined.timeline.events);
        let times = events.filter(|event| event.event_id == event_id).count() as u64;
        self.verdict.checked += 1;
        self.verdict.lost += u64::from(times == 0);
        self.verdict.doubled += times.saturating_sub(1);
        if times != 1 {
            self.verdict.example(|| format!("{event_id} came {times} times"));
        }
        self.since = synced.next_batch;
    }
}
