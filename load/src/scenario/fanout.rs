//! `fanout`: members are parked in `/sync`, and get what is sent.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use super::Outcome;
use crate::{
    bench::Bench,
    delivery::{Deliveries, judge},
    error::LoadError,
    record::Verdict,
    sender::{ledger, send_to_all},
    syncer::Syncer,
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many members wait in /sync; each gets every message.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    receivers: u32,
    /// How many send to the room.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    senders: u32,
    /// The length of a message's text, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 80)]
    size: usize,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let (senders, receivers) = (options.senders as usize, options.receivers as usize);
    bench.connections(senders + receivers)?;
    let mut users = bench.users(1 + senders + receivers).await?;
    let owner = users.swap_remove(0);
    let ids = bench.rooms(&owner, 1).await?;
    bench.join(users.iter().map(|user| (user, &ids[0]))).await?;
    let epoch = Instant::now();
    let receiving = users.split_off(senders);
    // What the scenario is about comes first.
    bench.meter.series("delivery");
    let deliveries = Arc::<Deliveries>::default();
    let (stop, stopped) = watch::channel(false);
    let names: Vec<_> = receiving.iter().map(|user| user.account.user_id.clone()).collect();
    let syncers = bench.together("parking syncs", receiving, |user| {
        Syncer::new(bench, user, "delivery", epoch, &deliveries)
    });
    let syncers: Vec<_> = syncers.await?.into_iter().map(|syncer| syncer.spawn(&stopped)).collect();
    let (style, receivers) = ((options.size, epoch), (&deliveries, receivers));
    let acknowledged = send_to_all(bench, users, &ids, style, receivers).await?;
    let ledger = ledger(bench, &owner.account, &ids, acknowledged);
    let _ = stop.send(true);
    let mut verdict = Verdict::about("deliveries");
    for (name, syncer) in names.iter().zip(syncers) {
        let received = syncer.await.map_err(|error| LoadError::Broken(error.to_string()))?;
        verdict = verdict.and(judge(name, &ledger.rooms, &received));
    }
    Ok(Outcome { ledger: Some(ledger), verdict: Some(verdict), notes: deliveries.notes() })
}
