//! What users have reported: events, rooms and other users.

use std::{cmp::Ordering, sync::Arc};

use actix_web::http::Method;
use parlour_actors::reports::Reports;
use parlour_storage::schema::Report;
use ruma::{RoomId, api::Direction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    page::{Page, Pager, Window, in_direction},
    request::{AdminRequest, AdminRoutes, Answer},
};
use crate::{
    error::ApiError,
    http::Routes,
    view::{View, ViewError},
};

const LIST: &str = "/_synapse/admin/v1/event_reports";
const ONE: &str = "/_synapse/admin/v1/event_reports/{report_id}";

/// What these endpoints need to know.
#[derive(Debug)]
pub struct EventReportContext {
    /// The reports.
    pub reports: Reports,
    /// What they are about.
    pub view: View,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<EventReportContext>) -> Routes {
    AdminRoutes::new(context)
        .on(Method::GET, LIST, list)
        .on(Method::GET, ONE, get)
        .on(Method::DELETE, ONE, delete)
        .finish()
}

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
    #[serde(default = "newest_first")]
    dir: Direction,
    /// Who reported.
    user_id: Option<String>,
    room_id: Option<String>,
    /// Who was reported.
    event_sender_user_id: Option<String>,
}

fn newest_first() -> Direction {
    Direction::Backward
}

impl Query {
    fn wants(&self, report: &Report) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is.is_some_and(|is| is.contains(wanted)))
        };
        fits(&self.user_id, Some(&report.reporter))
            && fits(&self.room_id, report.subject.room_id())
            && fits(&self.event_sender_user_id, report.subject.user_id())
    }
}

/// `GET /_synapse/admin/v1/event_reports`
async fn list(context: Arc<EventReportContext>, request: AdminRequest) -> Answer {
    let query: Query = request.query()?;
    let reports = context.reports.clone();
    let page = context.view.run(move |view| {
        let order = |a: &(u64, Report), b: &(u64, Report)| -> Ordering {
            in_direction(a.0.cmp(&b.0), query.dir)
        };
        let mut pager = Pager::new(Window::new(query.from, query.limit), order);
        let all = reports.all().map_err(ViewError::from)?.into_iter();
        all.filter(|(_, report)| query.wants(report)).for_each(|report| pager.push(report));
        let Page { items, total, next } = pager.finish();
        let items = items.iter().map(|(id, report)| shown(view, *id, report));
        let items = items.collect::<Result<Vec<_>, ViewError>>()?;
        Ok::<_, ViewError>((items, total, next))
    });
    let (items, total, next) = page.await?;
    let mut answer = json!({ "event_reports": items, "total": total });
    if let Some(next) = next {
        answer["next_token"] = next.into();
    }
    Ok(answer)
}

/// `GET /_synapse/admin/v1/event_reports/{reportId}`
async fn get(context: Arc<EventReportContext>, request: AdminRequest) -> Answer {
    let id = id(&request)?;
    let report = context.reports.get(id)?.ok_or_else(unknown)?;
    context
        .view
        .run(move |view| {
            let mut shown = shown(view, id, &report)?;
            shown["event_json"] = event_json(view, &report)?;
            Ok::<_, ViewError>(shown)
        })
        .await
}

/// `DELETE /_synapse/admin/v1/event_reports/{reportId}`
async fn delete(context: Arc<EventReportContext>, request: AdminRequest) -> Answer {
    match context.reports.remove(id(&request)?).await? {
        true => Ok(json!({})),
        false => Err(unknown()),
    }
}

fn id(request: &AdminRequest) -> Result<u64, ApiError> {
    let wrong = |_| ApiError::invalid_param("The report id must be a number");
    request.arg(0).parse().map_err(wrong)
}

fn unknown() -> ApiError {
    ApiError::not_found("Event report not found")
}

/// A report as it stands in lists. Reports of rooms and users have no event.
fn shown(view: &View, id: u64, report: &Report) -> Result<Value, ViewError> {
    let room = report.subject.room_id().and_then(|room| <&RoomId>::try_from(room).ok());
    let room = room.map(|room| view.room(room)).transpose()?.flatten();
    let text = |event_type: &str, key: &str| -> Result<Value, ViewError> {
        let Some(room) = &room else { return Ok(Value::Null) };
        let event = view.current(room, event_type, "")?;
        let text = event.as_ref().and_then(|event| event.content().get(key)?.as_str());
        Ok(text.map_or(Value::Null, Into::into))
    };
    Ok(json!({
        "id": id,
        "received_ts": report.ts,
        "room_id": report.subject.room_id(),
        "name": text("m.room.name", "name")?,
        "canonical_alias": text("m.room.canonical_alias", "alias")?,
        "event_id": report.subject.event_id(),
        "user_id": report.reporter,
        "reason": report.reason,
        "score": null,
        "sender": report.subject.user_id(),
    }))
}

/// The event as servers see it; null where there is none (any more).
fn event_json(view: &View, report: &Report) -> Result<Value, ViewError> {
    let Some(event_id) = report.subject.event_id() else { return Ok(Value::Null) };
    let num = view.store.event_num(event_id)?;
    let event = num.map(|num| view.store.event(num)).transpose()?.flatten();
    Ok(event.and_then(|event| serde_json::from_slice(&event.json).ok()).unwrap_or_default())
}
