//! `[federation]`

use std::{path::PathBuf, time::Duration};

use parlour_actors::keyring::OldKey;
use parlour_event::signing::PublicKey;
use ruma::{OwnedServerName, ServerName};

use super::{Checked, ranges, raw, wrong};
use crate::config::{FederationConfig, ServerFilter};

pub(super) fn federation(raw: raw::Federation) -> Checked<FederationConfig> {
    let delegate_to = match raw.delegate_to.as_str() {
        "" => None,
        name => Some(server_name("federation.delegate_to", name)?),
    };
    let key_servers = raw.trusted_key_servers.iter();
    let key_servers = key_servers.map(|name| server_name("federation.trusted_key_servers", name));
    let old_keys = raw.old_keys.into_iter().enumerate();
    Ok(FederationConfig {
        enabled: raw.enabled,
        delegate_to,
        servers: ServerFilter {
            nobody: !raw.enabled,
            allow: hosts("federation.allow_servers", raw.allow_servers)?,
            deny: hosts("federation.deny_servers", raw.deny_servers)?,
        },
        trusted_key_servers: key_servers.collect::<Checked<_>>()?,
        old_keys: old_keys.map(|(number, key)| old_key(number, key)).collect::<Checked<_>>()?,
        extra_ca_files: raw.extra_ca_files.into_iter().map(PathBuf::from).collect(),
        allowed_private_ranges: ranges(
            "federation.allowed_private_ranges",
            &raw.allowed_private_ranges,
        )?,
        send_presence: raw.send_presence,
        longest_retry: longest_retry(raw.longest_retry_seconds)?,
    })
}

fn longest_retry(seconds: u64) -> Checked<Duration> {
    match seconds {
        1..=86_400 => Ok(Duration::from_secs(seconds)),
        _ => wrong("federation.longest_retry_seconds", "it is not between 1 and 86400"),
    }
}

fn server_name(key: &str, text: &str) -> Checked<OwnedServerName> {
    let example = "write one such as matrix.example.org or matrix.example.org:443";
    ServerName::parse(text)
        .or_else(|_| wrong(key, format_args!("`{text}` is not a server name; {example}")))
}

/// Hosts and domains, in small letters.
fn hosts(key: &str, texts: Vec<String>) -> Checked<Vec<String>> {
    for text in &texts {
        let host = <&ServerName>::try_from(text.strip_prefix("*.").unwrap_or(text));
        if !host.is_ok_and(|host| host.port().is_none()) {
            let example = "write one such as example.org or *.example.org";
            return wrong(key, format_args!("`{text}` is not a host; {example}"));
        }
    }
    Ok(texts.into_iter().map(|text| text.to_ascii_lowercase()).collect())
}

fn old_key(number: usize, raw: raw::OldKey) -> Checked<OldKey> {
    let name = |field: &str| format!("federation.old_keys[{number}].{field}");
    let version = raw.id.strip_prefix("ed25519:").unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if version.is_empty() || !version.bytes().all(allowed) {
        return wrong(
            &name("id"),
            format_args!("`{}` is not a key's id; write one such as ed25519:a_1", raw.id),
        );
    }
    let Ok(key) = PublicKey::from_base64(&raw.key) else {
        return wrong(&name("key"), "this is not an Ed25519 public key in base64");
    };
    Ok(OldKey { id: raw.id, key, expired_ts: raw.expired_ts })
}
