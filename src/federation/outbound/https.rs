//! The real transport: HTTP/1.1 over TLS, with connections that are used again, on a thread of its
//! own, so that other servers' handshakes don't slow clients down.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Uri, header, uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use parlour_actors::{keyring::BoxFuture, threads::Thread};
use ruma::ServerName;
use rustls::ClientConfig;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{
    discovery::{Discovery, Locator},
    transport::{Limits, Transport, TransportError},
    well_known::Web,
};

/// How long one address may take to answer before the next is tried.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection is kept that nobody uses, and how many of them to one server.
const IDLE: Duration = Duration::from_secs(60);
const MAX_IDLE: usize = 4;

/// What a page of the web may cost.
const PAGE: Limits = Limits { time: Duration::from_secs(10), body: 50 << 10 };

/// What this server calls itself.
const USER_AGENT: &str = concat!("Parlour/", env!("CARGO_PKG_VERSION"));

/// Where requests are carried: one thread.
#[derive(Clone)]
pub struct Carrier {
    thread: Thread,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl Carrier {
    /// Carries on this thread.
    #[must_use]
    pub fn new(thread: Thread, tls: Arc<ClientConfig>) -> Self {
        Self { thread, tls }
    }

    /// Stops the thread; what is under way ends with [`TransportError::Stopped`].
    pub fn stop(&self) {
        self.thread.stop();
    }

    /// Runs something on the thread until it is done or nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, TransportError> {
        let (mut done, result) = oneshot::channel();
        self.thread.spawn(async move {
            let ready = tokio::select! {
                ready = work => ready,
                () = done.closed() => return,
            };
            let _ = done.send(ready);
        });
        result.await.map_err(|_| TransportError::Stopped)
    }
}

type Requests = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// One pool of connections.
fn pool(tls: &ClientConfig, connector: Connector) -> Requests {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_only()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .build(connector)
}

/// HTTPS to other servers.
#[derive(Debug)]
pub struct Https {
    carrier: Carrier,
    discovery: Arc<Discovery>,
    requests: Requests,
}

impl Https {
    /// Requests to the servers that `discovery` finds.
    #[must_use]
    pub fn new(carrier: Carrier, discovery: Arc<Discovery>) -> Self {
        let connector = Connector { find: Find::Server(discovery.clone()) };
        let requests = pool(&carrier.tls, connector);
        Self { carrier, discovery, requests }
    }
}

impl Transport for Https {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        let (discovery, requests, to) =
            (self.discovery.clone(), self.requests.clone(), to.to_owned());
        let work = async move {
            let delegated = discovery.delegate(&to).await;
            exchange(&requests, delegated.as_str(), request, limits.body).await
        };
        Box::pin(async move {
            let bounded = self.carrier.run(timeout(limits.time, work)).await?;
            bounded.map_err(|_| TransportError::Timeout)?
        })
    }
}

/// One request to an authority, which decides about `Host` and certificate.
async fn exchange(
    requests: &Requests,
    authority: &str,
    request: http::Request<Bytes>,
    max_body: usize,
) -> Result<http::Response<Bytes>, TransportError> {
    let failed = |error: &dyn std::error::Error| TransportError::Connection(chain(error));
    let (mut parts, body) = request.into_parts();
    let mut uri = uri::Parts::default();
    uri.scheme = Some(uri::Scheme::HTTPS);
    uri.authority = Some(authority.parse().map_err(|error| failed(&error))?);
    uri.path_and_query = parts.uri.into_parts().path_and_query;
    parts.uri = Uri::from_parts(uri).map_err(|error| failed(&error))?;
    let host = HeaderValue::from_str(authority).map_err(|error| failed(&error))?;
    parts.headers.insert(header::HOST, host);
    parts.headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let request = http::Request::from_parts(parts, Full::new(body));
    let response = requests.request(request).await.map_err(|error| failed(&error))?;
    let (parts, body) = response.into_parts();
    match Limited::new(body, max_body).collect().await {
        Ok(body) => Ok(http::Response::from_parts(parts, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(TransportError::TooLarge),
        Err(error) => Err(failed(&*error)),
    }
}

/// An error with its causes, which alone say what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// Pages of the web.
#[derive(Debug)]
pub struct HttpsWeb {
    carrier: Carrier,
    requests: Requests,
}

impl HttpsWeb {
    /// Pages from wherever `locator` finds their hosts.
    #[must_use]
    pub fn new(carrier: Carrier, locator: Locator) -> Self {
        let requests = pool(&carrier.tls, Connector { find: Find::Web(locator) });
        Self { carrier, requests }
    }
}

impl Web for HttpsWeb {
    fn get(&self, uri: Uri) -> BoxFuture<'_, Option<http::Response<Bytes>>> {
        Box::pin(async move {
            let authority = uri.authority()?.as_str().to_owned();
            let mut request = http::Request::new(Bytes::new());
            *request.uri_mut() = uri;
            let requests = self.requests.clone();
            let work = async move { exchange(&requests, &authority, request, PAGE.body).await };
            self.carrier.run(timeout(PAGE.time, work)).await.ok()?.ok()?.ok()
        })
    }
}

/// Opens connections for the pools; TLS comes on top of it.
#[derive(Debug, Clone)]
struct Connector {
    find: Find,
}

#[derive(Debug, Clone)]
enum Find {
    Server(Arc<Discovery>),
    Web(Locator),
}

impl Find {
    async fn addresses(&self, uri: &Uri) -> io::Result<Vec<SocketAddr>> {
        let authority = uri.authority().map(uri::Authority::as_str).unwrap_or_default();
        let found = match self {
            Self::Server(discovery) => {
                let name = <&ServerName>::try_from(authority).map_err(io::Error::other)?;
                discovery.locate(name).await
            }
            Self::Web(locator) => {
                let host = uri.host().unwrap_or_default();
                locator.addresses(&[(host.to_owned(), uri.port_u16().unwrap_or(443))]).await
            }
        };
        found.map_err(io::Error::other)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let find = self.find.clone();
        Box::pin(async move { connect(&find.addresses(&uri).await?).await.map(TokioIo::new) })
    }
}

/// The first of some addresses that answers.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
