//! The list of accounts.

use std::{cmp::Ordering, sync::Arc};

use parlour_actors::users::Users;
use parlour_storage::schema::{User, keys};
use ruma::api::Direction;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    page::{Page, Pager, Window, forwards, in_direction},
    request::{AdminRequest, Answer},
    users::UserContext,
};
use crate::view::ViewError;

/// How many accounts are read at once.
const BATCH: usize = 1_000;

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
    /// A part of the user id.
    user_id: Option<String>,
    /// A part of the name before the colon, or of the display name.
    name: Option<String>,
    admins: Option<bool>,
    deactivated: Option<bool>,
    #[serde(default)]
    locked: bool,
    #[serde(default)]
    order_by: OrderBy,
    #[serde(default = "forwards")]
    dir: Direction,
    #[serde(default = "yes")]
    guests: bool,
}

fn yes() -> bool {
    true
}

/// What the list is sorted by. What all users here have alike leaves them in the order of names.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OrderBy {
    #[default]
    Name,
    Displayname,
    Admin,
    Deactivated,
    Locked,
    AvatarUrl,
    CreationTs,
    IsGuest,
    UserType,
    ShadowBanned,
    LastSeenTs,
}

type Account = (String, User);

impl OrderBy {
    fn compare(self, (a_name, a): &Account, (b_name, b): &Account) -> Ordering {
        match self {
            Self::Name => a_name.cmp(b_name),
            Self::Displayname => a.display_name.cmp(&b.display_name),
            Self::Admin => a.admin.cmp(&b.admin),
            Self::Deactivated => a.deactivated.cmp(&b.deactivated),
            Self::Locked => a.locked.cmp(&b.locked),
            Self::AvatarUrl => a.avatar_url.cmp(&b.avatar_url),
            Self::CreationTs => a.created_ts.cmp(&b.created_ts),
            Self::IsGuest => a.guest.cmp(&b.guest),
            Self::UserType | Self::ShadowBanned | Self::LastSeenTs => Ordering::Equal,
        }
    }
}

impl Query {
    fn wants(&self, (user, account): &Account) -> bool {
        let part_of = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        let is_named = match (&self.name, &self.user_id) {
            (Some(name), _) => {
                let localpart = user.split(':').next().unwrap_or_default();
                let shown = account.display_name.as_deref().unwrap_or_default();
                part_of(localpart, name) || part_of(shown, name)
            }
            (None, Some(id)) => part_of(user, id),
            (None, None) => true,
        };
        is_named
            && self.admins.is_none_or(|admins| admins == account.admin)
            && self.deactivated.is_none_or(|deactivated| deactivated == account.deactivated)
            && (self.locked || !account.locked)
            && (self.guests || !account.guest)
    }

    fn page(&self, users: &Users) -> Result<Page<Account>, ViewError> {
        let order = |a: &Account, b: &Account| {
            in_direction(self.order_by.compare(a, b), self.dir).then_with(|| a.0.cmp(&b.0))
        };
        let mut pager = Pager::new(Window::new(self.from, self.limit), order);
        let mut last: Option<String> = None;
        loop {
            let accounts = users.accounts_after(last.as_deref(), BATCH)?;
            let Some((name, _)) = accounts.last() else { return Ok(pager.finish()) };
            last = Some(name.clone());
            let wanted = accounts.into_iter().filter(|account| self.wants(account));
            wanted.for_each(|account| pager.push(account));
        }
    }
}

/// `GET /_synapse/admin/v2/users`: with `deactivated=true` those are in the list as well.
pub(super) async fn list_v2(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let mut query: Query = request.query()?;
    query.deactivated = match query.deactivated {
        Some(true) => None,
        _ => Some(false),
    };
    answer(context, query).await
}

/// `GET /_synapse/admin/v3/users`: with `deactivated=true` there is nobody else in the list.
pub(super) async fn list_v3(context: Arc<UserContext>, request: AdminRequest) -> Answer {
    let query = request.query()?;
    answer(context, query).await
}

async fn answer(context: Arc<UserContext>, query: Query) -> Answer {
    let view = context.view.clone();
    let listed = view.run(move |_| {
        let Page { items, total, next } = query.page(&context.accounts.users)?;
        let shown = items.iter().map(|(user, account)| summary(&context, user, account));
        Ok::<_, ViewError>((shown.collect::<Result<Vec<_>, _>>()?, total, next))
    });
    let (shown, total, next) = listed.await?;
    let mut answer = json!({ "users": shown, "total": total });
    if let Some(next) = next {
        answer["next_token"] = next.to_string().into();
    }
    Ok(answer)
}

/// An account as it stands in lists.
///
/// # Errors
///
/// If storage cannot be read.
pub(super) fn summary(
    context: &UserContext,
    user: &str,
    account: &User,
) -> Result<Value, ViewError> {
    let erased = context.view.store.get(&keys::erased(user))?.is_some();
    let devices = context.accounts.users.devices(user)?;
    let last_seen = devices.iter().map(|(_, device)| device.last_seen.ts).max();
    Ok(json!({
        "name": user,
        "is_guest": account.guest,
        "admin": account.admin,
        "user_type": null,
        "deactivated": account.deactivated,
        "erased": erased,
        "shadow_banned": false,
        "displayname": account.display_name,
        "avatar_url": account.avatar_url,
        "creation_ts": account.created_ts,
        "last_seen_ts": last_seen.filter(|ts| *ts > 0),
        "locked": account.locked,
        "suspended": account.suspended,
    }))
}
