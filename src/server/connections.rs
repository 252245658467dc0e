//! What happens to a connection: who speaks HTTP on it, and what answers its requests.

use std::{
    cell::RefCell, future::poll_fn, io, net::SocketAddr, rc::Rc, sync::Arc, task::Poll,
    time::Duration,
};

use actix_http::{
    ConnectionType, HttpService, Protocol, Request, Response, Version, body::BoxBody,
};
use actix_web::{
    HttpResponse,
    dev::{Service, ServiceFactory, fn_factory, fn_service},
    http::KeepAlive,
};
use prometheus::IntGauge;
use rustls::ServerConfig;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Shutdown,
    line::{Lent, Line, Socket},
};
use crate::http::{Head, HttpShared, Router, respond};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may stay idle.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long the end of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// How many clients may be agreeing on TLS at once, for each thread; others wait.
const HANDSHAKES: usize = 256;

/// What a listener's connections have in common.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) router: Arc<Router>,
    pub(super) shared: Arc<HttpShared>,
    pub(super) shutdown: Shutdown,
    /// For TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// Serves connections on one thread.
pub(super) fn connections(
    site: Site,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> {
    fn_factory(move || {
        let site = site.clone();
        async move {
            let http = Rc::new(http(&site).new_service(()).await?);
            let tls = site.tls.clone().map(TlsAcceptor::from);
            let shaking = Rc::new(Semaphore::new(HANDSHAKES));
            let site = Rc::new(site);
            Ok::<_, ()>(fn_service(move |stream: TcpStream| {
                let (http, site) = (http.clone(), site.clone());
                let tls = tls.clone().map(|tls| (tls, shaking.clone()));
                async move {
                    // What is to be known of a connection that breaks, the client knows.
                    drop(serve(stream, tls, &*http, &site).await);
                    Ok::<_, ()>(())
                }
            }))
        }
    })
}

/// What speaks HTTP: each connection gets a dispatcher of it.
fn http(
    site: &Site,
) -> HttpService<
    Lent,
    impl ServiceFactory<
        Request,
        Config = (),
        Response = Response<BoxBody>,
        Error = actix_http::Error,
        InitError = (),
    > + use<>,
    BoxBody,
> {
    let (router, shared) = (site.router.clone(), site.shared.clone());
    // The line for which a dispatcher is being made.
    let line: Rc<RefCell<Option<Line>>> = Rc::default();
    let (connects, drains) = (line.clone(), line);
    let shutdown = site.shutdown.clone();
    HttpService::build()
        .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(CLOSE_TIMEOUT)
        .on_connect_ext(move |lent: &Lent, data| {
            data.insert(lent.line());
            *connects.borrow_mut() = Some(lent.line());
        })
        .graceful_shutdown_signal(move || {
            let (line, shutdown) = (drains.borrow_mut().take(), shutdown.clone());
            async move {
                // A dispatcher that is told to end begins no request, not even one that is answered.
                if let Some(line) = line {
                    line.answered().await;
                }
                shutdown.requested().await;
            }
        })
        .finish(fn_service(move |request| answer(request, router.clone(), shared.clone())))
}

/// Speaks TLS on a connection, if that is wanted, and HTTP until it ends.
async fn serve<H>(
    stream: TcpStream,
    tls: Option<(TlsAcceptor, Rc<Semaphore>)>,
    http: &H,
    site: &Site,
) -> io::Result<()>
where
    H: Service<(Lent, Protocol, Option<SocketAddr>)>,
{
    let peer = stream.peer_addr().ok();
    stream.set_nodelay(true)?;
    let (socket, protocol): (Box<dyn Socket>, _) = match tls {
        None => (Box::new(stream), Protocol::Http1),
        Some((tls, shaking)) => {
            let stream = Box::pin(shake_hands(stream, tls, &shaking)).await?;
            let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Box::new(stream), if is_two { Protocol::Http2 } else { Protocol::Http1 })
        }
    };
    let line = Line::new(socket);
    loop {
        // Boxed, so that nothing of it is left while a request waits aside.
        drop(Box::pin(http.call((line.lend(), protocol, peer))).await);
        let Some(waiting) = line.waiting() else { return Ok(()) };
        let _aside = Counted::new(&site.shared.metrics.requests_aside);
        if !line.wait(waiting, || site.shutdown.is_requested()).await {
            return Ok(());
        }
    }
}

/// Counts something for as long as it lives.
struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn shake_hands(
    stream: TcpStream,
    tls: TlsAcceptor,
    shaking: &Semaphore,
) -> io::Result<TlsStream<TcpStream>> {
    let _turn = shaking.acquire().await.map_err(io::Error::other)?;
    timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await?
}

/// Answers one request, or takes it aside.
async fn answer(
    request: Request,
    router: Arc<Router>,
    shared: Arc<HttpShared>,
) -> Result<Response<BoxBody>, actix_http::Error> {
    let line = request.conn_data::<Line>().cloned();
    if let Some(answer) = line.as_ref().and_then(Line::stand_in) {
        return Ok(answer.into());
    }
    let aside = line.as_ref().map(Line::begin).unwrap_or_default();
    let (mut head, payload) = request.into_parts();
    let can_leave =
        head.version == Version::HTTP_11 && head.connection_type() == ConnectionType::KeepAlive;
    let line = line.filter(|_| can_leave);
    let method = head.method.clone();
    let head = Head {
        method: method.clone(),
        uri: std::mem::take(&mut head.uri),
        headers: std::mem::take(&mut head.headers),
        from: head.peer_addr.map(|peer| peer.ip()),
        aside,
    };
    let mut answer = Some(Box::pin(async move { respond(head, payload, shared, &router).await }));
    let answered = poll_fn(|cx| {
        let Some(answering) = &mut answer else { return Poll::Ready(HttpResponse::Ok().finish()) };
        if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        match (line.as_ref().filter(|line| line.may_leave()), answer.take()) {
            (Some(line), Some(answering)) => {
                line.leave(method.clone(), answering);
                // Nobody reads it: it ends the dispatcher.
                Poll::Ready(HttpResponse::Ok().force_close().finish())
            }
            (_, answering) => {
                answer = answering;
                Poll::Pending
            }
        }
    });
    Ok(answered.await.into())
}
