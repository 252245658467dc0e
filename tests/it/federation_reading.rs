//! What servers read of each other: rooms, directories, spaces, users' keys.

mod elsewhere;
mod history;
mod rooms;

use serde_json::{Value, json};

use crate::common::{Answer, Origin, Server, User, path};

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

/// Joins a room through a server.
#[track_caller]
fn join(user: &User, room: &str, via: &Server) -> Answer {
    let at =
        path("/_matrix/client/v3/join/{}?via={}&server_name={}", &[room, &via.name(), &via.name()]);
    user.http.post(&at, &json!({}))
}
