//! The client of the admin API.

use std::time::Duration;

use awc::{Client, http::Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::AdminError;
use crate::{config::Config, http};

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How long an answer may take: deleting a room waits for its end.
const PATIENCE: Duration = Duration::from_secs(600);

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// Where the API is and who asks.
pub(super) struct Api {
    base: String,
    token: Option<String>,
}

impl Api {
    pub(super) fn new(
        config: &Config,
        url: Option<String>,
        token: Option<String>,
    ) -> Result<Self, AdminError> {
        let listener = || {
            let mut listeners = config.listeners.iter();
            let listener = listeners.find(|listener| listener.apis.contains(&http::Api::Admin))?;
            let mut address = listener.address;
            if address.ip().is_unspecified() {
                address.set_ip(match address.is_ipv4() {
                    true => std::net::Ipv4Addr::LOCALHOST.into(),
                    false => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            Some(format!("http://{address}"))
        };
        let base = url.or_else(listener).ok_or(AdminError::NoListener)?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token })
    }

    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, AdminError> {
        let pairs = query.iter().map(|(key, value)| format!("{key}={}", escaped(value)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        self.asked_by_an_administrator(Method::GET, &format!("{path}{mark}{query}"), None)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, AdminError> {
        self.asked_by_an_administrator(Method::POST, path, Some(body))
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, AdminError> {
        self.asked_by_an_administrator(Method::PUT, path, Some(body))
    }

    pub(super) fn delete(&self, path: &str, body: Option<&Value>) -> Result<Value, AdminError> {
        self.asked_by_an_administrator(Method::DELETE, path, body)
    }

    /// A request for which no token is needed.
    pub(super) fn anonymous(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        self.ask(method, path, None, body)
    }

    fn asked_by_an_administrator(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        let token = self.token.as_deref().ok_or(AdminError::NoToken)?;
        self.ask(method, path, Some(token), body)
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        let url = format!("{}/_synapse/admin{path}", self.base);
        let asked = async {
            let client = Client::builder().timeout(PATIENCE).finish();
            let mut request = client.request(method, &url);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let sent = match body {
                Some(body) => request.send_json(body).await,
                None => request.send().await,
            };
            let mut response = sent.map_err(|error| error.to_string())?;
            let status = response.status();
            let body =
                response.body().limit(MAX_ANSWER).await.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body))
        };
        let (status, body) = actix::System::new()
            .block_on(asked)
            .map_err(|reason| AdminError::Unreachable { url: self.base.clone(), reason })?;
        let body: Value = serde_json::from_slice(&body)
            .map_err(|error| AdminError::Nonsense(format!("{status}, {error}")))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let (errcode, message) = (text("errcode"), text("error"));
        Err(AdminError::Refused { status: status.as_u16(), errcode, message })
    }
}

/// A path with its variables filled in.
pub(super) fn path(template: &str, variables: &[&str]) -> String {
    let mut pieces = template.split("{}");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for (piece, variable) in pieces.zip(variables) {
        filled += &escaped(variable);
        filled += piece;
    }
    filled
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}
