//! `/.well-known/matrix/server` of other servers: asking for it, and remembering what it said.

use std::{
    fmt,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header};
use lru::LruCache;
use parlour_actors::{env::Clock, keyring::BoxFuture, per_key::PerKey};
use ruma::OwnedServerName;
use serde::Deserialize;
use tokio::sync::Mutex as AsyncMutex;

const HOUR: Duration = Duration::from_secs(3_600);

/// How long an answer counts that doesn't say so itself, and how long at the most.
const USUAL: Duration = HOUR.saturating_mul(24);
const LONGEST: Duration = HOUR.saturating_mul(48);

/// How long an answer counts at the least, whatever it says: we don't ask for each request.
const SHORTEST: Duration = Duration::from_secs(300);

/// How long the first failure counts; it doubles with each further one, up to an hour.
const FAILURE: Duration = Duration::from_secs(120);

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// Of how many hosts the answer is remembered.
const REMEMBERED: NonZero<usize> = NonZero::new(10_000).expect("it is not zero");

/// Gets a page of the web, without following redirects, bounded in size and time.
pub trait Web: Send + Sync + fmt::Debug {
    /// `GET`; `None` if there was no answer, or one that was too long.
    fn get(&self, uri: Uri) -> BoxFuture<'_, Option<http::Response<Bytes>>>;
}

/// What hosts say of who stands for them.
#[derive(Debug)]
pub struct WellKnown {
    web: Arc<dyn Web>,
    clock: Arc<dyn Clock>,
    remembered: Mutex<LruCache<String, Remembered>>,
    /// Held while a host is asked: many who need it are one question.
    asking: PerKey<String, AsyncMutex<()>>,
}

#[derive(Debug, Clone)]
struct Remembered {
    delegated: Option<OwnedServerName>,
    until: Duration,
    failures: u32,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

impl WellKnown {
    /// Asks this web.
    #[must_use]
    pub fn new(web: Arc<dyn Web>, clock: Arc<dyn Clock>) -> Self {
        let remembered = Mutex::new(LruCache::new(REMEMBERED));
        Self { web, clock, remembered, asking: PerKey::default() }
    }

    /// Who stands for a host; `None` if nobody does, or none that could be found.
    pub async fn of(&self, host: &str) -> Option<OwnedServerName> {
        let host = host.to_ascii_lowercase();
        let turn = self.asking.get(&host, AsyncMutex::default);
        let _turn = turn.lock().await;
        let old = self.lock().get(&host).cloned();
        if let Some(known) = &old
            && self.clock.monotonic() < known.until
        {
            return known.delegated.clone();
        }
        let answer = self.fetch(&host).await;
        let now = self.clock.monotonic();
        let new = match answer {
            Some((delegated, lifetime)) => {
                let until = now + lifetime.clamp(SHORTEST, LONGEST);
                Remembered { delegated: Some(delegated), until, failures: 0 }
            }
            None => {
                let failures = old.map_or(0, |old| old.failures);
                let wait = FAILURE.saturating_mul(1 << failures.min(10)).min(HOUR);
                let failures = failures.saturating_add(1);
                Remembered { delegated: None, until: now + wait, failures }
            }
        };
        let delegated = new.delegated.clone();
        self.lock().put(host, new);
        delegated
    }

    async fn fetch(&self, host: &str) -> Option<(OwnedServerName, Duration)> {
        let mut uri: Uri = format!("https://{host}/.well-known/matrix/server").parse().ok()?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.web.get(uri.clone()).await?;
            if response.status().is_redirection() {
                uri = redirect(&uri, response.headers())?;
                continue;
            }
            if response.status() != StatusCode::OK {
                return None;
            }
            let document: Document = serde_json::from_slice(response.body()).ok()?;
            return Some((document.server, lifetime(response.headers())));
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<String, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a redirect leads; never away from HTTPS.
fn redirect(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let authority = from.authority()?;
    let absolute = match location {
        path if path.starts_with("//") => format!("https:{path}"),
        path if path.starts_with('/') => format!("https://{authority}{path}"),
        uri => uri.to_owned(),
    };
    absolute.parse().ok().filter(|uri: &Uri| uri.scheme_str() == Some("https"))
}

/// How long an answer counts, as its headers have it.
fn lifetime(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(header::CACHE_CONTROL).iter();
    let directives = directives.filter_map(|value| value.to_str().ok());
    for directive in directives.flat_map(|value| value.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return Duration::ZERO;
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            return Duration::from_secs(seconds.trim_matches('"').parse().unwrap_or(0));
        }
    }
    USUAL
}

#[cfg(test)]
#[path = "well_known/tests.rs"]
mod tests;
