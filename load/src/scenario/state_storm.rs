//! `state-storm`: other servers make a room's history fork, and its states conflict, again and
//! again. What does it do to everybody else?

use std::sync::Arc;

use clap::Args;
use fastrand::Rng;
use futures_util::FutureExt as _;
use parlour_event::{
    Pdu,
    json::{Object, Value},
};
use ruma::OwnedEventId;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::Outcome;
use crate::{
    bench::Bench,
    error::{Failure, LoadError},
    federation::{self, Inbox, Member, Place, World, object},
    meter::{Meter, Series},
    schedule::{Due, Schedule},
    sender::{Acknowledged, Room, Sender, ledger, rest},
    session::Session,
    slices::Slices,
};

/// The room's version: the creator has to share its power with others.
const VERSION: &str = "11";

/// Branches of the history that are kept to go on from.
const BRANCHES: usize = 20;

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many servers make the room fork.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    servers: u32,
    /// How many state events each branch has.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=50))]
    length: u32,
    /// How many users send in other rooms meanwhile, each in one of its own. --rate is theirs; the
    /// storm is as strong as the target lets it be.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    senders: u32,
    /// How many stormy slices there are, with as many quiet ones between them.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slices: u32,
    /// The seed of all that is drawn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    #[serde(flatten)]
    federation: federation::FederationOptions,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let Some(duration) = bench.plan.duration else {
        let text = "`state-storm` is quiet for one half of its time: use --duration, not --count";
        return Err(LoadError::Usage(text.to_owned()));
    };
    let (servers, senders) = (options.servers as usize, options.senders as usize);
    let mut users = bench.users(1 + senders).await?;
    let owner = users.swap_remove(0);
    let deaf: Arc<Inbox> = Arc::new(|_, _| ());
    let world = World::begin(bench, &options.federation, &owner.account, servers, &deaf).await?;
    let storm = stormy_room(&owner, &world).await.map_err(LoadError::setup("creating the room"))?;
    let members = bench.together("joining as other servers", 0..servers, |number| {
        Member::join(world.remote(number), &storm)
    });
    let members = members.await?;
    let ids = bench.rooms(&owner, senders).await?;
    bench.join(users.iter().zip(&ids)).await?;
    let [stormy, quiet, branch] =
        ["send in the storm", "send in quiet", "branch"].map(|name| bench.meter.series(name));
    let kinds = [quiet, stormy];
    let rooms = Room::all(&ids);
    let people: Vec<_> = users
        .into_iter()
        .enumerate()
        .map(|(number, user)| {
            let sender = Sender::new(bench, user, "send in quiet", number, (80, Instant::now()));
            (number, sender, vec![rooms[number].clone()])
        })
        .collect();
    let mut random = Rng::with_seed(options.seed);
    let storms = members.into_iter().enumerate().map(|(number, member)| Storm {
        branches: vec![Branch::begin(&member)],
        member,
        meter: bench.meter.clone(),
        series: branch.clone(),
        length: options.length,
        random: random.fork(),
        name: format!("{}-{number}", bench.run),
        made: 0,
    });
    let storms: Vec<_> = storms.collect();
    let begin = Instant::now() + bench.plan.warm_up;
    let slices = Arc::new(Slices::new(begin, duration, options.slices, kinds));
    let acknowledged = bench.measure(bench.plan.clone(), |schedule| {
        let people = people.into_iter().map(|(number, sender, rooms)| {
            let sender = sender.sliced(slices.clone());
            sender.work(schedule.pacer(number, senders), rooms).boxed()
        });
        let storms =
            storms.into_iter().map(|storm| storm.rage(slices.clone(), schedule.clone()).boxed());
        people.chain(storms).collect()
    });
    let acknowledged = acknowledged.await?.into_iter().flatten();
    let ledger = ledger(bench, &owner.account, &ids, acknowledged);
    let notes = slices.compare("sends in other rooms");
    survives(owner, &storm).await.map_err(LoadError::setup("sending in the stormy room"))?;
    Ok(Outcome { ledger: Some(ledger), verdict: None, notes })
}

/// A room in which the users of all played servers may do everything.
async fn stormy_room(owner: &Session, world: &World) -> Result<String, Failure> {
    let all = world.servers.iter().map(|server| server.identity().user());
    let mut users: serde_json::Map<_, _> = all.map(|user| (user, json!(100))).collect();
    users.insert(owner.account.user_id.clone(), json!(100));
    let body = json!({ "preset": "public_chat", "room_version": VERSION,
        "power_level_content_override": { "users": users } });
    owner.another().create(&body).await
}

/// Who lives in the room can still speak.
async fn survives(mut owner: Session, room: &str) -> Result<(), Failure> {
    let path =
        format!("{}/send/m.room.message/after-the-storm", Room::all(&[room.to_owned()])[0].path);
    owner.put(&path, &json!({ "msgtype": "m.text", "body": "after the storm" })).await.map(|_| ())
}

/// One line of history, with what allows its next event.
#[derive(Clone)]
struct Branch {
    place: Place,
    power_levels: OwnedEventId,
    member: OwnedEventId,
    levels: Object,
}

impl Branch {
    fn begin(member: &Member) -> Self {
        Self {
            place: member.place(),
            power_levels: member.power_levels.event_id().clone(),
            member: member.join.event_id().clone(),
            levels: member.power_levels.content().clone(),
        }
    }
}

/// One server that makes the room fork.
struct Storm {
    member: Member,
    /// Places that the target has acknowledged.
    branches: Vec<Branch>,
    meter: Arc<Meter>,
    series: Arc<Series>,
    length: u32,
    random: Rng,
    name: String,
    made: u64,
}

impl Storm {
    /// Sends nothing that is read back.
    async fn rage(mut self, slices: Arc<Slices>, schedule: Arc<Schedule>) -> Acknowledged {
        loop {
            let next = slices.next_storm(Instant::now());
            schedule.sleep_until(schedule.end().map_or(next, |end| next.min(end))).await;
            if schedule.ended(Instant::now()) {
                return Vec::new();
            }
            let due = Due { at: Instant::now(), counted: true };
            match self.fork().await {
                Ok(()) => self.series.done(due),
                Err(failure) => rest(&self.meter, &failure).await,
            }
        }
    }

    /// Goes on from anywhere with a branch of its own.
    async fn fork(&mut self) -> Result<(), Failure> {
        let from = self.random.usize(0..self.branches.len());
        let mut branch = self.branches[from].clone();
        let events = (0..self.length).map(|step| self.step(&mut branch, step));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        self.made += 1;
        let id = format!("{}-{}", self.name, self.made);
        let refused = self.member.transact(&id, &events).await?;
        if !refused.is_empty() {
            self.meter.failed(&Failure::RefusedEvent);
            return Ok(());
        }
        if self.branches.len() == BRANCHES {
            // The beginning stays: branches from it conflict with all others.
            let dropped = self.random.usize(1..BRANCHES);
            self.branches.swap_remove(dropped);
        }
        self.branches.push(branch);
        Ok(())
    }

    /// One state event: power levels first, since they make the others conflict in earnest.
    fn step(&mut self, branch: &mut Branch, step: u32) -> Result<Pdu, Failure> {
        let user = self.member.user_id.to_string();
        let drawn = self.random.u32(..);
        let (kind, key, content) = match step % 4 {
            0 => {
                let mut levels = branch.levels.clone();
                let level = Value::Integer(i64::from(drawn % 50));
                levels.insert("invite".to_owned(), level);
                ("m.room.power_levels", "", levels)
            }
            1 => ("m.room.topic", "", object(&json!({ "topic": format!("storm {drawn}") }))?),
            2 => {
                let name = format!("Storm {drawn}");
                let content = json!({ "membership": "join", "displayname": name });
                ("m.room.member", user.as_str(), object(&content)?)
            }
            _ => ("m.room.name", "", object(&json!({ "name": format!("Storm {drawn}") }))?),
        };
        let allowed_by = [branch.power_levels.clone(), branch.member.clone()];
        let event = self.member.event((kind, Some(key)), content, &branch.place, &allowed_by)?;
        branch.place = Place::behind(&event);
        match kind {
            "m.room.power_levels" => {
                branch.power_levels = event.event_id().clone();
                branch.levels = event.content().clone();
            }
            "m.room.member" => branch.member = event.event_id().clone(),
            _ => {}
        }
        Ok(event)
    }
}
