//! Collecting endpoints, before a router is built from them.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use actix_web::{HttpResponse, http::Method};
use parlour_actors::metrics::{Metrics as _, Stage};
use ruma::api::{IncomingRequest, IncomingRequestExt as _, path_builder::PathBuilder as _};
use serde::de::Error as _;

use super::{
    Admits, Api, BoxFuture, Caller, RawRequest, RequestMeta, Ruma, Scheme, auth::Authenticators,
    body, convert, dispatch::Call,
};
use crate::{
    error::ApiError,
    limits::{RateClass, RateLimits},
};

/// What can differ between routes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteOptions {
    /// Which rate limit applies.
    pub rate: RateClass,
    /// The largest body in bytes, where it is not the listener's usual limit.
    pub max_body: Option<usize>,
    /// The body is not JSON.
    pub raw_body: bool,
    /// A key that the body must have: for types of ruma that panic without it.
    pub required_key: Option<&'static str>,
    /// Guests may use it, too.
    pub guests: bool,
    /// Whose requests it takes.
    pub admits: Admits,
}

impl RouteOptions {
    /// What most endpoints of an API have.
    #[must_use]
    pub const fn usual(api: Api) -> Self {
        Self::rate(match api {
            Api::Federation => RateClass::Federation,
            Api::Client | Api::Admin | Api::Metrics => RateClass::Other,
        })
    }

    /// Options with this rate limit.
    #[must_use]
    pub const fn rate(rate: RateClass) -> Self {
        let admits = Admits::Unlocked;
        Self { rate, max_body: None, raw_body: false, required_key: None, guests: false, admits }
    }

    /// The same for an endpoint that guests may use, too: those of CS API, "Guest access", and those
    /// that need no token, which are not closed to a guest for having one.
    #[must_use]
    pub const fn for_guests(mut self) -> Self {
        self.guests = true;
        self
    }

    /// The same with a limit of its own for the body, in bytes.
    #[must_use]
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// The same for a body that must have this key, before ruma sees it.
    #[must_use]
    pub const fn required_key(mut self, key: &'static str) -> Self {
        self.required_key = Some(key);
        self
    }

    /// The same for requests of these accounts.
    #[must_use]
    pub const fn admits(mut self, admits: Admits) -> Self {
        self.admits = admits;
        self
    }

    /// The same for a body that is not JSON (media).
    #[must_use]
    pub const fn raw_body(mut self) -> Self {
        self.raw_body = true;
        self
    }
}

/// What a typed endpoint answers.
#[derive(Debug)]
pub enum Answer<T> {
    /// What ruma has for it.
    Typed(T),
    /// Something else, of which ruma does not know.
    Json(serde_json::Value),
    /// The same as bytes, perhaps too many of them to be in memory at once.
    Whole(HttpResponse),
}

impl<T> From<T> for Answer<T> {
    fn from(typed: T) -> Self {
        Self::Typed(typed)
    }
}

/// An endpoint, its types erased.
pub type Endpoint =
    Arc<dyn Fn(Call) -> BoxFuture<'static, Result<HttpResponse, ApiError>> + Send + Sync>;

/// One method of one path.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) api: Api,
    pub(super) method: Method,
    /// With `{variables}`, as metrics and log name it.
    pub(super) path: &'static str,
    pub(super) options: RouteOptions,
    pub(super) endpoint: Endpoint,
}

/// A list of endpoints of one API, with a context that their handlers share.
///
/// The context is whatever the handlers need and no more, cheap to clone (an `Arc`).
#[derive(Clone)]
pub struct Routes<C = ()> {
    api: Api,
    context: C,
    routes: Vec<Route>,
}

impl<C> std::fmt::Debug for Routes<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|r| (&r.method, r.path))).finish()
    }
}

impl<C: Clone + Send + Sync + 'static> Routes<C> {
    /// An empty list.
    #[must_use]
    pub fn new(api: Api, context: C) -> Self {
        Self { api, context, routes: Vec::new() }
    }

    /// Adds the endpoint that answers ruma's request type `R`, under all its paths.
    #[must_use]
    pub fn route<R, T, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest + 'static,
        R::Authentication: Scheme,
        T: Into<Answer<R::OutgoingResponse>>,
        F: Fn(C, Ruma<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<T, ApiError>> + 'static,
    {
        let options = RouteOptions::usual(self.api);
        self.route_with(options, handler)
    }

    /// The same with options.
    #[must_use]
    pub fn route_with<R, T, F, Fut>(mut self, options: RouteOptions, handler: F) -> Self
    where
        R: IncomingRequest + 'static,
        R::Authentication: Scheme,
        T: Into<Answer<R::OutgoingResponse>>,
        F: Fn(C, Ruma<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<T, ApiError>> + 'static,
    {
        let context = self.context.clone();
        let endpoint: Endpoint = Arc::new(move |call: Call| {
            let (context, handler) = (context.clone(), handler.clone());
            // Boxed, so that a parked request does not keep the room that reading it took.
            let request = Box::pin(typed::<R>(call, options));
            Box::pin(async move {
                let request = request.await?;
                match handler(context, request).await?.into() {
                    Answer::Typed(response) => convert::response(response),
                    Answer::Json(body) => Ok(HttpResponse::Ok().json(body)),
                    Answer::Whole(response) => Ok(response),
                }
            })
        });
        let method = convert::method(&R::METHOD);
        for path in R::PATH_BUILDER.all_paths() {
            self.push(method.clone(), path, options, &endpoint);
        }
        self
    }

    /// Adds an endpoint that ruma has no type for. Its path has `{variables}` like ruma's.
    #[must_use]
    pub fn raw<F, Fut>(
        mut self,
        method: Method,
        path: &'static str,
        options: RouteOptions,
        handler: F,
    ) -> Self
    where
        F: Fn(C, RawRequest) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<HttpResponse, ApiError>> + 'static,
    {
        let context = self.context.clone();
        let endpoint: Endpoint = Arc::new(move |call: Call| {
            let (context, handler) = (context.clone(), handler.clone());
            Box::pin(async move {
                call.shared.limits.check_ip(options.rate, &call.meta)?;
                handler(context, call.into_raw()).await
            })
        });
        self.push(method, path, options, &endpoint);
        self
    }

    fn push(
        &mut self,
        method: Method,
        path: &'static str,
        options: RouteOptions,
        endpoint: &Endpoint,
    ) {
        let endpoint = Arc::clone(endpoint);
        self.routes.push(Route { api: self.api, method, path, options, endpoint });
    }

    /// Gives the context up, so that lists with different contexts can be joined.
    #[must_use]
    pub fn finish(self) -> Routes {
        Routes { api: self.api, context: (), routes: self.routes }
    }
}

impl Routes {
    /// No endpoints.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Api::Federation, ())
    }

    /// This list and another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Method and path, with `{variables}`, of every endpoint: for tests that must miss none.
    pub fn list(&self) -> impl Iterator<Item = (&Method, &'static str)> {
        self.routes.iter().map(|route| (&route.method, route.path))
    }

    pub(super) fn into_inner(self) -> Vec<Route> {
        self.routes
    }
}

/// From a call to a typed request: authentication, rate limit, JSON, types; in this order, so
/// that strangers learn nothing and cost little.
async fn typed<R>(call: Call, options: RouteOptions) -> Result<Ruma<R>, ApiError>
where
    R: IncomingRequest,
    R::Authentication: Scheme,
{
    let Call { method, path_and_query, headers, path_args, meta, shared } = call;
    let request = convert::request(&method, &path_and_query, &headers, &meta.body)?;
    let authenticators: &Authenticators = &shared.authenticators;
    if options.rate.by_address() {
        shared.limits.check_ip(options.rate, &meta)?;
    }
    let caller = R::Authentication::authenticate(&request, &meta, authenticators).await?;
    if let Some(server) = R::Authentication::server(&caller) {
        shared.limits.check_server(options.rate, server).map_err(ApiError::limit_exceeded)?;
    }
    let known = R::Authentication::caller(&caller);
    known.map_or(Ok(()), |caller| caller.check(options.admits))?;
    if known.is_some_and(|caller| caller.guest) && !options.guests {
        return Err(ApiError::guest_access_forbidden());
    }
    match known {
        _ if options.rate.by_address() => {}
        Some(Caller { user_id, .. }) => {
            shared.limits.check_user(options.rate, user_id).map_err(ApiError::limit_exceeded)?;
        }
        None => shared.limits.check_ip(options.rate, &meta)?,
    }
    let mut request = request;
    let since = shared.clock.monotonic();
    if !options.raw_body && method != Method::GET {
        match &*meta.body {
            // Clients leave out bodies in which everything is optional; ruma wants some of them.
            [] => request = request.map(|_| &b"{}"[..]),
            body => body::check_json(body)?,
        }
    }
    if let Some(key) = options.required_key {
        body::check_key(request.body(), key)
            .map_err(|error| explain(error, &meta.body, &method))?;
    }
    let path_args: Vec<&str> = path_args.iter().map(String::as_str).collect();
    let parsed = catch_unwind(AssertUnwindSafe(|| R::try_from_http_request(request, &path_args)));
    // ruma 0.17 panics on some bodies, such as `{}` for a login: that is the client's mistake.
    // Those that are known are kept from it (`required_key`), since a panic is loud in the log.
    let parsed = parsed.unwrap_or_else(|_| {
        Err(serde_json::Error::custom("A field is missing or has the wrong type").into())
    });
    let request = parsed.map_err(|error| explain(error.into(), &meta.body, &method))?;
    shared.metrics.stage(Stage::Parse, shared.clock.monotonic().saturating_sub(since));
    Ok(Ruma { request, caller, meta })
}

/// A missing body was taken for `{}`; where that was not enough, the truth is that there was no
/// JSON at all.
fn explain(error: ApiError, body: &[u8], method: &Method) -> ApiError {
    let bad_json = error.errcode() == Some(&ruma::api::error::ErrorCode::BadJson);
    if bad_json && body.is_empty() && method != Method::GET {
        return ApiError::not_json("This endpoint needs a JSON object as its body");
    }
    error
}

impl RateLimits {
    fn check_ip(&self, class: RateClass, meta: &RequestMeta) -> Result<(), ApiError> {
        self.check_address(class, meta.peer.ip).map_err(ApiError::limit_exceeded)
    }
}
