//! Servers that the generator plays: they have keys, speak TLS, sign requests and events, join
//! rooms, and take in what is sent to them.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/>

mod certificates;
mod identity;
mod member;
mod server;

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use serde::Serialize;

pub(crate) use self::{
    certificates::{Certificates, make as make_certificates},
    identity::{Identity, Remote},
    member::{Member, Place, object},
    server::{Inbox, Server},
};
use crate::{bench::Bench, error::LoadError, http::Endpoint, runner, session::Account};

/// How the played servers and the target find each other.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Federation")]
pub(crate) struct FederationOptions {
    /// What `parlour load certificates` has made. The target must believe its ca.pem.
    #[arg(long, value_name = "DIR", default_value = "load-certificates")]
    certificates: PathBuf,
    /// By which host the target finds the played servers; each has a port of its own.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_host: String,
    /// Where the played servers listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    #[serde(skip)]
    listen: std::net::IpAddr,
    /// The target's federation API, if it is not at --target.
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    federation: Option<String>,
}

/// Servers, and the way to the target.
pub(crate) struct World {
    /// The played servers.
    pub(crate) servers: Vec<Server>,
    endpoint: Arc<Endpoint>,
    /// The target's name.
    pub(crate) target: String,
}

impl World {
    /// Starts so many servers, which tell `inbox` what they get. `account` is one of the target's.
    pub(crate) async fn begin(
        bench: &Bench,
        options: &FederationOptions,
        account: &Account,
        count: usize,
        inbox: &Arc<Inbox>,
    ) -> Result<Self, LoadError> {
        let certificates = Certificates::load(&options.certificates)?;
        let mut servers = Vec::with_capacity(count);
        for number in 0..count {
            let host = (options.listen, options.server_host.as_str());
            servers.push(Server::start(host, number, certificates.clone(), inbox.clone()).await?);
        }
        let endpoint = match &options.federation {
            Some(url) => {
                runner::find(
                    url,
                    std::slice::from_ref(&certificates.authority),
                    bench.endpoint.patience,
                )
                .await?
            }
            None => bench.endpoint.clone(),
        };
        let target = account.user_id.split_once(':').map_or("", |(_, name)| name).to_owned();
        Ok(Self { servers, endpoint, target })
    }

    /// A connection of one of the servers to the target.
    pub(crate) fn remote(&self, server: usize) -> Remote {
        Remote::new(&self.endpoint, self.servers[server].identity(), &self.target)
    }
}
