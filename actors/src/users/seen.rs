//! When and from where devices were last heard of: noted in memory at every request, and written
//! every few minutes, each device once. What a crash loses is a few minutes of
//! that.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use parlour_storage::{
    Op, Store,
    schema::{Device, LastSeen, Stored, keys},
};

use super::{Decision, UserError, Users, sessions::quiet};

/// How often it is written.
const PERIOD: Duration = Duration::from_secs(5 * 60);

/// How long the last write may take.
const AT_STOP: Duration = Duration::from_secs(1);

/// How many devices are remembered between two writes. Others are noted at their next request
/// after the write.
const MAX_DEVICES: usize = 100_000;

/// What was heard since the last write.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Devices>);

#[derive(Debug, Default)]
struct Devices {
    by_user: HashMap<String, HashMap<String, Sight>>,
    count: usize,
}

/// A device was heard of.
#[derive(Debug)]
struct Sight {
    ts: u64,
    ip: IpAddr,
    user_agent: Option<Box<str>>,
}

impl Sight {
    fn entry(&self) -> LastSeen {
        let user_agent = self.user_agent.as_deref().map(str::to_owned);
        LastSeen { ts: self.ts, ip: self.ip.to_string(), user_agent }
    }
}

impl Seen {
    fn note(&self, user: &str, device: &str, ts: u64, ip: IpAddr, user_agent: Option<&str>) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = &mut *guard;
        // Nearly always it is there: then nothing is allocated.
        let known = devices.by_user.get_mut(user).and_then(|of_user| of_user.get_mut(device));
        if let Some(known) = known {
            (known.ts, known.ip) = (ts, ip);
            if known.user_agent.as_deref() != user_agent {
                known.user_agent = user_agent.map(Box::from);
            }
        } else if devices.count < MAX_DEVICES {
            devices.count += 1;
            let of_user = devices.by_user.entry(user.to_owned()).or_default();
            let user_agent = user_agent.map(Box::from);
            of_user.insert(device.to_owned(), Sight { ts, ip, user_agent });
        }
    }

    /// The device, with what is known of it at this moment.
    pub(super) fn freshen(&self, user: &str, id: &str, mut device: Device) -> Device {
        let devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = devices.by_user.get(user).and_then(|of_user| of_user.get(id));
        if let Some(seen) = seen {
            device.last_seen = seen.entry();
        }
        device
    }

    fn take(&self) -> Devices {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Users {
    /// Notes that a device was heard of, from where, and what its client says it is.
    pub fn saw(&self, user: &str, device: &str, ip: IpAddr, user_agent: Option<&str>) {
        self.seen.note(user, device, self.env.clock.now_ms(), ip, user_agent);
    }

    /// Begins to write from time to time what was noted.
    pub(crate) fn keep_last_seen(&self) {
        let users = self.clone();
        self.thread.spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                if let Err(error) = users.write_last_seen().await {
                    tracing::warn!(%error, "when devices were last seen cannot be written now");
                }
            }
        });
    }

    /// At a stop: writes what can be written in a moment.
    pub(crate) async fn last_seen_at_stop(&self) {
        if let Ok(Err(error)) = tokio::time::timeout(AT_STOP, self.write_last_seen()).await {
            tracing::warn!(%error, "when devices were last seen is not written");
        }
    }

    /// Writes what was noted. One user after the other: nobody waits for this.
    async fn write_last_seen(&self) -> Result<(), UserError> {
        for (user, devices) in self.seen.take().by_user {
            let name = user.clone();
            let decide = move |store: &Store| {
                let mut ops = Vec::new();
                for (id, seen) in devices {
                    let key = keys::device(&name, &id);
                    // A device may have been deleted meanwhile.
                    if let Some(mut device) = store.typed::<Device>(&key)? {
                        device.last_seen = seen.entry();
                        ops.push(Op::Put { key, value: device.encode() });
                    }
                }
                Ok::<_, UserError>(match ops.is_empty() {
                    true => Decision::Keep(()),
                    false => Decision::Write(quiet(ops), ()),
                })
            };
            self.change(&user, decide).await?;
        }
        Ok(())
    }
}
