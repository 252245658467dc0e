//! Who asks: from the authentication scheme in a request's metadata to a caller.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName,
    api::{
        auth_scheme::{
            AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken,
            NoAuthentication,
        },
        federation::authentication::ServerSignatures,
    },
};

use super::RequestMeta;
use crate::error::ApiError;

/// A boxed future that stays on its thread, as actix's do.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A logged-in device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device whose token it is.
    pub device_id: OwnedDeviceId,
    /// Whether the user may use the administrators' endpoints.
    pub admin: bool,
    /// Whether the user is a guest, to whom few endpoints are open.
    pub guest: bool,
    /// What the account may still do.
    pub standing: Standing,
}

/// What an administrator has left of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    #[default]
    Active,
    /// Reading, and little more (CS API, "Account suspension").
    Suspended,
    /// Logging out (CS API, "Account locking").
    Locked,
}

/// Whose requests an endpoint takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Admits {
    /// Everybody's but those of locked accounts.
    #[default]
    Unlocked,
    /// Neither those of locked nor of suspended accounts.
    Active,
    /// Everybody's.
    All,
}

impl Caller {
    /// Checks that an endpoint takes this caller's requests.
    ///
    /// # Errors
    /// 401 `M_USER_LOCKED`, 403 `M_USER_SUSPENDED`.
    pub fn check(&self, admits: Admits) -> Result<(), ApiError> {
        match (self.standing, admits) {
            (Standing::Locked, Admits::Unlocked | Admits::Active) => Err(ApiError::user_locked()),
            (Standing::Suspended, Admits::Active) => Err(ApiError::user_suspended()),
            _ => Ok(()),
        }
    }

    /// Checks that the caller is an administrator.
    ///
    /// # Errors
    /// 403 `M_FORBIDDEN`.
    pub fn check_admin(&self) -> Result<(), ApiError> {
        match self.admin {
            true => Ok(()),
            false => Err(ApiError::forbidden("You are not a server admin")),
        }
    }
}

/// Looks access tokens up.
pub trait Authenticator: Send + Sync {
    /// The device that has this token, and came with it in this request.
    ///
    /// Fails with [`ApiError::unknown_token`] for a token that is not (or no longer) good, and
    /// with [`ApiError::unavailable`] when that cannot be found out.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        meta: &'a RequestMeta,
    ) -> BoxFuture<'a, Result<Caller, ApiError>>;
}

/// Knows nobody: every token is unknown.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSessions;

impl Authenticator for NoSessions {
    fn authenticate<'a>(
        &'a self,
        _token: &'a str,
        _meta: &RequestMeta,
    ) -> BoxFuture<'a, Result<Caller, ApiError>> {
        Box::pin(std::future::ready(Err(ApiError::unknown_token(false))))
    }
}

/// Checks the signatures of other servers' requests.
pub trait ServerAuthenticator: Send + Sync {
    /// The server that has signed this request.
    ///
    /// Fails with [`ApiError::unauthorized`] if none has, and with [`ApiError::forbidden`] for a
    /// server that isn't spoken to.
    fn authenticate<'a>(
        &'a self,
        request: &'a http::Request<&'a [u8]>,
    ) -> BoxFuture<'a, Result<OwnedServerName, ApiError>>;
}

/// Believes no server.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoServers;

impl ServerAuthenticator for NoServers {
    fn authenticate<'a>(
        &'a self,
        _: &'a http::Request<&'a [u8]>,
    ) -> BoxFuture<'a, Result<OwnedServerName, ApiError>> {
        let refused = ApiError::forbidden("This server speaks to no others");
        Box::pin(std::future::ready(Err(refused)))
    }
}

/// What the schemes check with.
#[derive(Clone)]
pub struct Authenticators {
    /// Looks up clients' access tokens.
    pub clients: Arc<dyn Authenticator>,
    /// Checks other servers' signatures.
    pub servers: Arc<dyn ServerAuthenticator>,
}

impl fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticators").finish_non_exhaustive()
    }
}

/// An authentication scheme of ruma's metadata that this server can check.
pub trait Scheme: AuthScheme {
    /// What a handler learns about who asks.
    type Caller: std::fmt::Debug + 'static;

    /// Checks the request's credentials.
    fn authenticate(
        request: &http::Request<&[u8]>,
        meta: &RequestMeta,
        with: &Authenticators,
    ) -> impl Future<Output = Result<Self::Caller, ApiError>>;

    /// The device, if it is known: its user's rate limits apply.
    fn caller(caller: &Self::Caller) -> Option<&Caller>;

    /// Whose rate limits apply where another server asks.
    fn server(_: &Self::Caller) -> Option<&ServerName> {
        None
    }
}

/// Schemes that never look at a token. There are no application services yet, so where only their
/// tokens would count (login, registration), none does.
macro_rules! nobody {
    ($($scheme:ty),*) => {$(
        impl Scheme for $scheme {
            type Caller = ();

            async fn authenticate(
                _: &http::Request<&[u8]>,
                _: &RequestMeta,
                _: &Authenticators,
            ) -> Result<(), ApiError> {
                Ok(())
            }

            fn caller((): &()) -> Option<&Caller> {
                None
            }
        }
    )*};
}

nobody!(NoAuthentication, NoAccessToken, AppserviceTokenOptional);

impl Scheme for AccessToken {
    type Caller = Caller;

    async fn authenticate(
        request: &http::Request<&[u8]>,
        meta: &RequestMeta,
        with: &Authenticators,
    ) -> Result<Caller, ApiError> {
        // A header of another scheme or an unreadable query holds no token: for the client that
        // is the same as none.
        let token = Self::extract_authentication(request)
            .map_err(|_| ApiError::missing_token("This endpoint needs an access token"))?;
        with.clients.authenticate(&token, meta).await
    }

    fn caller(caller: &Caller) -> Option<&Caller> {
        Some(caller)
    }
}

impl Scheme for AccessTokenOptional {
    type Caller = Option<Caller>;

    async fn authenticate(
        request: &http::Request<&[u8]>,
        meta: &RequestMeta,
        with: &Authenticators,
    ) -> Result<Option<Caller>, ApiError> {
        match Self::extract_authentication(request) {
            Ok(Some(token)) => with.clients.authenticate(&token, meta).await.map(Some),
            _ => Ok(None),
        }
    }

    fn caller(caller: &Option<Caller>) -> Option<&Caller> {
        caller.as_ref()
    }
}

impl Scheme for ServerSignatures {
    type Caller = OwnedServerName;

    async fn authenticate(
        request: &http::Request<&[u8]>,
        _: &RequestMeta,
        with: &Authenticators,
    ) -> Result<OwnedServerName, ApiError> {
        with.servers.authenticate(request).await
    }

    fn caller(_: &OwnedServerName) -> Option<&Caller> {
        None
    }

    fn server(caller: &OwnedServerName) -> Option<&ServerName> {
        Some(caller)
    }
}
