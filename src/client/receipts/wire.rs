//! The request for a receipt. ruma's type answers a bad `thread_id` with `M_BAD_JSON` before the
//! endpoint sees it, where the definition asks for `M_INVALID_PARAM`; so this one leaves the body
//! alone. Paths and answer are those of ruma's.

use ruma::{
    OwnedEventId, OwnedRoomId,
    api::{
        IncomingRequest, Metadata,
        client::receipt::create_receipt::v3::{ReceiptType, Request, Response},
        error::DeserializationError,
    },
};
use serde::{
    Deserialize,
    de::value::{Error as ValueError, SeqDeserializer},
};

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
#[derive(Debug, Clone)]
pub(super) struct CreateReceipt {
    pub(super) room_id: OwnedRoomId,
    pub(super) receipt_type: ReceiptType,
    pub(super) event_id: OwnedEventId,
}

impl Metadata for CreateReceipt {
    type Authentication = <Request as Metadata>::Authentication;
    type PathBuilder = <Request as Metadata>::PathBuilder;

    const METHOD: http::Method = Request::METHOD;
    const RATE_LIMITED: bool = Request::RATE_LIMITED;
    const PATH_BUILDER: Self::PathBuilder = Request::PATH_BUILDER;
}

impl IncomingRequest for CreateReceipt {
    type EndpointError = <Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        _: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let args = SeqDeserializer::<_, ValueError>::new(path_args.iter().copied());
        let (room_id, receipt_type, event_id) = Deserialize::deserialize(args)?;
        Ok(Self { room_id, receipt_type, event_id })
    }
}
