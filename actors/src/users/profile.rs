//! Profiles: display name, avatar and further fields.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use parlour_event::{StreamPos, json::Object};
use parlour_storage::{
    Op, Store,
    schema::{User, keys},
};

use super::{Decision, UserError, Users, accounts::put_account};
use crate::commit::{Announcement, At};

/// How many bytes a profile may have, written as JSON.
const MAX_PROFILE: usize = 65_536;

/// Why a profile was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is no such account, or it is gone for good.
    #[error("there is no such user")]
    UnknownUser,
    /// The profile would become larger than 64 KiB.
    #[error("the profile would become larger than {MAX_PROFILE} bytes")]
    TooLarge,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

/// A change of one profile field; `None` removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileChange {
    /// The display name.
    DisplayName(Option<String>),
    /// The avatar, an `mxc:` URI.
    AvatarUrl(Option<String>),
    /// Another field: its name, and its value as JSON text.
    Field(String, Option<String>),
}

impl ProfileChange {
    fn apply(self, account: &mut User) {
        match self {
            Self::DisplayName(name) => account.display_name = name,
            Self::AvatarUrl(url) => account.avatar_url = url,
            Self::Field(name, value) => {
                account.profile.retain(|(field, _)| *field != name);
                account.profile.extend(value.map(|value| (name, value)));
            }
        }
    }
}

impl Users {
    /// Changes a profile field. A new name or avatar is carried into all of the user's rooms in
    /// the background; that this has to be done is as durable as the change itself.
    ///
    /// # Errors
    ///
    /// [`ProfileError`]
    pub async fn set_profile(&self, user: &str, change: ProfileChange) -> Result<(), ProfileError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let old = store.typed::<User>(&keys::user(&name)).map_err(UserError::from)?;
            let Some(old) = old.filter(|old| !old.deactivated) else {
                return Err(ProfileError::UnknownUser);
            };
            let mut new = old.clone();
            change.apply(&mut new);
            if new == old {
                return Ok(Decision::Keep(false));
            }
            let length = json_length(&new);
            if length > MAX_PROFILE && length > json_length(&old) {
                return Err(ProfileError::TooLarge);
            }
            let spreads = new.display_name != old.display_name || new.avatar_url != old.avatar_url;
            let open = store.open_words_of(&name).map_err(UserError::from)?;
            let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
                put_account(&name, Some(&old), &new, open, ops);
                if spreads {
                    let value = pos.0.to_be_bytes().to_vec().into();
                    ops.push(Op::Put { key: keys::profile_spread(&name), value });
                }
                Announcement::User { user: name }
            });
            Ok(Decision::Write(Box::new(change), spreads))
        };
        if self.change(user, decide).await? {
            self.spread.notify_one();
        }
        Ok(())
    }
}

/// The length of a profile as a JSON object, without white space.
fn json_length(account: &User) -> usize {
    let quoted = |text: &str| serde_json::to_string(text).map_or(usize::MAX, |json| json.len());
    let known = [("displayname", &account.display_name), ("avatar_url", &account.avatar_url)];
    let known = known.into_iter().filter_map(|(key, value)| Some((key, quoted(value.as_deref()?))));
    let others = account.profile.iter().map(|(key, json)| (key.as_str(), json.len()));
    // A colon and a comma per field; two braces less the comma that the last one does not have.
    known.chain(others).fold(2_usize, |sum, (key, value)| {
        sum.saturating_add(quoted(key)).saturating_add(value).saturating_add(2)
    })
}

/// Adds a user's name and avatar to the content of a member event that does not say them.
pub fn add_profile(account: &User, content: &mut Object) {
    let profile = [("displayname", &account.display_name), ("avatar_url", &account.avatar_url)];
    for (key, value) in profile {
        if let Some(value) = value {
            content.entry(key.to_owned()).or_insert_with(|| value.as_str().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_the_json() {
        let account = User {
            display_name: Some("Al\"ice".to_owned()),
            profile: vec![("m.tz".to_owned(), "\"Europe/Berlin\"".to_owned())],
            ..User::default()
        };
        let json = r#"{"displayname":"Al\"ice","m.tz":"Europe/Berlin"}"#;
        assert_eq!(json_length(&account), json.len() + 1, "one comma too many is counted");
    }

    #[test]
    fn a_field_is_set_once_and_removed() {
        let mut account = User::default();
        let set = |value: &str| ProfileChange::Field("a.b".to_owned(), Some(value.to_owned()));
        set("1").apply(&mut account);
        set("2").apply(&mut account);
        assert_eq!(account.profile, [("a.b".to_owned(), "2".to_owned())]);
        ProfileChange::Field("a.b".to_owned(), None).apply(&mut account);
        assert_eq!(account.profile, []);
    }
}
