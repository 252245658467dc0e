//! `federation-out`: the target sends to many servers, some of which are dead.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::Outcome;
use crate::{
    bench::Bench,
    delivery::{Deliveries, compare},
    error::LoadError,
    federation::{self, Inbox, Member, World},
    message::Event,
    record::Verdict,
    sender::{ledger, send_to_all},
    verify::{Ledger, RoomLedger},
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many servers get everything.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    destinations: u32,
    /// How many more are in the room, and dead.
    #[arg(long, value_name = "N", default_value_t = 5)]
    dead: u32,
    /// How many users of the target send.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    senders: u32,
    /// The length of a message's text, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 80)]
    size: usize,
    #[command(flatten)]
    #[serde(flatten)]
    federation: federation::FederationOptions,
}

/// What each server has got: senders and numbers.
type Got = Mutex<Vec<Vec<(usize, u64)>>>;

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let (senders, alive) = (options.senders as usize, options.destinations as usize);
    let all = alive + options.dead as usize;
    let mut users = bench.users(1 + senders).await?;
    let owner = users.swap_remove(0);
    let ids = bench.rooms(&owner, 1).await?;
    bench.join(users.iter().map(|user| (user, &ids[0]))).await?;
    let epoch = Instant::now();
    bench.meter.series("send");
    let (deliveries, got) =
        (Arc::<Deliveries>::default(), Arc::new(Got::new(vec![Vec::new(); all])));
    let inbox = inbox(bench, epoch, &deliveries, &got);
    let world = World::begin(bench, &options.federation, &owner.account, all, &inbox).await?;
    let joined = bench.together("joining as other servers", 0..all, |number| {
        Member::join(world.remote(number), &ids[0])
    });
    joined.await?;
    world.servers.iter().skip(alive).for_each(federation::Server::kill);
    let (style, receivers) = ((options.size, epoch), (&deliveries, alive));
    let acknowledged = send_to_all(bench, users, &ids, style, receivers).await?;
    let ledger = ledger(bench, &owner.account, &ids, acknowledged);
    let got = got.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let names = world.servers.iter().map(|server| server.identity().name.as_str()).zip(&got);
    let about = Verdict::about("deliveries to other servers");
    let verdict =
        names.take(alive).fold(about, |sum, (name, got)| sum.and(judge(name, &ledger, got)));
    Ok(Outcome { ledger: Some(ledger), verdict: Some(verdict), notes: Vec::new() })
}

/// Notes what comes to the played servers.
fn inbox(
    bench: &Bench,
    epoch: Instant,
    deliveries: &Arc<Deliveries>,
    got: &Arc<Got>,
) -> Arc<Inbox> {
    let (series, run) = (bench.meter.series("delivery"), bench.run.clone());
    let (deliveries, got) = (deliveries.clone(), got.clone());
    Arc::new(move |server: usize, events: Vec<Event>| {
        let now = Instant::now();
        for mark in events.iter().filter_map(|event| event.mark(&run)) {
            let due = epoch + Duration::from_micros(mark.at);
            series.record(now.saturating_duration_since(due), mark.counted);
            let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
            got[server].push((mark.sender, mark.number));
            deliveries.add();
        }
    })
}

/// What one server has got of what was acknowledged. Events carry no ids between servers: they are
/// told apart by what they say of themselves.
fn judge(name: &str, ledger: &Ledger, got: &[(usize, u64)]) -> Verdict {
    let none = RoomLedger::default();
    let room = ledger.rooms.first().unwrap_or(&none);
    let sent = room.sent.iter().map(|sent| ((sent.sender, sent.number), &sent.event_id));
    let ids: HashMap<_, _> = sent.collect();
    let received = got.iter().map(|(sender, number)| {
        let id = ids
            .get(&(*sender, *number))
            .map_or_else(|| format!("message {number} of sender {sender}"), |id| (*id).clone());
        (*sender, *number, id)
    });
    compare(name, room, &received.collect::<Vec<_>>())
}
