//! `parlour admin destinations`.

use clap::Subcommand;
use serde_json::json;

use super::{
    AdminError,
    api::{Api, path},
    table::Output,
};

const ALL: &str = "/v1/federation/destinations";
const ONE: &str = "/v1/federation/destinations/{}";

/// The columns of the list.
const COLUMNS: [&str; 4] = ["destination", "failure_ts", "retry_last_ts", "retry_interval"];

#[derive(Debug, Subcommand)]
pub(super) enum DestinationsCommand {
    /// List other servers that something is sent to.
    List {
        /// Only those with this in their name.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        /// Where to begin.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// destination, failure_ts, retry_last_ts, retry_interval, ...
        #[arg(long, default_value = "destination", value_name = "COLUMN")]
        order_by: String,
    },
    /// Show what is known of a server.
    Show { server: String },
    /// List the rooms whose events a server gets.
    Rooms { server: String },
    /// Try a server that could not be reached again, at once.
    Retry { server: String },
}

pub(super) fn run(
    api: &Api,
    output: &Output,
    command: DestinationsCommand,
) -> Result<(), AdminError> {
    match command {
        DestinationsCommand::List { search, limit, from, order_by } => {
            let mut query = vec![
                ("limit", limit.to_string()),
                ("from", from.to_string()),
                ("order_by", order_by),
            ];
            query.extend(search.map(|search| ("destination", search)));
            output.rows(&api.get(ALL, &query)?, "destinations", &COLUMNS);
        }
        DestinationsCommand::Show { server } => {
            output.members(&api.get(&path(ONE, &[&server]), &[])?);
        }
        DestinationsCommand::Rooms { server } => {
            let answer = api.get(&(path(ONE, &[&server]) + "/rooms"), &[])?;
            output.rows(&answer, "rooms", &["room_id", "stream_ordering"]);
        }
        DestinationsCommand::Retry { server } => {
            let answer = api.post(&(path(ONE, &[&server]) + "/reset_connection"), &json!({}))?;
            output.done(&answer, &format!("{server} is tried again."));
        }
    }
    Ok(())
}
