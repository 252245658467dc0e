//! Listeners of the real server: plain and TLS, several at once, many servers in one process.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use parlour::{
    assemble::assemble,
    config::{Config, Source},
    federation::outbound::transport::{Limits, Transport, TransportError},
    http::Api,
    server::{self, Running, StartError},
};
use parlour_actors::{env::Env, keyring::BoxFuture};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

fn start(text: &str) -> Result<Running, StartError> {
    let config = Config::load(&Source::text(text)).expect("configuration");
    server::launch(config, Env::system(), assemble)
}

fn get(mut stream: impl Read + Write, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("send");
    let mut answer = Vec::new();
    // A server may close TLS without saying so; what came until then is the answer.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    }
    String::from_utf8(answer).expect("UTF-8")
}

fn plain(server: &Running, number: usize, path: &str) -> String {
    get(TcpStream::connect(server.addresses()[number].address).expect("connect"), path)
}

const TWO: &str = r#"
    server = { name = "example.org", data_dir = "memory", public_url = "https://m.example.org/" }
    listeners = [
        { address = "127.0.0.1", port = 0, apis = ["client"] },
        { address = "127.0.0.1", port = 0, apis = ["metrics"] },
    ]
"#;

#[test]
fn each_listener_serves_its_own_apis() {
    let server = start(TWO).expect("start");
    assert_eq!(server.addresses()[0].apis, [Api::Client].into());
    let versions = "/_matrix/client/versions";
    let answer = plain(&server, 0, versions);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"v1.19\""), "{answer}");
    assert!(plain(&server, 1, versions).starts_with("HTTP/1.1 404"));
    assert!(plain(&server, 0, "/metrics").starts_with("HTTP/1.1 404"));
    let metrics = plain(&server, 1, "/metrics");
    assert!(metrics.contains("parlour_http_request_seconds_count"), "{metrics}");
}

#[test]
fn well_known() {
    let server = start(TWO).expect("start");
    let answer = plain(&server, 0, "/.well-known/matrix/client");
    assert!(
        answer.contains(r#"{"m.homeserver":{"base_url":"https://m.example.org"}}"#),
        "{answer}"
    );
    let server = start(&TWO.replace("https://m.example.org/", "")).expect("start");
    let answer = plain(&server, 0, "/.well-known/matrix/client");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("M_NOT_FOUND"), "{answer}");
}

/// A network in which every server answers with what it was asked for.
#[derive(Debug)]
struct Echo;

impl Transport for Echo {
    fn send<'a>(
        &'a self,
        to: &'a ruma::ServerName,
        request: http::Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        let signed = request.headers()[http::header::AUTHORIZATION].to_str().expect("text");
        let answer = serde_json::json!({ "displayname": format!("{to} {signed}") }).to_string();
        Box::pin(std::future::ready(Ok(http::Response::new(answer.into()))))
    }
}

#[test]
fn requests_to_others_go_through_the_network_that_is_given() {
    let config = Config::load(&Source::text(TWO)).expect("configuration");
    let server = server::launch(config, Env::system(), |mut boot| {
        boot.transport = Some(Arc::new(Echo));
        assemble(boot)
    });
    let server = server.expect("start");
    let client = format!("http://{}/_matrix/client/v3", server.addresses()[0].address);
    let alice = r#"{"username":"alice","password":"pass","auth":{"type":"m.login.dummy"}}"#;
    let registered = ureq::post(format!("{client}/register")).send(alice);
    let registered = json(registered.expect("an account"));
    let token = registered["access_token"].as_str().expect("a token");
    let profile = ureq::get(format!("{client}/profile/@bob:far.org"))
        .header("Authorization", &format!("Bearer {token}"))
        .call();
    let profile = json(profile.expect("a profile"));
    let name = profile["displayname"].as_str().expect("a name");
    let signed = r#"far.org X-Matrix origin="example.org",destination="far.org",key="#;
    assert!(name.starts_with(signed), "{name}");
}

fn json(mut answer: ureq::http::Response<ureq::Body>) -> serde_json::Value {
    let text = answer.body_mut().read_to_string().expect("text");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn many_servers_in_one_process() {
    let servers: Vec<Running> = (0..4).map(|_| start(TWO).expect("start")).collect();
    plain(&servers[0], 0, "/_matrix/client/versions");
    for (number, server) in servers.iter().enumerate() {
        let counted = plain(server, 1, "/metrics").contains("client/versions");
        assert_eq!(counted, number == 0, "metrics of server {number}");
    }
    for server in servers {
        let address = server.addresses()[0].address;
        server.stop();
        assert!(TcpStream::connect(address).is_err(), "{address} still listens");
    }
}

#[test]
fn a_taken_port_says_what_to_do() {
    let first = start(TWO).expect("start");
    let taken = first.addresses()[0].address.port();
    let text = TWO.replacen("port = 0", &format!("port = {taken}"), 1);
    let complaint = start(&text).expect_err("taken").to_string();
    assert!(complaint.contains(&taken.to_string()) && complaint.contains("[[listeners]]"));
    assert_eq!(complaint.lines().count(), 1);
}

fn tls(certificate: &Path, key: &Path) -> String {
    format!(
        "server = {{ name = \"example.org\", data_dir = \"memory\" }}\n\
         listeners = [{{ address = \"127.0.0.1\", port = 0, apis = [\"client\"], \
         tls_certificate = {certificate:?}, tls_key = {key:?} }}]"
    )
}

/// Writes a new certificate for `localhost` and its key.
fn certify(certificate: &Path, key: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    std::fs::write(certificate, made.cert.pem()).expect("write");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("write");
}

/// A connection to a server that must have this certificate.
fn secure(server: &Running, certificate: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).expect("PEM")).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The server speaks HTTP/2 as well, this test does not.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("connection");
    StreamOwned::new(
        connection,
        TcpStream::connect(server.addresses()[0].address).expect("connect"),
    )
}

#[test]
fn tls_listener() {
    let dir = tempfile::tempdir().expect("dir");
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    certify(&certificate, &key);
    let server = start(&tls(&certificate, &key)).expect("start");
    assert!(server.addresses()[0].tls);
    let answer = get(secure(&server, &certificate), "/_matrix/client/versions");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("v1.19"), "{answer}");
}

#[test]
fn certificates_are_read_again_when_the_operator_says_so() {
    let dir = tempfile::tempdir().expect("dir");
    let [certificate, key, old] =
        ["cert.pem", "key.pem", "old.pem"].map(|name| dir.path().join(name));
    certify(&certificate, &key);
    let server = start(&tls(&certificate, &key)).expect("start");
    let good = |certificate: &Path| {
        let answer = get(secure(&server, certificate), "/_matrix/client/versions");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    std::fs::copy(&certificate, &old).expect("copy");
    certify(&certificate, &key);
    good(&old);
    server.reload_certificates();
    good(&certificate);
    let refused = secure(&server, &old).write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert!(refused.is_err(), "the old certificate is still there");
    // What cannot be used leaves what there is.
    std::fs::write(&key, "nonsense").expect("write");
    server.reload_certificates();
    good(&certificate);
}

#[test]
fn bad_certificates_are_named() {
    let dir = tempfile::tempdir().expect("dir");
    let (good, bad) = (dir.path().join("good.pem"), dir.path().join("bad.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    std::fs::write(&good, made.cert.pem()).expect("write");
    std::fs::write(&bad, "nonsense").expect("write");
    for (certificate, key, named) in [
        (&bad, &bad, &bad),
        (&good, &bad, &bad),
        (&good, &dir.path().join("missing.pem"), &dir.path().join("missing.pem")),
    ] {
        let complaint = start(&tls(certificate, key)).expect_err("bad").to_string();
        assert!(complaint.contains(&named.display().to_string()), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}
