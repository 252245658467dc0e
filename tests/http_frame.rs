//! The frame around every endpoint, seen from outside: a server in this process, raw requests.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpResponse, http::Method};
use parlour::{
    assemble,
    config::{Config, Source},
    error::ApiError,
    http::{
        Api, Authenticator, BoxFuture, Caller, RawRequest, RequestMeta, RouteError, RouteOptions,
        Router, Routes, Ruma, Standing,
    },
    limits::RateClass,
    server::{self, Boot, Running, Service, StartError},
};
use parlour_actors::env::Env;
use ruma::{
    api::client::{
        account::whoami,
        message::send_message_event,
        profile::get_profile,
        session::login,
        state::{get_state_event_for_key, send_state_event},
        sync::sync_events,
    },
    device_id, user_id,
};
use serde_json::{Value, json};

/// Knows one token.
struct OneToken;

impl Authenticator for OneToken {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        _: &'a RequestMeta,
    ) -> BoxFuture<'a, Result<Caller, ApiError>> {
        let caller = Caller {
            user_id: user_id!("@alice:example.org").to_owned(),
            device_id: device_id!("PHONE").to_owned(),
            guest: false,
            admin: false,
            standing: Standing::Active,
        };
        let result = if token == "good" { Ok(caller) } else { Err(ApiError::unknown_token(true)) };
        Box::pin(std::future::ready(result))
    }
}

type Answer<T> = Result<T, ApiError>;

async fn who((): (), req: Ruma<whoami::v3::Request>) -> Answer<whoami::v3::Response> {
    Ok(whoami::v3::Response::new(req.caller.user_id.clone(), false))
}

/// Puts what it saw into the event id's place, so that tests can look at it.
async fn send(
    (): (),
    req: Ruma<send_message_event::v3::Request>,
) -> Answer<send_message_event::v3::Response> {
    let seen = format!("${}|{}|{}", req.room_id, req.event_type, req.txn_id).replace(':', ".");
    let seen = seen.try_into().map_err(ApiError::internal)?;
    Ok(send_message_event::v3::Response::new(seen))
}

async fn set_state(
    (): (),
    req: Ruma<send_state_event::v3::Request>,
) -> Answer<send_state_event::v3::Response> {
    let seen = format!("${}|{}", req.event_type, req.state_key).replace(':', ".");
    let seen = seen.try_into().map_err(ApiError::internal)?;
    Ok(send_state_event::v3::Response::new(seen))
}

async fn get_state(
    (): (),
    req: Ruma<get_state_event_for_key::v3::Request>,
) -> Answer<get_state_event_for_key::v3::Response> {
    let text = json!({ "type": req.event_type, "state_key": req.state_key }).to_string();
    let raw = serde_json::value::RawValue::from_string(text).map_err(ApiError::internal)?;
    Ok(get_state_event_for_key::v3::Response::new(raw))
}

async fn log_in((): (), _: Ruma<login::v3::Request>) -> Answer<login::v3::Response> {
    Err(ApiError::forbidden("Wrong password"))
}

async fn sync((): (), _: Ruma<sync_events::v3::Request>) -> Answer<sync_events::v3::Response> {
    Ok(sync_events::v3::Response::new("s1".to_owned()))
}

async fn panics((): (), _: Ruma<get_profile::v3::Request>) -> Answer<get_profile::v3::Response> {
    panic!("a secret in a panic");
}

async fn echo((): (), req: RawRequest) -> Answer<HttpResponse> {
    let body: Value = req.json()?;
    Ok(HttpResponse::Ok().json(json!({ "args": req.path_args, "query": req.query, "body": body })))
}

/// Waits for the stop, as a long-poll does.
async fn park(boot: Boot, _: RawRequest) -> Answer<HttpResponse> {
    boot.metrics.parked_syncs.inc();
    boot.shutdown.requested().await;
    Ok(HttpResponse::Ok().body("woken"))
}

async fn test_service(boot: Boot) -> Result<Service, StartError> {
    let routes = Routes::new(Api::Client, ())
        .route(who)
        .route(send)
        .route(set_state)
        .route(get_state)
        .route_with(RouteOptions::rate(RateClass::Login), log_in)
        .route(sync)
        .route(panics)
        .raw(Method::POST, "/_synapse/echo/{one}/{two}", RouteOptions::default(), echo)
        .finish()
        .and(
            Routes::new(Api::Client, boot.clone())
                .raw(Method::GET, "/park", RouteOptions::default(), park)
                .finish(),
        )
        .and(assemble::metrics_routes(boot.metrics.clone(), assemble::Looks::default()));
    Ok(Service::new(Arc::new(OneToken), routes))
}

const LISTENERS: &str = r#"
    server.name = "example.org"
    server.data_dir = "memory"
    server.public_url = "https://matrix.example.org/"
    threads.http = 2
    limits.max_client_body = 100000
    limits.login = { per_second = 0.001, burst = 2 }
    [[listeners]]
    address = "127.0.0.1"
    port = 0
    apis = ["client", "metrics"]
"#;

fn start() -> Running {
    let config = Config::load(&Source::text(LISTENERS)).expect("configuration");
    server::launch(config, Env::system(), test_service).expect("start")
}

fn address(server: &Running) -> SocketAddr {
    server.addresses()[0].address
}

struct Response {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Response {
    fn read(mut from: impl Read) -> Self {
        let mut text = Vec::new();
        from.read_to_end(&mut text).expect("an answer");
        let text = String::from_utf8(text).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.parse().expect("a number"),
            headers: headers.map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn errcode(&self) -> String {
        self.json()["errcode"].as_str().expect("an errcode").to_owned()
    }
}

fn head(method: &str, target: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n"
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

fn request(
    server: &Running,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut stream = TcpStream::connect(address(server)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    stream.write_all(head(method, target, headers, body.len()).as_bytes()).expect("head");
    stream.write_all(body).expect("body");
    Response::read(stream)
}

type Headers<'a> = &'a [(&'a str, &'a str)];

const GOOD: (&str, &str) = ("authorization", "Bearer good");

#[test]
fn unknown_paths_and_methods() {
    let server = start();
    let cases = [
        ("GET", "/_matrix/client/v3/nonsense", 404),
        ("GET", "/_matrix/nonsense", 404),
        ("GET", "/_synapse/nonsense", 404),
        ("GET", "/", 404),
        ("GET", "/_matrix/client/v9/account/whoami", 404),
        ("POST", "/_matrix/client/v3/account/whoami", 405),
        ("DELETE", "/_matrix/client/r0/login", 405),
        ("BREW", "/_matrix/client/v3/sync", 405),
        ("GET", "/_synapse/echo/a/b", 405),
    ];
    for (method, path, status) in cases {
        let response = request(&server, method, path, &[GOOD], b"");
        assert_eq!((response.status, &*response.errcode()), (status, "M_UNRECOGNIZED"), "{path}");
        assert_eq!(response.headers["content-type"], "application/json");
    }
}

#[test]
fn cors_is_on_every_answer_and_options_runs_no_logic() {
    let server = start();
    for (method, path, status) in [
        ("OPTIONS", "/_matrix/client/v3/account/whoami", 204),
        ("OPTIONS", "/_matrix/client/v3/nonsense", 204),
        ("GET", "/_matrix/client/v3/account/whoami", 401),
        ("GET", "/_matrix/client/v3/nonsense", 404),
        ("GET", "/_matrix/client/v3/profile/@a:b", 500),
    ] {
        let response = request(&server, method, path, &[], b"");
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.headers["access-control-allow-origin"], "*");
        let methods = &response.headers["access-control-allow-methods"];
        assert_eq!(methods, "GET, POST, PUT, DELETE, OPTIONS");
        let headers = &response.headers["access-control-allow-headers"];
        assert_eq!(headers, "X-Requested-With, Content-Type, Authorization");
    }
}

#[test]
fn tokens() {
    let server = start();
    let path = "/_matrix/client/v3/account/whoami";
    let cases: [(&str, Headers<'_>, u16, &str); 8] = [
        ("", &[GOOD], 200, ""),
        ("?access_token=good", &[], 200, ""),
        ("?access_token=bad", &[GOOD], 200, ""),
        ("", &[("authorization", "bearer good")], 200, ""),
        ("", &[], 401, "M_MISSING_TOKEN"),
        ("", &[("authorization", "Basic good")], 401, "M_MISSING_TOKEN"),
        ("", &[("authorization", "Bearer bad")], 401, "M_UNKNOWN_TOKEN"),
        ("?access_token=bad", &[], 401, "M_UNKNOWN_TOKEN"),
    ];
    for (query, headers, status, errcode) in cases {
        for version in ["r0", "v3"] {
            let target = format!("{}{query}", path.replace("v3", version));
            let response = request(&server, "GET", &target, headers, b"");
            assert_eq!(response.status, status, "{target} {headers:?}");
            let seen = response.json();
            if status == 200 {
                assert_eq!(seen["user_id"], "@alice:example.org");
            } else {
                assert_eq!(seen["errcode"], errcode);
                assert_eq!(seen.get("soft_logout").is_some(), errcode == "M_UNKNOWN_TOKEN");
            }
        }
    }
}

#[test]
fn bodies() {
    let server = start();
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    let cases: [(&[u8], u16, &str); 9] = [
        (b"{\"type\":\"m.login.dummy\"", 400, "M_NOT_JSON"),
        (b"type=m.login.password", 400, "M_NOT_JSON"),
        (b"", 400, "M_NOT_JSON"),
        (b"{\"type\": 1, nonsense", 400, "M_NOT_JSON"),
        (b"{\"type\":\"\xff\"}", 400, "M_NOT_JSON"),
        (b"{}", 400, "M_BAD_JSON"),
        (b"{\"type\": 17}", 400, "M_BAD_JSON"),
        (b"[]", 400, "M_BAD_JSON"),
        (deep.as_bytes(), 400, "M_BAD_JSON"),
    ];
    let config = LISTENERS.replace("burst = 2", "burst = 100");
    let config = Config::load(&Source::text(config)).expect("configuration");
    let patient = server::launch(config, Env::system(), test_service).expect("start");
    for (body, status, errcode) in cases {
        let response = request(&patient, "POST", "/_matrix/client/v3/login", &[], body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(30)]);
        assert_eq!((response.status, &*response.errcode()), (status, errcode), "{shown}");
    }
    // JSON without a content type is JSON.
    let path = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1";
    assert_eq!(request(&server, "PUT", path, &[GOOD], b"{\"body\":\"x\"}").status, 200);
}

#[test]
fn large_bodies_are_refused() {
    let server = start();
    let path = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1";
    let body = |size: usize| format!("{{\"body\":\"{}\"}}", "x".repeat(size - 11));
    let fits = request(&server, "PUT", path, &[GOOD], body(100_000).as_bytes());
    assert_eq!(fits.status, 200, "{}", fits.body);
    let announced = request(&server, "PUT", path, &[GOOD], body(100_001).as_bytes());
    assert_eq!((announced.status, &*announced.errcode()), (413, "M_TOO_LARGE"));
    // Without a length the server notices while it reads.
    let mut stream = TcpStream::connect(address(&server)).expect("connect");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let chunk = format!("{:x}\r\n{}\r\n", 100_001, body(100_001));
    stream.write_all((head + &chunk + "0\r\n\r\n").as_bytes()).expect("send");
    let chunked = Response::read(stream);
    assert_eq!((chunked.status, &*chunked.errcode()), (413, "M_TOO_LARGE"));
}

#[test]
fn paths_are_decoded_once() {
    let server = start();
    let cases = [
        ("!a:b/send/m.room.message/t", "$!a.b|m.room.message|t"),
        ("%21a%3Ab/send/m.room.message/t", "$!a.b|m.room.message|t"),
        ("!a:b/send/m.room.message/one%2Ftwo", "$!a.b|m.room.message|one/two"),
        ("!a:b/send/m.room.message/50%2525", "$!a.b|m.room.message|50%25"),
        ("!a:b/send/m.room.message/a+b", "$!a.b|m.room.message|a+b"),
        ("!a:b/send/%C3%BC/t", "$!a.b|\u{fc}|t"),
    ];
    for (path, seen) in cases {
        let target = format!("/_matrix/client/v3/rooms/{path}");
        let response = request(&server, "PUT", &target, &[GOOD], b"{}");
        assert_eq!(response.json()["event_id"], seen, "{path}: {}", response.body);
    }
    let target = "/_matrix/client/v3/rooms/!a:b/send/m.room.message/%FF";
    let response = request(&server, "PUT", target, &[GOOD], b"{}");
    assert_eq!((response.status, &*response.errcode()), (400, "M_INVALID_PARAM"));
}

#[test]
fn an_empty_state_key_may_be_left_out() {
    let server = start();
    for (path, key) in [
        ("m.room.name", ""),
        ("m.room.name/", ""),
        ("m.room.name/key", "key"),
        ("m.room.name/%40u%3As", "@u:s"),
    ] {
        for version in ["r0", "v3"] {
            let target = format!("/_matrix/client/{version}/rooms/!a:b/state/{path}");
            let put = request(&server, "PUT", &target, &[GOOD], b"{}");
            let seen = format!("$m.room.name|{}", key.replace(':', "."));
            assert_eq!(put.json()["event_id"], seen, "{target}");
            let get = request(&server, "GET", &target, &[GOOD], b"");
            assert_eq!(get.json(), json!({ "type": "m.room.name", "state_key": key }));
        }
    }
}

#[test]
fn query_parameters() {
    let server = start();
    for (query, status, errcode) in [
        ("", 200, ""),
        ("?timeout=10&full_state=true", 200, ""),
        ("?timeout=soon", 400, "M_INVALID_PARAM"),
        ("?full_state=maybe", 400, "M_INVALID_PARAM"),
        ("?timeout=99999999999999999999999", 400, "M_INVALID_PARAM"),
    ] {
        let target = format!("/_matrix/client/v3/sync{query}");
        let response = request(&server, "GET", &target, &[GOOD], b"");
        assert_eq!(response.status, status, "{query}: {}", response.body);
        if status != 200 {
            assert_eq!(response.errcode(), errcode, "{query}");
        }
    }
}

#[test]
fn a_panic_fails_one_request() {
    let server = start();
    let response = request(&server, "GET", "/_matrix/client/v3/profile/@a:b", &[], b"");
    assert_eq!((response.status, &*response.errcode()), (500, "M_UNKNOWN"));
    assert!(!response.body.contains("secret"), "{}", response.body);
    let path = "/_matrix/client/v3/account/whoami";
    for _ in 0..8 {
        assert_eq!(request(&server, "GET", path, &[GOOD], b"").status, 200);
    }
}

#[test]
fn hand_written_endpoints() {
    let server = start();
    let response = request(&server, "POST", "/_synapse/echo/a%2Fb/c?x=1", &[], b"{\"key\":[1]}");
    let expected = json!({ "args": ["a/b", "c"], "query": "x=1", "body": { "key": [1] } });
    assert_eq!(response.json(), expected);
    let response = request(&server, "POST", "/_synapse/echo/a/b", &[], b"nonsense");
    assert_eq!((response.status, &*response.errcode()), (400, "M_NOT_JSON"));
}

#[test]
fn rate_limits_say_when_to_come_back() {
    let server = start();
    let log_in = || {
        let body = br#"{"type":"m.login.token","token":"x"}"#;
        request(&server, "POST", "/_matrix/client/v3/login", &[], body)
    };
    assert_eq!(log_in().status, 403);
    assert_eq!(log_in().status, 403);
    let refused = log_in();
    assert_eq!((refused.status, &*refused.errcode()), (429, "M_LIMIT_EXCEEDED"));
    let ms = refused.json()["retry_after_ms"].as_u64().expect("milliseconds");
    let seconds: u64 = refused.headers["retry-after"].parse().expect("seconds");
    assert!(ms > 900_000 && seconds >= ms / 1000 && seconds <= ms / 1000 + 1, "{ms} {seconds}");
    // Another class has its own bucket.
    assert_eq!(request(&server, "GET", "/_matrix/client/v3/sync", &[GOOD], b"").status, 200);
}

#[test]
fn head_is_get_without_a_body() {
    let server = start();
    let response = request(&server, "HEAD", "/_matrix/client/v3/account/whoami", &[GOOD], b"");
    assert_eq!((response.status, &*response.body), (200, ""));
}

#[test]
fn metrics_name_templates_and_never_paths() {
    let server = start();
    request(&server, "PUT", "/_matrix/client/v3/rooms/!a:b/send/x/1", &[GOOD], b"{}");
    request(&server, "GET", "/_matrix/client/v3/private?access_token=good", &[], b"");
    let text = request(&server, "GET", "/metrics", &[], b"").body;
    let template = "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}";
    assert!(text.contains(template), "{text}");
    assert!(
        !text.contains("!a:b") && !text.contains("private") && !text.contains("good"),
        "{text}"
    );
}

#[test]
fn a_stop_wakes_what_waits() {
    let server = start();
    let mut stream = TcpStream::connect(address(&server)).expect("connect");
    stream.write_all(head("GET", "/park", &[], 0).as_bytes()).expect("send");
    while server.metrics().parked_syncs.get() == 0 {
        std::thread::yield_now();
    }
    let reader = std::thread::spawn(move || Response::read(stream));
    let gone = address(&server);
    server.stop();
    assert_eq!(reader.join().expect("reader").body, "woken");
    assert!(TcpStream::connect(gone).is_err(), "nobody listens any more");
}

#[test]
fn two_endpoints_in_one_place_are_an_error() {
    let routes = Routes::new(Api::Client, ()).route(who).route(who).finish();
    let error = Router::new(routes, &[Api::Client].into()).expect_err("twice");
    assert!(matches!(error, RouteError::Duplicate(_)), "{error}");
}
