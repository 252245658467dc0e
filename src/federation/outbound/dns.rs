//! Names to addresses.

use std::{fmt, net::IpAddr};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use parlour_actors::keyring::BoxFuture;

/// How many answers are kept, each as long as it says.
const CACHE: u64 = 10_000;

/// How many addresses or services of one name are looked at.
const MAX_RECORDS: usize = 16;

/// A name could not be looked up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("looking up {name}: {why}")]
pub struct DnsError {
    name: String,
    why: String,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The lowest first.
    pub priority: u16,
    /// Among those of one priority: how often, beside the others.
    pub weight: u16,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Looks names up.
pub trait Dns: Send + Sync + fmt::Debug {
    /// The addresses of a host; none if there is no such host.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DnsError>>;

    /// The `SRV` records of a name; none if there are none.
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, DnsError>>;
}

/// The name servers that the system uses.
#[derive(Clone)]
pub struct SystemDns(TokioResolver);

impl fmt::Debug for SystemDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemDns")
    }
}

impl SystemDns {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. Without a configuration that makes sense there is
    /// still what stands in `/etc/hosts`.
    ///
    /// # Errors
    ///
    /// If the resolver refuses its options.
    pub fn new() -> Result<Self, DnsError> {
        let from_system = TokioResolver::builder_tokio().inspect_err(|error| {
            tracing::warn!(%error, "cannot read how this system looks names up");
        });
        let mut builder = from_system.unwrap_or_else(|_| {
            let nothing = ResolverConfig::from_name_servers(Vec::new());
            TokioResolver::builder_with_config(nothing, TokioRuntimeProvider::default())
        });
        let options: &mut ResolverOpts = builder.options_mut();
        options.cache_size = CACHE;
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        let resolver = builder.build().map_err(|error| failed("(anything)", &error))?;
        Ok(Self(resolver))
    }
}

impl Dns for SystemDns {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DnsError>> {
        Box::pin(async move {
            match self.0.lookup_ip(absolute(host)).await {
                Ok(found) => Ok(found.iter().take(MAX_RECORDS).collect()),
                Err(error) if error.is_no_records_found() => Ok(Vec::new()),
                Err(error) => Err(failed(host, &error)),
            }
        })
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, DnsError>> {
        Box::pin(async move {
            let found = match self.0.srv_lookup(absolute(name)).await {
                Ok(found) => found,
                Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
                Err(error) => return Err(failed(name, &error)),
            };
            let services = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    host: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                    port: srv.port,
                }),
                _ => None,
            });
            // A host of "." says that there is no such service.
            Ok(services.filter(|service| !service.host.is_empty()).take(MAX_RECORDS).collect())
        })
    }
}

/// A name with a dot at its end, so that the domains of this machine are not tried below it.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn failed(name: &str, error: &NetError) -> DnsError {
    DnsError { name: name.to_owned(), why: error.to_string() }
}
