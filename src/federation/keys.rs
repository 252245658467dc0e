//! Publishing keys, and vouching for those of others.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parlour_actors::{env::Clock, keyring::KeyRing};
use ruma::{
    OwnedServerName,
    api::federation::discovery::{
        ServerSigningKeys, get_remote_server_keys::v2 as query_one,
        get_remote_server_keys_batch::v2 as query_many, get_server_keys::v2 as get_own,
    },
    serde::Raw,
};

use crate::{
    config::ServerFilter,
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// For how many servers one request may ask.
const MAX_SERVERS: usize = 500;

/// How long servers are asked on behalf of others; then what is known must do.
const PATIENCE: Duration = Duration::from_secs(15);

/// What these endpoints need to know.
#[derive(Debug)]
pub struct KeysContext {
    /// The keys.
    pub ring: KeyRing,
    /// Whose keys are given away.
    pub servers: ServerFilter,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<KeysContext>) -> Routes {
    Routes::new(Api::Federation, context).route(own).route(one).route(many).finish()
}

/// `GET /_matrix/key/v2/server`
async fn own(
    context: Arc<KeysContext>,
    _: Ruma<get_own::Request>,
) -> Result<get_own::Response, ApiError> {
    Ok(get_own::Response::new(raw(&context.ring.own_document())?))
}

/// `GET /_matrix/key/v2/query/{serverName}`
async fn one(
    context: Arc<KeysContext>,
    req: Ruma<query_one::Request>,
) -> Result<query_one::Response, ApiError> {
    let until = u64::from(req.minimum_valid_until_ts.0);
    let keys = context.look_up(vec![(req.request.server_name, until)]).await?;
    Ok(query_one::Response::new(keys))
}

/// `POST /_matrix/key/v2/query`
async fn many(
    context: Arc<KeysContext>,
    req: Ruma<query_many::Request>,
) -> Result<query_many::Response, ApiError> {
    if req.server_keys.len() > MAX_SERVERS {
        return Err(ApiError::invalid_param(format!("At most {MAX_SERVERS} servers at once")));
    }
    let now = context.clock.now_ms();
    let until = |criteria: &BTreeMap<_, query_many::QueryCriteria>| {
        let wanted = criteria.values().map(|wanted| wanted.minimum_valid_until_ts);
        wanted.map(|until| until.map_or(now, |until| until.0.into())).max().unwrap_or(now)
    };
    let servers = req.server_keys.iter().map(|(server, keys)| (server.clone(), until(keys)));
    Ok(query_many::Response::new(context.look_up(servers.collect()).await?))
}

impl KeysContext {
    /// The documents of servers, refreshed where that is called for. Those of servers that cannot
    /// be reached and never could be are left out.
    async fn look_up(
        &self,
        mut servers: Vec<(OwnedServerName, u64)>,
    ) -> Result<Vec<Raw<ServerSigningKeys>>, ApiError> {
        servers.retain(|(server, _)| self.servers.allows(server));
        let refresh = self.ring.refresh(servers.clone());
        if let Ok(refreshed) = actix_web::rt::time::timeout(PATIENCE, refresh).await {
            refreshed?;
        }
        let mut found = Vec::new();
        for (server, _) in servers {
            if let Some(document) = self.ring.notarised(&server)? {
                found.push(raw(&document)?);
            }
        }
        Ok(found)
    }
}

/// A document byte by byte: it is signed.
fn raw(document: &Bytes) -> Result<Raw<ServerSigningKeys>, ApiError> {
    serde_json::from_slice(document).map_err(ApiError::internal)
}
