//! `parlour admin rooms` and `parlour admin reports`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    AdminError,
    api::{Api, path},
    table::Output,
};

const ROOM: &str = "/v1/rooms/{}";

#[derive(Debug, Subcommand)]
pub(super) enum RoomsCommand {
    /// List rooms.
    List {
        /// Only those with this in their name, main alias or id.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        /// Where to begin.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// name, joined_members, joined_local_members, state_events, version, ...
        #[arg(long, default_value = "name", value_name = "COLUMN")]
        order_by: String,
    },
    /// Show what is known of a room.
    Show { room: String },
    /// List who is in a room.
    Members { room: String },
    /// Show a room's state.
    State {
        room: String,
        /// Only state of this type.
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
    },
    /// Let nobody enter a room any more.
    Block { room: String },
    /// Lift the block of a room.
    Unblock { room: String },
    /// Send everybody out of a room and remove it.
    Delete(DeleteArgs),
    /// Show how far the deletions of a room have come.
    DeleteStatus { room: String },
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    room: String,
    /// Let nobody enter it any more.
    #[arg(long)]
    block: bool,
    /// Keep its history.
    #[arg(long)]
    no_purge: bool,
    /// Remove it even if somebody cannot be sent out.
    #[arg(long)]
    force_purge: bool,
    /// Bring its members into a new room that this user makes.
    #[arg(long, value_name = "USER_ID")]
    new_room_user: Option<String>,
    /// What the new room is called.
    #[arg(long, requires = "new_room_user")]
    room_name: Option<String>,
    /// What is said in it.
    #[arg(long, requires = "new_room_user")]
    message: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    background: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ReportsCommand {
    /// List reports, newest first.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        /// Where to begin.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Show a report.
    Show { id: u64 },
    /// Strike a report off.
    Delete { id: u64 },
}

pub(super) fn run(api: &Api, output: &Output, command: RoomsCommand) -> Result<(), AdminError> {
    match command {
        RoomsCommand::List { search, limit, from, order_by } => {
            let mut query = vec![("limit", limit.to_string()), ("from", from.to_string())];
            query.push(("order_by", order_by));
            query.extend(search.map(|search| ("search_term", search)));
            let columns =
                ["room_id", "name", "canonical_alias", "joined_members", "version", "public"];
            output.rows(&api.get("/v1/rooms", &query)?, "rooms", &columns);
        }
        RoomsCommand::Show { room } => output.members(&api.get(&path(ROOM, &[&room]), &[])?),
        RoomsCommand::Members { room } => {
            let answer = api.get(&path("/v1/rooms/{}/members", &[&room]), &[])?;
            output.rows(&answer, "members", &["user_id"]);
        }
        RoomsCommand::State { room, event_type } => {
            let query: Vec<_> = event_type.map(|kind| ("type", kind)).into_iter().collect();
            let answer = api.get(&path("/v1/rooms/{}/state", &[&room]), &query)?;
            output.rows(&answer, "state", &["type", "state_key", "sender", "content"]);
        }
        RoomsCommand::Block { room } => {
            let at = path("/v1/rooms/{}/block", &[&room]);
            output.done(&api.put(&at, &json!({ "block": true }))?, "Blocked.");
        }
        RoomsCommand::Unblock { room } => {
            let at = path("/v1/rooms/{}/block", &[&room]);
            output.done(&api.put(&at, &json!({ "block": false }))?, "No longer blocked.");
        }
        RoomsCommand::Delete(args) => delete(api, output, &args)?,
        RoomsCommand::DeleteStatus { room } => {
            let answer = api.get(&path("/v2/rooms/{}/delete_status", &[&room]), &[])?;
            output.rows(&answer, "results", &["delete_id", "status", "error"]);
        }
    }
    Ok(())
}

fn delete(api: &Api, output: &Output, args: &DeleteArgs) -> Result<(), AdminError> {
    let mut body = json!({ "block": args.block, "purge": !args.no_purge,
        "force_purge": args.force_purge });
    let texts = [
        ("new_room_user_id", &args.new_room_user),
        ("room_name", &args.room_name),
        ("message", &args.message),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            body[key] = Value::from(text.as_str());
        }
    }
    if args.background {
        let answer = api.delete(&path("/v2/rooms/{}", &[&args.room]), Some(&body))?;
        output.text(&answer, "delete_id");
    } else {
        output.members(&api.delete(&path(ROOM, &[&args.room]), Some(&body))?);
    }
    Ok(())
}

pub(super) fn reports(
    api: &Api,
    output: &Output,
    command: ReportsCommand,
) -> Result<(), AdminError> {
    let one = |id: u64| format!("/v1/event_reports/{id}");
    match command {
        ReportsCommand::List { limit, from } => {
            let query = [("limit", limit.to_string()), ("from", from.to_string())];
            let columns = ["id", "user_id", "sender", "room_id", "event_id", "reason"];
            output.rows(&api.get("/v1/event_reports", &query)?, "event_reports", &columns);
        }
        ReportsCommand::Show { id } => output.members(&api.get(&one(id), &[])?),
        ReportsCommand::Delete { id } => output.done(&api.delete(&one(id), None)?, "Struck off."),
    }
    Ok(())
}
