//! Stored filters.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::sync::Arc;

use bytes::Bytes;
use parlour_actors::users::Users;
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    UserId,
    api::client::filter::{EventFormat, FilterDefinition, create_filter, get_filter},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::ApiError,
    http::{Answering, Api, Caller, Json, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::RelationFilter,
};

/// The largest filter, in bytes.
const MAX_FILTER: usize = 65_536;

/// How many bytes of filters are remembered.
const MAX_KNOWN: u64 = 2 << 20;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct FilterContext {
    /// Where filters are kept.
    pub users: Users,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<FilterContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_FILTER);
    Routes::new(Api::Client, context).route_with(options, create).route(get).finish()
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
async fn create(
    context: Arc<FilterContext>,
    req: Ruma<create_filter::v3::Request>,
) -> Result<create_filter::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let filter = SyncFilter::read(&req.meta.body)?.to_json()?;
    let id = context.users.add_filter(req.user_id.as_str(), filter).await?;
    Ok(create_filter::v3::Response::new(id))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
async fn get(
    context: Arc<FilterContext>,
    req: Ruma<Answering<get_filter::v3::Request, Value>>,
) -> Result<Json<Value>, ApiError> {
    own(&req.caller, &req.user_id)?;
    let stored = context.users.filter(req.user_id.as_str(), &req.filter_id)?;
    let stored = stored.ok_or_else(|| ApiError::not_found("There is no such filter"))?;
    Ok(Json(serde_json::from_slice(&stored).map_err(ApiError::internal)?))
}

/// A filter for `/sync`: what ruma knows of it, and what it doesn't.
#[derive(Debug, Clone, Default)]
pub(super) struct SyncFilter {
    pub(super) definition: Arc<FilterDefinition>,
    /// Which relations the events of timelines must have.
    pub(super) relations: Arc<RelationFilter>,
    /// How long its text is.
    pub(super) bytes: usize,
}

/// Filters that have been read lately, by user (if they are stored) and text or id. What is stored
/// under an id never changes.
#[derive(Debug)]
pub(super) struct KnownFilters(Cache<(String, String), SyncFilter, BySize>);

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<(String, String), SyncFilter> for BySize {
    fn weight(&self, (user, text): &(String, String), filter: &SyncFilter) -> u64 {
        // What is read of a text takes a few times as much as the text.
        let read = size_of::<FilterDefinition>() + 5 * filter.bytes;
        (read + user.len() + text.len() + 512) as u64
    }
}

impl Default for KnownFilters {
    fn default() -> Self {
        Self(Cache::with_weighter(1_024, MAX_KNOWN, BySize))
    }
}

impl KnownFilters {
    /// The filter with this text or id, read if it is not known.
    pub(super) fn get(
        &self,
        user: &str,
        text: &str,
        read: impl FnOnce() -> Result<SyncFilter, ApiError>,
    ) -> Result<SyncFilter, ApiError> {
        let key = (user.to_owned(), text.to_owned());
        if let Some(known) = self.0.get(&key) {
            return Ok(known);
        }
        let filter = read()?;
        self.0.insert(key, filter.clone());
        Ok(filter)
    }
}

#[derive(Default, Deserialize)]
struct Relations {
    #[serde(default)]
    room: RoomRelations,
}

#[derive(Default, Deserialize)]
struct RoomRelations {
    #[serde(default)]
    timeline: RelationFilter,
}

impl SyncFilter {
    /// Reads what a client has written.
    ///
    /// # Errors
    ///
    /// `M_NOT_JSON`, `M_BAD_JSON`
    pub(super) fn read(json: &[u8]) -> Result<Self, ApiError> {
        let filter = Self::parse(json)?;
        // ruma takes it as it comes.
        match filter.definition.event_format {
            EventFormat::Client | EventFormat::Federation => Ok(filter),
            _ => Err(ApiError::bad_json("event_format is neither client nor federation")),
        }
    }

    /// The filter that is stored under an id.
    ///
    /// # Errors
    ///
    /// `M_INVALID_PARAM`
    pub(super) fn stored(users: &Users, user: &UserId, id: &str) -> Result<Self, ApiError> {
        let stored = users.filter(user.as_str(), id)?;
        let stored = stored.ok_or_else(|| ApiError::invalid_param("No such filter"))?;
        Self::parse(&stored).map_err(ApiError::internal)
    }

    fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let Relations { room } = serde_json::from_slice(json)?;
        let definition = Arc::new(serde_json::from_slice(json)?);
        Ok(Self { definition, relations: Arc::new(room.timeline), bytes: json.len() })
    }

    /// What was understood of it: so the same filter has the same id, however it was written.
    fn to_json(&self) -> Result<Bytes, ApiError> {
        let mut json = serde_json::to_value(&*self.definition).map_err(ApiError::internal)?;
        if *self.relations != RelationFilter::default() {
            let relations = serde_json::to_value(&*self.relations).map_err(ApiError::internal)?;
            let timeline = &mut json["room"]["timeline"];
            for (key, value) in relations.as_object().into_iter().flatten() {
                timeline[key] = value.clone();
            }
        }
        Ok(serde_json::to_vec(&json).map_err(ApiError::internal)?.into())
    }
}

fn own(caller: &Caller, user: &UserId) -> Result<(), ApiError> {
    if caller.user_id == *user {
        return Ok(());
    }
    Err(ApiError::forbidden("Filters of other users are not yours"))
}
