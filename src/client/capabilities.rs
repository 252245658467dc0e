//! Capabilities negotiation.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation>

use std::{collections::BTreeMap, sync::Arc};

use parlour_event::RoomVersion;
use ruma::{
    RoomVersionId,
    api::client::discovery::get_capabilities::{
        self,
        v3::{
            AccountModerationCapability, Capabilities, ChangePasswordCapability,
            GetLoginTokenCapability, ProfileFieldsCapability, RoomVersionStability,
            RoomVersionsCapability, ThirdPartyIdChangesCapability,
        },
    },
};

use super::accounts::Accounts;
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct CapabilitiesContext {
    /// Who can do what.
    pub accounts: Arc<Accounts>,
    /// The version of new rooms.
    pub default_room_version: RoomVersionId,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<CapabilitiesContext>) -> Routes {
    Routes::new(Api::Client, context).route(capabilities).finish()
}

/// `GET /_matrix/client/v3/capabilities`
///
/// What the specification takes for granted where it is missing is left out: name and avatar can be
/// set.
async fn capabilities(
    context: Arc<CapabilitiesContext>,
    req: Ruma<get_capabilities::v3::Request>,
) -> Result<get_capabilities::v3::Response, ApiError> {
    let mut capabilities = Capabilities::new();
    let stability = |version: &RoomVersion| match version.is_stable() {
        true => RoomVersionStability::Stable,
        false => RoomVersionStability::Unstable,
    };
    let versions = RoomVersion::all().iter();
    let available: BTreeMap<_, _> =
        versions.map(|version| (version.id().clone(), stability(version))).collect();
    let default = context.default_room_version.clone();
    capabilities.room_versions = RoomVersionsCapability::new(default, available);
    // Both have to be confirmed with the password.
    let has_password = context.accounts.has_password(&req.caller.user_id)?;
    capabilities.change_password = ChangePasswordCapability::new(has_password);
    capabilities.get_login_token = GetLoginTokenCapability::new(has_password);
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    let admin = req.caller.admin;
    capabilities.account_moderation = AccountModerationCapability::new(admin, admin);
    Ok(get_capabilities::v3::Response::new(capabilities))
}
