//! From a server's name to where it is.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>
//!
//! In two steps. *Delegation* asks the name's web server for another name; it decides which `Host`
//! is asked for and whose certificate is wanted. *Location* finds the addresses of that name: `SRV`
//! records lead to other hosts and ports, but change neither `Host` nor certificate.

use std::{net::SocketAddr, sync::Arc};

use parlour_actors::env::Env;
use ruma::{OwnedServerName, ServerName};

use super::{
    address::AddressPolicy,
    dns::{Dns, DnsError, Service},
    well_known::WellKnown,
};

/// The port of a server that names none.
const DEFAULT_PORT: u16 = 8448;

/// The services under which servers are found: the registered one, and the one of old.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

/// How many addresses are tried.
const MAX_ADDRESSES: usize = 8;

/// Why there is nowhere to connect to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiscoveryError {
    /// The name servers don't answer.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// There is no such host.
    #[error("{0} has no address")]
    NoAddress(String),
    /// There is, but not where requests may go.
    #[error("the addresses of {0} are private; allow them in federation.allowed_private_ranges")]
    Private(String),
}

/// Finds addresses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Locator {
    /// Who knows them.
    pub dns: Arc<dyn Dns>,
    /// Which of them may be connected to.
    pub policy: Arc<AddressPolicy>,
}

/// Finds servers.
#[derive(Debug)]
pub struct Discovery {
    locator: Locator,
    well_known: WellKnown,
    env: Env,
}

impl Discovery {
    /// Finds servers with these name servers.
    #[must_use]
    pub fn new(locator: Locator, well_known: WellKnown, env: Env) -> Self {
        Self { locator, well_known, env }
    }

    /// The name that stands for a server: it says `Host` and certificate.
    pub async fn delegate(&self, server: &ServerName) -> OwnedServerName {
        if server.is_ip_literal() || server.port().is_some() {
            return server.to_owned();
        }
        self.well_known.of(server.host()).await.unwrap_or_else(|| server.to_owned())
    }

    /// Where to connect to for a name that has been delegated, in the order in which to try.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`]
    pub async fn locate(&self, delegated: &ServerName) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let host = delegated.host();
        let places = match delegated.port() {
            Some(port) => vec![(host.to_owned(), port)],
            None if delegated.is_ip_literal() => vec![(host.to_owned(), DEFAULT_PORT)],
            None => self.services(host).await,
        };
        self.locator.addresses(&places).await
    }

    /// Where the `SRV` records of a host lead, or the host itself. A look-up that fails counts as
    /// one that finds nothing: whoever is at 8448 must show the same certificate.
    async fn services(&self, host: &str) -> Vec<(String, u16)> {
        for service in SERVICES {
            match self.locator.dns.services(&format!("{service}.{host}")).await {
                Ok(found) if !found.is_empty() => return self.in_turn(found),
                Ok(_) => {}
                Err(error) => tracing::debug!(host, service, %error, "no service record"),
            }
        }
        vec![(host.to_owned(), DEFAULT_PORT)]
    }

    /// By priority, and by chance among those of one priority, as their weights have it.
    fn in_turn(&self, services: Vec<Service>) -> Vec<(String, u16)> {
        let mut drawn: Vec<_> = services
            .into_iter()
            .map(|service| {
                let mut bytes = [0; 4];
                self.env.entropy.fill(&mut bytes);
                // The first of exponential clocks that tick as fast as the weights say. A weight of
                // 0 stands for a small chance.
                let chance = (f64::from(u32::from_le_bytes(bytes)) + 1.0) / 4_294_967_296.0;
                let wait = -chance.ln() / f64::from(service.weight).max(0.01);
                (service.priority, wait, service)
            })
            .collect();
        drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        drawn.into_iter().map(|(_, _, service)| (service.host, service.port)).collect()
    }
}

impl Locator {
    /// The addresses of hosts and ports that may be connected to.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`] if there is none.
    pub async fn addresses(
        &self,
        places: &[(String, u16)],
    ) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let (mut allowed, mut some_private, mut failed) = (Vec::new(), false, None);
        for (host, port) in places {
            let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
            let found = match literal {
                Ok(literal) => Ok(vec![literal]),
                Err(_) => self.dns.addresses(host).await,
            };
            for ip in found.unwrap_or_else(|error| {
                failed = Some(error);
                Vec::new()
            }) {
                match self.policy.allows(ip) {
                    true => allowed.push(SocketAddr::new(ip, *port)),
                    false => some_private = true,
                }
            }
        }
        allowed.truncate(MAX_ADDRESSES);
        let host = || places.first().map(|(host, _)| host.clone()).unwrap_or_default();
        match (allowed.is_empty(), some_private, failed) {
            (false, ..) => Ok(allowed),
            (true, true, _) => Err(DiscoveryError::Private(host())),
            (true, false, Some(error)) => Err(error.into()),
            (true, false, None) => Err(DiscoveryError::NoAddress(host())),
        }
    }
}

#[cfg(test)]
#[path = "discovery/tests.rs"]
mod tests;
