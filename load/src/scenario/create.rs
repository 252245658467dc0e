//! `create`: users create rooms.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Outcome;
use crate::{
    bench::Bench,
    error::{Failure, LoadError},
    record::Verdict,
    schedule::Pacer,
    sender::rest,
    session::Session,
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many users create rooms; each waits for the answer before the next one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Private rooms in place of public ones.
    #[arg(long)]
    private: bool,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let count = options.users as usize;
    let users = bench.users(count).await?;
    let preset = if options.private { "private_chat" } else { "public_chat" };
    let (meter, series) = (bench.meter.clone(), bench.meter.series("create"));
    let made = bench.measure(bench.plan.clone(), |schedule| {
        let workers = users.into_iter().enumerate().map(|(number, mut user)| {
            let (meter, series) = (meter.clone(), series.clone());
            let mut pacer: Pacer = schedule.pacer(number, count);
            async move {
                let mut rooms = Vec::new();
                while let Some(due) = pacer.due().await {
                    let body = json!({ "preset": preset, "name": format!("Room {}", rooms.len()) });
                    match user.post::<Created>("/_matrix/client/v3/createRoom", &body).await {
                        Ok(Created { room_id }) => {
                            series.done(due);
                            rooms.push(room_id);
                        }
                        Err(failure) => rest(&meter, &failure).await,
                    }
                }
                (user, rooms)
            }
        });
        workers.collect()
    });
    let mut verdict = Verdict::about("rooms, by /joined_rooms");
    for (mut user, rooms) in made.await? {
        let judged = judge(&mut user, &rooms).await;
        verdict = verdict.and(judged.map_err(LoadError::setup("reading the rooms back"))?);
    }
    Ok(Outcome { verdict: Some(verdict), ..Outcome::default() })
}

#[derive(Deserialize)]
struct Created {
    room_id: String,
}

/// Whether the creator is in each room that was made, and each is another one.
async fn judge(user: &mut Session, made: &[String]) -> Result<Verdict, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        joined_rooms: Vec<String>,
    }
    let answer: Answer = user.look_up("/_matrix/client/v3/joined_rooms").await?;
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    made.iter().for_each(|room| *times.entry(room).or_default() += 1);
    let joined: std::collections::BTreeSet<_> =
        answer.joined_rooms.iter().map(String::as_str).collect();
    let mut verdict = Verdict { checked: made.len() as u64, ..Verdict::default() };
    for (room, times) in times {
        verdict.doubled += times - 1;
        if !joined.contains(room) {
            verdict.lost += 1;
            verdict.example(|| format!("{room} is not there"));
        }
    }
    Ok(verdict)
}
