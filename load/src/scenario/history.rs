//! Rooms with messages, which several scenarios begin with.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::{
    bench::Bench,
    bulk::Bulk,
    error::LoadError,
    schedule::{Plan, Schedule},
    sender::{Room, Sender, ledger},
    session::Session,
    verify::{Ledger, RoomLedger},
};

/// What is done here.
const WHAT: &str = "writing messages";

/// Fills each of the owner's rooms with so many messages, before anything is measured.
pub(super) async fn fill(
    bench: &Bench,
    owner: &Session,
    ids: &[String],
    messages: u64,
) -> Result<Ledger, LoadError> {
    let filled = match bench.accounts.bulk() {
        Some(bulk) => fill_at_once(bench, bulk, owner, ids, messages).await?,
        None => fill_one_by_one(bench, owner, ids, messages).await?,
    };
    let is_whole = |room: &&RoomLedger| {
        let numbers: BTreeSet<_> = room.sent.iter().map(|sent| sent.number).collect();
        room.sent.len() as u64 == messages && numbers.into_iter().eq(0..messages)
    };
    let whole = filled.rooms.iter().filter(is_whole).count();
    if whole != ids.len() {
        return Err(LoadError::Setup {
            what: WHAT.to_owned(),
            reason: format!("only {whole} of {} rooms have all {messages}", ids.len()),
        });
    }
    Ok(filled)
}

async fn fill_at_once(
    bench: &Bench,
    bulk: &Bulk,
    owner: &Session,
    ids: &[String],
    messages: u64,
) -> Result<Ledger, LoadError> {
    bench.console.phase(WHAT, ids.len() * messages as usize);
    let told = |done| bench.console.reach(done);
    let filled = bulk.fill((&owner.account, &bench.run), ids, messages, told).await;
    filled.map_err(LoadError::setup(WHAT))?;
    let empty = ledger(bench, &owner.account, ids, []);
    let found = empty.believe(&bench.endpoint).await;
    found.map_err(LoadError::setup("reading the messages"))
}

async fn fill_one_by_one(
    bench: &Bench,
    owner: &Session,
    ids: &[String],
    messages: u64,
) -> Result<Ledger, LoadError> {
    let rooms = Room::all(ids);
    let epoch = Instant::now();
    let filled = bench.together(WHAT, rooms, |room| {
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
    Ok(ledger(bench, &owner.account, ids, filled.await?.into_iter().flatten()))
}
