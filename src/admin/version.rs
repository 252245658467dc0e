//! Which server this is.

use std::sync::Arc;

use actix_web::http::Method;
use serde_json::json;

use super::request::{AdminRequest, AdminRoutes, Answer};
use crate::http::Routes;

/// The endpoint of this file.
#[must_use]
pub fn routes() -> Routes {
    AdminRoutes::new(Arc::new(()))
        .on(Method::GET, "/_synapse/admin/v1/server_version", version)
        .finish()
}

/// `GET /_synapse/admin/v1/server_version`
async fn version(_: Arc<()>, _: AdminRequest) -> Answer {
    Ok(json!({ "server_version": concat!("Parlour ", env!("CARGO_PKG_VERSION")) }))
}
