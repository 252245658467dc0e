//! Listeners: plain and TLS, grouped by what they serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::Arc,
};

use actix_web::dev::Server;
use parlour_actors::threads::name_thread;

use super::{
    Address, GRACE, Shutdown, StartError,
    certificate::Certificate,
    connections::{Site, connections},
};
use crate::{
    config::ListenerConfig,
    http::{Api, HttpShared, Router, Routes},
};

/// A socket that is ours, with what will be behind it.
pub(super) struct Bound {
    pub(super) address: Address,
    socket: TcpListener,
    pub(super) tls: Option<Arc<Certificate>>,
}

/// Takes all the sockets, before anything else is started.
pub(super) fn bind(listeners: &[ListenerConfig]) -> Result<Vec<Bound>, StartError> {
    listeners.iter().map(bind_one).collect()
}

fn bind_one(listener: &ListenerConfig) -> Result<Bound, StartError> {
    let tls = listener.tls.as_ref().map(Certificate::read).transpose()?;
    let failed = |source| StartError::Bind { address: listener.address, source };
    let socket = TcpListener::bind(listener.address).map_err(failed)?;
    let address = Address {
        address: socket.local_addr().map_err(failed)?,
        apis: listener.apis.clone(),
        tls: tls.is_some(),
    };
    Ok(Bound { address, socket, tls })
}

/// Builds one actix server per set of APIs, on all its sockets.
pub(super) fn serve(
    bound: Vec<Bound>,
    routes: &Routes,
    shared: &Arc<HttpShared>,
    shutdown: &Shutdown,
    threads: usize,
) -> Result<Vec<Server>, StartError> {
    let mut groups: BTreeMap<BTreeSet<Api>, Vec<Bound>> = BTreeMap::new();
    for bound in bound {
        groups.entry(bound.address.apis.clone()).or_default().push(bound);
    }
    groups
        .into_iter()
        .map(|(apis, sockets)| {
            let busy = apis.contains(&Api::Client) || apis.contains(&Api::Federation);
            let router = Arc::new(Router::new(routes.clone(), &apis)?);
            let site =
                Site { router, shared: Arc::clone(shared), shutdown: shutdown.clone(), tls: None };
            group(sockets, &site, if busy { threads } else { 1 })
        })
        .collect()
}

fn group(sockets: Vec<Bound>, site: &Site, threads: usize) -> Result<Server, StartError> {
    let mut server =
        Server::build().workers(threads).shutdown_timeout(GRACE.as_secs()).disable_signals();
    for Bound { address, socket, tls } in sockets {
        let tls = tls.map(|tls| tls.server_config().map(Arc::new)).transpose()?;
        let site = Site { tls, ..site.clone() };
        server = server
            .listen(address.address.to_string(), socket, move || {
                // Whatever thread this is, it will serve.
                name_thread(c"http");
                connections(site.clone())
            })
            .map_err(|source| StartError::Bind { address: address.address, source })?;
    }
    Ok(server.run())
}
