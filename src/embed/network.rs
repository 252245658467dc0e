//! A network inside one process.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parlour_actors::keyring::BoxFuture;
use ruma::{OwnedServerName, ServerName};
use tokio::{sync::watch, time::timeout};

use crate::{
    federation::outbound::transport::{Limits, Transport, TransportError},
    http::DirectError,
    server::{Door, DoorError, StartError},
};

/// The first part of the addresses that servers seem to have: private ones, a network for each, so
/// that limits by address count them one by one.
const PREFIX: u128 = 0xfd50 << 112;

/// Carries requests between the servers of one process, which find each other by their names.
/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Network(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    servers: Mutex<HashMap<OwnedServerName, watch::Receiver<Option<Door>>>>,
    lines: AtomicU64,
}

/// A server's place on a network, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    network: Network,
    name: OwnedServerName,
    door: watch::Sender<Option<Door>>,
}

/// One server's way to all others.
#[derive(Debug)]
struct Line {
    network: Network,
    address: IpAddr,
}

impl Network {
    /// A network without servers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A way to all servers on it: for one more server, or for a [`Transport`] that does something
    /// with requests before it passes them on.
    #[must_use]
    pub fn line(&self) -> impl Transport + use<> {
        let number = self.0.lines.fetch_add(1, Ordering::Relaxed);
        let address = Ipv6Addr::from_bits(PREFIX | u128::from(number) << 64);
        Line { network: self.clone(), address: address.into() }
    }

    /// Makes room for a server. Those who ask it before it has started wait for that.
    pub(super) fn take_place(&self, name: &ServerName) -> Result<Place, StartError> {
        let (door, opened) = watch::channel(None);
        match self.servers().entry(name.to_owned()) {
            Entry::Occupied(_) => {
                let why = format!("there is a server called {name} on the network already");
                Err(StartError::Part(why))
            }
            Entry::Vacant(entry) => {
                entry.insert(opened);
                Ok(Place { network: self.clone(), name: name.to_owned(), door })
            }
        }
    }

    async fn door(&self, to: &ServerName) -> Result<Door, TransportError> {
        let nobody = || TransportError::Connection(format!("there is no server called {to}"));
        let mut opened = self.servers().get(to).cloned().ok_or_else(nobody)?;
        let door = opened.wait_for(Option::is_some).await.map_err(|_| nobody())?;
        door.clone().ok_or_else(nobody)
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<OwnedServerName, watch::Receiver<Option<Door>>>> {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Lets others in.
    pub(super) fn open(&self, door: Door) {
        self.door.send_replace(Some(door));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.network.servers().remove(&self.name);
    }
}

impl Transport for Line {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        let sent = async move {
            let door = self.network.door(to).await?;
            door.ask(request, self.address, limits.body).await.map_err(|error| match error {
                DoorError::Direct(DirectError::TooLarge) => TransportError::TooLarge,
                error => TransportError::Connection(error.to_string()),
            })
        };
        Box::pin(
            async move { timeout(limits.time, sent).await.unwrap_or(Err(TransportError::Timeout)) },
        )
    }
}
