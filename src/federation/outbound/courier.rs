//! Carries transactions to other servers, for the queues.

use std::time::Duration;

use bytes::Bytes;
use parlour_actors::{
    federation_queue::{Courier, Delivered, Failure, Transaction},
    keyring::BoxFuture,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedTransactionId, ServerName, UInt,
    api::federation::transactions::send_transaction_message::v1::{Request, Response},
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{
    client::{AskError, FederationClient},
    transport::Limits,
};

/// A server that has much to do with the events that it gets may take its time.
const LIMITS: Limits = Limits { time: Duration::from_secs(60), body: 1 << 20 };

/// Carries transactions over the network.
#[derive(Debug)]
pub struct NetworkCourier {
    /// Who asks other servers.
    pub client: FederationClient,
    /// This server.
    pub origin: OwnedServerName,
}

impl Courier for NetworkCourier {
    fn may_send(&self, to: &ServerName) -> bool {
        self.client.may_ask(to)
    }

    fn carry<'a>(
        &'a self,
        to: &'a ServerName,
        transaction: &'a Transaction,
    ) -> BoxFuture<'a, Result<Delivered, Failure>> {
        Box::pin(async move {
            let request = self.request(transaction).map_err(|error| {
                // What is in storage is JSON.
                tracing::error!(%error, "a transaction cannot be written");
                Failure::Refused(error.to_string())
            })?;
            let answer = self.client.ask(to, request, LIMITS).await.map_err(failure)?;
            Ok(delivered(answer))
        })
    }
}

impl NetworkCourier {
    fn request(&self, transaction: &Transaction) -> Result<Request, serde_json::Error> {
        let Transaction { id, time, pdus, edus } = transaction;
        let time = MilliSecondsSinceUnixEpoch(UInt::new_saturating(*time));
        let id = OwnedTransactionId::from(id.as_str());
        let mut request = Request::new(id, self.origin.clone(), time);
        request.pdus = pdus.iter().map(raw).collect::<Result<_, _>>()?;
        request.edus =
            edus.iter().map(|edu| raw(edu).map(Raw::from_json)).collect::<Result<_, _>>()?;
        Ok(request)
    }
}

fn raw(json: &Bytes) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::from_slice(json)
}

fn delivered(answer: Response) -> Delivered {
    let refused = answer
        .pdus
        .into_iter()
        .filter_map(|(event_id, result)| Some((event_id.to_string(), result.err()?)));
    Delivered { refused: refused.collect() }
}

/// Whether it helps to try again, and when.
fn failure(error: AskError) -> Failure {
    match &error {
        AskError::Refused { status: 429, retry_after, .. } => Failure::Busy(*retry_after),
        // It cannot fetch our keys, there is a proxy in the place of a server, or it is in trouble:
        // that is not about the transaction.
        AskError::Refused { status: 401 | 404 | 408 | 500.., .. } => {
            Failure::Unreachable(error.to_string())
        }
        AskError::Refused { .. } | AskError::Request(_) => Failure::Refused(error.to_string()),
        AskError::NotAllowed(_) | AskError::Transport(_) | AskError::Answer(_) => {
            Failure::Unreachable(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_to_be_repeated_is_told_from_what_does_not() {
        let refused = |status, retry_after| AskError::Refused {
            status,
            errcode: None,
            message: "no".to_owned(),
            retry_after,
        };
        let minute = Some(Duration::from_secs(60));
        assert_eq!(failure(refused(429, minute)), Failure::Busy(minute));
        for status in [400, 403, 413] {
            assert!(matches!(failure(refused(status, None)), Failure::Refused(_)), "{status}");
        }
        for status in [401, 404, 408, 500, 502, 503, 504, 521] {
            assert!(matches!(failure(refused(status, None)), Failure::Unreachable(_)), "{status}");
        }
    }
}
