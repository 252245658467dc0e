//! The first version of endpoints that have a second one: the same requests under an older path,
//! and answers `[200, {...}]` in the place of `{...}`. Some servers still use them.

use http::{Uri, header};
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::{
        BytesBody, EndpointError, IncomingRequest, IncomingResponse, Metadata, OutgoingRequest,
        OutgoingResponse, OutgoingResponseExt as _,
        error::{DeserializationError, IntoHttpError},
        federation::membership::{
            create_invite::{v1 as invite, v2},
            create_join_event::v2 as join,
            create_leave_event::v2 as leave,
        },
        path_builder::SinglePath,
    },
};
use serde_json::value::RawValue;

/// A request or an answer of the second version, as it was in the first.
#[derive(Debug, Clone)]
pub struct Version1<T>(pub T);

/// A request that has an older path.
pub trait Older: Metadata<PathBuilder = SinglePath> {
    /// That path.
    const PATH: &'static str;
}

impl Older for join::Request {
    const PATH: &'static str = "/_matrix/federation/v1/send_join/{room_id}/{event_id}";
}

impl Older for leave::Request {
    const PATH: &'static str = "/_matrix/federation/v1/send_leave/{room_id}/{event_id}";
}

impl<R: Older> Metadata for Version1<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(R::PATH);
}

impl<R: Older + IncomingRequest> IncomingRequest for Version1<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = Version1<R::OutgoingResponse>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        R::try_from_http_request_inner(request, path_args).map(Self)
    }
}

impl<T: OutgoingResponse> OutgoingResponse for Version1<T> {
    type Body = BytesBody;

    fn try_into_http_response_inner(self) -> Result<http::Response<BytesBody>, IntoHttpError> {
        let (parts, body) = self.0.try_into_http_response::<Vec<u8>>()?.into_parts();
        let body = [b"[200,", &body[..], b"]"].concat();
        Ok(http::Response::from_parts(parts, BytesBody(body)))
    }
}

impl<R> OutgoingRequest for Version1<R>
where
    R: Older + OutgoingRequest,
    Version1<R::IncomingResponse>: IncomingResponse<EndpointError = R::EndpointError>,
{
    type Body = R::Body;
    type EndpointError = R::EndpointError;
    type IncomingResponse = Version1<R::IncomingResponse>;

    fn try_into_http_request_inner(
        self,
        base_url: &str,
        (): (),
    ) -> Result<http::Request<R::Body>, IntoHttpError> {
        let mut request = self.0.try_into_http_request_inner(base_url, ())?;
        let path = request.uri().to_string().replacen("/v2/", "/v1/", 1);
        *request.uri_mut() = path.parse::<Uri>().map_err(http::Error::from)?;
        Ok(request)
    }
}

impl<T, E> IncomingResponse for Version1<T>
where
    T: IncomingResponse<EndpointError = E>,
    E: EndpointError,
{
    type EndpointError = E;

    fn try_from_http_response_inner(
        response: http::Response<&[u8]>,
    ) -> Result<Self, DeserializationError> {
        let (_, inner): (u16, Box<RawValue>) = serde_json::from_slice(response.body())?;
        let response = response.map(|_| inner.get().as_bytes());
        T::try_from_http_response_inner(response).map(Self)
    }
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}` with all of the event: ruma's type has
/// a part of it.
#[derive(Debug, Clone)]
pub struct OldInvite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's id.
    pub event_id: OwnedEventId,
    /// The event.
    pub event: Box<RawValue>,
}

impl Metadata for OldInvite {
    const METHOD: http::Method = invite::Request::METHOD;
    const RATE_LIMITED: bool = invite::Request::RATE_LIMITED;
    type Authentication = <invite::Request as Metadata>::Authentication;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = invite::Request::PATH_BUILDER;
}

impl OutgoingRequest for OldInvite {
    type Body = BytesBody;
    type EndpointError = <v2::Request as OutgoingRequest>::EndpointError;
    type IncomingResponse = Version1<v2::Response>;

    fn try_into_http_request_inner(
        self,
        base_url: &str,
        (): (),
    ) -> Result<http::Request<BytesBody>, IntoHttpError> {
        let path = Self::make_endpoint_url((), base_url, &[&self.room_id, &self.event_id], "")?;
        let request = http::Request::builder().method(Self::METHOD).uri(path);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        Ok(request.body(BytesBody(self.event.get().as_bytes().to_vec()))?)
    }
}
