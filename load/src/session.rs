//! A user of the Client-Server API, with a connection of its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    error::Failure,
    http::{Connection, Endpoint},
};

/// How often a request of the preparation is tried again when the server asks for patience.
const PATIENCE: usize = 100;

/// What may stand in a part of a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A part of a path or query, encoded.
pub(crate) fn part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Messages of a room, from a position on.
pub(crate) fn messages_path(room: &str, direction: char, limit: u32, from: &str) -> String {
    let room = part(room);
    let from = if from.is_empty() { String::new() } else { format!("&from={}", part(from)) };
    format!("/_matrix/client/v3/rooms/{room}/messages?dir={direction}&limit={limit}{from}")
}

/// Who somebody is on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) user_id: String,
    pub(crate) access_token: String,
}

/// An account and a connection. One request at a time.
pub(crate) struct Session {
    /// Whose it is.
    pub(crate) account: Account,
    authorization: Option<HeaderValue>,
    endpoint: Arc<Endpoint>,
    connection: Connection,
}

impl Session {
    /// A session of an account; nothing is connected yet.
    pub(crate) fn of(endpoint: &Arc<Endpoint>, account: &Account) -> Self {
        let bearer = format!("Bearer {}", account.access_token);
        let authorization = HeaderValue::from_str(&bearer).ok();
        let authorization = authorization.filter(|_| !account.access_token.is_empty());
        let (endpoint, connection) = (endpoint.clone(), Connection::to(endpoint));
        Self { account: account.clone(), authorization, endpoint, connection }
    }

    /// One without an account.
    pub(crate) fn nobody(endpoint: &Arc<Endpoint>) -> Self {
        Self::of(endpoint, &Account { user_id: String::new(), access_token: String::new() })
    }

    /// The same user on another connection.
    pub(crate) fn another(&self) -> Self {
        Self::of(&self.endpoint, &self.account)
    }

    /// Asks, and gives the body of a successful answer. `wait` is how long the server may wait by
    /// itself.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<Bytes, Failure> {
        let answer = self.exchange(method, path, body, wait).await?;
        match answer.status().as_u16() {
            200..=299 => Ok(answer.into_body()),
            status => Err(refusal(status, answer.body())),
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(Failure::nonsense)?;
        if let Some(token) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        self.connection.exchange(request, wait).await
    }

    /// `GET`, and the JSON of the answer.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        read(&self.ask(Method::GET, path, Bytes::new(), Duration::ZERO).await?)
    }

    /// `PUT` of JSON.
    pub(crate) async fn put(&mut self, path: &str, body: &Value) -> Result<Bytes, Failure> {
        self.ask(Method::PUT, path, body.to_string().into(), Duration::ZERO).await
    }

    /// `POST` of JSON, and the JSON of the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        read(&self.ask(Method::POST, path, body.to_string().into(), Duration::ZERO).await?)
    }

    /// `POST` of JSON outside of what is measured: when the server asks for patience, it gets it.
    pub(crate) async fn prepare<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        read(&self.patiently(Method::POST, path, body.to_string().into()).await?)
    }

    /// `GET` outside of what is measured.
    pub(crate) async fn look_up<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        read(&self.patiently(Method::GET, path, Bytes::new()).await?)
    }

    async fn patiently(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        for _ in 0..PATIENCE {
            match self.ask(method.clone(), path, body.clone(), Duration::ZERO).await {
                Err(failure) => match failure.throttled() {
                    Some(pause) => sleep(pause).await,
                    None => return Err(failure),
                },
                done => return done,
            }
        }
        self.ask(method, path, body, Duration::ZERO).await
    }

    /// `POST` of nothing that must be refused with this status, and the JSON of the refusal.
    pub(crate) async fn refused_with<T: DeserializeOwned>(
        &mut self,
        path: &str,
        status: u16,
    ) -> Result<T, Failure> {
        let answer = self.exchange(Method::POST, path, "{}".into(), Duration::ZERO).await?;
        match answer.status().as_u16() {
            found if found == status => read(answer.body()),
            other => Err(refusal(other, answer.body())),
        }
    }

    /// Makes a public room.
    pub(crate) async fn create_room(&mut self, name: &str) -> Result<String, Failure> {
        let body = json!({ "preset": "public_chat", "name": name });
        self.create(&body).await
    }

    /// Makes a room as `body` says.
    pub(crate) async fn create(&mut self, body: &Value) -> Result<String, Failure> {
        let made: Created = self.prepare("/_matrix/client/v3/createRoom", body).await?;
        Ok(made.room_id)
    }

    /// Joins a room.
    pub(crate) async fn join(&mut self, room: &str) -> Result<(), Failure> {
        let path = format!("/_matrix/client/v3/join/{}", part(room));
        self.prepare::<Created>(&path, &json!({})).await.map(|_| ())
    }
}

#[derive(Deserialize)]
struct Created {
    room_id: String,
}

/// The JSON of an answer.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(Failure::nonsense)
}

/// What a server says that refuses.
pub(crate) fn refusal(status: u16, body: &[u8]) -> Failure {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Standard {
        errcode: Option<String>,
        error: Option<String>,
        retry_after_ms: Option<u64>,
    }
    let Standard { errcode, error, retry_after_ms } =
        serde_json::from_slice(body).unwrap_or_default();
    Failure::Refused {
        status,
        errcode: errcode.unwrap_or_else(|| format!("HTTP {status}")),
        message: error.unwrap_or_else(|| "the server refuses".to_owned()),
        retry_after: retry_after_ms.map(Duration::from_millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_refuses_has_a_name() {
        let limited = refusal(429, br#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":250}"#);
        assert_eq!(limited.label(), "M_LIMIT_EXCEEDED");
        assert_eq!(limited.throttled(), Some(Duration::from_millis(250)));
        let proxy = refusal(502, b"<html>");
        assert_eq!((&*proxy.label(), proxy.throttled()), ("HTTP 502", None));
        assert!(proxy.may_pass() && !refusal(403, b"{}").may_pass());
    }

    #[test]
    fn ids_are_encoded() {
        assert_eq!(part("!a:b/c?"), "%21a%3Ab%2Fc%3F");
    }
}
