//! HTTP/1.1, as lean as it can be: a connection belongs to one virtual user, is kept alive, and is
//! opened again when it is gone. There is no pool, so there is nothing to wait for but the server.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::error::{Failure, LoadError};

/// A request with its whole body.
pub(crate) type Outgoing = Request<Full<Bytes>>;

/// Where a server is.
pub(crate) struct Endpoint {
    addresses: Vec<SocketAddr>,
    host: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

impl Endpoint {
    /// Finds the server of a URL such as `https://matrix.example.org`.
    pub(crate) async fn find(
        url: &str,
        ca_files: &[PathBuf],
        patience: Duration,
    ) -> Result<Self, LoadError> {
        let uri: Uri = url.parse().map_err(|_| wrong_url(url))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong_url(url)),
        };
        if uri.path().len() > 1 {
            return Err(wrong_url(url));
        }
        let authority = uri.authority().ok_or_else(|| wrong_url(url))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let unreachable = |reason: &dyn ToString| LoadError::Unreachable {
            target: url.to_owned(),
            reason: reason.to_string(),
        };
        let found = lookup_host((host.as_str(), port)).await.map(Iterator::collect);
        let addresses = found.map_err(|error| unreachable(&error))?;
        let tls = match secure {
            true => {
                let name = ServerName::try_from(host).map_err(|error| unreachable(&error))?;
                Some((TlsConnector::from(Arc::new(trust(ca_files)?)), name))
            }
            false => None,
        };
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong_url(url))?;
        Ok(Self { addresses, host, tls, patience })
    }

    /// Where it listens, as names have told it.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(&*self.addresses).await.map_err(|error| broken(&error))?;
        stream.set_nodelay(true).map_err(|error| broken(&error))?;
        match &self.tls {
            None => handshake(TokioIo::new(stream)).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                handshake(TokioIo::new(stream.map_err(|error| broken(&error))?)).await
            }
        }
    }
}

fn wrong_url(url: &str) -> LoadError {
    let text = format!("`{url}` is no server's address; it looks like https://matrix.example.org");
    LoadError::Usage(text)
}

/// An error with its causes, which alone say what happened.
fn broken(error: &dyn std::error::Error) -> Failure {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    Failure::Connection(texts.join(": "))
}

async fn handshake<T>(io: T) -> Result<SendRequest<Full<Bytes>>, Failure>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(|error| broken(&error))?;
    // Whoever waits for an answer learns what became of the connection.
    tokio::spawn(connection);
    Ok(sender)
}

/// Whose certificates are believed: those that the system does, and these files'.
fn trust(ca_files: &[PathBuf]) -> Result<ClientConfig, LoadError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in ca_files {
        let found = CertificateDer::pem_file_iter(file).map_err(LoadError::file(file))?;
        for certificate in found {
            roots
                .add(certificate.map_err(LoadError::file(file))?)
                .map_err(LoadError::file(file))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| LoadError::Broken(error.to_string()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// A connection that is opened when it is first needed.
pub(crate) struct Connection {
    endpoint: Arc<Endpoint>,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(crate) fn to(endpoint: &Arc<Endpoint>) -> Self {
        Self { endpoint: endpoint.clone(), open: None }
    }

    /// Sends a request, whose URI is path and query, and reads the whole answer.
    ///
    /// `patience` is how long the server may wait by itself, as in a long poll, beyond what it may
    /// take for any answer.
    pub(crate) async fn exchange(
        &mut self,
        mut request: Outgoing,
        patience: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        request.headers_mut().insert(header::HOST, self.endpoint.host.clone());
        let limit = self.endpoint.patience + patience;
        // A cancelled exchange leaves the connection in the middle of an answer: it is gone.
        let taken = self.open.take();
        match timeout(limit, self.attempt(taken, request)).await {
            Ok(Ok((answer, connection))) => {
                self.open = Some(connection);
                Ok(answer)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Timeout(limit)),
        }
    }

    async fn attempt(
        &self,
        open: Option<SendRequest<Full<Bytes>>>,
        request: Outgoing,
    ) -> Result<(Response<Bytes>, SendRequest<Full<Bytes>>), Failure> {
        if let Some(mut connection) = open
            && connection.ready().await.is_ok()
        {
            let again = request.clone();
            match connection.send_request(request).await {
                Ok(response) => return Ok((whole(response).await?, connection)),
                // Servers close connections that were idle; then nothing has been sent.
                Err(error) if error.is_canceled() => return self.fresh(again).await,
                Err(error) => return Err(broken(&error)),
            }
        }
        self.fresh(request).await
    }

    async fn fresh(
        &self,
        request: Outgoing,
    ) -> Result<(Response<Bytes>, SendRequest<Full<Bytes>>), Failure> {
        let mut connection = self.endpoint.connect().await?;
        let sent = connection.send_request(request).await.map_err(|error| broken(&error))?;
        Ok((whole(sent).await?, connection))
    }
}

async fn whole(response: Response<hyper::body::Incoming>) -> Result<Response<Bytes>, Failure> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| broken(&error))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
