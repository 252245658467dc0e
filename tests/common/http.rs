//! The HTTP client of the tests: blocking, and it believes nothing that the schemas refuse.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::{Agent, http};

use super::{answer::Answer, own_checks, schema};

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The largest answer that a test reads, in bytes.
const LARGEST_ANSWER: u64 = 64 << 20;

/// The connection broke before a whole answer was there: nobody knows whether the request counts.
#[derive(Clone, Debug)]
pub(crate) struct Lost(pub(crate) String);

/// Fills the `{}` of a path template with percent-encoded arguments.
pub(crate) fn path(template: &str, arguments: &[&str]) -> String {
    let mut pieces = template.split("{}");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for (piece, argument) in pieces.zip(arguments) {
        filled.extend(utf8_percent_encode(argument, UNRESERVED));
        filled.push_str(piece);
    }
    assert_eq!(template.matches("{}").count(), arguments.len(), "arguments of {template}");
    filled
}

/// A connection pool to one server, with an access token or without.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

impl Client {
    /// A client without an access token; `base` is `http://host:port`.
    pub(crate) fn new(base: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.new_agent(), base: base.to_owned(), token: None, headers: Vec::new() }
    }

    /// The same connections, with this access token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same connections, with one more header on every request.
    pub(crate) fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// Where it connects to: `http://host:port`.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// A `GET`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, b"")
    }

    /// A `POST` with a JSON body.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string().as_bytes())
    }

    /// A `PUT` with a JSON body.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, body.to_string().as_bytes())
    }

    /// Any request with any bytes as its body; the server must answer.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        match self.try_send(method, path, body) {
            Ok(answer) => answer,
            Err(Lost(why)) => panic!("{method} {path}: {why}"),
        }
    }

    /// Any request; the server may die meanwhile.
    #[track_caller]
    pub(crate) fn try_send(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, Lost> {
        let answer = self.exchange(method, path, body).map_err(|error| Lost(error.to_string()))?;
        own_checks::headers(method, &answer);
        let template = schema::check(method, path, answer.status, &answer.body);
        own_checks::body(method, template, &answer);
        Ok(answer)
    }

    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("Content-Type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = if body.is_empty() && !matches!(method, "POST" | "PUT") {
            self.agent.run(request.body(())?)?
        } else {
            self.agent.run(request.body(body)?)?
        };
        let text = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string()?;
        let headers = response.headers().iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        Ok(Answer {
            asked: format!("{method} {path}"),
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: serde_json::from_str(&text).unwrap_or_default(),
            page: text,
        })
    }
}
