//! Users, rooms, members and messages in bulk.

use std::{sync::Arc, time::Duration};

use actix_web::http::Method;
use parlour_actors::bulk::{self, BulkOrder, Count, Founding, Job, JobState};
use parlour_event::RoomVersion;
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::TestContext;
use crate::{
    admin::request::{AdminRequest, AdminRoutes, Answer},
    client::{accounts::check_password, create_room::public::public_room},
    error::ApiError,
};

const JOBS: &str = "/_parlour/test/v1/bulk";
const JOB: &str = "/_parlour/test/v1/bulk/{job_id}";

/// The most of anything that one job makes.
const MAX_COUNT: u64 = 1_000_000_000;

/// How many users can enter rooms that are there.
const MAX_JOINS: usize = 100_000;

/// What user names begin with if nobody says.
const PREFIX: &str = "bulk";

/// When somebody may come again who finds too many jobs.
const LATER: Duration = Duration::from_secs(5);

pub(super) fn add(routes: AdminRoutes<Arc<TestContext>>) -> AdminRoutes<Arc<TestContext>> {
    routes.on(Method::POST, JOBS, begin).on(Method::GET, JOB, show).on(Method::DELETE, JOB, cancel)
}

/// See [`BulkOrder`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    prefix: Option<String>,
    #[serde(default)]
    users: u64,
    password: Option<String>,
    #[serde(default)]
    rooms: u64,
    #[serde(default)]
    members: u64,
    #[serde(default)]
    messages: u64,
    room_version: Option<RoomVersionId>,
    #[serde(default)]
    published: bool,
    #[serde(default)]
    joins: Vec<Joins>,
    run: Option<String>,
    seed: Option<u64>,
}

/// See [`bulk::Joins`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Joins {
    room_id: OwnedRoomId,
    users: Vec<OwnedUserId>,
    #[serde(default)]
    messages: u64,
}

/// `POST /_parlour/test/v1/bulk`
async fn begin(context: Arc<TestContext>, request: AdminRequest) -> Answer {
    let order: Order = request.parameters()?;
    order.check_counts()?;
    context.check_joins(&order.joins)?;
    let prefix = context.prefix(&order)?;
    let found = context.founding(&order, prefix.clone())?;
    let password_hash = match order.password {
        Some(password) => {
            check_password(&password)?;
            Some(context.accounts.passwords.hash(password).await?)
        }
        None => None,
    };
    let mut drawn = [0; 8];
    context.accounts.env.entropy.fill(&mut drawn);
    let order = BulkOrder {
        prefix,
        users: order.users,
        password_hash,
        rooms: order.rooms,
        members: order.members,
        messages: order.messages,
        found,
        joins: order.joins.into_iter().map(Joins::into).collect(),
        run: order.run,
        seed: order.seed.unwrap_or(u64::from_le_bytes(drawn)),
    };
    let job = context.bulk.start(order).map_err(|_| ApiError::limit_exceeded(LATER))?;
    Ok(json!({ "job_id": job.id }))
}

/// `GET /_parlour/test/v1/bulk/{jobId}`
async fn show(context: Arc<TestContext>, request: AdminRequest) -> Answer {
    Ok(context.shown(&*context.job(request.arg(0))?))
}

/// `DELETE /_parlour/test/v1/bulk/{jobId}`: what is made by then stays.
async fn cancel(context: Arc<TestContext>, request: AdminRequest) -> Answer {
    let job = context.job(request.arg(0))?;
    context.bulk.cancel(&job).await;
    Ok(context.shown(&job))
}

impl From<Joins> for bulk::Joins {
    fn from(Joins { room_id: room, users, messages }: Joins) -> Self {
        Self { room, users, messages }
    }
}

impl Order {
    fn check_counts(&self) -> Result<(), ApiError> {
        let wrong = |message: &str| Err(ApiError::invalid_param(message));
        let Self { users, rooms, members, messages, .. } = *self;
        let products = [Some(users), rooms.checked_mul(members), rooms.checked_mul(messages)];
        if products.iter().any(|count| count.is_none_or(|count| count > MAX_COUNT)) {
            return wrong("There can be 1,000,000,000 users, members and messages at most");
        }
        if rooms > 0 && !(1..=users).contains(&members) {
            return wrong("`members` of each room must be 1 at least, and no more than `users`");
        }
        if rooms == 0 && (members > 0 || messages > 0) {
            return wrong("`members` and `messages` are those of each of `rooms`, which are none");
        }
        Ok(())
    }
}

impl TestContext {
    fn job(&self, id: &str) -> Result<Arc<Job>, ApiError> {
        let unknown = || ApiError::not_found(format!("There is no job `{id}`, or no more"));
        self.bulk.job(id).ok_or_else(unknown)
    }

    /// What user names begin with: the name with the largest number must be one.
    fn prefix(&self, order: &Order) -> Result<String, ApiError> {
        let prefix = order.prefix.as_deref().unwrap_or(PREFIX);
        let longest = format!("{prefix}-{}", order.users);
        let user = self.accounts.user_id(&longest)?;
        match user.localpart() == longest {
            true => Ok(prefix.to_owned()),
            false => Err(ApiError::invalid_param("`prefix` has capital letters")),
        }
    }

    fn founding(&self, order: &Order, prefix: String) -> Result<Founding, ApiError> {
        let version = match &order.room_version {
            Some(id) => RoomVersion::get(id).ok_or_else(|| {
                ApiError::invalid_param(format!("This server does not support room version {id}"))
            })?,
            None => self.room_version,
        };
        let published = order.published;
        Ok(Box::new(move |number, creator, account| {
            let name = format!("Room {number} of {prefix}");
            let mut room = public_room(version, creator, account, &name);
            room.published = published;
            room
        }))
    }

    fn check_joins(&self, joins: &[Joins]) -> Result<(), ApiError> {
        let users: usize = joins.iter().map(|joins| joins.users.len()).sum();
        let said = joins.iter().try_fold(0, |sum: u64, joins| sum.checked_add(joins.messages));
        if said.is_none_or(|said| said > MAX_COUNT) {
            return Err(ApiError::invalid_param("There can be 1,000,000,000 messages at most"));
        }
        if joins.iter().any(|joins| joins.users.is_empty() && joins.messages > 0) {
            return Err(ApiError::invalid_param("`messages` in a room are those of its `users`"));
        }
        if users > MAX_JOINS {
            let message = format!("At most {MAX_JOINS} users can enter rooms that are there");
            return Err(ApiError::invalid_param(message));
        }
        for Joins { room_id, .. } in joins {
            if self.view.room(room_id)?.is_none() {
                return Err(ApiError::not_found(format!("The room {room_id} is not known here")));
            }
        }
        Ok(())
    }

    fn shown(&self, job: &Job) -> Value {
        let state = job.state();
        let count = |count: &Count| json!({ "done": count.done(), "wanted": count.wanted() });
        let mut shown = json!({
            "job_id": job.id,
            "status": match &state {
                JobState::Active => "active",
                JobState::Complete => "complete",
                JobState::Cancelled => "cancelled",
                JobState::Failed(_) => "failed",
            },
            "took_ms": u64::try_from(self.bulk.took(job).as_millis()).unwrap_or(u64::MAX),
            "users": count(&job.users),
            "rooms": count(&job.rooms),
            "members": count(&job.members),
            "messages": count(&job.messages),
            "refused": job.refused.done(),
            "room_ids": job.made(),
        });
        if let JobState::Failed(why) = state {
            shown["error"] = why.into();
        }
        if let Some(why) = job.refusal() {
            shown["first_refusal"] = why.into();
        }
        shown
    }
}
