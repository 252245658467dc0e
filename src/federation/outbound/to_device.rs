//! Messages for devices on other servers, as EDUs.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>

use std::{collections::BTreeMap, mem};

use parlour_actors::{env::Env, users::OutgoingEdu};
use ruma::{
    OwnedServerName, OwnedTransactionId, OwnedUserId, UserId,
    api::federation::transactions::edu::{DirectDeviceContent, DirectDeviceMessages, Edu},
    events::{AnyToDeviceEventContent, ToDeviceEventType},
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};

/// How long an EDU is, in bytes, if there is more than one message in it; and how long a message
/// may be. The specification has no limit yet; Synapse has this one.
const MAX_EDU: usize = 65_536;

/// How long an EDU without messages is, in bytes, but for its sender and type.
const ENVELOPE: usize = 128;

/// How much quotes and the like take for each message, and for each user.
const PUNCTUATION: usize = 8;

/// How long the ids of EDUs are; the specification allows 32 characters.
const ID_LEN: usize = 24;

/// A message is too long to be sent to another server.
#[derive(Debug, thiserror::Error)]
#[error("a message for a device of another server has at most {MAX_EDU} bytes")]
pub struct TooLong;

/// Puts messages of one sender into as few EDUs as they fit into. They have ids that no others
/// have, by which a server knows those that it has got already.
#[derive(Debug)]
pub struct Packer<'a> {
    sender: &'a UserId,
    event_type: ToDeviceEventType,
    env: &'a Env,
    /// EDUs that are not full yet, with their lengths.
    open: BTreeMap<OwnedServerName, (DirectDeviceMessages, usize)>,
    full: Vec<(OwnedServerName, DirectDeviceMessages)>,
}

impl<'a> Packer<'a> {
    /// For messages of this type.
    #[must_use]
    pub fn new(sender: &'a UserId, event_type: ToDeviceEventType, env: &'a Env) -> Self {
        Self { sender, event_type, env, open: BTreeMap::new(), full: Vec::new() }
    }

    /// Adds a message.
    ///
    /// # Errors
    ///
    /// [`TooLong`]
    pub fn add(
        &mut self,
        user: &OwnedUserId,
        device: &DeviceIdOrAllDevices,
        content: &Raw<AnyToDeviceEventContent>,
    ) -> Result<(), TooLong> {
        let text = content.json().get();
        if text.len() > MAX_EDU {
            return Err(TooLong);
        }
        let empty = ENVELOPE + self.sender.as_str().len() + self.event_type.to_string().len();
        let len = text.len() + device.to_string().len() + PUNCTUATION;
        let server = user.server_name().to_owned();
        let (messages, open) = self.open.entry(server.clone()).or_insert((BTreeMap::new(), empty));
        let for_user = user.as_str().len() + PUNCTUATION;
        if *open + len + for_user > MAX_EDU && !messages.is_empty() {
            self.full.push((server, mem::take(messages)));
            *open = empty;
        }
        *open += len + if messages.contains_key(user) { 0 } else { for_user };
        messages.entry(user.clone()).or_default().insert(device.clone(), content.clone());
        Ok(())
    }

    /// The EDUs.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub fn finish(self) -> Result<Vec<OutgoingEdu>, serde_json::Error> {
        let Self { sender, event_type, env, open, full } = self;
        let open = open.into_iter().map(|(server, (messages, _))| (server, messages));
        let edu = |(server, messages): (OwnedServerName, DirectDeviceMessages)| {
            let id = OwnedTransactionId::from(env.random_string(ID_LEN));
            let mut content = DirectDeviceContent::new(sender.to_owned(), event_type.clone(), id);
            content.messages = messages;
            let json = serde_json::to_vec(&Edu::DirectToDevice(content))?.into();
            Ok(OutgoingEdu { server: server.to_string(), json })
        };
        full.into_iter().chain(open).map(edu).collect()
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::Value;

    use super::*;

    fn raw(len: usize) -> Raw<AnyToDeviceEventContent> {
        let text = format!(r#"{{"x":"{}"}}"#, "x".repeat(len.saturating_sub(8)));
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn messages_are_packed_by_server_and_size() {
        let env = Env::system();
        let mut packer = Packer::new(user_id!("@alice:here"), "m.test".into(), &env);
        let far = [user_id!("@bob:far.org"), user_id!("@carol:far.org")];
        for (user, len) in [(far[0], 30_000), (far[0], 30_000), (far[1], 30_000), (far[1], 65_536)]
        {
            let device = DeviceIdOrAllDevices::DeviceId(env.random_string(10).into());
            packer.add(&user.to_owned(), &device, &raw(len)).expect("it fits");
        }
        let all = DeviceIdOrAllDevices::AllDevices;
        packer.add(&user_id!("@dora:near.org").to_owned(), &all, &raw(10)).expect("it fits");
        packer.add(&far[0].to_owned(), &all, &raw(65_537)).expect_err("it is too long");
        let edus = packer.finish().expect("JSON");
        let parse = |edu: &OutgoingEdu| serde_json::from_slice::<Value>(&edu.json).expect("JSON");
        let mut seen: Vec<_> = edus
            .iter()
            .map(|edu| {
                let users = parse(edu)["content"]["messages"].as_object().expect("an object").len();
                (edu.server.as_str(), users, edu.json.len() <= MAX_EDU + 256)
            })
            .collect();
        seen.sort_unstable();
        let far = |users| ("far.org", users, true);
        assert_eq!(seen, [far(1), far(1), far(1), ("near.org", 1, true)]);
        let near = edus.iter().find(|edu| edu.server == "near.org").map(parse).expect("one");
        assert_eq!(near["content"]["messages"]["@dora:near.org"]["*"]["x"], "xx");
        let mut ids: Vec<_> =
            edus.iter().map(|edu| parse(edu)["content"]["message_id"].to_string()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), edus.len());
    }
}
