//! `mixed`: a realistic day. Users type, send, read, scroll back, come and go, and all of them wait
//! in `/sync` meanwhile.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Args;
use fastrand::Rng;
use http::Method;
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::Outcome;
use crate::{
    bench::Bench,
    delivery::{Deliveries, Drain, judge},
    error::{Failure, LoadError},
    message::Page,
    meter::Meter,
    profile::{Action, Profile},
    record::Verdict,
    schedule::{Due, Schedule},
    sender::{Acknowledged, Room, Sender, ledger, rest},
    session::{Session, messages_path, part},
    syncer::{Syncer, opening_path},
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// What users do: a TOML file; --print-profile shows the default with its comments.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// How many users, in place of what the profile says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    users: Option<u32>,
    /// How many times faster the day goes by: pauses are divided by it.
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = crate::cli::positive)]
    speed: f64,
    /// The seed of all that is drawn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the default profile, and do nothing else.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) print_profile: bool,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    if bench.plan.rate.is_some() || bench.plan.count.is_some() {
        let text = "`mixed` has its pace from the profile: use --duration and --speed";
        return Err(LoadError::Usage(text.to_owned()));
    }
    let mut profile = Profile::load(options.profile.as_deref())?;
    profile.users = options.users.map_or(profile.users, |users| users as usize);
    // Each syncs, sends, and does all else.
    bench.connections(3 * profile.users)?;
    let mut users = bench.users(1 + profile.users).await?;
    let owner = users.swap_remove(0);
    let ids = bench.rooms(&owner, profile.rooms).await?;
    let mut random = Rng::with_seed(options.seed);
    let own: Vec<_> = users.iter().map(|_| profile.rooms_of_one(&mut random)).collect();
    let pairs =
        users.iter().zip(&own).flat_map(|(user, own)| own.iter().map(move |room| (user, *room)));
    bench.join(pairs.map(|(user, room)| (user, &ids[room]))).await?;
    let epoch = Instant::now();
    for name in ["delivery", "send"] {
        bench.meter.series(name);
    }
    let deliveries = Arc::<Deliveries>::default();
    let (stop, stopped) = watch::channel(false);
    let syncers = bench.together("parking syncs", &users, |user| {
        Syncer::new(bench, user.another(), "delivery", epoch, &deliveries)
    });
    let syncers: Vec<_> = syncers.await?.into_iter().map(|syncer| syncer.spawn(&stopped)).collect();
    let rooms = Room::all(&ids);
    let people = users.iter().zip(&own).enumerate().map(|(number, (user, own))| Person {
        session: user.another(),
        sender: Sender::new(bench, user.another(), "send", number, (profile.message.size, epoch)),
        meter: bench.meter.clone(),
        rooms: own.iter().map(|room| (rooms[*room].clone(), ids[*room].clone())).collect(),
        profile: profile.clone(),
        speed: options.speed,
        random: random.fork(),
    });
    let people: Vec<_> = people.collect();
    let members: Vec<_> =
        (0..ids.len()).map(|room| own.iter().filter(|own| own.contains(&room)).count()).collect();
    let acknowledged = live(bench, people, &deliveries, members).await?;
    let ledger = ledger(bench, &owner.account, &ids, acknowledged);
    let _ = stop.send(true);
    let mut verdict = Verdict::about("deliveries");
    for ((user, own), syncer) in users.iter().zip(&own).zip(syncers) {
        let received = syncer.await.map_err(|error| LoadError::Broken(error.to_string()))?;
        verdict = verdict.and(judge(
            &user.account.user_id,
            own.iter().map(|room| &ledger.rooms[*room]),
            &received,
        ));
    }
    Ok(Outcome { ledger: Some(ledger), verdict: Some(verdict), notes: deliveries.notes() })
}

/// Lets everybody live until the day is over, and all messages have come to all.
async fn live(
    bench: &mut Bench,
    people: Vec<Person>,
    deliveries: &Arc<Deliveries>,
    members: Vec<usize>,
) -> Result<Acknowledged, LoadError> {
    let (drain, members) = (Drain::of(people.len(), deliveries), Arc::new(members));
    let days = bench.measure(bench.plan.clone(), |schedule| {
        let days = people.into_iter().map(|person| {
            let (schedule, drain, members) = (schedule.clone(), drain.clone(), members.clone());
            async move {
                let acknowledged = person.live(&schedule).await;
                drain.sent(acknowledged.iter().map(|(room, _)| members[*room]).sum()).await;
                acknowledged
            }
        });
        days.collect()
    });
    Ok(days.await?.into_iter().flatten().collect())
}

/// One user.
struct Person {
    session: Session,
    sender: Sender,
    meter: Arc<Meter>,
    /// For requests, and by their ids.
    rooms: Vec<(Room, String)>,
    profile: Profile,
    speed: f64,
    random: Rng,
}

impl Person {
    async fn live(mut self, schedule: &Schedule) -> Acknowledged {
        loop {
            let pause = self.profile.pause(&mut self.random).div_f64(self.speed);
            let next = Instant::now() + pause;
            schedule.sleep_until(schedule.end().map_or(next, |end| next.min(end))).await;
            if schedule.ended(Instant::now()) {
                return self.sender.into_acknowledged();
            }
            let counted = Instant::now() >= schedule.measured_from();
            if let Err(failure) = self.act(counted).await {
                rest(&self.meter, &failure).await;
            }
        }
    }

    async fn act(&mut self, counted: bool) -> Result<(), Failure> {
        let (room, id) = self.rooms[self.random.usize(0..self.rooms.len())].clone();
        match self.profile.action(&mut self.random) {
            Action::Message => self.message(&room, counted).await,
            Action::Read => self.read(&room, &id, counted).await,
            Action::Scroll => self.fetch("scroll", &messages_path(&id, 'b', 30, ""), counted).await,
            Action::Members => {
                self.fetch("members", &format!("{}/joined_members", room.path), counted).await
            }
            Action::Presence => {
                let presence = if self.random.bool() { "online" } else { "unavailable" };
                let user = part(&self.session.account.user_id);
                let path = format!("/_matrix/client/v3/presence/{user}/status");
                self.put("presence", &path, json!({ "presence": presence }), counted).await
            }
            Action::Open => self.fetch("open", &opening_path(true), counted).await,
        }
    }

    /// Types, and sends.
    async fn message(&mut self, room: &Room, counted: bool) -> Result<(), Failure> {
        let user = part(&self.session.account.user_id);
        let typing = format!("{}/typing/{user}", room.path);
        self.put("typing", &typing, json!({ "typing": true, "timeout": 30_000 }), counted).await?;
        sleep(self.profile.typing(&mut self.random).div_f64(self.speed)).await;
        self.sender.send(Due { at: Instant::now(), counted }, room).await;
        self.put("typing", &typing, json!({ "typing": false }), counted).await
    }

    /// Looks at the newest message, and says so.
    async fn read(&mut self, room: &Room, id: &str, counted: bool) -> Result<(), Failure> {
        let newest: Page = self.session.get(&messages_path(id, 'b', 1, "")).await?;
        let Some(event) = newest.chunk.first() else { return Ok(()) };
        let path = format!("{}/receipt/m.read/{}", room.path, part(&event.event_id));
        let due = Due { at: Instant::now(), counted };
        self.session.post::<serde_json::Value>(&path, &json!({})).await?;
        self.meter.series("receipt").done(due);
        Ok(())
    }

    async fn fetch(
        &mut self,
        name: &'static str,
        path: &str,
        counted: bool,
    ) -> Result<(), Failure> {
        let due = Due { at: Instant::now(), counted };
        self.session.ask(Method::GET, path, Bytes::new(), Duration::ZERO).await?;
        self.meter.series(name).done(due);
        Ok(())
    }

    async fn put(
        &mut self,
        name: &'static str,
        path: &str,
        body: serde_json::Value,
        counted: bool,
    ) -> Result<(), Failure> {
        let due = Due { at: Instant::now(), counted };
        self.session.put(path, &body).await?;
        self.meter.series(name).done(due);
        Ok(())
    }
}
