//! Syncing: what is new, at once or as soon as there is something.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#syncing>

mod request;

use std::{sync::Arc, time::Duration};

use parlour_actors::{
    Engine,
    budget::{Part, Share},
    env::Clock,
    notifier::{Feed, Feeds, News, Told},
    presence::{Presence, Syncing},
    users::Users,
};
use ruma::{UserId, api::client::sync::sync_events::v3::Response};
use tokio::sync::Semaphore;

use self::request::Request;
use super::{
    filters::{KnownFilters, SyncFilter},
    presence,
};
use crate::{
    error::ApiError,
    http::{Api, Aside, RouteOptions, Routes, Ruma},
    limits::RateClass,
    metrics::Metrics,
    server::{Boot, Shutdown},
    view::{
        SyncToken, View,
        sync::{self, Ask, Delivery, Syncs},
    },
};

/// How many answers are made at the same time. When a message wakes a thousand clients, the others
/// wait for their turn here instead of being refused: they are requests that were let in before.
const BUILDING: usize = 64;

/// What a client takes that waits: its place in the notifier and presence, what it asks for, and its
/// connection. `make memory` and `parlour load idle` measure it.
const SYNC_BYTES: u64 = 8 << 10;

/// How long a query and a filter are together with which that was measured. What is longer counts.
const USUAL_LENGTH: usize = 1 << 10;

/// A filter takes more when it is parsed.
const FILTER_COPIES: u64 = 4;

/// What clients are told to wait when there is no memory for them.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A client that has had no news for this long lets go of what its connection keeps in memory: it is
/// expected to wait much longer.
const BUSY: Duration = Duration::from_secs(1);

/// What `/sync` needs to know.
#[derive(Debug)]
pub struct SyncContext {
    view: View,
    syncs: Arc<Syncs>,
    users: Users,
    presence: Presence,
    feeds: Feeds,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    shutdown: Shutdown,
    /// How long a client may wait at most, whatever it asks for.
    max_wait: Duration,
    building: Semaphore,
    filters: KnownFilters,
    memory: Share,
}

/// Counts a parked sync for as long as it lives.
struct Parked<'a>(&'a Metrics);

impl SyncContext {
    /// What of the engine `/sync` works with.
    #[must_use]
    pub fn new(boot: &Boot, engine: &Engine, view: View, syncs: Arc<Syncs>) -> Self {
        Self {
            syncs,
            view,
            users: engine.users.clone(),
            presence: engine.presence.clone(),
            feeds: engine.feeds.clone(),
            clock: boot.env.clock.clone(),
            metrics: boot.metrics.clone(),
            shutdown: boot.shutdown.clone(),
            max_wait: boot.config.sync.max_wait,
            building: Semaphore::new(BUILDING),
            filters: KnownFilters::default(),
            memory: boot.budget.syncs.clone(),
        }
    }
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<SyncContext>) -> Routes {
    // A sync that has nothing to tell waits: it limits itself.
    let unlimited = RouteOptions::rate(RateClass::Unlimited).for_guests();
    Routes::new(Api::Client, context).route_with(unlimited, answer).finish()
}

/// `GET /_matrix/client/v3/sync`
///
/// Not an async function: the request is large, and would be kept while the client waits.
fn answer(
    context: Arc<SyncContext>,
    req: Ruma<Request>,
) -> impl Future<Output = Result<Response, ApiError>> {
    let wait = req.timeout.unwrap_or_default().min(context.max_wait);
    let aside = req.meta.aside.clone();
    let syncing = context.syncing(&req);
    let ask = context.ask(req).map(|(ask, place)| (Arc::new(ask), place));
    async move {
        let (ask, _place) = ask?;
        let _syncing = syncing?;
        context.follow(ask, wait, aside).await.map(|response| *response)
    }
}

impl SyncContext {
    /// Memory for one who syncs, until that is answered, by the length of query and filter.
    fn place(&self, length: usize) -> Result<Part, ApiError> {
        let unusual = length.saturating_sub(USUAL_LENGTH) as u64;
        self.memory.take(SYNC_BYTES + FILTER_COPIES * unusual).ok_or_else(|| {
            self.metrics.refused("memory_syncs");
            ApiError::limit_exceeded(RETRY_AFTER)
        })
    }

    /// Marks the user as online, or whatever the client wants it to be, for as long as it syncs.
    fn syncing(&self, req: &Ruma<Request>) -> Result<Option<Syncing>, ApiError> {
        let state = presence::state(&req.set_presence)?;
        let (user, device) = (req.caller.user_id.as_str(), req.caller.device_id.as_str());
        Ok(self.presence.syncs(user, device, state))
    }

    fn ask(&self, req: Ruma<Request>) -> Result<(Ask, Part), ApiError> {
        let Ruma { request, caller, meta, .. } = req;
        let since = request.since.as_deref().map(str::parse::<SyncToken>).transpose()?;
        let filter = self.filter(&caller.user_id, request.filter.as_deref())?;
        let place = self.place(meta.query.len() + filter.bytes)?;
        let ask = Ask {
            since,
            filter: filter.definition,
            relations: filter.relations,
            user: caller.user_id,
            device: caller.device_id,
            full_state: request.full_state,
            state_after: request.use_state_after,
        };
        Ok((ask, place))
    }

    fn filter(&self, user: &UserId, text: Option<&str>) -> Result<SyncFilter, ApiError> {
        match text {
            None => Ok(SyncFilter::default()),
            Some(json) if json.trim_start().starts_with('{') => {
                self.filters.get("", json, || SyncFilter::read(json.as_bytes()))
            }
            Some(id) => {
                self.filters.get(user.as_str(), id, || SyncFilter::stored(&self.users, user, id))
            }
        }
    }

    /// Answers as soon as there is something new, and at the latest after `wait`.
    async fn follow(
        &self,
        ask: Arc<Ask>,
        wait: Duration,
        aside: Aside,
    ) -> Result<Box<Response>, ApiError> {
        let deadline = self.clock.monotonic() + wait;
        self.acknowledge(&ask).await?;
        // What is known to have nothing new for the client.
        let mut seen = ask.since.filter(|since| !ask.full_state && since.inbox.is_none());
        let mut has_parked = false;
        loop {
            // Before the look: what happens after that look is told here.
            let feed = self.feeds.of(ask.user.as_str()).await.map_err(ApiError::unavailable)?;
            let now = self.syncs.now();
            feed.begin(news(&now));
            if ask.since.is_some_and(|since| since.pos > now.pos) {
                return Err(ApiError::invalid_param("The token since is of another server"));
            }
            // Who has just sent something may ask for it before the feed has it.
            let is_told = has_parked || self.feeds.told() >= now.pos;
            let told = seen.map_or(Told::Something, |seen| feed.since(news(&seen)));
            match (told, seen) {
                (Told::Nothing, Some(seen)) if self.park(&feed, seen, deadline, &aside).await => {
                    has_parked = true;
                    continue;
                }
                (Told::Arrivals(arrivals), Some(from)) if is_told => {
                    match self.syncs.deliver(&ask, from, &arrivals)? {
                        Delivery::Answer(response) => {
                            self.metrics.shared_deliveries.inc();
                            return Ok(response);
                        }
                        Delivery::Unwanted(until) => {
                            seen = Some(until);
                            continue;
                        }
                        Delivery::Unknown => {}
                    }
                }
                _ => {}
            }
            let is_last = self.shutdown.is_requested();
            if is_last {
                self.syncs.close();
            }
            let now = self.syncs.now();
            let response = self.build(&ask, now).await?;
            let is_at_once = ask.since.is_none() || ask.full_state;
            if is_at_once || is_last || !sync::is_empty(&response) {
                return Ok(response);
            }
            drop(response);
            let is_over = !self.park(&feed, now, deadline, &aside).await;
            if is_over && !self.shutdown.is_requested() {
                return Ok(Box::new(self.syncs.nothing(&ask, now)?));
            }
            (seen, has_parked) = (Some(now), true);
        }
    }

    /// Who comes with an answer's token has the messages that were in that answer.
    async fn acknowledge(&self, ask: &Ask) -> Result<(), ApiError> {
        let (user, device) = (ask.user.as_str(), ask.device.as_str());
        let Some(until) = ask.since.map(|since| since.messages_until()) else { return Ok(()) };
        if self.users.has_read(user, device, until)? {
            self.users.acknowledge(user, device, until).await?;
        }
        Ok(())
    }

    async fn build(&self, ask: &Arc<Ask>, now: SyncToken) -> Result<Box<Response>, ApiError> {
        let _turn = self.building.acquire().await.map_err(ApiError::unavailable)?;
        let (syncs, ask) = (self.syncs.clone(), ask.clone());
        self.view.run(move |_| syncs.build(&ask, now).map(Box::new)).await
    }

    /// Waits for something that `seen` does not have; `false` if it is time to answer without.
    async fn park(&self, feed: &Feed, seen: SyncToken, deadline: Duration, aside: &Aside) -> bool {
        let left = deadline.saturating_sub(self.clock.monotonic());
        if left.is_zero() || self.shutdown.is_requested() {
            return false;
        }
        let _parked = Parked::new(&self.metrics);
        let quiet = async {
            tokio::time::sleep(left.min(BUSY)).await;
            if left > BUSY {
                aside.ask();
                tokio::time::sleep(left - BUSY).await;
            }
        };
        let woken = tokio::select! {
            biased;
            () = feed.past(news(&seen), &self.feeds) => true,
            () = quiet => false,
            () = self.shutdown.requested() => false,
        };
        if woken {
            self.metrics.sync_wakeups.inc();
        }
        woken
    }
}

/// What somebody with this token has seen.
fn news(token: &SyncToken) -> News {
    News { pos: token.pos, typing: token.typing, presence: token.presence }
}

impl<'a> Parked<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.parked_syncs.inc();
        Self(metrics)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.parked_syncs.dec();
    }
}
