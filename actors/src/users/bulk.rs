//! Many accounts at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use parlour_storage::{
    Store,
    schema::{User, keys},
};

use super::{Decision, UserError, Users, accounts::put_account, sessions::quiet, shard_of};

impl Users {
    /// Makes accounts, but for those that are there; says how many were made. They become durable
    /// as a few records, so the caller bounds how many these are.
    ///
    /// # Errors
    ///
    /// [`UserError`]; some may have been made then.
    pub async fn register_many(
        &self,
        accounts: BTreeMap<String, User>,
    ) -> Result<usize, UserError> {
        let mut shards: BTreeMap<usize, Vec<(String, User)>> = BTreeMap::new();
        for (user, account) in accounts {
            shards.entry(shard_of(&user)).or_default().push((user, account));
        }
        let changes = shards.into_iter().map(|(shard, accounts)| {
            let decide = move |store: &Store| {
                let (mut ops, mut made) = (Vec::new(), 0);
                for (user, account) in accounts {
                    if store.get(&keys::user(&user))?.is_none() {
                        put_account(&user, None, &account, BTreeSet::new(), &mut ops);
                        made += 1;
                    }
                }
                Ok::<_, UserError>(match made {
                    0 => Decision::Keep(0),
                    made => Decision::Write(quiet(ops), made),
                })
            };
            self.change_in(shard, decide)
        });
        Ok(try_join_all(changes).await?.into_iter().sum())
    }
}
