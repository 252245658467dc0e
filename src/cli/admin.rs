//! `parlour admin`: what operators do with a running server, through its admin API.

mod api;
mod destinations;
mod local;
mod rooms;
mod table;
mod tokens;
mod users;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::{
    api::Api,
    destinations::DestinationsCommand,
    local::{CreateUserArgs, PromoteArgs},
    rooms::{ReportsCommand, RoomsCommand},
    table::Output,
    tokens::TokensCommand,
    users::{NoticeArgs, UsersCommand},
};
use crate::config::Config;

/// The environment variable with the token of an administrator.
pub(crate) const TOKEN: &str = "PARLOUR_ADMIN_TOKEN";

#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// The configuration file; without one the defaults and the environment count.
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Where the admin API is; by default the first listener of the configuration that has it.
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// The access token of an administrator. Others on this machine can see it here; better in
    /// the environment.
    #[arg(id = "access_token", long = "token", env = TOKEN, hide_env_values = true, global = true)]
    token: Option<String>,
    /// Print what the server answers, as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Make an account by the shared secret of the configuration; needs no token.
    CreateUser(CreateUserArgs),
    /// Make an account an administrator's, in the data of a stopped server; needs no token.
    Promote(PromoteArgs),
    /// Accounts.
    #[command(subcommand)]
    Users(UsersCommand),
    /// Rooms.
    #[command(subcommand)]
    Rooms(RoomsCommand),
    /// Tokens that open the registration.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Other servers.
    #[command(subcommand)]
    Destinations(DestinationsCommand),
    /// What users have reported.
    #[command(subcommand)]
    Reports(ReportsCommand),
    /// Tell a user something in the server's name.
    Notice(NoticeArgs),
    /// Which version the server has.
    Version,
}

/// Why a command failed, in one line.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("no listener of the configuration has the admin API; add it, or say --url")]
    NoListener,
    #[error("who asks? give an administrator's access token with --token or in {TOKEN}")]
    NoToken,
    #[error("registration.shared_secret is empty; set it in the server's configuration")]
    NoSecret,
    #[error("cannot reach {url}: {reason}; does the server run?")]
    Unreachable { url: String, reason: String },
    #[error("the server refuses: {message} ({status} {errcode})")]
    Refused { status: u16, errcode: String, message: String },
    #[error("what the server answers makes no sense: {0}")]
    Nonsense(String),
    #[error("there is no user {0}")]
    UnknownUser(String),
    #[error("`{0}` is not a user of this server")]
    NotLocal(String),
    #[error("the data directory is \"memory\"; set server.data_dir to a directory")]
    InMemory,
    #[error(transparent)]
    Storage(#[from] parlour_storage::StorageError),
}

/// Runs the command and prints what comes of it.
pub(super) fn run(config: &Config, args: AdminArgs) -> Result<(), AdminError> {
    let AdminArgs { url, token, json, command, .. } = args;
    let output = Output::new(json);
    if let AdminCommand::Promote(promote) = &command {
        return local::promote(config, promote);
    }
    let api = Api::new(config, url, token)?;
    match command {
        AdminCommand::Promote(_) => Ok(()),
        AdminCommand::CreateUser(create) => local::create_user(config, &api, &output, create),
        AdminCommand::Users(command) => users::run(config, &api, &output, command),
        AdminCommand::Rooms(command) => rooms::run(&api, &output, command),
        AdminCommand::Tokens(command) => tokens::run(&api, &output, command),
        AdminCommand::Destinations(command) => destinations::run(&api, &output, command),
        AdminCommand::Reports(command) => rooms::reports(&api, &output, command),
        AdminCommand::Notice(notice) => users::notice(config, &api, &output, notice),
        AdminCommand::Version => {
            let answer = api.get("/v1/server_version", &[])?;
            output.text(&answer, "server_version");
            Ok(())
        }
    }
}
