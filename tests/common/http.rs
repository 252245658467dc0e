//! The HTTP client of the tests: blocking, and it believes nothing that the schemas refuse.

use std::time::Duration;

use parlour::embed;
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
    way: Way,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

/// How requests get to the server.
#[derive(Clone, Debug)]
enum Way {
    /// Over HTTP, to `http://host:port`.
    Socket(Agent, String),
    /// It runs in this process.
    Inside(embed::Client),
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
        let way = Way::Socket(config.new_agent(), base.to_owned());
        Self { way, token: None, headers: Vec::new() }
    }

    /// A client of a server in this process, without an access token.
    pub(crate) fn inside(client: embed::Client) -> Self {
        Self { way: Way::Inside(client), token: None, headers: Vec::new() }
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
        match &self.way {
            Way::Socket(_, base) => base,
            Way::Inside(_) => "",
        }
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
            .uri(format!("{}{path}", self.base()))
            .header("Content-Type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let (head, text) = match &self.way {
            Way::Socket(agent, _) => {
                let mut response = if body.is_empty() && !matches!(method, "POST" | "PUT") {
                    agent.run(request.body(())?)?
                } else {
                    agent.run(request.body(body)?)?
                };
                let content = response.body_mut().with_config().limit(LARGEST_ANSWER);
                let text = content.read_to_string()?;
                (response.into_parts().0, text)
            }
            Way::Inside(client) => {
                let request = request.body(embed::Bytes::copy_from_slice(body))?;
                let response = client.call_blocking(request).map_err(std::io::Error::other)?;
                let (head, content) = response.into_parts();
                (head, String::from_utf8(content.into()).map_err(std::io::Error::other)?)
            }
        };
        let headers = head.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        Ok(Answer {
            asked: format!("{method} {path}"),
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: serde_json::from_str(&text).unwrap_or_default(),
            page: text,
        })
    }
}
