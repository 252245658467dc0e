//! From a path to an endpoint: a radix tree over all registered paths.
//!
//! Matching is done on the raw path, so that a `%2F` inside a variable stays inside it; the
//! variables are decoded once, after that.

use std::collections::{BTreeSet, HashMap};

use actix_web::http::Method;

use super::{
    Api,
    convert::decode,
    routes::{Route, Routes},
};
use crate::error::ApiError;

/// Routes that cannot be in one table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteError {
    /// Two endpoints claim the same method of the same path.
    #[error("two endpoints for {0}")]
    Duplicate(String),
    /// A path that the router cannot hold.
    #[error("path {path}: {reason}")]
    Path {
        /// The path's template.
        path: String,
        /// Why not.
        reason: String,
    },
}

/// All endpoints of one listener.
pub struct Router {
    tree: matchit::Router<Vec<Route>>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

/// What a path leads to.
pub(super) struct Found<'a> {
    pub(super) route: &'a Route,
    pub(super) path_args: Vec<String>,
}

impl Router {
    /// Builds the table of the endpoints that belong to these APIs.
    ///
    /// # Errors
    /// Two endpoints claim the same place, or a path is malformed.
    pub fn new(routes: Routes, apis: &BTreeSet<Api>) -> Result<Self, RouteError> {
        let mut by_path: HashMap<String, Vec<Route>> = HashMap::new();
        for route in routes.into_inner() {
            if !apis.contains(&route.api) {
                continue;
            }
            for pattern in patterns(route.path) {
                let methods: &mut Vec<Route> = by_path.entry(pattern).or_default();
                if let Some(other) = methods.iter().find(|other| other.method == route.method) {
                    // Some pages belong to two APIs, which may be on one listener.
                    if other.api != route.api && other.path == route.path {
                        continue;
                    }
                    let what = format!("{} {}", route.method, route.path);
                    return Err(RouteError::Duplicate(what));
                }
                methods.push(route.clone());
            }
        }
        let mut tree = matchit::Router::new();
        for (pattern, methods) in by_path {
            tree.insert(pattern.clone(), methods)
                .map_err(|error| RouteError::Path { path: pattern, reason: error.to_string() })?;
        }
        Ok(Self { tree })
    }

    /// Finds the endpoint; a `HEAD` is a `GET` whose answer's body is not sent.
    pub(super) fn find(&self, method: &Method, path: &str) -> Result<Found<'_>, ApiError> {
        let matched = self.tree.at(path).map_err(|_| ApiError::unrecognized())?;
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let route = matched.value.iter().find(|route| route.method == *method);
        let route = route.ok_or_else(ApiError::method_not_allowed)?;
        let path_args = matched.params.iter().map(|(_, value)| decode(value));
        Ok(Found { route, path_args: path_args.collect::<Result<_, _>>()? })
    }
}

/// The patterns of a path. Variables are named by their number, since different requests call the
/// same place by different names. An empty state key may be left out, with or without the slash
/// before it (CS API, `GET /rooms/{roomId}/state/{eventType}/{stateKey}`).
fn patterns(path: &str) -> Vec<String> {
    let mut number = 0;
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| {
            let is_variable = segment.starts_with('{') && !segment.starts_with("{*");
            if is_variable {
                number += 1;
                format!("{{{number}}}")
            } else {
                segment.to_owned()
            }
        })
        .collect();
    let pattern = segments.join("/");
    match segments.split_last() {
        Some((_, rest)) if path.ends_with("/{state_key}") => {
            let short = rest.join("/");
            vec![pattern, format!("{short}/"), short]
        }
        _ => vec![pattern],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_numbered_and_the_state_key_may_be_missing() {
        assert_eq!(patterns("/a/{room_id}/b/{x}"), ["/a/{1}/b/{2}"]);
        assert_eq!(
            patterns("/a/{room_id}/state/{event_type}/{state_key}"),
            ["/a/{1}/state/{2}/{3}", "/a/{1}/state/{2}/", "/a/{1}/state/{2}"]
        );
    }
}
