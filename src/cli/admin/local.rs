//! The two ways to a first administrator, for which none is needed.

use awc::http::Method;
use clap::Args;
use parlour_actors::{commit::Announcement, env::Env};
use parlour_storage::{
    Op, Record, Store, StoreOptions,
    schema::{Stored as _, User, keys},
};
use ruma::{OwnedUserId, UserId};
use serde_json::json;

use super::{AdminError, api::Api, table::Output};
use crate::{
    admin::register::signed,
    config::{Config, DataDir},
};

/// Length of a password that is made up.
const PASSWORD_LEN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct CreateUserArgs {
    /// The name before the colon.
    name: String,
    /// Let the user be an administrator.
    #[arg(long)]
    admin: bool,
    /// The password; without one, one is made up and printed.
    #[arg(long)]
    password: Option<String>,
    /// How the user is shown to others.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PromoteArgs {
    /// The user.
    user: String,
}

/// A user id for a name with or without what comes behind the colon.
pub(super) fn user_id(config: &Config, user: &str) -> Result<OwnedUserId, AdminError> {
    let name = &config.server.name;
    let id = match user.starts_with('@') {
        true => UserId::parse(user),
        false => UserId::parse(format!("@{user}:{name}")),
    };
    let id = id.ok().filter(|id| id.server_name() == name);
    id.ok_or_else(|| AdminError::NotLocal(user.to_owned()))
}

/// A password that is hard to guess.
pub(super) fn new_password() -> String {
    Env::system().random_string(PASSWORD_LEN)
}

pub(super) fn create_user(
    config: &Config,
    api: &Api,
    output: &Output,
    args: CreateUserArgs,
) -> Result<(), AdminError> {
    let secret = config.registration.shared_secret.as_deref().ok_or(AdminError::NoSecret)?;
    let nonce = api.anonymous(Method::GET, "/v1/register", None)?;
    let nonce = nonce["nonce"].as_str().unwrap_or_default().to_owned();
    let made_up = args.password.is_none();
    let password = args.password.unwrap_or_else(new_password);
    let mac = signed(secret, (&nonce, &args.name, &password), args.admin);
    let mac = mac.map_err(|error| AdminError::Nonsense(error.to_string()))?;
    let body = json!({ "nonce": nonce, "username": args.name, "password": password,
        "admin": args.admin, "displayname": args.display_name, "mac": mac });
    let mut answer = api.anonymous(Method::POST, "/v1/register", Some(&body))?;
    if made_up {
        answer["password"] = password.into();
    }
    output.members(&answer);
    Ok(())
}

pub(super) fn promote(config: &Config, args: &PromoteArgs) -> Result<(), AdminError> {
    let DataDir::Path(dir) = &config.server.data else { return Err(AdminError::InMemory) };
    let user = user_id(config, &args.user)?;
    let (store, mut writer) = Store::open(StoreOptions::new(dir))?;
    let key = keys::user(user.as_str());
    let account = store.typed::<User>(&key)?.filter(|account| !account.deactivated);
    let account = account.ok_or_else(|| AdminError::UnknownUser(user.to_string()))?;
    let value = User { admin: true, ..account }.encode();
    let record = Record {
        pos: writer.next_pos(),
        ops: vec![Op::Put { key, value }],
        announcement: Announcement::Nothing.encode(),
    };
    let committed = writer.commit(&[record]);
    writer.close();
    committed?;
    println!("{user} is an administrator now.");
    Ok(())
}
