//! What a scenario begins with, made in bulk by a Parlour in test mode: seconds in place of hours.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    accounts::by_secret,
    error::{Failure, LoadError},
    http::Endpoint,
    session::{Account, Session, part},
};

const JOBS: &str = "/_parlour/test/v1/bulk";

/// How often it is asked how far a job is.
const TICK: Duration = Duration::from_millis(50);

/// How many users enter rooms with one job: their names fit in one request.
const JOINS: usize = 50_000;

/// How many rooms are filled with messages by one job.
const FILLED: usize = 1_000;

/// How many rooms are made with one job: it tells the ids of no more.
const ROOMS: usize = 1_000;

/// How many users are logged in with one request, and how many requests are made at once.
const LOGINS: (usize, usize) = (500, 4);

/// Whose orders the server takes.
#[derive(Debug, Clone)]
pub(crate) enum Administrator {
    /// With this access token.
    Token(String),
    /// One that is made with the secret that administrators share with the server.
    Secret(String),
}

/// What is wanted of it, for `--bulk`.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) administrator: Option<Administrator>,
    /// How many further members each room has.
    pub(crate) crowd: usize,
}

/// Makes users, rooms and members.
pub(crate) struct Bulk {
    endpoint: Arc<Endpoint>,
    administrator: Account,
    /// What the names of users begin with.
    prefix: String,
    crowd: usize,
}

/// How far a job is.
#[derive(Deserialize)]
struct Job {
    status: String,
    error: Option<String>,
    users: Count,
    rooms: Count,
    members: Count,
    messages: Count,
    refused: u64,
    first_refusal: Option<String>,
    room_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Count {
    done: usize,
}

impl Bulk {
    /// Finds somebody who may give orders.
    pub(crate) async fn open(
        endpoint: &Arc<Endpoint>,
        Wish { administrator, crowd }: Wish,
        prefix: &str,
    ) -> Result<Self, LoadError> {
        let administrator = administrator.ok_or_else(|| {
            LoadError::Usage(
                "--bulk needs --shared-secret, or --admin-token with an administrator's".to_owned(),
            )
        })?;
        let found = match administrator {
            Administrator::Token(access_token) => {
                #[derive(Deserialize)]
                struct Who {
                    user_id: String,
                }
                let unnamed = Account { user_id: String::new(), access_token };
                let mut session = Session::of(endpoint, &unnamed);
                let who = session.get::<Who>("/_matrix/client/v3/account/whoami").await;
                who.map(|Who { user_id }| Account { user_id, ..unnamed })
            }
            Administrator::Secret(secret) => {
                let mut nobody = Session::nobody(endpoint);
                let (name, password) = (format!("{prefix}-root"), fastrand::u128(..).to_string());
                by_secret(&mut nobody, (&name, &password), true, &secret).await
            }
        };
        let administrator = found.map_err(LoadError::setup("finding an administrator"))?;
        let (endpoint, prefix) = (endpoint.clone(), prefix.to_owned());
        Ok(Self { endpoint, administrator, prefix, crowd })
    }

    /// Has a job done.
    async fn order(&self, order: &Value, told: impl Fn(&Job)) -> Result<Job, Failure> {
        #[derive(Deserialize)]
        struct Begun {
            job_id: String,
        }
        let mut session = Session::of(&self.endpoint, &self.administrator);
        let Begun { job_id } = session.prepare(JOBS, order).await.map_err(explained)?;
        let path = format!("{JOBS}/{}", part(&job_id));
        loop {
            let job: Job = session.look_up(&path).await?;
            told(&job);
            match job.status.as_str() {
                "active" => sleep(TICK).await,
                "complete" if job.refused == 0 => return Ok(job),
                status => {
                    let why = job.error.or(job.first_refusal).unwrap_or_default();
                    return Err(Failure::Nonsense(format!("the job is {status}: {why}")));
                }
            }
        }
    }

    fn user_id(&self, prefix: &str, number: usize) -> String {
        let server = self.administrator.user_id.split_once(':').map_or("", |(_, server)| server);
        format!("@{prefix}-{number}:{server}")
    }

    /// Users of these numbers, logged in.
    pub(crate) async fn users(
        &self,
        numbers: Range<usize>,
        reached: impl Fn(usize),
    ) -> Result<Vec<Account>, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            logins: Vec<Account>,
        }
        let order = json!({ "prefix": self.prefix, "users": numbers.end });
        self.order(&order, |_| ()).await?;
        let ids: Vec<_> = numbers.map(|number| self.user_id(&self.prefix, number)).collect();
        let (size, at_once) = LOGINS;
        let requests: Vec<_> = ids.chunks(size).map(|ids| json!({ "users": ids })).collect();
        let logins = stream::iter(requests).map(async |request| {
            let mut session = Session::of(&self.endpoint, &self.administrator);
            session.prepare::<Answer>("/_parlour/test/v1/logins", &request).await
        });
        let mut logins = logins.buffered(at_once);
        let mut accounts = Vec::new();
        while let Some(Answer { logins }) = logins.try_next().await? {
            accounts.extend(logins);
            reached(accounts.len());
        }
        Ok(accounts)
    }

    /// Whether this is the user by whom it makes rooms.
    pub(crate) fn makes_rooms_of(&self, owner: &Account) -> bool {
        owner.user_id == self.user_id(&self.prefix, 0)
    }

    /// Public rooms of the first user.
    pub(crate) async fn rooms(
        &self,
        count: usize,
        reached: impl Fn(usize),
    ) -> Result<Vec<String>, Failure> {
        let mut rooms = Vec::new();
        while rooms.len() < count {
            let some = ROOMS.min(count - rooms.len());
            let order = json!({ "prefix": self.prefix, "users": 1, "rooms": some, "members": 1 });
            let made = self.order(&order, |job| reached(rooms.len() + job.rooms.done)).await?;
            rooms.extend(made.room_ids);
        }
        Ok(rooms)
    }

    /// How many members rooms have who do nothing.
    pub(crate) fn crowd(&self) -> usize {
        self.crowd
    }

    /// Has the crowd enter rooms.
    pub(crate) async fn gather(
        &self,
        rooms: &[String],
        reached: impl Fn(usize),
    ) -> Result<(), Failure> {
        let prefix = format!("{}-crowd", self.prefix);
        let order = json!({ "prefix": prefix, "users": self.crowd });
        self.order(&order, |job| reached(job.users.done)).await?;
        let crowd = || (0..self.crowd).map(|number| self.user_id(&prefix, number));
        let pairs = rooms.iter().flat_map(|room| crowd().map(move |user| (user, room.clone())));
        self.join(pairs, reached).await
    }

    /// Has users enter rooms.
    pub(crate) async fn join(
        &self,
        pairs: impl IntoIterator<Item = (String, String)>,
        reached: impl Fn(usize),
    ) -> Result<(), Failure> {
        let mut pairs = pairs.into_iter().peekable();
        let mut joined = 0;
        while pairs.peek().is_some() {
            let mut by_room: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (user, room) in pairs.by_ref().take(JOINS) {
                by_room.entry(room).or_default().push(user);
            }
            let joins = by_room.iter().map(|(id, users)| json!({ "room_id": id, "users": users }));
            let order = json!({ "joins": joins.collect::<Vec<_>>() });
            let job = self.order(&order, |job| reached(joined + job.members.done)).await?;
            joined += job.members.done;
        }
        Ok(())
    }

    /// Has a user of rooms say so many messages in each of them, which this run knows again.
    pub(crate) async fn fill(
        &self,
        (user, run): (&Account, &str),
        rooms: &[String],
        messages: u64,
        reached: impl Fn(usize),
    ) -> Result<(), Failure> {
        let mut written = 0;
        for some in rooms.chunks(FILLED) {
            let joins = some
                .iter()
                .map(|id| json!({ "room_id": id, "users": [user.user_id], "messages": messages }));
            let order = json!({ "joins": joins.collect::<Vec<_>>(), "run": run });
            let job = self.order(&order, |job| reached(written + job.messages.done)).await?;
            written += job.messages.done;
        }
        Ok(())
    }
}

/// Says what to do about a server that does not know of jobs.
fn explained(failure: Failure) -> Failure {
    match failure {
        Failure::Refused { status: 404, .. } => Failure::Nonsense(
            "--bulk is for a Parlour in test mode (parlour serve --test-mode), whose listener at \
             --target has the admin API"
                .to_owned(),
        ),
        other => other,
    }
}
