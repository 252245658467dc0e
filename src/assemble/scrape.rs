//! `GET /metrics`

use actix_web::{
    HttpResponse,
    http::{Method, header},
};
use parlour_actors::{Rooms, federation_queue::FederationQueues};

use crate::{
    error::ApiError,
    http::{Api, RawRequest, RouteOptions, Routes},
    limits::RateClass,
    memory::{self, Overview},
    metrics::Metrics,
};

/// What is looked at when somebody asks, where it is there.
#[derive(Clone, Default)]
pub struct Looks {
    /// The rooms.
    pub rooms: Option<Rooms>,
    /// What waits for other servers.
    pub queues: Option<FederationQueues>,
    /// Who takes how much memory.
    pub memory: Option<Overview>,
}

/// `GET /metrics`
#[must_use]
pub fn metrics_routes(metrics: Metrics, looks: Looks) -> Routes {
    let options = RouteOptions::rate(RateClass::Unlimited);
    let context = (metrics, looks);
    Routes::new(Api::Metrics, context).raw(Method::GET, "/metrics", options, scrape).finish()
}

async fn scrape(
    (metrics, looks): (Metrics, Looks),
    _: RawRequest,
) -> Result<HttpResponse, ApiError> {
    looks.rooms.iter().for_each(|rooms| metrics.look_at_rooms(rooms));
    looks.queues.iter().for_each(|queues| metrics.look_at_queues(&queues.overview()));
    if let Some(overview) = looks.memory {
        metrics.look_at_memory(&overview.taken(), memory::resident_bytes());
    }
    let text = metrics.render().map_err(ApiError::internal)?;
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    Ok(HttpResponse::Ok().insert_header(kind).body(text))
}
