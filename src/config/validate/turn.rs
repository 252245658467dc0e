//! `[turn]`

use std::time::Duration;

use super::{Checked, wrong};
use crate::config::{TurnConfig, TurnCredentials, raw};

pub(super) fn turn(raw: raw::Turn) -> Checked<Option<TurnConfig>> {
    let raw::Turn { uris, shared_secret, username, password, lifetime_seconds } = raw;
    if uris.is_empty() {
        return Ok(None);
    }
    let is_turn = |uri: &String| {
        let host = uri.strip_prefix("turn:").or_else(|| uri.strip_prefix("turns:"));
        host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
    };
    if let Some(other) = uris.iter().find(|uri| !is_turn(uri)) {
        return wrong(
            "turn.uris",
            format_args!("`{other}` is not one; write one such as turn:turn.example.org"),
        );
    }
    if lifetime_seconds == 0 {
        return wrong("turn.lifetime_seconds", "write 1 or more");
    }
    let credentials = match (shared_secret.is_empty(), username.is_empty(), password.is_empty()) {
        (false, true, true) => TurnCredentials::Shared(shared_secret),
        (true, false, false) => TurnCredentials::Fixed { username, password },
        _ => {
            return wrong(
                "turn",
                "there are uris, so write either shared_secret, or username and password",
            );
        }
    };
    Ok(Some(TurnConfig { uris, credentials, lifetime: Duration::from_secs(lifetime_seconds) }))
}
