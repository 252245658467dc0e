//! Two homeservers in one process, and users who talk across them: no socket, no file.

use std::error::Error;

use parlour::embed::{Bytes, Client, Homeserver, Network, http::Request};
use serde_json::{Value, json};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let network = Network::new();
    let near = Homeserver::builder("near.example")?.network(&network).start_blocking()?;
    let far = Homeserver::builder("far.example")?.network(&network).start_blocking()?;
    let (near_client, far_client) = (near.client(), far.client());
    let alice = register(&near_client, "alice")?;
    let bob = register(&far_client, "bob")?;

    let room = json!({ "preset": "public_chat", "name": "Across" });
    let room = ask(&near_client, &alice, "POST", "createRoom", &room)?;
    let room = room["room_id"].as_str().ok_or("no room")?.replace('!', "%21");
    let join = format!("join/{room}?via=near.example");
    ask(&far_client, &bob, "POST", &join, &json!({}))?;

    let since = ask(&near_client, &alice, "GET", "sync?timeout=0", &Value::Null)?;
    let message = json!({ "msgtype": "m.text", "body": "Good evening" });
    let send = format!("rooms/{room}/send/m.room.message/1");
    ask(&far_client, &bob, "PUT", &send, &message)?;
    let mut since = since["next_batch"].as_str().ok_or("no token")?.to_owned();
    loop {
        let sync = format!("sync?timeout=10000&since={since}");
        let news = ask(&near_client, &alice, "GET", &sync, &Value::Null)?;
        if let Some(text) = find_message(&news) {
            println!("alice hears: {text}");
            break;
        }
        since = news["next_batch"].as_str().ok_or("no token")?.to_owned();
    }
    far.stop_blocking();
    near.stop_blocking();
    Ok(())
}

/// A new user's access token.
fn register(client: &Client, name: &str) -> Result<String, Box<dyn Error>> {
    let body = json!({ "username": name, "password": "correct horse battery staple",
        "auth": { "type": "m.login.dummy" } });
    let answer = ask(client, "", "POST", "register", &body)?;
    Ok(answer["access_token"].as_str().ok_or("no token")?.to_owned())
}

fn ask(
    client: &Client,
    token: &str,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Value, Box<dyn Error>> {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let mut request = Request::builder().method(method).uri(format!("/_matrix/client/v3/{path}"));
    if !token.is_empty() {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let answer = client.call_blocking(request.body(body)?)?;
    let content = serde_json::from_slice(answer.body())?;
    if answer.status().is_success() { Ok(content) } else { Err(content.to_string().into()) }
}

fn find_message(sync: &Value) -> Option<&str> {
    let rooms = sync["rooms"]["join"].as_object()?.values();
    let mut events = rooms.filter_map(|room| room["timeline"]["events"].as_array()).flatten();
    events.find(|event| event["type"] == "m.room.message")?["content"]["body"].as_str()
}
