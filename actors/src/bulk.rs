//! Users, rooms, members and history in bulk: what load tests begin with, in seconds and not in
//! hours. Everything goes the way that it goes when people do it, many at once: accounts through the
//! actors that serialise users' changes, events through their room, which builds, judges and signs
//! each of them.
//!
//! A job is nothing durable: what it has made by the time the server stops is there, and whole; it
//! does not go on. The same order again makes the accounts that are missing, and further rooms.

mod text;
mod work;

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parlour_storage::schema::User;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use tokio::sync::watch;

use crate::{
    env::Env,
    registry::{NewRoom, Rooms},
    users::Users,
};

/// How many jobs may be under way.
const MAX_RUNNING: usize = 4;

/// How many jobs are remembered, the finished ones included.
const MAX_JOBS: usize = 100;

/// How many rooms a job tells the ids of.
const MAX_TOLD: usize = 1_000;

/// Length of a job's id.
const ID_LEN: usize = 16;

/// Works out a new room from its number in the job, its creator and the creator's account.
pub type Founding = Box<dyn Fn(u64, &UserId, &User) -> NewRoom + Send + Sync>;

/// What is to be made.
pub struct BulkOrder {
    /// What user names begin with; a hyphen and a number from 0 follow.
    pub prefix: String,
    /// How many users of this name there are to be. Those that are there already stay as they are.
    pub users: u64,
    /// The password of those that are made; without one nobody can log in by a password.
    pub password_hash: Option<String>,
    /// How many rooms are made.
    pub rooms: u64,
    /// How many of the users are in each room, at most all of them: the first ones in the first
    /// room, the next ones in the next, and so on, round and round. The first of them makes it.
    pub members: u64,
    /// How many messages there are in each room, of members drawn by lot.
    pub messages: u64,
    /// How a room begins.
    pub found: Founding,
    /// Users who enter rooms that are there.
    pub joins: Vec<Joins>,
    /// A load test that knows its messages by this.
    pub run: Option<String>,
    /// What lots and texts are drawn from.
    pub seed: u64,
}

/// Users who enter a room that is there, and what they say then.
#[derive(Debug, Clone)]
pub struct Joins {
    /// The room.
    pub room: OwnedRoomId,
    /// Who enters it; who is in it already stays.
    pub users: Vec<OwnedUserId>,
    /// How many messages there are of these users, drawn by lot.
    pub messages: u64,
}

impl fmt::Debug for BulkOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, users, rooms, members, messages, .. } = self;
        write!(f, "BulkOrder({prefix}, {users} users, {rooms} rooms, {members}, {messages})")
    }
}

/// Something that is counted while it is made.
#[derive(Debug, Default)]
pub struct Count {
    wanted: u64,
    done: AtomicU64,
}

impl Count {
    fn of(wanted: u64) -> Self {
        Self { wanted, done: AtomicU64::new(0) }
    }

    fn add(&self, more: usize) {
        self.done.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// How many there are to be.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// How many there are, durable and readable.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It is under way.
    Active,
    /// All is made, but for what rooms have refused.
    Complete,
    /// Somebody has ended it, or the server stops.
    Cancelled,
    /// It could not go on.
    Failed(String),
}

/// A job, under way or not.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Accounts, those included that were there.
    pub users: Count,
    /// Rooms.
    pub rooms: Count,
    /// Memberships, those of the rooms' creators included.
    pub members: Count,
    /// Messages.
    pub messages: Count,
    /// Events that rooms have refused.
    pub refused: Count,
    /// Why the first of them was refused.
    refusal: Mutex<Option<String>>,
    made: Mutex<Vec<OwnedRoomId>>,
    is_cancelled: AtomicBool,
    began: Duration,
    /// With the time at which it came to that, on the monotonic clock.
    state: watch::Sender<(JobState, Option<Duration>)>,
}

impl Job {
    fn of(order: &BulkOrder, id: String, began: Duration) -> Self {
        let joining: usize = order.joins.iter().map(|joins| joins.users.len()).sum();
        let said: u64 = order.joins.iter().map(|joins| joins.messages).sum();
        Self {
            id,
            users: Count::of(order.users),
            rooms: Count::of(order.rooms),
            members: Count::of(order.rooms * order.members + joining as u64),
            messages: Count::of(order.rooms * order.messages + said),
            refused: Count::default(),
            refusal: Mutex::default(),
            made: Mutex::default(),
            is_cancelled: AtomicBool::new(false),
            began,
            state: watch::Sender::new((JobState::Active, None)),
        }
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> JobState {
        self.state.borrow().0.clone()
    }

    /// The first rooms that it has made, at most a thousand.
    #[must_use]
    pub fn made(&self) -> Vec<OwnedRoomId> {
        lock(&self.made).clone()
    }

    /// Why the first event was refused that was.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        lock(&self.refusal).clone()
    }

    fn refuse(&self, why: impl ToString) {
        self.refused.add(1);
        lock(&self.refusal).get_or_insert_with(|| why.to_string());
    }

    fn has_made(&self, room: &OwnedRoomId) {
        self.rooms.add(1);
        let mut made = lock(&self.made);
        if made.len() < MAX_TOLD {
            made.push(room.clone());
        }
    }

    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits until it is over.
    pub async fn over(&self) {
        // The sender is here.
        let _ = self.state.subscribe().wait_for(|(state, _)| *state != JobState::Active).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Too many jobs are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_RUNNING} jobs are under way already")]
pub struct TooManyJobs;

/// Makes data in bulk. Clones are the same.
#[derive(Debug, Clone)]
pub struct Bulk {
    parts: Parts,
    /// The newest last.
    jobs: Arc<Mutex<VecDeque<Arc<Job>>>>,
}

/// What it works with.
#[derive(Debug, Clone)]
struct Parts {
    rooms: Rooms,
    users: Users,
    server_name: OwnedServerName,
    env: Env,
}

impl Bulk {
    /// For this server.
    #[must_use]
    pub fn new(rooms: Rooms, users: Users, server_name: OwnedServerName, env: Env) -> Self {
        Self { parts: Parts { rooms, users, server_name, env }, jobs: Arc::default() }
    }

    /// Begins a job.
    ///
    /// # Errors
    ///
    /// [`TooManyJobs`]
    pub fn start(&self, order: BulkOrder) -> Result<Arc<Job>, TooManyJobs> {
        let env = &self.parts.env;
        let job = Job::of(&order, env.random_string(ID_LEN), env.clock.monotonic());
        let job = Arc::new(job);
        {
            let mut jobs = lock(&self.jobs);
            let is_active = |job: &&Arc<Job>| job.state() == JobState::Active;
            if jobs.iter().filter(is_active).count() >= MAX_RUNNING {
                return Err(TooManyJobs);
            }
            if jobs.len() >= MAX_JOBS
                && let Some(oldest) = jobs.iter().position(|job| !is_active(&job))
            {
                jobs.remove(oldest);
            }
            jobs.push_back(job.clone());
        }
        let work = work::Work { parts: self.parts.clone(), job: job.clone(), order };
        self.parts.users.spawn(work.run());
        Ok(job)
    }

    /// A job that is remembered.
    #[must_use]
    pub fn job(&self, id: &str) -> Option<Arc<Job>> {
        lock(&self.jobs).iter().find(|job| job.id == id).cloned()
    }

    /// How long a job has taken, or takes already.
    #[must_use]
    pub fn took(&self, job: &Job) -> Duration {
        let ended = job.state.borrow().1;
        ended.unwrap_or_else(|| self.parts.env.clock.monotonic()).saturating_sub(job.began)
    }

    /// Ends a job, and waits for what is under way of it: it is there, or isn't.
    pub async fn cancel(&self, job: &Job) {
        job.cancel();
        job.over().await;
    }

    /// Ends all jobs. Must be called before what they work with is stopped.
    pub async fn stop(&self) {
        let jobs: Vec<_> = lock(&self.jobs).iter().cloned().collect();
        jobs.iter().for_each(|job| job.cancel());
        for job in jobs {
            job.over().await;
        }
    }
}
