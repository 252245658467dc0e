//! `join-storm`: everybody joins the same rooms at once.

use std::collections::{BTreeMap, VecDeque};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Outcome;
use crate::{
    bench::Bench,
    error::{Failure, LoadError},
    record::Verdict,
    schedule::Plan,
    sender::rest,
    session::{Session, part},
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many users join.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// How many rooms each of them joins.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let count = options.users as usize;
    let mut users = bench.users(1 + count).await?;
    let mut owner = users.swap_remove(0);
    let rooms = bench.rooms(&owner, options.rooms as usize).await?;
    let (meter, series) = (bench.meter.clone(), bench.meter.series("join"));
    // It is over when all have joined. A warm-up would take away what is to be measured.
    let all = Some(u64::from(options.users) * u64::from(options.rooms));
    let plan = Plan { warm_up: std::time::Duration::ZERO, count: all, ..bench.plan.clone() };
    let joined = bench.measure(plan, |schedule| {
        let workers = users.into_iter().enumerate().map(|(number, mut user)| {
            let (meter, series) = (meter.clone(), series.clone());
            let (mut pacer, mut left) =
                (schedule.pacer(number, count), VecDeque::from(rooms.clone()));
            async move {
                let mut joined = Vec::new();
                while let Some(room) = left.pop_front() {
                    let Some(due) = pacer.due().await else { break };
                    let path = format!("/_matrix/client/v3/join/{}", part(&room));
                    match user.post::<Value>(&path, &json!({})).await {
                        Ok(_) => {
                            series.done(due);
                            joined.push((room, user.account.user_id.clone()));
                        }
                        Err(failure) => rest(&meter, &failure).await,
                    }
                }
                joined
            }
        });
        workers.collect()
    });
    let mut by_room: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (room, user) in joined.await?.into_iter().flatten() {
        by_room.entry(room).or_default().push(user);
    }
    let mut verdict = Verdict::about("members, by /joined_members");
    for (room, members) in by_room {
        let judged = judge(&mut owner, &room, &members).await;
        verdict = verdict.and(judged.map_err(LoadError::setup("reading the members back"))?);
    }
    Ok(Outcome { verdict: Some(verdict), ..Outcome::default() })
}

async fn judge(owner: &mut Session, room: &str, members: &[String]) -> Result<Verdict, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        joined: BTreeMap<String, Value>,
    }
    let path = format!("/_matrix/client/v3/rooms/{}/joined_members", part(room));
    let Answer { joined } = owner.look_up(&path).await?;
    let mut verdict = Verdict { checked: members.len() as u64, ..Verdict::default() };
    for member in members.iter().filter(|member| !joined.contains_key(*member)) {
        verdict.lost += 1;
        verdict.example(|| format!("{member} is not in {room}"));
    }
    Ok(verdict)
}
