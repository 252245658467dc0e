//! Servers in this process, on a network that is cut, slow, or full of noise where a test says so.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use parlour::{
    embed::{Builder, Bytes, Homeserver, Network, http},
    federation::outbound::transport::{Limits, Transport, TransportError},
};
use parlour_actors::keyring::BoxFuture;
use ruma::{OwnedServerName, ServerName};
use tokio::time::{sleep, timeout};

use super::{
    coverage,
    http::Client,
    user::User,
    wire::{Site, Trouble, Troubled},
};

/// A running server of this process.
pub(crate) struct Embedded {
    /// The server itself.
    pub(crate) server: Homeserver,
    /// Without an access token.
    pub(crate) http: Client,
}

impl Embedded {
    /// Starts one for tests.
    pub(crate) fn start(builder: Builder) -> Self {
        let server = builder.test_mode().start_blocking().unwrap();
        let http = Client::inside(server.client());
        Self { server, http }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        coverage::write();
    }
}

impl Site for Embedded {
    type Wire = Line;

    fn behind_wires(count: usize) -> (Vec<Self>, Vec<Line>) {
        let network = Faulty::default();
        let names = (0..count).map(|number| format!("s{number}.test"));
        names.map(|name| (network.start(&name), network.line_to(&name))).unzip()
    }

    fn name(&self) -> String {
        self.server.name().to_string()
    }

    fn http(&self) -> &Client {
        &self.http
    }
}

/// A network on which something may be wrong with the way to each server.
#[derive(Clone, Debug, Default)]
struct Faulty {
    network: Network,
    troubles: Arc<Mutex<HashMap<OwnedServerName, Trouble>>>,
}

impl Faulty {
    fn start(&self, name: &str) -> Embedded {
        let line = Sending { line: Box::new(self.network.line()), troubles: self.troubles.clone() };
        let builder = Homeserver::builder(name).unwrap();
        Embedded::start(builder.transport(Arc::new(line)).network(&self.network))
    }

    fn line_to(&self, name: &str) -> Line {
        Line { to: name.try_into().unwrap(), troubles: self.troubles.clone() }
    }
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Line {
    to: OwnedServerName,
    troubles: Arc<Mutex<HashMap<OwnedServerName, Trouble>>>,
}

impl Troubled for Line {
    fn turn(&self, trouble: Trouble) {
        self.troubles.lock().unwrap().insert(self.to.clone(), trouble);
    }
}

/// What one server sends.
#[derive(Debug)]
struct Sending {
    line: Box<dyn Transport>,
    troubles: Arc<Mutex<HashMap<OwnedServerName, Trouble>>>,
}

impl Sending {
    fn trouble(&self, to: &ServerName) -> Trouble {
        self.troubles.lock().unwrap().get(to).copied().unwrap_or_default()
    }
}

impl Transport for Sending {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        let cut = || TransportError::Connection("the line is cut".to_owned());
        let sent = async move {
            let delay = match self.trouble(to) {
                Trouble::Cut => return Err(cut()),
                Trouble::Noisy => return Ok(http::Response::new(vec![0x55; 4_096].into())),
                Trouble::Refusing => return Ok(refusal()),
                Trouble::None => Duration::ZERO,
                Trouble::Slow(delay) => delay,
            };
            sleep(delay).await;
            let answer = self.line.send(to, request, limits).await?;
            match self.trouble(to) {
                Trouble::Cut => Err(cut()),
                _ => Ok(answer),
            }
        };
        Box::pin(
            async move { timeout(limits.time, sent).await.unwrap_or(Err(TransportError::Timeout)) },
        )
    }
}

/// What a proxy says in the name of a server that is away.
fn refusal() -> http::Response<Bytes> {
    let page = Bytes::from_static(b"<h1>503 Service Unavailable</h1>");
    http::Response::builder().status(503).body(page).unwrap()
}

impl Embedded {
    /// A known user.
    pub(crate) fn again(&self, user: &User) -> User {
        User { http: self.http.with_token(&user.token), ..user.clone() }
    }
}
