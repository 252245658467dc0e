//! Listeners: plain and TLS, grouped by what they serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::Arc,
    time::Duration,
};

use actix_web::{App, HttpServer, dev::Server, web};

use super::{Address, GRACE, StartError, certificate::Certificate};
use crate::{
    config::ListenerConfig,
    http::{Api, HttpShared, Router, Routes, dispatch},
};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may stay idle.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

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
            group(sockets, router, Arc::clone(shared), if busy { threads } else { 1 })
        })
        .collect()
}

fn group(
    sockets: Vec<Bound>,
    router: Arc<Router>,
    shared: Arc<HttpShared>,
    threads: usize,
) -> Result<Server, StartError> {
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::from(Arc::clone(&shared)))
            .app_data(web::Data::from(Arc::clone(&router)))
            .default_service(web::to(dispatch))
    })
    .workers(threads)
    .client_request_timeout(HEAD_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .tcp_nodelay(true)
    .shutdown_timeout(GRACE.as_secs())
    .disable_signals();
    for Bound { address, socket, tls } in sockets {
        let result = match tls {
            Some(tls) => server.listen_rustls_0_23(socket, tls.server_config()?),
            None => server.listen(socket),
        };
        server = result.map_err(|source| StartError::Bind { address: address.address, source })?;
    }
    Ok(server.run())
}
