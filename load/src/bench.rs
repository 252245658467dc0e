//! What scenarios have to work with: users, a schedule, and what measures.

use std::{
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    signal::ctrl_c,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    accounts::Accounts,
    console::Console,
    error::{Failure, LoadError},
    files,
    http::Endpoint,
    meter::{Mark, Meter},
    record::{Moment, Used},
    schedule::{Plan, Schedule},
    session::Session,
    stages::{self, Counted, Metrics, Stage},
};

/// Requests of a preparation that are made at once.
const AT_ONCE: usize = 16;

/// How often the run is looked at.
const TICK: Duration = Duration::from_secs(1);

/// What scenarios have to work with.
pub(crate) struct Bench {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) target: String,
    pub(crate) accounts: Accounts,
    pub(crate) plan: Plan,
    pub(crate) meter: Arc<Meter>,
    pub(crate) console: Console,
    /// Tells this run's users, rooms and messages from those of others.
    pub(crate) run: Arc<str>,
    /// The server's own metrics, if they are wanted.
    pub(crate) metrics: Option<Metrics>,
    /// What has been measured so far.
    pub(crate) measured: Measured,
}

/// What has been measured beside latencies.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) moments: Vec<Moment>,
    pub(crate) seconds: f64,
    pub(crate) missed: u64,
    pub(crate) server: Option<Used>,
    pub(crate) generator: Used,
    pub(crate) stages: Vec<Stage>,
}

impl Bench {
    /// So many users, each with a connection of its own.
    pub(crate) async fn users(&self, count: usize) -> Result<Vec<Session>, LoadError> {
        self.console.phase("registering users", count);
        let accounts = self.accounts.take(count, |done| self.console.reach(done)).await?;
        Ok(accounts.iter().map(|account| Session::of(&self.endpoint, account)).collect())
    }

    /// Sees to it that so many connections can be open at once.
    pub(crate) fn connections(&self, count: usize) -> Result<(), LoadError> {
        files::check(count, self.meter.processes())
    }

    /// Makes public rooms.
    pub(crate) async fn rooms(
        &self,
        owner: &Session,
        count: usize,
    ) -> Result<Vec<String>, LoadError> {
        const WHAT: &str = "creating rooms";
        let Some(bulk) = self.accounts.bulk() else {
            return self.create_each(WHAT, owner, count).await;
        };
        self.console.phase(WHAT, count);
        let rooms = match bulk.makes_rooms_of(&owner.account) {
            true => bulk.rooms(count, |done| self.console.reach(done)).await,
            false => self.create_each(WHAT, owner, count).await.map(Ok)?,
        };
        let rooms = rooms.map_err(LoadError::setup(WHAT))?;
        if bulk.crowd() > 0 {
            const WHAT: &str = "gathering crowds";
            self.console.phase(WHAT, bulk.crowd() * count);
            let gathered = bulk.gather(&rooms, |done| self.console.reach(done)).await;
            gathered.map_err(LoadError::setup(WHAT))?;
        }
        Ok(rooms)
    }

    async fn create_each(
        &self,
        what: &str,
        owner: &Session,
        count: usize,
    ) -> Result<Vec<String>, LoadError> {
        self.together(what, 0..count, |number| {
            let mut session = owner.another();
            async move { session.create_room(&format!("Room {number} of a load test")).await }
        })
        .await
    }

    /// Lets users join rooms.
    pub(crate) async fn join(
        &self,
        pairs: impl IntoIterator<Item = (&Session, &String)>,
    ) -> Result<(), LoadError> {
        const WHAT: &str = "joining rooms";
        if let Some(bulk) = self.accounts.bulk() {
            let pairs =
                pairs.into_iter().map(|(user, id)| (user.account.user_id.clone(), id.clone()));
            let pairs: Vec<_> = pairs.collect();
            self.console.phase(WHAT, pairs.len());
            let joined = bulk.join(pairs, |done| self.console.reach(done)).await;
            return joined.map_err(LoadError::setup(WHAT));
        }
        let pairs = pairs.into_iter().map(|(user, room)| (user.another(), room.clone()));
        let joined =
            self.together(WHAT, pairs, |(mut user, room)| async move { user.join(&room).await });
        joined.await.map(|_| ())
    }

    /// Does something of a preparation for all of these, some at once; in their order.
    pub(crate) async fn together<I, T, F>(
        &self,
        what: &str,
        items: impl IntoIterator<Item = I>,
        work: impl Fn(I) -> F,
    ) -> Result<Vec<T>, LoadError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let items: Vec<I> = items.into_iter().collect();
        self.console.phase(what, items.len());
        let work = stream::iter(items).map(work).buffered(AT_ONCE);
        work.inspect_ok(|_| self.console.step()).try_collect().await.map_err(LoadError::setup(what))
    }

    /// Runs workers until all have ended, and measures meanwhile.
    pub(crate) async fn measure<T, F>(
        &mut self,
        plan: Plan,
        workers: impl FnOnce(&Arc<Schedule>) -> Vec<F>,
    ) -> Result<Vec<T>, LoadError>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let schedule = Schedule::begin(plan);
        let mut tasks = JoinSet::new();
        for worker in workers(&schedule) {
            tasks.spawn(worker);
        }
        let begun = Instant::now();
        let mut watch = Watch { begun, last: begun, first: None, stages: None, peak: 0 };
        self.console.race();
        let mut tick = interval_at(begun + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warm = pin!(tokio::time::sleep_until(schedule.measured_from()));
        let mut interrupted = pin!(heed_interrupt(&schedule));
        let mut results = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = &mut warm, if watch.first.is_none() => {
                    watch.stages = self.stages().await;
                    watch.first = Some(Mark::now(&self.meter));
                }
                () = &mut interrupted => {}
                _ = tick.tick() => self.look(&schedule, &mut watch),
                ended = tasks.join_next() => match ended {
                    Some(Ok(result)) => results.push(result),
                    Some(Err(error)) => return Err(LoadError::Broken(error.to_string())),
                    None => break,
                },
            }
        }
        // A rate over a few milliseconds says nothing.
        if watch.last.elapsed() > TICK / 5 || watch.last == begun {
            self.look(&schedule, &mut watch);
        }
        self.close(&schedule, &watch);
        if let Some((before, after)) = watch.stages.zip(self.stages().await) {
            self.measured.stages = stages::between(&before, &after);
        }
        Ok(results)
    }

    /// What the server has counted so far; nothing if it does not tell.
    async fn stages(&self) -> Option<Counted> {
        self.metrics.as_ref()?.read().await.ok()
    }

    fn look(&mut self, schedule: &Schedule, watch: &mut Watch) {
        let now = Instant::now();
        // What began in the warm-up belongs to it.
        let warming_up = watch.last < schedule.measured_from();
        let moment = self.meter.look(now - watch.begun, now - watch.last, warming_up);
        watch.last = now;
        watch.peak = watch.peak.max(moment.server.map_or(0, |used| used.rss));
        self.console.show(schedule.progress(), &moment);
        self.measured.moments.push(moment);
    }

    fn close(&mut self, schedule: &Schedule, watch: &Watch) {
        let after = Mark::now(&self.meter);
        let before = watch.first.unwrap_or(after);
        let seconds = (after.at - before.at).as_secs_f64();
        let used = |before, after, peak| Used::between(before, after, peak, seconds);
        let measured = &mut self.measured;
        measured.seconds = seconds;
        measured.missed = schedule.missed();
        let server = before.server.zip(after.server);
        measured.server = server.map(|(before, after)| used(before, after, watch.peak));
        measured.generator = used(before.generator, after.generator, 0);
    }
}

/// Ends the schedule at the first Ctrl-C: what was done by then is reported all the same. Never
/// done itself.
async fn heed_interrupt(schedule: &Schedule) {
    if ctrl_c().await.is_ok() {
        schedule.stop();
    }
    pending().await
}

/// Where a run is.
struct Watch {
    begun: Instant,
    /// When it was last looked at.
    last: Instant,
    /// What had been used when the warm-up was over.
    first: Option<Mark>,
    /// What the server had counted then.
    stages: Option<Counted>,
    /// The most memory that the server was seen to have.
    peak: u64,
}
