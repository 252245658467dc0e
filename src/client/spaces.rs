//! Spaces.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#spaces>

use std::sync::Arc;

use parlour_actors::env::Env;
use ruma::{
    api::client::space::get_hierarchy::v1::{Request, Response},
    uint,
};

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{
        View,
        spaces::{Pages, Reach, Terms, UnknownToken, Walk},
    },
};

/// How many rooms an answer has if the client does not say.
const USUAL_LIMIT: u32 = 50;

/// The most rooms in one answer.
const MAX_LIMIT: u32 = 200;

/// The deepest that a walk goes.
const MAX_DEPTH: u64 = 100;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct SpaceContext {
    view: View,
    pages: Pages,
}

impl SpaceContext {
    /// Reads rooms through the view.
    #[must_use]
    pub fn new(view: View, env: Env) -> Self {
        Self { view, pages: Pages::new(env) }
    }
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<SpaceContext>) -> Routes {
    Routes::new(Api::Client, context).route(hierarchy).finish()
}

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
async fn hierarchy(context: Arc<SpaceContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    if req.limit == Some(uint!(0)) {
        return Err(ApiError::invalid_param("`limit` must be greater than 0"));
    }
    let limit = req.limit.unwrap_or(USUAL_LIMIT.into()).min(MAX_LIMIT.into());
    let limit = usize::try_from(u64::from(limit)).unwrap_or(usize::MAX);
    let reach = Reach {
        max_depth: req.max_depth.map_or(MAX_DEPTH, u64::from).min(MAX_DEPTH),
        suggested_only: req.suggested_only,
    };
    let terms = Terms { user: req.caller.user_id.clone(), room: req.room_id.clone(), reach };
    let begun = req.from.as_deref().map(|token| context.pages.find(token, &terms)).transpose()?;
    let pages = context.pages.clone();
    context.view.run(move |view| read(view, &pages, terms, begun, limit)).await
}

fn read(
    view: &View,
    pages: &Pages,
    terms: Terms,
    begun: Option<Walk>,
    limit: usize,
) -> Result<Response, ApiError> {
    let is_first = begun.is_none();
    let forbidden = || ApiError::forbidden("The room is not known here, or not for you to see");
    let mut walk = match begun {
        Some(walk) => walk,
        None => Walk::from(view.room(&terms.room)?.ok_or_else(forbidden)?.num),
    };
    let mut response = Response::new();
    response.rooms = view.walk(&mut walk, &terms.user, terms.reach, limit)?;
    if is_first && response.rooms.is_empty() {
        return Err(forbidden());
    }
    if !walk.is_over() {
        response.next_batch = Some(pages.keep(terms, walk));
    }
    Ok(response)
}

impl From<UnknownToken> for ApiError {
    fn from(error: UnknownToken) -> Self {
        Self::invalid_param(error.to_string())
    }
}
