//! The names that go with ids, for people. Programs get the ids.

use std::collections::BTreeMap;

use shared::admin::{ListAccounts, ListKeys};

use crate::client::{Client, ClientError};

/// Names by ids; what has no name any more is shown by its id.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Asks for the names of all accounts.
    pub(crate) async fn of_accounts(client: &Client) -> Result<Self, ClientError> {
        let accounts = client.call(&ListAccounts {}).await?;
        Ok(accounts.into_iter().map(|account| (account.id.to_string(), account.name)).collect())
    }

    /// Asks for the names of all accounts and keys, deleted keys too.
    pub(crate) async fn of_all(client: &Client) -> Result<Self, ClientError> {
        let Self(mut names) = Self::of_accounts(client).await?;
        let keys = client.call(&ListKeys { deleted: true }).await?;
        names.extend(keys.into_iter().map(|key| (key.id.to_string(), key.name)));
        Ok(Self(names))
    }

    /// What to call an id.
    pub(crate) fn of(&self, id: &str) -> String {
        self.0.get(id).map_or(id, String::as_str).to_owned()
    }
}

impl FromIterator<(String, String)> for Names {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(names: T) -> Self {
        Self(names.into_iter().collect())
    }
}
