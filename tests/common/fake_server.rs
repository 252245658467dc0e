//! A server that says whatever a test wants it to say: for answers that no honest one gives.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use parlour_event::{
    json::{self, Object, Value as Json},
    signing::{self, SigningKey},
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};

use super::federation::{Origin, write_certificates};

/// A request as the fake server has got it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The method.
    pub(crate) method: String,
    /// Path and query, percent-encoded.
    pub(crate) path: String,
    /// The body; `Null` if there is none.
    pub(crate) body: Value,
}

impl Asked {
    /// Whether it is about an endpoint.
    pub(crate) fn is(&self, endpoint: &str) -> bool {
        self.path.starts_with(&format!("/_matrix/federation/{endpoint}"))
    }

    /// A part of the path, decoded.
    pub(crate) fn part(&self, index: usize) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        let part = path.split('/').nth(index).unwrap_or_default();
        percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
    }
}

type Answers = dyn Fn(&Asked) -> Option<(u16, Vec<u8>)> + Send + Sync;

/// See the module. It ends with the test.
pub(crate) struct FakeServer {
    /// Who signs in its name.
    pub(crate) origin: Origin,
    asked: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
}

impl FakeServer {
    /// A server that answers with `answers`: a status and JSON; 404 `M_UNRECOGNIZED` for `None`.
    /// Its keys it tells by itself.
    pub(crate) fn start<F>(answers: impl FnOnce(Origin) -> F) -> Self
    where
        F: Fn(&Asked) -> Option<(u16, Vec<u8>)> + Send + Sync + 'static,
    {
        Self::start_at("localhost", answers)
    }

    /// The same by this name of the machine.
    pub(crate) fn start_at<F>(host: &str, answers: impl FnOnce(Origin) -> F) -> Self
    where
        F: Fn(&Asked) -> Option<(u16, Vec<u8>)> + Send + Sync + 'static,
    {
        Self::start_as(host, keys, answers)
    }

    /// One that answers nothing but what keys it has: what the document says, which it signs.
    pub(crate) fn start_with_keys(document: impl FnOnce(&Origin) -> Value) -> Self {
        let nothing = |_| |_: &Asked| None;
        Self::start_as("localhost", |origin| signed(document(origin), origin), nothing)
    }

    fn start_as<F>(
        host: &str,
        keys: impl FnOnce(&Origin) -> Vec<u8>,
        answers: impl FnOnce(Origin) -> F,
    ) -> Self
    where
        F: Fn(&Asked) -> Option<(u16, Vec<u8>)> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{host}:{}", listener.local_addr().unwrap().port());
        let key = SigningKey::from_seed(&[7; 32], "fake").unwrap();
        let origin = Origin { name, key };
        let answers: Arc<Answers> = Arc::new(answers(origin.clone()));
        let (asked, stopped) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (tls, own) = (tls_config(), keys(&origin));
        let (seen, end) = (asked.clone(), stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (tls, own, answers, seen) =
                    (tls.clone(), own.clone(), answers.clone(), seen.clone());
                std::thread::spawn(move || {
                    // A client that goes away is no failure.
                    let _ = serve(stream.unwrap(), tls, &own, &*answers, &seen);
                });
            }
        });
        Self { origin, asked, stopped }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.origin.name
    }

    /// What it was asked, but for keys.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.origin.name.replace("localhost", "127.0.0.1"));
    }
}

fn tls_config() -> Arc<ServerConfig> {
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path());
    let chain = CertificateDer::pem_file_iter(dir.path().join("tls.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.path().join("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

/// The document with which the server tells its key.
fn keys(origin: &Origin) -> Vec<u8> {
    let document = json!({
        "server_name": origin.name,
        "valid_until_ts": 4_000_000_000_000_i64,
        "verify_keys": { origin.key.key_id(): { "key": encode_key(&origin.key) } },
        "old_verify_keys": {},
    });
    signed(document, origin)
}

/// A public key as documents have it.
pub(crate) fn encode_key(key: &SigningKey) -> String {
    parlour_event::hashes::encode_base64(&key.public_key().to_bytes())
}

fn signed(document: Value, origin: &Origin) -> Vec<u8> {
    let mut document = super::federation::parse(&document);
    signing::sign_json(&mut document, &origin.name, &origin.key);
    bytes(document)
}

/// An object as an answer's body.
pub(crate) fn bytes(object: Object) -> Vec<u8> {
    json::to_canonical(&Json::Object(object))
}

fn serve(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    own: &[u8],
    answers: &Answers,
    seen: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    while let Some(asked) = read(&mut stream)? {
        let (status, body) = match asked.path.as_str() {
            path if path.starts_with("/_matrix/key/v2/server") => (200, own.to_vec()),
            _ => {
                seen.lock().unwrap().push(asked.clone());
                let none = || (404, br#"{"errcode":"M_UNRECOGNIZED","error":"?"}"#.to_vec());
                answers(&asked).unwrap_or_else(none)
            }
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let out = stream.get_mut();
        out.write_all(head.as_bytes())?;
        out.write_all(&body)?;
        out.flush()?;
    }
    Ok(())
}

fn read(stream: &mut impl std::io::BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Asked { method, path, body }))
}
