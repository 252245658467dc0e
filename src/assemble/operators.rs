//! What operators need: their API, reports, and a voice.

use std::sync::Arc;

use parlour_actors::{
    Engine,
    notices::{NoticeSettings, Notices},
};

use super::default_version;
use crate::{
    admin::{
        self, event_reports::EventReportContext, registration_tokens::RegistrationTokenContext,
        rooms::RoomContext, server_notices::ServerNoticeContext, users::UserContext,
    },
    client::{
        accounts::Accounts,
        report::{self, ReportContext},
        server_admin::{self, ServerAdminContext},
    },
    http::Routes,
    server::{Boot, StartError},
    view::View,
};

/// What speaks in the server's name, if it is to.
pub(super) async fn notices(boot: &Boot, engine: &Engine) -> Result<Option<Notices>, StartError> {
    let Some(config) = boot.config.server_notices.clone() else { return Ok(None) };
    let settings = NoticeSettings {
        user: config.user,
        display_name: config.display_name,
        avatar_url: config.avatar_url,
        room_name: config.room_name,
        version: default_version(&boot.config)?,
    };
    let (store, rooms, users) = (engine.store.clone(), engine.rooms.clone(), engine.users.clone());
    let notices = Notices::start(store, rooms, users, &boot.env, settings).await;
    let explain = |error| StartError::Part(format!("server_notices.localpart: {error}"));
    notices.map(Some).map_err(explain)
}

/// What operators' tools ask.
pub(super) fn admin_routes(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    accounts: Arc<Accounts>,
    notices: Option<Notices>,
) -> Routes {
    let (view, env) = (view.clone(), boot.env.clone());
    let server_name = boot.config.server.name.clone();
    let secret = boot.config.registration.shared_secret.clone();
    let secret = admin::register::SharedSecretContext::new(accounts.clone(), secret, env.clone());
    let own_user = notices.as_ref().map(|notices| notices.user().to_owned());
    let users = Arc::new(UserContext { accounts, view: view.clone(), own_user });
    let orders = engine.room_orders.clone();
    let rooms = RoomContext { view: view.clone(), orders, server_name: server_name.clone() };
    let tokens = RegistrationTokenContext { tokens: engine.stored_tokens.clone(), env };
    let reports = EventReportContext { reports: engine.reports.clone(), view };
    let notices = ServerNoticeContext { notices, server_name };
    admin::version::routes()
        .and(admin::register::routes(Arc::new(secret)))
        .and(admin::users::routes(users.clone()))
        .and(admin::logins::routes(users))
        .and(admin::rooms::routes(Arc::new(rooms)))
        .and(admin::registration_tokens::routes(Arc::new(tokens)))
        .and(admin::event_reports::routes(Arc::new(reports)))
        .and(admin::server_notices::routes(Arc::new(notices)))
}

/// What keeps order: reports, and what administrators do about them.
pub(super) fn moderation_routes(boot: &Boot, engine: &Engine, view: &View) -> Routes {
    let server_name = boot.config.server.name.clone();
    let users = engine.users.clone();
    let report = ReportContext {
        reports: engine.reports.clone(),
        view: view.clone(),
        users: users.clone(),
        server_name: server_name.clone(),
    };
    report::routes(Arc::new(report))
        .and(server_admin::routes(Arc::new(ServerAdminContext { users, server_name })))
}
