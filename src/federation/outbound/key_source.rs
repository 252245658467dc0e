//! Asking other servers for keys, for the key ring.

use std::collections::BTreeMap;

use bytes::Bytes;
use parlour_actors::keyring::{BoxFuture, KeySource, NotaryQuery, SourceError};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName, UInt,
    api::federation::discovery::{
        get_remote_server_keys_batch::v2::{self as notary, QueryCriteria},
        get_server_keys::v2 as direct,
    },
};

use super::{client::FederationClient, transport::Limits};

/// Asks over the network.
#[derive(Debug)]
pub struct NetworkKeys(pub FederationClient);

impl KeySource for NetworkKeys {
    fn ask_server<'a>(
        &'a self,
        server: &'a ServerName,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(async move {
            let answer = self.0.ask_unsigned(server, direct::Request::new(), Limits::KEYS).await;
            let keys = answer.map_err(|error| SourceError(error.to_string()))?.server_key;
            Ok(Bytes::from(keys.into_json().get().to_owned()))
        })
    }

    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        queries: &'a [NotaryQuery],
    ) -> BoxFuture<'a, Result<Vec<Bytes>, SourceError>> {
        Box::pin(async move {
            let request = notary::Request::new(criteria(queries));
            let answer = self.0.ask_unsigned(notary, request, Limits::NOTARY).await;
            let keys = answer.map_err(|error| SourceError(error.to_string()))?.server_keys;
            Ok(keys.into_iter().map(|keys| keys.into_json().get().to_owned().into()).collect())
        })
    }
}

/// Queries as ruma has them. A key id that is malformed is nobody's.
fn criteria(
    queries: &[NotaryQuery],
) -> BTreeMap<OwnedServerName, BTreeMap<OwnedServerSigningKeyId, QueryCriteria>> {
    let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
    for query in queries {
        let Ok(key_id) = OwnedServerSigningKeyId::try_from(query.key_id.as_str()) else { continue };
        let mut criteria = QueryCriteria::new();
        let until = UInt::try_from(query.minimum_valid_until_ts).ok();
        criteria.minimum_valid_until_ts = until.map(MilliSecondsSinceUnixEpoch);
        all.entry(query.server.clone()).or_default().insert(key_id, criteria);
    }
    all
}
