//! What servers read of each other: rooms, directories, spaces, users' keys.

mod elsewhere;

use serde_json::Value;

use crate::common::{Answer, Origin, Server, path};

/// Two servers.
fn pair() -> (Server, Server) {
    (Server::start_federated(&[]), Server::start_federated(&[]))
}

/// A signed `GET` below the prefix of the server-server API, with its variables.
#[track_caller]
fn get(origin: &Origin, to: &Server, template: &str, values: &[&str]) -> Answer {
    origin.get(to, &path(&format!("/_matrix/federation/v1/{template}"), values))
}

/// A signed `POST`.
#[track_caller]
fn post(origin: &Origin, to: &Server, template: &str, values: &[&str], body: &Value) -> Answer {
    let at = path(&format!("/_matrix/federation/v1/{template}"), values);
    origin.send(to, "POST", &at, body.to_string().as_bytes())
}

/// A field of each item of a list.
fn each(list: &Value, field: &str) -> Vec<String> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}
