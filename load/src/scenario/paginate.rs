//! `paginate`: users page through a room's history.

use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http::Method;
use serde::Serialize;

use super::{Outcome, history};
use crate::{
    bench::Bench,
    error::LoadError,
    message::{Event, Page},
    meter::{Meter, Series},
    record::Verdict,
    schedule::Pacer,
    sender::rest,
    session::{Session, messages_path, read},
    verify::{RoomLedger, compare},
};

/// What can be said about it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// How many users page at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// How many messages the room has.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// How many events are asked for at once.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    page: u32,
}

pub(crate) async fn run(bench: &mut Bench, options: &Options) -> Result<Outcome, LoadError> {
    let count = options.users as usize;
    let mut users = bench.users(1 + count).await?;
    let owner = users.swap_remove(0);
    let ids = bench.rooms(&owner, 1).await?;
    bench.join(users.iter().map(|user| (user, &ids[0]))).await?;
    let ledger = history::fill(bench, &owner, &ids, options.messages.into()).await?;
    let (meter, series) = (bench.meter.clone(), bench.meter.series("page"));
    let room = Arc::new(ledger.rooms[0].clone());
    let verdicts = bench.measure(bench.plan.clone(), |schedule| {
        let readers = users.into_iter().enumerate().map(|(number, user)| {
            let (meter, series, room) = (meter.clone(), series.clone(), room.clone());
            let run = ledger.run.clone();
            let reader = Reader { user, meter, series, room, run, page: options.page };
            reader.work(schedule.pacer(number, count))
        });
        readers.collect()
    });
    let about = Verdict::about("messages, in walks through the whole history");
    let verdict = verdicts.await?.into_iter().fold(about, Verdict::and);
    Ok(Outcome { verdict: Some(verdict), ..Outcome::default() })
}

/// Somebody who reads the room again and again.
struct Reader {
    user: Session,
    meter: Arc<Meter>,
    series: Arc<Series>,
    room: Arc<RoomLedger>,
    run: String,
    page: u32,
}

impl Reader {
    async fn work(mut self, mut pacer: Pacer) -> Verdict {
        let (mut verdict, mut from) = (Verdict::default(), String::new());
        let mut walk: Vec<Event> = Vec::new();
        while let Some(due) = pacer.due().await {
            let path = messages_path(&self.room.room_id, 'b', self.page, &from);
            let answer = self.user.ask(Method::GET, &path, Bytes::new(), Default::default()).await;
            let done = answer.inspect(|_| self.series.done(due));
            match done.and_then(|body| read::<Page>(&body)) {
                Err(failure) => rest(&self.meter, &failure).await,
                Ok(page) => {
                    walk.extend(page.chunk);
                    from = page.end.unwrap_or_default();
                    if from.is_empty() {
                        walk.reverse();
                        verdict = verdict.and(compare(&self.run, &self.room, &walk));
                        walk.clear();
                    }
                }
            }
        }
        verdict
    }
}
