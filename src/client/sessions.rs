//! Access tokens: from a token to the logged-in device.

use parlour_actors::users::{Standing as TokenStanding, Users};
use ruma::OwnedUserId;

use crate::{
    error::ApiError,
    http::{Authenticator, BoxFuture, Caller, RequestMeta, Standing},
};

/// Looks tokens up among the logins of this server's users.
#[derive(Debug, Clone)]
pub struct Sessions {
    users: Users,
}

impl Sessions {
    /// The logins of these users.
    #[must_use]
    pub fn new(users: Users) -> Self {
        Self { users }
    }

    async fn find(&self, token: &str, meta: &RequestMeta) -> Result<Caller, ApiError> {
        let login = self.users.authenticate(token).map_err(ApiError::unavailable)?;
        let login = login.ok_or_else(|| ApiError::unknown_token(false))?;
        match login.standing {
            TokenStanding::Good => {}
            TokenStanding::Unconfirmed => self.users.confirm(&login, token).await?,
            // The device is there still: the client refreshes, or logs in on it again.
            TokenStanding::Ended => return Err(ApiError::unknown_token(true)),
        }
        let account = login.account;
        if account.deactivated {
            return Err(ApiError::unknown_token(false));
        }
        let user_agent = meta.user_agent.as_deref();
        self.users.saw(&login.user, &login.device, meta.peer.ip, user_agent);
        let user_id = OwnedUserId::try_from(login.user).map_err(ApiError::internal)?;
        let standing = match (account.locked, account.suspended) {
            (true, _) => Standing::Locked,
            (false, true) => Standing::Suspended,
            (false, false) => Standing::Active,
        };
        Ok(Caller {
            user_id,
            device_id: login.device.into(),
            admin: account.admin,
            guest: account.guest,
            standing,
        })
    }
}

impl Authenticator for Sessions {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        meta: &'a RequestMeta,
    ) -> BoxFuture<'a, Result<Caller, ApiError>> {
        Box::pin(self.find(token, meta))
    }
}
