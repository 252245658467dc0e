//! A server for unit tests that says whatever a test wants it to say.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, task::AbortHandle};

use crate::http::Endpoint;

/// A request.
pub(crate) struct Asked {
    pub(crate) path: String,
    query: String,
}

impl Asked {
    /// A parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

type Answers = dyn Fn(&Asked) -> Option<(u16, Value)> + Send + Sync;

/// It ends with the test.
pub(crate) struct FakeServer {
    address: SocketAddr,
    task: AbortHandle,
}

impl FakeServer {
    /// Answers with a status and JSON; 404 for `None`.
    pub(crate) async fn start(
        answers: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let answers: Arc<Answers> = Arc::new(answers);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answers = answers.clone();
                let service = service_fn(move |request| serve(answers.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, task: task.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn endpoint(&self) -> Arc<Endpoint> {
        let endpoint = Endpoint::find(&self.url(), &[], Duration::from_secs(30)).await;
        Arc::new(endpoint.expect("it is there"))
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    answers: Arc<Answers>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // Read, or the connection would not be kept.
    let _ = body.collect().await;
    let asked = Asked {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    };
    // What it answers may take its time: a stall is a blocking wait.
    let answer = tokio::task::spawn_blocking(move || answers(&asked)).await;
    let (status, body) =
        answer.ok().flatten().unwrap_or((404, serde_json::json!({ "errcode": "M_UNRECOGNIZED" })));
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status.try_into().expect("a status");
    Ok(response)
}
