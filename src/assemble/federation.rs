//! Puts together what speaks to other servers.

use std::sync::Arc;

use parlour_actors::{
    Engine,
    federation_queue::FederationQueues,
    keyring::{KeyRing, KeyRingOptions, KeySource, NoSource},
    workers::Workers,
};
use prometheus::{IntCounterVec, Opts};

use super::sending;
use crate::{
    admin::destinations::{self, DestinationContext},
    client::{
        aliases::AliasContext,
        openid::{self, OpenIdContext},
        profile::ProfileContext,
    },
    config::Config,
    federation::{
        self,
        auth::FederationAuth,
        checks::EventChecker,
        discovery::DiscoveryContext,
        keys::KeysContext,
        outbound::{
            address::AddressPolicy,
            client::{ClientOptions, FederationClient},
            discovery::{Discovery, Locator},
            dns::SystemDns,
            https::{Carrier, Https, HttpsWeb},
            key_source::NetworkKeys,
            policy::NetworkPolicy,
            rooms::RoomClient,
            tls,
            transport::{NoTransport, Transport},
            user_keys::UserKeysClient,
            well_known::WellKnown,
        },
        query::QueryContext,
        receive::resync::Resync,
    },
    http::Routes,
    server::{Boot, StartError},
};

/// The way to other servers, and who they are.
pub(super) struct Network {
    pub(super) client: FederationClient,
    pub(super) checker: EventChecker,
    pub(super) room_client: RoomClient,
    pub(super) queues: FederationQueues,
    pub(super) ring: KeyRing,
    pub(super) user_keys: UserKeysClient,
    pub(super) resync: Resync,
    carrier: Option<Carrier>,
}

impl Network {
    /// Starts what carries requests, if there are to be any.
    pub(super) fn start(boot: &Boot, engine: &Engine) -> Result<Self, StartError> {
        let config = &boot.config;
        let (transport, carrier): (Arc<dyn Transport>, _) = match &boot.transport {
            _ if !config.federation.enabled => (Arc::new(NoTransport), None),
            Some(transport) => (transport.clone(), None),
            None => https(boot).map(|(transport, carrier)| (transport, Some(carrier)))?,
        };
        let outcomes = Opts::new("parlour_federation_requests_total", "Requests to other servers");
        let client = FederationClient::new(ClientOptions {
            server_name: config.server.name.clone(),
            key: engine.keys.signing().clone(),
            servers: config.federation.servers.clone(),
            transport,
            outcomes: boot.metrics.add(IntCounterVec::new(outcomes, &["outcome"])?)?,
        });
        let ring = key_ring(config, engine, client.clone(), boot);
        let workers =
            Workers::start(&boot.env.threads, "checker", config.threads.rooms.div_ceil(2))
                .map_err(StartError::Thread)?;
        let checker = EventChecker::new(ring.clone(), workers);
        let room_client = RoomClient::new(client.clone());
        if config.federation.enabled {
            engine.rooms.ask_policy_servers(Arc::new(NetworkPolicy(room_client.clone())));
        }
        let queues = sending::queues(boot, engine, client.clone())?;
        let user_keys = user_keys(boot, engine, client.clone(), queues.clone())?;
        let resync = Resync::new(user_keys.clone(), engine.store.clone());
        Ok(Self { client, checker, room_client, queues, ring, user_keys, resync, carrier })
    }

    /// What other servers may ask, and what clients may ask that has to do with them.
    pub(super) fn routes(
        &self,
        boot: &Boot,
        engine: &Engine,
        profiles: Arc<ProfileContext>,
        aliases: Arc<AliasContext>,
    ) -> Routes {
        let config = &boot.config;
        let (users, name) = (engine.users.clone(), config.server.name.clone());
        let key = engine.keys.signing();
        let tokens = Arc::new(OpenIdContext::new(users, name, key, boot.env.clone()));
        let for_clients = openid::routes(tokens.clone());
        if !config.federation.enabled {
            return for_clients;
        }
        let delegate_to = config.federation.delegate_to.clone();
        let keys = KeysContext {
            ring: self.ring.clone(),
            servers: config.federation.servers.clone(),
            clock: boot.env.clock.clone(),
        };
        for_clients
            .and(federation::discovery::routes(Arc::new(DiscoveryContext { delegate_to })))
            .and(federation::keys::routes(Arc::new(keys)))
            .and(federation::openid::routes(tokens))
            .and(federation::query::routes(Arc::new(QueryContext { profiles, aliases })))
    }

    /// What operators may see and do about other servers.
    pub(super) fn admin_routes(&self, engine: &Engine) -> Routes {
        let (queues, store) = (self.queues.clone(), engine.store.clone());
        destinations::routes(Arc::new(DestinationContext { queues, store }))
    }

    /// Who checks other servers' requests.
    pub(super) fn auth(&self, boot: &Boot) -> FederationAuth {
        FederationAuth {
            ring: self.ring.clone(),
            queues: self.queues.clone(),
            resync: self.resync.clone(),
            server_name: boot.config.server.name.clone(),
            servers: boot.config.federation.servers.clone(),
        }
    }

    /// Ends what is under way.
    pub(super) async fn stop(&self) {
        self.queues.stop().await;
        self.carrier.iter().for_each(Carrier::stop);
    }
}

fn user_keys(
    boot: &Boot,
    engine: &Engine,
    client: FederationClient,
    queues: FederationQueues,
) -> Result<UserKeysClient, StartError> {
    let help = "Users whose keys were asked for anew, by what came of it";
    let outcomes = Opts::new("parlour_federation_key_resyncs_total", help);
    let outcomes = boot.metrics.add(IntCounterVec::new(outcomes, &["outcome"])?)?;
    let (users, store) = (engine.users.clone(), engine.store.clone());
    Ok(UserKeysClient::new(client, queues, users, store, outcomes))
}

fn key_ring(config: &Config, engine: &Engine, client: FederationClient, boot: &Boot) -> KeyRing {
    let source: Arc<dyn KeySource> = match config.federation.enabled {
        true => Arc::new(NetworkKeys(client)),
        false => Arc::new(NoSource),
    };
    let options = KeyRingOptions {
        server_name: config.server.name.clone(),
        old_keys: config.federation.old_keys.clone(),
        notaries: config.federation.trusted_key_servers.clone(),
        source,
    };
    let (keys, store) = (engine.keys.clone(), engine.store.clone());
    KeyRing::new(options, keys, store, engine.persister.clone(), boot.env.clone())
}

/// The real network.
fn https(boot: &Boot) -> Result<(Arc<dyn Transport>, Carrier), StartError> {
    let (config, env) = (&boot.config.federation, boot.env.clone());
    let thread = env.threads.start(c"federation").map_err(StartError::Thread)?;
    let carrier = Carrier::new(thread, Arc::new(tls::client_config(&config.extra_ca_files)?));
    let locator = Locator {
        dns: Arc::new(SystemDns::new().map_err(|error| StartError::Part(error.to_string()))?),
        policy: Arc::new(AddressPolicy::new(config.allowed_private_ranges.clone())),
    };
    let web = Arc::new(HttpsWeb::new(carrier.clone(), locator.clone()));
    let well_known = WellKnown::new(web, env.clock.clone());
    let discovery = Arc::new(Discovery::new(locator, well_known, env));
    Ok((Arc::new(Https::new(carrier.clone(), discovery)), carrier))
}
