//! The user directory.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::sync::Arc;

use ruma::api::client::user_directory::search_users::v3::{Request, Response, User};

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{
        View, ViewError,
        people::{PeopleSearch, Person},
    },
};

/// How many people a search gives at most.
const MAX_LIMIT: usize = 500;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct UserDirectoryContext {
    /// Where users and rooms are read.
    pub view: View,
    /// Whether all users of this server are shown to all others.
    pub of_all: bool,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<UserDirectoryContext>) -> Routes {
    Routes::new(Api::Client, context).route(search).finish()
}

/// `POST /_matrix/client/v3/user_directory/search`
///
/// Names are compared without regard to case and accents, whatever the language.
async fn search(
    context: Arc<UserDirectoryContext>,
    req: Ruma<Request>,
) -> Result<Response, ApiError> {
    let (searcher, text) = (req.caller.user_id.clone(), req.search_term.clone());
    let limit = usize::try_from(req.limit).unwrap_or(usize::MAX).min(MAX_LIMIT);
    let of_all = context.of_all;
    let read = move |view: &View| {
        let search = PeopleSearch { searcher: &searcher, text: &text, limit, of_all };
        view.people(&search)
    };
    let (people, limited) = context.view.run::<_, ViewError, _>(read).await?;
    Ok(Response::new(people.into_iter().filter_map(user).collect(), limited))
}

fn user(person: Person) -> Option<User> {
    let mut user = User::new(person.user_id.try_into().ok()?);
    user.display_name = person.display_name;
    user.avatar_url = person.avatar_url.map(Into::into);
    Some(user)
}
