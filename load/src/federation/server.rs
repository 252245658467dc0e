//! The listening side of a played server.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use super::{Certificates, Identity};
use crate::{error::LoadError, message::Event};

/// The longest body that is read: a transaction of fifty events.
const MAX_BODY: usize = 16 << 20;

/// Is told which server got which events.
pub(crate) type Inbox = dyn Fn(usize, Vec<Event>) + Send + Sync;

/// One played server. It ends with this value.
pub(crate) struct Server {
    identity: Arc<Identity>,
    task: AbortHandle,
}

impl Server {
    /// Begins to listen at a free port, which is a part of its name.
    pub(super) async fn start(
        (listen, host): (IpAddr, &str),
        number: usize,
        certificates: Certificates,
        inbox: Arc<Inbox>,
    ) -> Result<Self, LoadError> {
        let failed = |error: std::io::Error| {
            LoadError::Usage(format!("cannot listen at {listen}: {error}; see --listen"))
        };
        let listener = TcpListener::bind((listen, 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let identity = Arc::new(Identity::new(&format!("{host}:{port}"))?);
        let service = Arc::new(Service {
            number,
            keys: identity.keys().into(),
            inbox,
            done: Mutex::default(),
        });
        let task = tokio::spawn(listen_on(listener, certificates, service)).abort_handle();
        Ok(Self { identity, task })
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Is dead from now on: nobody can connect, and all connections are cut.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Service {
    number: usize,
    keys: Bytes,
    inbox: Arc<Inbox>,
    /// The transaction that was taken in last: its answer may get lost, and it comes again.
    done: Mutex<String>,
}

async fn listen_on(listener: TcpListener, certificates: Certificates, service: Arc<Service>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(serve(stream, certificates.clone(), service.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, certificates: Certificates, service: Arc<Service>) {
    // Who breaks the connection is no concern of this side.
    let _ = stream.set_nodelay(true);
    let Ok(stream) = certificates.acceptor.accept(stream).await else { return };
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return json(413, r#"{"errcode":"M_TOO_LARGE","error":"too large"}"#.into());
        };
        let path = parts.uri.path();
        if path.starts_with("/_matrix/key/v2/server") {
            return json(200, self.keys.clone());
        }
        let transaction = path.strip_prefix("/_matrix/federation/v1/send/");
        match transaction.filter(|_| parts.method == Method::PUT) {
            Some(id) => self.take(id, &body.to_bytes()),
            None => json(404, r#"{"errcode":"M_UNRECOGNIZED","error":"only a load test"}"#.into()),
        }
    }

    fn take(&self, id: &str, body: &[u8]) -> Response<Full<Bytes>> {
        #[derive(Deserialize)]
        struct Transaction {
            #[serde(default)]
            pdus: Vec<Event>,
        }
        let Ok(Transaction { pdus }) = serde_json::from_slice(body) else {
            return json(400, r#"{"errcode":"M_BAD_JSON","error":"no transaction"}"#.into());
        };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if *done != id {
            id.clone_into(&mut done);
            drop(done);
            (self.inbox)(self.number, pdus);
        }
        json(200, r#"{"pdus":{}}"#.into())
    }
}

fn json(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status.try_into().unwrap_or_default();
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
