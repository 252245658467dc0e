//! Transactions of other servers.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use std::sync::Arc;

use ruma::api::federation::transactions::send_transaction_message::v1 as send;

use super::receive::inbox::{Inbox, Transaction};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
};

/// How many events, and how many ephemeral data, one transaction may have.
const MAX_PDUS: usize = 50;
const MAX_EDUS: usize = 100;

/// The endpoints of this file.
#[must_use]
pub fn routes(inbox: Inbox) -> Routes {
    // Raw, so that the body's depth is not limited as a whole: each event is read by itself, and
    // one that is refused must not make the sender repeat all the others for ever.
    let options = RouteOptions::usual(Api::Federation).raw_body();
    Routes::new(Api::Federation, inbox).route_with(options, transaction).finish()
}

/// `PUT /_matrix/federation/v1/send/{txnId}`
async fn transaction(inbox: Inbox, req: Ruma<send::Request>) -> Result<send::Response, ApiError> {
    let Ruma { request, caller: origin, .. } = req;
    if request.origin != origin {
        return Err(ApiError::invalid_param("The transaction is of another server"));
    }
    if request.pdus.len() > MAX_PDUS || request.edus.len() > MAX_EDUS {
        let message = format!("A transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs");
        return Err(ApiError::invalid_param(message));
    }
    let edus = request.edus.into_iter().map(|edu| edu.into_json()).collect();
    let transaction = Transaction { pdus: request.pdus, edus };
    let results = inbox.submit(&origin, &request.transaction_id, transaction).await?;
    Ok(send::Response::new(Arc::unwrap_or_clone(results)))
}
