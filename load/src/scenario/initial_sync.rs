//! `initial-sync`: users open their clients for the first time.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use clap::Args;
use http::Method;
use serde::Serialize;

use super::{Outcome, history};
use crate::{
    bench::Bench,
    error::LoadError,
    record::Verdict,
    sender::rest,
    session::read,
    syncer::{Synced, opening_path},
    verify::Ledger,
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many users sync at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// How many rooms all of them are in.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
    /// How many messages each room has.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Ask for all members of the rooms, too. Most clients load them when somebody wants to see
    /// them.
    #[arg(long)]
    members: bool,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let count = options.users as usize;
    let mut users = bench.users(1 + count).await?;
    let owner = users.swap_remove(0);
    let ids = bench.rooms(&owner, options.rooms as usize).await?;
    bench.join(users.iter().flat_map(|user| ids.iter().map(move |id| (user, id)))).await?;
    let ledger = history::fill(bench, &owner, &ids, options.messages.into()).await?;
    let (meter, series) = (bench.meter.clone(), bench.meter.series("initial sync"));
    let lazy = !options.members;
    let newest = std::sync::Arc::new(newest(&ledger));
    let verdicts = bench.measure(bench.plan.clone(), |schedule| {
        let workers = users.into_iter().enumerate().map(|(number, mut user)| {
            let (meter, series, newest) = (meter.clone(), series.clone(), newest.clone());
            let mut pacer = schedule.pacer(number, count);
            async move {
                let mut verdict = Verdict::default();
                while let Some(due) = pacer.due().await {
                    let path = opening_path(lazy);
                    let answer = user.ask(Method::GET, &path, Bytes::new(), Duration::ZERO).await;
                    // What the client does with it is not the server's time.
                    let done = answer.inspect(|_| series.done(due));
                    match done.and_then(|body| read::<Synced>(&body)) {
                        Ok(synced) => judge(&mut verdict, &newest, &synced),
                        Err(failure) => rest(&meter, &failure).await,
                    }
                }
                verdict
            }
        });
        workers.collect()
    });
    let about = Verdict::about("rooms in initial syncs, with their newest message");
    let verdict = verdicts.await?.into_iter().fold(about, Verdict::and);
    Ok(Outcome { ledger: Some(ledger), verdict: Some(verdict), ..Outcome::default() })
}

/// The rooms and their newest messages.
fn newest(ledger: &Ledger) -> HashSet<(String, String)> {
    let rooms = ledger.rooms.iter();
    let pairs = rooms.filter_map(|room| Some((room.room_id.clone(), room.sent.last()?)));
    pairs.map(|(room, sent)| (room, sent.event_id.clone())).collect()
}

fn judge(verdict: &mut Verdict, newest: &HashSet<(String, String)>, synced: &Synced) {
    for (room, event_id) in newest {
        verdict.checked += 1;
        let joined = synced.rooms.join.get(room);
        let last = joined.and_then(|joined| joined.timeline.events.last());
        if last.is_none_or(|last| last.event_id != *event_id) {
            verdict.lost += 1;
            verdict.example(|| format!("an initial sync without {event_id} of {room}"));
        }
    }
}
