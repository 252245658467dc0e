//! `federation-in`: other servers send events to the target.

use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use parlour_event::Pdu;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use super::Outcome;
use crate::{
    bench::Bench,
    delivery::{Deliveries, Drain, judge},
    error::{Failure, LoadError},
    federation::{self, Inbox, Member, Place, World, object},
    message::{Mark, content},
    meter::{Meter, Series},
    record::Verdict,
    schedule::{Due, Pacer},
    sender::{Acknowledged, ledger, rest},
    syncer::Syncer,
    verify::Sent,
};

/// Attempts at one transaction.
const ATTEMPTS: usize = 5;

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many servers send; each waits for the answer before its next transaction.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    servers: u32,
    /// How many rooms there are; the servers are spread over them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
    /// How many events a transaction has.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    pdus: u32,
    /// The length of a message's text, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 80)]
    size: usize,
    #[command(flatten)]
    #[serde(flatten)]
    federation: federation::FederationOptions,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let (servers, pdus) = (options.servers as usize, options.pdus);
    let owner = bench.users(1).await?.swap_remove(0);
    let ids = bench.rooms(&owner, options.rooms as usize).await?;
    let deaf: Arc<Inbox> = Arc::new(|_, _| ());
    let world = World::begin(bench, &options.federation, &owner.account, servers, &deaf).await?;
    let members = join(bench, &world, &ids, servers).await?;
    let epoch = Instant::now();
    let [event, transaction] = ["event", "transaction"].map(|name| bench.meter.series(name));
    let deliveries = Arc::<Deliveries>::default();
    let (stop, stopped) = watch::channel(false);
    // Somebody of the target sees what comes in.
    let syncer = Syncer::new(bench, owner.another(), "delivery", epoch, &deliveries).await;
    let syncer = syncer.map_err(LoadError::setup("syncing"))?.spawn(&stopped);
    let places = places(&members, ids.len());
    let workers = members.into_iter().enumerate().map(|(number, member)| Worker {
        member,
        room: number % ids.len(),
        place: places[number % ids.len()].clone(),
        meter: bench.meter.clone(),
        series: (event.clone(), transaction.clone()),
        run: bench.run.clone(),
        number,
        epoch,
        size: options.size,
        next: 0,
        acknowledged: Vec::new(),
    });
    let workers: Vec<_> = workers.collect();
    let acknowledged = bench.measure(bench.plan.clone(), |schedule| {
        let drain = Drain::of(servers, &deliveries);
        let work = workers.into_iter().enumerate().map(|(number, worker)| {
            let (pacer, drain) = (schedule.pacer(number, servers), drain.clone());
            async move {
                let acknowledged = worker.work(pacer, pdus).await;
                drain.sent(acknowledged.len()).await;
                acknowledged
            }
        });
        work.collect()
    });
    let acknowledged = acknowledged.await?.into_iter().flatten();
    let ledger = ledger(bench, &owner.account, &ids, acknowledged);
    let _ = stop.send(true);
    let received = syncer.await.map_err(|error| LoadError::Broken(error.to_string()))?;
    let verdict = judge(&owner.account.user_id, &ledger.rooms, &received);
    let verdict = Verdict::about("deliveries to a user of the target").and(verdict);
    Ok(Outcome { ledger: Some(ledger), verdict: Some(verdict), notes: deliveries.notes() })
}

/// One after the other: each join follows the one before it, so that whoever follows the last of
/// them has everybody in the room.
async fn join(
    bench: &Bench,
    world: &World,
    ids: &[String],
    servers: usize,
) -> Result<Vec<Member>, LoadError> {
    const WHAT: &str = "joining as other servers";
    bench.console.phase(WHAT, servers);
    let mut members = Vec::with_capacity(servers);
    for number in 0..servers {
        let member = Member::join(world.remote(number), &ids[number % ids.len()]).await;
        members.push(member.map_err(LoadError::setup(WHAT))?);
        bench.console.step();
    }
    Ok(members)
}

/// Where each room's next event goes.
fn places(members: &[Member], rooms: usize) -> Vec<Arc<Mutex<Place>>> {
    let places = (0..rooms).map(|room| {
        // The last of those who came to the room.
        let newest = members.iter().enumerate().filter(|(number, _)| number % rooms == room);
        let deepest = newest.map(|(_, member)| member.place()).max_by_key(|place| place.depth);
        let empty = Place { follows: Vec::new(), depth: 0 };
        Arc::new(Mutex::new(deepest.unwrap_or(empty)))
    });
    places.collect()
}

/// One server.
struct Worker {
    member: Member,
    room: usize,
    /// What all servers of the room know to be there. Nothing is followed that the target has not
    /// acknowledged, so it never has to ask for what is missing.
    place: Arc<Mutex<Place>>,
    meter: Arc<Meter>,
    /// Events, and transactions.
    series: (Arc<Series>, Arc<Series>),
    run: Arc<str>,
    number: usize,
    epoch: Instant,
    size: usize,
    next: u64,
    acknowledged: Acknowledged,
}

impl Worker {
    async fn work(mut self, mut pacer: Pacer, pdus: u32) -> Acknowledged {
        while let Some(due) = pacer.due().await {
            let before = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match self.write(due, &before, pdus) {
                Ok(events) => self.send(due, &before, &events).await,
                Err(failure) => rest(&self.meter, &failure).await,
            }
        }
        self.acknowledged
    }

    /// Events, each of which follows the one before it.
    fn write(&mut self, due: Due, before: &Place, pdus: u32) -> Result<Vec<Pdu>, Failure> {
        let allowed_by =
            [self.member.power_levels.event_id().clone(), self.member.join.event_id().clone()];
        let mut place = before.clone();
        let mut events: Vec<Pdu> = Vec::with_capacity(pdus as usize);
        for number in self.next..self.next + u64::from(pdus) {
            let mark = Mark {
                run: self.run.to_string(),
                sender: self.number,
                number,
                at: due.at.saturating_duration_since(self.epoch).as_micros() as u64,
                counted: due.counted,
            };
            let content = object(&content(&mark, self.size))?;
            let event =
                self.member.event(("m.room.message", None), content, &place, &allowed_by)?;
            place = Place::behind(&event);
            events.push(event);
        }
        Ok(events)
    }

    async fn send(&mut self, due: Due, before: &Place, events: &[Pdu]) {
        let id = format!("{}-{}-{}", self.run, self.number, self.next);
        let first = self.next;
        self.next += events.len() as u64;
        for _ in 0..ATTEMPTS {
            match self.member.transact(&id, events).await {
                Ok(refused) => return self.acknowledge(due, before, (first, events), &refused),
                Err(failure) => {
                    rest(&self.meter, &failure).await;
                    if !failure.may_pass() {
                        return;
                    }
                }
            }
        }
    }

    fn acknowledge(
        &mut self,
        due: Due,
        before: &Place,
        (first, events): (u64, &[Pdu]),
        refused: &[String],
    ) {
        self.series.1.done(due);
        for (number, event) in (first..).zip(events) {
            let event_id = event.event_id().to_string();
            if refused.contains(&event_id) {
                self.meter.failed(&Failure::RefusedEvent);
                continue;
            }
            self.series.0.done(due);
            let sent = Sent { sender: self.number, number, event_id };
            self.acknowledged.push((self.room, sent));
        }
        if let Some(newest) = events.last().filter(|_| refused.is_empty()) {
            self.place.lock().unwrap_or_else(PoisonError::into_inner).advance(before, newest);
        }
    }
}
