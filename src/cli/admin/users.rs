//! `parlour admin users` and `parlour admin notice`.

use clap::{Args, Subcommand};
use parlour_actors::env::Env;
use serde_json::{Value, json};

use super::{
    AdminError,
    api::{Api, path},
    local::{new_password, user_id},
    table::Output,
};
use crate::config::Config;

/// The columns of the list.
const COLUMNS: [&str; 7] =
    ["name", "displayname", "admin", "locked", "suspended", "deactivated", "creation_ts"];

/// The columns of a user's devices.
const DEVICES: [&str; 5] =
    ["device_id", "display_name", "last_seen_ts", "last_seen_ip", "last_seen_user_agent"];

const USER: &str = "/v2/users/{}";

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// List accounts.
    List {
        /// Only those with this in their name or display name.
        #[arg(long)]
        name: Option<String>,
        /// Those who are gone for good, too.
        #[arg(long)]
        deactivated: bool,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        /// Where to begin.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Show what is known of an account.
    Show { user: String },
    /// Lock an account: its logins are kept, and do nothing.
    Lock { user: String },
    /// Unlock an account.
    Unlock { user: String },
    /// Suspend an account: it can read, and hardly more.
    Suspend { user: String },
    /// Lift a suspension.
    Unsuspend { user: String },
    /// Make an account an administrator's.
    Promote { user: String },
    /// Let an account be an administrator's no longer.
    Demote { user: String },
    /// Set a new password and end all logins.
    ResetPassword {
        user: String,
        /// The password; without one, one is made up and printed.
        #[arg(long)]
        password: Option<String>,
        /// Keep the logins.
        #[arg(long)]
        keep_logins: bool,
    },
    /// List the rooms that a user is in.
    Rooms { user: String },
    /// List where a user is logged in, and when each device was last heard of.
    Devices { user: String },
    /// End logins of a user.
    DeleteDevices {
        user: String,
        /// The ids of the devices.
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Show from where a user was last heard of.
    Whois { user: String },
    /// Log in as a user, who can see that; prints an access token.
    LoginAs {
        user: String,
        /// For how long the token is good, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        lifetime: u64,
    },
    /// Close an account for good: its logins end, and it leaves all rooms.
    Deactivate {
        user: String,
        /// Hide what the user has said from those who come later.
        #[arg(long)]
        erase: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct NoticeArgs {
    /// The user.
    user: String,
    /// What the user is told.
    text: String,
}

pub(super) fn run(
    config: &Config,
    api: &Api,
    output: &Output,
    command: UsersCommand,
) -> Result<(), AdminError> {
    let at = |template: &str, user: &str| -> Result<String, AdminError> {
        Ok(path(template, &[user_id(config, user)?.as_str()]))
    };
    let put = |template: &str, user: &str, body: Value, told: &str| -> Result<(), AdminError> {
        output.done(&api.put(&at(template, user)?, &body)?, told);
        Ok(())
    };
    match command {
        UsersCommand::List { name, deactivated, limit, from } => {
            let mut query = vec![("limit", limit.to_string()), ("from", from.to_string())];
            query.extend([("deactivated", deactivated.to_string()), ("locked", "true".into())]);
            query.extend(name.map(|name| ("name", name)));
            output.rows(&api.get("/v2/users", &query)?, "users", &COLUMNS);
        }
        UsersCommand::Show { user } => output.members(&api.get(&at(USER, &user)?, &[])?),
        UsersCommand::Lock { user } => put(USER, &user, json!({ "locked": true }), "Locked.")?,
        UsersCommand::Unlock { user } => put(USER, &user, json!({ "locked": false }), "Unlocked.")?,
        UsersCommand::Suspend { user } => {
            put("/v1/suspend/{}", &user, json!({ "suspend": true }), "Suspended.")?
        }
        UsersCommand::Unsuspend { user } => {
            put("/v1/suspend/{}", &user, json!({ "suspend": false }), "No longer suspended.")?
        }
        UsersCommand::Promote { user } => {
            put("/v1/users/{}/admin", &user, json!({ "admin": true }), "An administrator now.")?
        }
        UsersCommand::Demote { user } => put(
            "/v1/users/{}/admin",
            &user,
            json!({ "admin": false }),
            "No longer an administrator.",
        )?,
        UsersCommand::ResetPassword { user, password, keep_logins } => {
            let made_up = password.is_none();
            let password = password.unwrap_or_else(new_password);
            let body = json!({ "new_password": password, "logout_devices": !keep_logins });
            let mut answer = api.post(&at("/v1/reset_password/{}", &user)?, &body)?;
            if made_up {
                answer["password"] = password.as_str().into();
            }
            let told =
                if made_up { format!("The new password: {password}") } else { "Set.".into() };
            output.done(&answer, &told);
        }
        UsersCommand::Rooms { user } => {
            let answer = api.get(&at("/v1/users/{}/joined_rooms", &user)?, &[])?;
            output.rows(&answer, "joined_rooms", &["room_id"]);
        }
        UsersCommand::Devices { user } => {
            let answer = api.get(&at("/v2/users/{}/devices", &user)?, &[])?;
            output.rows(&answer, "devices", &DEVICES);
        }
        UsersCommand::DeleteDevices { user, devices } => {
            let body = json!({ "devices": devices });
            let answer = api.post(&at("/v2/users/{}/delete_devices", &user)?, &body)?;
            output.done(&answer, "Deleted.");
        }
        UsersCommand::Whois { user } => {
            output.members(&api.get(&at("/v1/whois/{}", &user)?, &[])?);
        }
        UsersCommand::LoginAs { user, lifetime } => {
            let until = Env::system().clock.now_ms().saturating_add(lifetime.saturating_mul(1_000));
            let body = json!({ "valid_until_ms": until });
            let answer = api.post(&at("/v1/users/{}/login", &user)?, &body)?;
            output.text(&answer, "access_token");
        }
        UsersCommand::Deactivate { user, erase } => {
            let answer = api.post(&at("/v1/deactivate/{}", &user)?, &json!({ "erase": erase }))?;
            output.done(&answer, "Deactivated.");
        }
    }
    Ok(())
}

pub(super) fn notice(
    config: &Config,
    api: &Api,
    output: &Output,
    args: NoticeArgs,
) -> Result<(), AdminError> {
    let user = user_id(config, &args.user)?;
    let content = json!({ "msgtype": "m.text", "body": args.text });
    let body = json!({ "user_id": user, "content": content });
    output.text(&api.post("/v1/send_server_notice", &body)?, "event_id");
    Ok(())
}
