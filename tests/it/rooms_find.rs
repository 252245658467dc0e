//! Finding rooms: in the list of published ones, by a summary, in spaces, by who else is there.

mod directory;
mod discovery;
mod initial_sync;
mod mutual;
mod spaces;
mod summary;

use serde_json::{Value, json};

use crate::common::{Answer, User, path};

fn list_path(room: &str) -> String {
    path("/_matrix/client/v3/directory/list/room/{}", &[room])
}

fn publish(user: &User, room: &str, visibility: &str) -> Answer {
    user.http.put(&list_path(room), &json!({ "visibility": visibility }))
}

/// A field of each item of a list.
fn each(list: &Value, field: &str) -> Vec<String> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// A room with a join rule, and whatever else is wanted of it.
fn room_with_rule(owner: &User, rule: Value, mut more: Value) -> String {
    let initial = json!([{ "type": "m.room.join_rules", "content": rule }]);
    let given = more["initial_state"].as_array().cloned().unwrap_or_default();
    more["initial_state"] =
        [initial.as_array().cloned().unwrap_or_default(), given].concat().into();
    owner.create_room(more).room_id()
}
