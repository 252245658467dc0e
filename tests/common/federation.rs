//! Servers that speak to each other over TLS on this machine, and requests in the name of one.

use std::{fs, path::Path, sync::LazyLock};

use parlour_event::{
    hashes,
    json::{self, Object, Value as Json},
    signing::{self, SigningKey},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use super::{
    answer::Answer,
    http::Client,
    server::{Server, free_port},
    wire::{Site, Wire},
};

/// Whom all servers of the tests believe.
static AUTHORITY: LazyLock<(String, Issuer<'static, KeyPair>)> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), Issuer::new(params, key))
});

/// Writes a certificate for this machine, its key, and that of the authority, to a directory.
pub(super) fn write_certificates(dir: &Path) {
    let (authority, issuer) = &*AUTHORITY;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, issuer).unwrap();
    fs::write(dir.join("ca.pem"), authority).unwrap();
    fs::write(dir.join("tls.pem"), certificate.pem()).unwrap();
    fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
}

impl Server {
    /// A server that others find: its name is `localhost:` and the port on which it speaks TLS.
    pub(crate) fn start_federated(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare_federated(settings);
        server.launch();
        server
    }

    /// One whose name begins with an address, so that rules for names tell it from the others.
    pub(crate) fn start_federated_by_address() -> Self {
        let secure = free_port();
        let mut server = Self::prepare_federated_as(&format!("127.0.0.1:{secure}"), secure, &[]);
        server.launch();
        server
    }

    /// One with a wire between it and the others, who know the wire's other end alone.
    pub(crate) fn start_federated_behind_a_wire() -> (Self, Wire) {
        let secure = free_port();
        let wire = Wire::to(secure);
        let name = format!("localhost:{}", wire.port());
        let mut server = Self::prepare_federated_as(&name, secure, &[]);
        server.launch();
        (server, wire)
    }

    /// The same, without a process yet.
    pub(crate) fn prepare_federated(settings: &[(&str, &str)]) -> Self {
        let secure = free_port();
        Self::prepare_federated_as(&format!("localhost:{secure}"), secure, settings)
    }

    fn prepare_federated_as(name: &str, secure: u16, settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let tls = r#"tls_certificate = "tls.pem", tls_key = "tls.key""#;
        let listeners = format!(
            r#"[{{ address = "127.0.0.1", port = {port}, apis = ["client", "admin", "metrics", "federation"] }},
               {{ address = "127.0.0.1", port = {secure}, apis = ["federation"], {tls} }}]"#
        );
        let mut all = vec![
            ("PARLOUR_SERVER__NAME", name),
            ("PARLOUR_LISTENERS", &listeners),
            ("PARLOUR_FEDERATION__ALLOW_SERVERS", r#"["localhost", "127.0.0.1"]"#),
            ("PARLOUR_FEDERATION__EXTRA_CA_FILES", r#"["ca.pem"]"#),
            ("PARLOUR_FEDERATION__ALLOWED_PRIVATE_RANGES", r#"["127.0.0.0/8", "::1"]"#),
        ];
        all.extend_from_slice(settings);
        let server = Self::prepare_at(port, &all);
        write_certificates(server.home());
        server
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        let name = self.settings().iter().find(|(key, _)| key == "PARLOUR_SERVER__NAME");
        name.map_or("localhost", |(_, name)| name).to_owned()
    }

    /// Whoever signs with this server's key.
    pub(crate) fn origin(&self) -> Origin {
        let text = fs::read_to_string(self.data().join("signing.key")).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        let seed = hashes::decode_base64_array(words[2]).unwrap();
        Origin { name: self.name(), key: SigningKey::from_seed(&seed, words[1]).unwrap() }
    }
}

impl Site for Server {
    type Wire = Wire;

    fn behind_wires(count: usize) -> (Vec<Self>, Vec<Wire>) {
        (0..count).map(|_| Self::start_federated_behind_a_wire()).unzip()
    }

    fn name(&self) -> String {
        self.name()
    }

    fn http(&self) -> &Client {
        &self.http
    }
}

/// A server in whose name requests are made.
#[derive(Clone)]
pub(crate) struct Origin {
    /// Its name.
    pub(crate) name: String,
    /// Its key.
    pub(crate) key: SigningKey,
}

impl Origin {
    /// The signature over a request.
    pub(crate) fn signature(&self, to: &str, method: &str, path: &str, body: &[u8]) -> String {
        let request = Object::from([
            ("method".to_owned(), method.into()),
            ("uri".to_owned(), path.into()),
            ("origin".to_owned(), self.name.as_str().into()),
            ("destination".to_owned(), to.into()),
        ]);
        let mut signed = json::to_canonical(&Json::Object(request));
        if !body.is_empty() {
            // What cannot be read is signed as it is.
            let content = json::parse_lax(body).map(|content| json::to_canonical(&content));
            let content = content.unwrap_or_else(|_| body.to_owned());
            signed = [br#"{"content":"#, &content[..], b",", &signed[1..]].concat();
        }
        hashes::encode_base64(&self.key.sign(&signed))
    }

    /// A signed request to a server.
    #[track_caller]
    pub(crate) fn send(&self, to: &Server, method: &str, path: &str, body: &[u8]) -> Answer {
        let (name, key) = (to.name(), self.key.key_id());
        let signature = self.signature(&name, method, path, body);
        let origin = &self.name;
        let header = format!(
            r#"X-Matrix origin="{origin}",destination="{name}",key="{key}",sig="{signature}""#
        );
        to.http.with_header("Authorization", &header).send(method, path, body)
    }

    /// A signed `GET`.
    #[track_caller]
    pub(crate) fn get(&self, to: &Server, path: &str) -> Answer {
        self.send(to, "GET", path, b"")
    }
}

/// An answer's object as Parlour has it: for signatures.
pub(crate) fn parse(value: &Value) -> Object {
    let value = json::parse_lax(value.to_string().as_bytes()).unwrap();
    value.as_object().unwrap().clone()
}

/// The canonical form.
pub(crate) fn canonical(value: &Value) -> String {
    json::to_canonical_string(&Json::Object(parse(value)))
}

impl Client {
    /// The very bytes of an answer.
    pub(crate) fn text(&self, path: &str) -> String {
        let answer = ureq::get(format!("{}{path}", self.base())).call();
        answer.unwrap().body_mut().read_to_string().unwrap()
    }
}
