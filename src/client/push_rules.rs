//! Push rules: what a user wants to be notified of.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#push-rules-api>

use parlour_actors::users::{PushRulesError, RulePlace, Users};
use ruma::{
    UserId,
    api::{
        IncomingRequest, Metadata,
        client::push::{
            PushRule, delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled,
            get_pushrules_all, get_pushrules_global_scope, set_pushrule, set_pushrule_actions,
            set_pushrule_enabled,
        },
        error::{DeserializationError, Error},
        path_builder::VersionHistory,
    },
    push::{AnyPushRuleRef, RuleKind, Ruleset},
};
use serde_json::{Map, Value};

use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
};

/// The largest rule, in bytes.
const MAX_RULE: usize = 64 << 10;

/// The endpoints of this file.
#[must_use]
pub fn routes(users: Users) -> Routes {
    let options = RouteOptions::rate(RateClass::Other).max_body(MAX_RULE);
    Routes::new(Api::Client, users)
        .route(get_all)
        .route(get_global)
        .route(get_rule)
        .route_with(options, put_rule)
        .route(delete_rule)
        .route(get_enabled)
        .route_with(options, put_enabled)
        .route(get_actions)
        .route_with(options, put_actions)
        .finish()
}

/// [`set_pushrule::v3::Request`] whose conditions may be left out, which ruma's own demands.
#[derive(Debug)]
struct PutRule(set_pushrule::v3::Request);

impl Metadata for PutRule {
    const METHOD: http::Method = set_pushrule::v3::Request::METHOD;
    const RATE_LIMITED: bool = set_pushrule::v3::Request::RATE_LIMITED;
    type Authentication = <set_pushrule::v3::Request as Metadata>::Authentication;
    type PathBuilder = VersionHistory;
    const PATH_BUILDER: VersionHistory = set_pushrule::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for PutRule {
    type EndpointError = Error;
    type OutgoingResponse = set_pushrule::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let mut body: Map<String, Value> = serde_json::from_slice(request.body())?;
        body.entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
        let body = serde_json::to_vec(&body)?;
        let request = request.map(|_| &body[..]);
        set_pushrule::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// `GET /_matrix/client/v3/pushrules/`
async fn get_all(
    users: Users,
    req: Ruma<get_pushrules_all::v3::Request>,
) -> Result<get_pushrules_all::v3::Response, ApiError> {
    Ok(get_pushrules_all::v3::Response::new(users.push_rules(&req.caller.user_id)?))
}

/// `GET /_matrix/client/v3/pushrules/global/`
async fn get_global(
    users: Users,
    req: Ruma<get_pushrules_global_scope::v3::Request>,
) -> Result<get_pushrules_global_scope::v3::Response, ApiError> {
    Ok(get_pushrules_global_scope::v3::Response::new(users.push_rules(&req.caller.user_id)?))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn get_rule(
    users: Users,
    req: Ruma<get_pushrule::v3::Request>,
) -> Result<get_pushrule::v3::Response, ApiError> {
    let rule = look_up(&users, &req.caller.user_id, &req.kind, &req.rule_id, |rule| match rule {
        // Of this kind ruma cannot make its own type.
        AnyPushRuleRef::PostContent(rule) => PushRule::from(rule.clone()),
        rule => rule.into(),
    });
    Ok(get_pushrule::v3::Response::new(rule?))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn put_rule(
    users: Users,
    req: Ruma<PutRule>,
) -> Result<set_pushrule::v3::Response, ApiError> {
    let Ruma { request: PutRule(request), caller, .. } = req;
    let place = RulePlace { after: request.after, before: request.before };
    users.put_push_rule(&caller.user_id, request.rule, place).await?;
    Ok(set_pushrule::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn delete_rule(
    users: Users,
    req: Ruma<delete_pushrule::v3::Request>,
) -> Result<delete_pushrule::v3::Response, ApiError> {
    let Ruma { request, caller, .. } = req;
    let remove = |rules: &mut Ruleset| Ok(rules.remove(request.kind, request.rule_id)?);
    users.change_push_rules(&caller.user_id, remove).await?;
    Ok(delete_pushrule::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn get_enabled(
    users: Users,
    req: Ruma<get_pushrule_enabled::v3::Request>,
) -> Result<get_pushrule_enabled::v3::Response, ApiError> {
    let (user, kind) = (&req.caller.user_id, &req.kind);
    let enabled = look_up(&users, user, kind, &req.rule_id, |rule| rule.enabled())?;
    Ok(get_pushrule_enabled::v3::Response::new(enabled))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn put_enabled(
    users: Users,
    req: Ruma<set_pushrule_enabled::v3::Request>,
) -> Result<set_pushrule_enabled::v3::Response, ApiError> {
    let Ruma { request, caller, .. } = req;
    let switch = move |rules: &mut Ruleset| {
        Ok(rules.set_enabled(request.kind, request.rule_id, request.enabled)?)
    };
    users.change_push_rules(&caller.user_id, switch).await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn get_actions(
    users: Users,
    req: Ruma<get_pushrule_actions::v3::Request>,
) -> Result<get_pushrule_actions::v3::Response, ApiError> {
    let (user, kind) = (&req.caller.user_id, &req.kind);
    let actions = look_up(&users, user, kind, &req.rule_id, |rule| rule.actions().to_vec())?;
    Ok(get_pushrule_actions::v3::Response::new(actions))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn put_actions(
    users: Users,
    req: Ruma<set_pushrule_actions::v3::Request>,
) -> Result<set_pushrule_actions::v3::Response, ApiError> {
    let Ruma { request, caller, .. } = req;
    let change = move |rules: &mut Ruleset| {
        Ok(rules.set_actions(request.kind, request.rule_id, request.actions)?)
    };
    users.change_push_rules(&caller.user_id, change).await?;
    Ok(set_pushrule_actions::v3::Response::new())
}

/// What is asked of one rule.
fn look_up<T>(
    users: &Users,
    user: &UserId,
    kind: &RuleKind,
    rule_id: &str,
    ask: impl FnOnce(AnyPushRuleRef<'_>) -> T,
) -> Result<T, ApiError> {
    let rules = users.push_rules(user)?;
    let rule = rules.get(kind.clone(), rule_id).map(ask);
    Ok(rule.ok_or(PushRulesError::NotFound)?)
}
