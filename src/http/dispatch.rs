//! What happens to every request, once.

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpResponse,
    dev::Payload,
    http::{
        Method, StatusCode, Uri,
        header::{self, HeaderMap, HeaderValue},
    },
};
use futures_util::FutureExt as _;
use ipnet::IpNet;
use parlour_actors::{budget::Share, env::Clock};

use super::{
    Api, Aside, Authenticators, Peer, Query, RawRequest, RequestMeta, Router, body, router::Found,
};
use crate::{error::ApiError, limits::RateLimits, metrics::Metrics};

/// The longest `User-Agent` that is kept.
const MAX_USER_AGENT: usize = 256;

/// The template of requests that lead nowhere: their paths are a stranger's choice, and would be
/// labels without number.
const UNMATCHED: &str = "(unmatched)";

/// What all endpoints of a server have in common.
#[derive(Debug)]
pub struct HttpShared {
    /// Who may ask.
    pub authenticators: Arc<Authenticators>,
    /// How often.
    pub limits: Arc<RateLimits>,
    /// Where it is counted.
    pub metrics: Metrics,
    /// How much memory the bodies of requests may take.
    pub bodies: Share,
    /// How long it took.
    pub clock: Arc<dyn Clock>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest body of a client's or administrator's request, in bytes.
    pub max_client_body: usize,
    /// The largest body of another server's request, in bytes.
    pub max_federation_body: usize,
    /// Whether each request is logged.
    pub log_requests: bool,
    /// The number of the last request.
    pub last_request: AtomicU64,
}

/// A request on its way to its endpoint.
pub struct Call {
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) headers: HeaderMap,
    pub(super) path_args: Vec<String>,
    pub(super) meta: RequestMeta,
    pub(super) shared: Arc<HttpShared>,
}

impl std::fmt::Debug for Call {
    // Headers and query string hold tokens, and must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("request_id", &self.meta.request_id).finish()
    }
}

impl Call {
    pub(super) fn into_raw(self) -> RawRequest {
        RawRequest {
            query: self.meta.query.0.clone(),
            meta: self.meta,
            path_args: self.path_args,
            headers: self.headers,
            authenticators: Arc::clone(&self.shared.authenticators),
        }
    }
}

/// A request without its body, whichever way it came.
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Who is at the other end of the connection.
    pub(crate) from: Option<IpAddr>,
    /// Of the connection.
    pub(crate) aside: Aside,
}

/// Answers any request.
pub(crate) async fn respond(
    head: Head,
    payload: Payload,
    shared: Arc<HttpShared>,
    router: &Router,
) -> HttpResponse {
    let mut response = if head.method == Method::OPTIONS {
        HttpResponse::NoContent().finish()
    } else {
        observed(head, payload, shared, router).await
    };
    add_cors(response.headers_mut());
    response
}

/// The three headers that CS API section 3.1 ("Web browser clients") asks for.
fn add_cors(headers: &mut HeaderMap) {
    const CORS: [(header::HeaderName, &str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
    ];
    for (name, value) in CORS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Answers a request; counts and logs it. Never its query string, headers or body.
async fn observed(
    head: Head,
    payload: Payload,
    shared: Arc<HttpShared>,
    router: &Router,
) -> HttpResponse {
    let request_id = shared.last_request.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    let start = shared.clock.monotonic();
    let method = method_label(&head.method);
    let found = router.find(&head.method, head.uri.path());
    let template = found.as_ref().map_or(UNMATCHED, |found| found.route.path);
    let result = match found {
        Ok(found) => answer(head, payload, &shared, found, request_id).await,
        Err(error) => Err(error),
    };
    let response = result.unwrap_or_else(|error| {
        note(&shared.metrics, request_id, template, &error);
        error.into_response(request_id)
    });
    let took = shared.clock.monotonic().saturating_sub(start);
    finish(&shared, request_id, method, template, response.status().as_u16(), took);
    response
}

async fn answer(
    head: Head,
    payload: Payload,
    shared: &Arc<HttpShared>,
    found: Found<'_>,
    request_id: u64,
) -> Result<HttpResponse, ApiError> {
    let Found { route, path_args } = found;
    let usual = match route.api {
        Api::Federation => shared.max_federation_body,
        Api::Client | Api::Admin | Api::Metrics => shared.max_client_body,
    };
    let max = route.options.max_body.unwrap_or(usual);
    // Given back when the request is answered: what waits for its room or the disk counts.
    let mut taken = shared.bodies.count(0);
    let body = body::read(&head.headers, payload, max, &mut taken).await;
    let body = body.inspect_err(|error| {
        if error.status() == StatusCode::TOO_MANY_REQUESTS {
            shared.metrics.refused("memory_requests");
        }
    })?;
    let Head { method, uri, headers, from, aside } = head;
    let peer = Peer::of(from, &headers, &shared.trusted_proxies);
    let query = Query(uri.query().unwrap_or_default().to_owned());
    let call = Call {
        method,
        path_and_query: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        path_args,
        meta: RequestMeta {
            peer,
            request_id,
            user_agent: user_agent(&headers),
            query,
            body,
            aside,
        },
        headers,
        shared: Arc::clone(shared),
    };
    let answer = (route.endpoint)(call);
    // A panic in one handler is that request's failure alone.
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(ApiError::internal("the handler panicked")),
    }
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(value.chars().take(MAX_USER_AGENT).collect())
}

/// Logs what went wrong inside, and counts what was refused.
fn note(metrics: &Metrics, request_id: u64, template: &str, error: &ApiError) {
    if let Some(why) = error.internal_reason() {
        let request_id = format_args!("{request_id:016x}");
        tracing::error!(%request_id, path = template, why, "request failed inside");
    }
    match error.status().as_u16() {
        429 => metrics.refused("rate_limit"),
        413 => metrics.refused("too_large"),
        503 => metrics.refused("unavailable"),
        _ => {}
    }
}

fn finish(
    shared: &HttpShared,
    request_id: u64,
    method: &'static str,
    template: &str,
    status: u16,
    took: Duration,
) {
    shared.metrics.request(template, method, status, took);
    if shared.log_requests {
        let request_id = format_args!("{request_id:016x}");
        let ms = took.as_secs_f64() * 1000.0;
        tracing::info!(%request_id, method, path = template, status, ms, "request");
    }
}

/// Methods are a stranger's choice, too.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}
