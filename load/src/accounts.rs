//! Users for the scenarios: registered in whichever way the server allows, or known from a file.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::{
    bulk::Bulk,
    error::{Failure, LoadError},
    http::Endpoint,
    session::{Account, Session},
};

/// How many are registered at once.
const AT_ONCE: usize = 8;

/// How accounts are made.
#[derive(Debug, Clone)]
pub(crate) enum Registration {
    /// Anybody may register.
    Open,
    /// With a registration token.
    Token(String),
    /// With the secret that administrators share with the server.
    SharedSecret(String),
}

/// Where users come from.
pub(crate) struct Accounts {
    endpoint: Arc<Endpoint>,
    registration: Registration,
    /// What the names of new users begin with; unique for a run.
    prefix: String,
    cache: Option<Cache>,
    /// Makes them all at once, if the server can.
    bulk: Option<Bulk>,
}

impl Accounts {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        registration: Registration,
        prefix: String,
        cache: Option<Cache>,
        bulk: Option<Bulk>,
    ) -> Self {
        Self { endpoint, registration, prefix, cache, bulk }
    }

    /// What makes users, rooms and members all at once, if the server can.
    pub(crate) fn bulk(&self) -> Option<&Bulk> {
        self.bulk.as_ref()
    }

    /// So many users. Those of the file first; who is new is added to it.
    pub(crate) async fn take(
        &self,
        count: usize,
        told: impl Fn(usize),
    ) -> Result<Vec<Account>, LoadError> {
        let mut known = match &self.cache {
            Some(cache) => self.still_valid(cache.read()?).await?,
            None => Vec::new(),
        };
        known.truncate(count);
        let missing = known.len()..count;
        let made = match &self.bulk {
            Some(bulk) if !missing.is_empty() => bulk.users(missing, told).await,
            _ => self.register_all(missing, told).await,
        };
        let made = made.map_err(|failure| LoadError::Registration(failure.to_string()))?;
        let anybody_new = !made.is_empty();
        known.extend(made);
        if let Some(cache) = &self.cache
            && anybody_new
        {
            cache.write(&known)?;
        }
        Ok(known)
    }

    async fn register_all(
        &self,
        numbers: Range<usize>,
        told: impl Fn(usize),
    ) -> Result<Vec<Account>, Failure> {
        let accounts = stream::iter(numbers).map(|number| self.register(number)).buffered(AT_ONCE);
        let mut accounts = accounts.enumerate();
        let mut made = Vec::new();
        while let Some((number, account)) = accounts.next().await {
            made.push(account?);
            told(number + 1);
        }
        Ok(made)
    }

    /// Known users, if the server still knows the first of them: a server whose data are new knows
    /// none.
    async fn still_valid(&self, known: Vec<Account>) -> Result<Vec<Account>, LoadError> {
        let Some(first) = known.first() else { return Ok(known) };
        let mut session = Session::of(&self.endpoint, first);
        match session.get::<Value>("/_matrix/client/v3/account/whoami").await {
            Ok(_) => Ok(known),
            Err(Failure::Refused { status: 401, .. }) => Ok(Vec::new()),
            Err(failure) => Err(LoadError::Registration(failure.to_string())),
        }
    }

    async fn register(&self, number: usize) -> Result<Account, Failure> {
        let mut session = Session::nobody(&self.endpoint);
        let name = format!("{}-{number}", self.prefix);
        // Nobody ever logs in with it.
        let password = format!("{:032x}", fastrand::u128(..));
        match &self.registration {
            Registration::Open => {
                self.by_stages(&mut session, &name, &password, json!({ "type": "m.login.dummy" }))
                    .await
            }
            Registration::Token(token) => {
                let stage = json!({ "type": "m.login.registration_token", "token": token });
                self.by_stages(&mut session, &name, &password, stage).await
            }
            Registration::SharedSecret(secret) => {
                by_secret(&mut session, (&name, &password), false, secret).await
            }
        }
    }

    /// User-interactive authentication: the server is asked for a session first, since some insist.
    async fn by_stages(
        &self,
        session: &mut Session,
        name: &str,
        password: &str,
        mut stage: Value,
    ) -> Result<Account, Failure> {
        const PATH: &str = "/_matrix/client/v3/register";
        if stage["type"] != "m.login.dummy" {
            let offered = session.ask_for_stages(PATH).await?;
            stage["session"] = offered.into();
        }
        let body = json!({ "username": name, "password": password, "auth": stage });
        match session.prepare::<Account>(PATH, &body).await {
            // The stage is done, and another one is left: servers with tokens like a dummy, too.
            Err(Failure::Refused { status: 401, .. }) if stage["session"].is_string() => {
                let dummy = json!({ "type": "m.login.dummy", "session": stage["session"] });
                let body = json!({ "username": name, "password": password, "auth": dummy });
                session.prepare(PATH, &body).await
            }
            done => done,
        }
    }
}

impl Session {
    /// The session of a user-interactive authentication, from the refusal of a bare request.
    async fn ask_for_stages(&mut self, path: &str) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Offer {
            session: String,
        }
        let offer: Offer = self.refused_with(path, 401).await?;
        Ok(offer.session)
    }
}

/// `POST /_synapse/admin/v1/register`, which Synapse, Parlour and others have.
pub(crate) async fn by_secret(
    session: &mut Session,
    (name, password): (&str, &str),
    admin: bool,
    secret: &str,
) -> Result<Account, Failure> {
    const PATH: &str = "/_synapse/admin/v1/register";
    #[derive(Deserialize)]
    struct Nonce {
        nonce: String,
    }
    let Nonce { nonce } = session.get(PATH).await?;
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(Failure::nonsense)?;
    let role = if admin { "admin" } else { "notadmin" };
    mac.update([&nonce, name, password, role].join("\0").as_bytes());
    let mac: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({ "nonce": nonce, "username": name, "password": password, "admin": admin,
        "mac": mac });
    session.prepare(PATH, &body).await
}

/// A file with the users of earlier runs, by server.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    file: PathBuf,
    target: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Contents(BTreeMap<String, Vec<Account>>);

impl Cache {
    pub(crate) fn new(file: &Path, target: &str) -> Self {
        Self { file: file.to_owned(), target: target.to_owned() }
    }

    fn contents(&self) -> Result<Contents, LoadError> {
        match fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(LoadError::file(&self.file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contents::default()),
            Err(error) => Err(LoadError::file(&self.file)(error)),
        }
    }

    fn read(&self) -> Result<Vec<Account>, LoadError> {
        Ok(self.contents()?.0.remove(&self.target).unwrap_or_default())
    }

    fn write(&self, accounts: &[Account]) -> Result<(), LoadError> {
        let mut contents = self.contents()?;
        contents.0.insert(self.target.clone(), accounts.to_vec());
        let text = serde_json::to_vec(&contents).map_err(LoadError::file(&self.file))?;
        write_private(&self.file, &text).map_err(LoadError::file(&self.file))
    }
}

/// Writes a file that holds access tokens: nobody else may read it.
pub(crate) fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(bytes)
}
