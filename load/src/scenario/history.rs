//! Rooms with messages, which several scenarios begin with.

use tokio::time::Instant;

use crate::{
    bench::Bench,
    error::LoadError,
    schedule::{Plan, Schedule},
    sender::{Room, Sender, ledger},
    session::Session,
    verify::Ledger,
};

/// Fills each of the owner's rooms with so many messages, before anything is measured.
pub(super) async fn fill(
    bench: &Bench,
    owner: &Session,
    ids: &[String],
    messages: u64,
) -> Result<Ledger, LoadError> {
    let rooms = Room::all(ids);
    let epoch = Instant::now();
    let filled = bench.together("writing messages", rooms, |room| {
        // Not one of the series that are reported: nobody asks for this one again.
        let (session, number) = (owner.another(), room.index);
        let sender = Sender::quiet(bench, session, number, epoch);
        let count = Some(messages);
        let plan = Plan { rate: None, warm_up: Default::default(), duration: None, count };
        async move {
            let pacer = Schedule::begin(plan).pacer(0, 1);
            Ok(sender.work(pacer, vec![room]).await)
        }
    });
    let ledger = ledger(bench, &owner.account, ids, filled.await?.into_iter().flatten());
    let written: usize = ledger.rooms.iter().map(|room| room.sent.len()).sum();
    if written as u64 != messages * ids.len() as u64 {
        return Err(LoadError::Setup {
            what: "writing messages".to_owned(),
            reason: format!("only {written} were acknowledged"),
        });
    }
    Ok(ledger)
}
