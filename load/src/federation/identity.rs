//! Who a played server is, and its requests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use parlour_event::{
    hashes,
    json::{self, Object, Value},
    signing::{self, SigningKey},
};
use ruma::{OwnedServerName, ServerName};

use crate::{
    clock,
    error::{Failure, LoadError},
    http::{Connection, Endpoint},
    session::refusal,
};

/// How long the keys are valid that a played server tells.
const VALID: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The name of a server, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: OwnedServerName,
    pub(crate) key: SigningKey,
}

impl Identity {
    pub(super) fn new(name: &str) -> Result<Self, LoadError> {
        let broken =
            |error: &dyn ToString| LoadError::Usage(format!("{name}: {}", error.to_string()));
        let seed = std::array::from_fn(|_| fastrand::u8(..));
        let key = SigningKey::from_seed(&seed, "load").map_err(|error| broken(&error))?;
        let name = ServerName::parse(name).map_err(|error| broken(&error))?;
        Ok(Self { name, key })
    }

    /// A user of this server.
    pub(crate) fn user(&self) -> String {
        format!("@load:{}", self.name)
    }

    /// What it answers who asks for its keys.
    pub(super) fn keys(&self) -> Vec<u8> {
        let key =
            Object::from([("key".to_owned(), Value::from(&*self.key.public_key().to_base64()))]);
        let keys = Object::from([(self.key.key_id().to_owned(), Value::Object(key))]);
        let until = clock::unix_millis() + VALID.as_millis() as u64;
        let mut document = Object::from([
            ("server_name".to_owned(), self.name.as_str().into()),
            ("valid_until_ts".to_owned(), Value::Integer(until as i64)),
            ("verify_keys".to_owned(), Value::Object(keys)),
            ("old_verify_keys".to_owned(), Value::Object(Object::new())),
        ]);
        signing::sign_json(&mut document, self.name.as_str(), &self.key);
        json::to_canonical(&Value::Object(document))
    }

    /// The `X-Matrix` header of a request whose body is canonical JSON.
    fn authorization(&self, to: &str, method: &Method, uri: &str, body: &[u8]) -> String {
        let request = Object::from([
            ("method".to_owned(), method.as_str().into()),
            ("uri".to_owned(), uri.into()),
            ("origin".to_owned(), self.name.as_str().into()),
            ("destination".to_owned(), to.into()),
        ]);
        let mut signed = json::to_canonical(&Value::Object(request));
        if !body.is_empty() {
            // `content` is the first of the keys.
            signed = [br#"{"content":"#, body, b",", signed.get(1..).unwrap_or_default()].concat();
        }
        let signature = hashes::encode_base64(&self.key.sign(&signed));
        let (name, key) = (&self.name, self.key.key_id());
        format!(r#"X-Matrix origin="{name}",destination="{to}",key="{key}",sig="{signature}""#)
    }
}

/// A connection of a played server to the target.
pub(crate) struct Remote {
    pub(crate) identity: Arc<Identity>,
    target: String,
    connection: Connection,
}

impl Remote {
    pub(super) fn new(endpoint: &Arc<Endpoint>, identity: &Arc<Identity>, target: &str) -> Self {
        let connection = Connection::to(endpoint);
        Self { identity: identity.clone(), target: target.to_owned(), connection }
    }

    /// A signed request; `body` is canonical JSON, or empty.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        uri: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, Failure> {
        let authorization = self.identity.authorization(&self.target, &method, uri, &body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(Failure::nonsense)?;
        let authorization = HeaderValue::from_str(&authorization).map_err(Failure::nonsense)?;
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let answer = self.connection.exchange(request, Duration::ZERO).await?;
        match answer.status().as_u16() {
            200..=299 => Ok(answer.into_body()),
            status => Err(refusal(status, answer.body())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_requests_are_signed() {
        let identity = Identity::new("localhost:1").expect("a name");
        let own = |id: &str| (id == "ed25519:load").then(|| identity.key.public_key());
        let document = json::parse_lax(&identity.keys()).expect("JSON");
        let document = document.as_object().expect("an object");
        assert_eq!(signing::verify_json(document, "localhost:1", own), Ok(()));
        let header = identity.authorization("far.org", &Method::PUT, "/x", b"{}");
        assert!(header.starts_with(r#"X-Matrix origin="localhost:1",destination="far.org","#));
        assert!(Identity::new("no name").is_err());
    }
}
