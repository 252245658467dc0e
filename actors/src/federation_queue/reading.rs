//! Reads what a server's next transaction is made of beside events: what is said of users'
//! devices, and EDUs that wait in storage.

use parlour_event::StreamPos;
use parlour_storage::{
    StorageError,
    schema::{DeviceList, device_list, edu_outbox::EduPlace},
};
use ruma::ServerName;

use super::{
    Queues,
    owed::{Parcel, Read, Wanted},
    unheard::{self, Cursor, Page, Unsaid, Users},
};

/// How many of these EDUs go with one transaction; the other places are for what is ephemeral.
const MAX_EDUS: usize = 80;

/// How many of them may speak of devices. What is said of one user fits.
const MAX_UPDATES: usize = 40;

/// How long those from storage are together, in bytes: a transaction must not be larger than
/// others take.
const MAX_BYTES: usize = 2 << 20;

/// How many rooms are looked at for one part of who has changed, how many changes in one of them
/// at once, and how many users are enough.
const ROOMS: usize = 200;
const CHANGES: usize = 500;
const ENOUGH: usize = 500;

impl Queues {
    /// Reads what is wanted for a server's next transaction.
    pub(super) fn read_owed(
        &self,
        server: &ServerName,
        wanted: Wanted,
    ) -> Result<(), StorageError> {
        let target = self.lock().keys_dispatched;
        let read = self.read_wanted(server.as_str(), &wanted, target);
        let mut table = self.lock();
        let dispatched = table.keys_dispatched;
        let Some(line) = table.lines.get_mut(server) else { return Ok(()) };
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                line.owed.put_back(wanted);
                return Err(error);
            }
        };
        if wanted.news == unheard::Wanted::End {
            line.owed.unheard.end(dispatched);
            line.is_unsaved = true;
        }
        line.owed.has_read(read);
        Ok(())
    }

    fn read_wanted(
        &self,
        server: &str,
        wanted: &Wanted,
        target: StreamPos,
    ) -> Result<Read, StorageError> {
        let mut read = Read::default();
        match &wanted.news {
            unheard::Wanted::Users(users) => self.read_updates(users, target, &mut read)?,
            unheard::Wanted::LookUp(heard, cursor) => {
                let page = self.who_has_changed(server, *heard, *cursor)?;
                read.page = Some(Page { target, ..page });
            }
            unheard::Wanted::Nothing | unheard::Wanted::End => {}
        }
        if let Some(after) = wanted.edus_after {
            self.read_edus(server, after, &mut read)?;
        }
        Ok(read)
    }

    /// What is to be said of users' devices. Of what came after `target` there will be news, and it
    /// is not to be said twice.
    fn read_updates(
        &self,
        users: &Users,
        target: StreamPos,
        read: &mut Read,
    ) -> Result<(), StorageError> {
        let Read { parcel: Parcel { updates, .. }, left, .. } = read;
        for (user, unsaid) in users {
            let list: DeviceList =
                self.store.typed(&device_list::device_list(user))?.unwrap_or_default();
            let Unsaid { since, has_come } = *unsaid;
            let devices = match has_come {
                true => list.last().into_iter().collect(),
                false => list.within(StreamPos(since.0.saturating_sub(1)), target),
            };
            let signing = !has_come && (since..=target).contains(&list.signing);
            if updates.len() + devices.len() + usize::from(signing) > MAX_UPDATES {
                left.push((user.clone(), *unsaid));
                continue;
            }
            let teller = &self.options.teller;
            for device in devices {
                updates.extend(teller.device(user, &device)?);
            }
            if signing {
                updates.extend(teller.signing_keys(user)?);
            }
        }
        Ok(())
    }

    /// Users here with changed keys, in the rooms that a server is in.
    fn who_has_changed(
        &self,
        server: &str,
        heard: StreamPos,
        (mut last, mut from): Cursor,
    ) -> Result<Page, StorageError> {
        let rooms = self.store.rooms_of_server(server, last, ROOMS)?;
        let mut page = Page::default();
        let is_end = rooms.len() < ROOMS;
        for room in rooms {
            let changes = match room.1 {
                None => self.store.key_feed(room.0, from.max(heard), CHANGES)?,
                // It was put out there.
                Some(_) => Vec::new(),
            };
            let users = changes.iter().map(|(_, user)| user);
            page.users.extend(users.filter(|user| self.is_local(user)).cloned());
            (last, from) = match changes.last() {
                Some((pos, _)) if changes.len() == CHANGES => (last, *pos),
                _ => (room, StreamPos(0)),
            };
            if from > StreamPos(0) || page.users.len() >= ENOUGH {
                page.next = Some((last, from));
                return Ok(page);
            }
        }
        page.next = (!is_end).then_some((last, from));
        Ok(page)
    }

    /// EDUs that wait, in order.
    fn read_edus(
        &self,
        server: &str,
        after: EduPlace,
        read: &mut Read,
    ) -> Result<(), StorageError> {
        let end = (StreamPos(u64::MAX), u64::MAX);
        let most = MAX_EDUS - read.parcel.len();
        let waiting = self.store.waiting_edus(server, (after, end), most)?;
        let (mut bytes, edus) = (0, &mut read.parcel.edus);
        for (place, blob) in &waiting {
            bytes += blob.len as usize;
            if bytes > MAX_BYTES && !edus.is_empty() {
                break;
            }
            edus.push(*place);
        }
        read.is_more = edus.len() < waiting.len() || waiting.len() == most;
        Ok(())
    }
}
