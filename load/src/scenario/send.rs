//! `send`: users send messages.

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::Outcome;
use crate::{
    bench::Bench,
    error::LoadError,
    sender::{Room, Sender, ledger},
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many send; each waits for the answer before the next message.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    senders: u32,
    /// How many rooms there are. Senders are spread over them; with fewer senders than rooms each
    /// sends to several in turn.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
    /// The length of a message's text, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 80)]
    size: usize,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let senders = options.senders as usize;
    let mut users = bench.users(senders + 1).await?;
    let owner = users.swap_remove(0);
    let ids = bench.rooms(&owner, options.rooms as usize).await?;
    let own: Vec<Vec<usize>> =
        (0..senders).map(|sender| spread(sender, senders, ids.len())).collect();
    let pairs = users
        .iter()
        .zip(&own)
        .flat_map(|(user, rooms)| rooms.iter().map(|room| (user, &ids[*room])).collect::<Vec<_>>());
    bench.join(pairs).await?;
    let rooms = Room::all(&ids);
    let style = (options.size, Instant::now());
    let workers = users.into_iter().enumerate().zip(own).map(|((number, user), own)| {
        let rooms: Vec<_> = own.iter().map(|room| rooms[*room].clone()).collect();
        (number, Sender::new(bench, user, "send", number, style), rooms)
    });
    let workers: Vec<_> = workers.collect();
    let acknowledged = bench.measure(bench.plan.clone(), |schedule| {
        let work = workers
            .into_iter()
            .map(|(number, sender, rooms)| sender.work(schedule.pacer(number, senders), rooms));
        work.collect()
    });
    let acknowledged = acknowledged.await?.into_iter().flatten();
    let ledger = ledger(bench, &owner.account, &ids, acknowledged);
    Ok(Outcome { ledger: Some(ledger), ..Outcome::default() })
}

/// The rooms of one of `senders`.
fn spread(sender: usize, senders: usize, rooms: usize) -> Vec<usize> {
    if rooms <= senders {
        return vec![sender % rooms];
    }
    (sender..rooms).step_by(senders).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_has_a_sender_and_every_sender_a_room() {
        for (senders, rooms) in [(1, 1), (16, 1), (1, 100), (3, 10), (100, 100), (5, 3)] {
            let all: Vec<_> = (0..senders).map(|sender| spread(sender, senders, rooms)).collect();
            assert!(all.iter().all(|rooms| !rooms.is_empty()));
            let mut seen: Vec<_> = all.concat();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), rooms, "{senders} senders, {rooms} rooms");
        }
    }
}
