//! `idle`: thousands wait in `/sync`, and nothing happens. What does each of them cost?

use std::{sync::Arc, time::Duration};

use clap::Args;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::Outcome;
use crate::{
    bench::Bench,
    delivery::{Deliveries, Drain, judge},
    error::LoadError,
    process::Usage,
    record::Verdict,
    report::table::number,
    schedule::{Due, Plan},
    sender::{Room, Sender, ledger},
    session::Session,
    syncer::Syncer,
};

/// How long the server is left alone before its memory is read, so that it has put everything away.
const REST: Duration = Duration::from_secs(2);

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many syncs are parked, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    parked: u32,
    /// How many users there are; each has several syncs if there are fewer.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let parked = options.parked as usize;
    bench.connections(parked)?;
    let mut users = bench.users(1 + parked.min(options.users as usize)).await?;
    let owner = users.swap_remove(0);
    let ids = bench.rooms(&owner, 1).await?;
    bench.join(users.iter().map(|user| (user, &ids[0]))).await?;
    sleep(REST).await;
    let before = bench.meter.server();
    let epoch = Instant::now();
    bench.meter.series("wake");
    let deliveries = Arc::<Deliveries>::default();
    let (stop, stopped) = watch::channel(false);
    let syncing: Vec<_> = users.iter().cycle().take(parked).map(Session::another).collect();
    let names: Vec<_> = syncing.iter().map(|user| user.account.user_id.clone()).collect();
    let syncers = bench.together("parking syncs", syncing, |user| {
        Syncer::new(bench, user, "wake", epoch, &deliveries)
    });
    let syncers: Vec<_> = syncers.await?.into_iter().map(|syncer| syncer.spawn(&stopped)).collect();
    let mut sender = Sender::new(bench, owner.another(), "send", 0, (80, epoch));
    let room = Room::all(&ids).swap_remove(0);
    let (meter, drain) = (bench.meter.clone(), Drain::of(1, &deliveries));
    // Time alone limits it: there is nothing to count until all are woken.
    let duration = bench.plan.duration.unwrap_or_default();
    let plan = Plan { rate: None, count: None, duration: Some(duration), ..bench.plan.clone() };
    let ended = bench.measure(plan, |schedule| {
        let (schedule, end) = (schedule.clone(), schedule.end().unwrap_or_else(Instant::now));
        vec![async move {
            schedule.sleep_until(end).await;
            let waiting = meter.server();
            let woken = sender.send(Due { at: Instant::now(), counted: true }, &room).await;
            drain.sent(if woken { parked } else { 0 }).await;
            (waiting, sender.into_acknowledged())
        }]
    });
    let (waiting, acknowledged): (Vec<_>, Vec<_>) = ended.await?.into_iter().unzip();
    let ledger = ledger(bench, &owner.account, &ids, acknowledged.into_iter().flatten());
    let _ = stop.send(true);
    let mut verdict = Verdict::about("parked syncs, each woken by one message");
    for (name, syncer) in names.iter().zip(syncers) {
        let received = syncer.await.map_err(|error| LoadError::Broken(error.to_string()))?;
        verdict = verdict.and(judge(name, &ledger.rooms, &received));
    }
    let mut notes = deliveries.notes();
    notes.extend(before.zip(waiting.into_iter().flatten().next()).map(|pair| memory(pair, parked)));
    Ok(Outcome { ledger: Some(ledger), verdict: Some(verdict), notes })
}

fn memory((before, waiting): (Usage, Usage), parked: usize) -> String {
    let kib = |bytes: u64| bytes as f64 / 1_024.0;
    let each = (kib(waiting.rss) - kib(before.rss)).max(0.0) / parked as f64;
    format!(
        "{parked} parked syncs: {} KiB of the server's memory each ({} MiB without them)",
        number(each),
        number(kib(before.rss) / 1_024.0)
    )
}
