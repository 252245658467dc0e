//! A disk that fails on purpose.

use std::sync::Arc;

use actix_web::http::Method;
use parlour_storage::faults::{Failing, FaultPlan, Faults};
use serde::Deserialize;
use serde_json::{Value, json};

use super::TestContext;
use crate::{
    admin::request::{AdminRequest, AdminRoutes, Answer, refused},
    config::faults,
    error::ApiError,
};

const FAULTS: &str = "/_parlour/test/v1/faults";

pub(super) fn add(routes: AdminRoutes<Arc<TestContext>>) -> AdminRoutes<Arc<TestContext>> {
    routes.on(Method::GET, FAULTS, show).on(Method::PUT, FAULTS, set)
}

/// What is left out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    flush_delay_ms: Option<u64>,
    failing_flushes: Option<i64>,
    failing_writes: Option<i64>,
}

/// `GET /_parlour/test/v1/faults`: what is left of them.
async fn show(context: Arc<TestContext>, _: AdminRequest) -> Answer {
    Ok(shown(context.faults()?.plan()))
}

/// `PUT /_parlour/test/v1/faults`
async fn set(context: Arc<TestContext>, request: AdminRequest) -> Answer {
    let change: Change = request.parameters()?;
    let found = context.faults()?;
    let now = found.plan();
    let plan = faults(
        change.flush_delay_ms.unwrap_or_else(|| delay(now)),
        change.failing_flushes.unwrap_or_else(|| times(now.failing_flushes)),
        change.failing_writes.unwrap_or_else(|| times(now.failing_writes)),
    );
    let plan = plan.map_err(|(key, what)| ApiError::invalid_param(format!("`{key}`: {what}")))?;
    tracing::info!(?plan, "the disk fails on purpose");
    found.set(plan);
    Ok(shown(plan))
}

impl TestContext {
    fn faults(&self) -> Result<&Faults, ApiError> {
        self.faults.as_ref().ok_or_else(|| refused("The data are in memory: no disk can fail"))
    }
}

fn delay(plan: FaultPlan) -> u64 {
    u64::try_from(plan.flush_delay.as_millis()).unwrap_or(u64::MAX)
}

fn times(failing: Failing) -> i64 {
    match failing {
        Failing::Always => -1,
        Failing::Next(times) => times.into(),
    }
}

fn shown(plan: FaultPlan) -> Value {
    json!({
        "flush_delay_ms": delay(plan),
        "failing_flushes": times(plan.failing_flushes),
        "failing_writes": times(plan.failing_writes),
    })
}
