//! The threads of a room.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room>

use ruma::api::client::threads::get_threads::v1::{IncludeThreads, Request, Response};

use super::reading::enter;
use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{ThreadsRequest, ThreadsToken, View, threads::MAX_THREADS},
};

/// How many threads a page has if the client does not say.
const DEFAULT_LIMIT: usize = 20;

/// The endpoint of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view).route(threads).finish()
}

/// `GET /_matrix/client/v1/rooms/{roomId}/threads`
async fn threads(view: View, call: Ruma<Request>) -> Result<Response, ApiError> {
    let from = call.from.as_deref().map(str::parse).transpose()?;
    let limit = match call.limit.map(u64::from) {
        None => DEFAULT_LIMIT,
        Some(0) => return Err(ApiError::invalid_param("The limit must be greater than 0")),
        Some(limit) => usize::try_from(limit).unwrap_or(MAX_THREADS),
    };
    let participated = match &call.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => return Err(ApiError::invalid_param("`include` is `all` or `participated`")),
    };
    view.run(move |view| read(view, &call.request, &call.caller, from, participated, limit)).await
}

fn read(
    view: &View,
    request: &Request,
    caller: &Caller,
    from: Option<ThreadsToken>,
    participated: bool,
    limit: usize,
) -> Result<Response, ApiError> {
    let (mut reader, _) = enter(view, &request.room_id, caller)?;
    let threads = reader.threads(ThreadsRequest { from, participated, limit })?;
    let mut response = Response::new(threads.roots);
    response.next_batch = threads.next.map(|next| next.to_string());
    Ok(response)
}
