//! Puts together what sends to other servers.

use std::sync::Arc;

use parlour_actors::{
    Engine,
    federation_queue::{FederationQueues, QueueOptions},
};

use crate::{
    federation::outbound::{
        client::FederationClient, courier::NetworkCourier, key_updates::KeyUpdates,
    },
    server::{Boot, StartError},
};

/// The queues. They run where there are no other servers, too: what waits is forgotten then.
pub(super) fn queues(
    boot: &Boot,
    engine: &Engine,
    client: FederationClient,
) -> Result<FederationQueues, StartError> {
    let config = &boot.config;
    let server_name = config.server.name.clone();
    let options = QueueOptions {
        courier: Arc::new(NetworkCourier { client, origin: server_name.clone() }),
        server_name,
        teller: Arc::new(KeyUpdates { users: engine.users.clone() }),
        longest_pause: config.federation.longest_retry,
        tells_presence: config.presence.enabled && config.federation.send_presence,
        env: boot.env.clone(),
        metrics: Arc::new(boot.metrics.clone()),
    };
    FederationQueues::start(engine, options).map_err(|error| StartError::Part(error.to_string()))
}
