//! `parlour admin tokens`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    AdminError,
    api::{Api, path},
    table::Output,
};

const TOKENS: &str = "/v1/registration_tokens";
const TOKEN: &str = "/v1/registration_tokens/{}";

/// The columns of the list.
const COLUMNS: [&str; 5] = ["token", "uses_allowed", "pending", "completed", "expiry_time"];

#[derive(Debug, Subcommand)]
pub(super) enum TokensCommand {
    /// List tokens.
    List {
        /// Only those that are still good (true), or no longer (false).
        #[arg(long)]
        valid: Option<bool>,
    },
    /// Make a token.
    Create {
        /// The token; without one, one is made up.
        token: Option<String>,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// Show a token.
    Show { token: String },
    /// Change how often and until when a token is good; what is left out stays as it is.
    Update {
        token: String,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// Remove a token.
    Delete { token: String },
}

#[derive(Debug, Args)]
pub(super) struct Bounds {
    /// For how many accounts.
    #[arg(long, value_name = "NUMBER")]
    uses: Option<u64>,
    /// Until when, in milliseconds since 1970.
    #[arg(long, value_name = "TIME")]
    expires: Option<u64>,
}

impl Bounds {
    fn body(&self) -> Value {
        let mut body = json!({});
        for (key, value) in [("uses_allowed", self.uses), ("expiry_time", self.expires)] {
            if let Some(value) = value {
                body[key] = value.into();
            }
        }
        body
    }
}

pub(super) fn run(api: &Api, output: &Output, command: TokensCommand) -> Result<(), AdminError> {
    match command {
        TokensCommand::List { valid } => {
            let query: Vec<_> =
                valid.map(|valid| ("valid", valid.to_string())).into_iter().collect();
            output.rows(&api.get(TOKENS, &query)?, "registration_tokens", &COLUMNS);
        }
        TokensCommand::Create { token, bounds } => {
            let mut body = bounds.body();
            if let Some(token) = token {
                body["token"] = token.into();
            }
            output.text(&api.post(&format!("{TOKENS}/new"), &body)?, "token");
        }
        TokensCommand::Show { token } => output.members(&api.get(&path(TOKEN, &[&token]), &[])?),
        TokensCommand::Update { token, bounds } => {
            output.members(&api.put(&path(TOKEN, &[&token]), &bounds.body())?);
        }
        TokensCommand::Delete { token } => {
            output.done(&api.delete(&path(TOKEN, &[&token]), None)?, "Removed.");
        }
    }
    Ok(())
}
