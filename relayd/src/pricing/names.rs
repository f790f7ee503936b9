//! Under which names a model's price is looked for.

use shared::domain::{Account, AccountKind, ServiceTier, Usage};

use super::{Cost, PriceTable, TokenMax};

/// The names that a model may be priced by at an account, beside the one that the reply has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PricedNames {
    /// The model that is sent.
    pub sent: String,
    /// What stands in for its price.
    price_as: Option<String>,
    /// What the vendor's own prices have in front of the model's name.
    prefix: Option<&'static str>,
}

impl PricedNames {
    /// Of a model that is sent to an account.
    pub fn at(account: &Account, sent: &str) -> Self {
        let prefix = (account.kind == AccountKind::AzureOpenai).then_some("azure/");
        Self { price_as: account.price_as.clone(), prefix, ..Self::bare(sent) }
    }

    /// Of a model that was sent to an account of which nothing is known any more.
    pub fn bare(sent: &str) -> Self {
        Self { sent: sent.to_owned(), price_as: None, prefix: None }
    }

    /// How many tokens the model that is sent takes and writes: by its own name, else by its stand-in's.
    pub fn token_max(&self, prices: &PriceTable) -> TokenMax {
        let prefixed = self.prefix.map(|prefix| [prefix, &self.sent].concat());
        let names = [prefixed.as_deref(), Some(&self.sent), self.price_as.as_deref()];
        names.into_iter().flatten().map(|name| prices.token_max(name)).fold(
            TokenMax::default(),
            |known, more| TokenMax {
                input: known.input.or(more.input),
                output: known.output.or(more.output),
            },
        )
    }

    /// Prices usage by the reply's model, else by the one sent, else by its stand-in.
    pub fn cost(
        &self,
        prices: &PriceTable,
        reply_model: Option<&str>,
        usage: &Usage,
        tier: Option<ServiceTier>,
    ) -> Cost {
        let stand_in = self.price_as.as_deref().unwrap_or(&self.sent);
        let replied = reply_model.unwrap_or(&self.sent);
        match self.prefix {
            None => prices.cost(&[replied, &self.sent, stand_in], usage, tier),
            // Azure charges its own prices, under its own names, for models that have another maker's name.
            Some(prefix) => {
                let own = [format!("{prefix}{replied}"), format!("{prefix}{}", self.sent)];
                prices.cost(&[&own[0], &own[1], replied, &self.sent, stand_in], usage, tier)
            }
        }
    }
}
