//! What usage costs at the account that serves a call, and what the key's holder is charged of it.

use std::sync::Arc;

use shared::domain::{Multiplier, NanoUsd, ServiceTier, Usage, UsageClass};

use super::call::Call;
use super::{Rates, Worker};
use crate::directory::AccountEntry;
use crate::limits::estimate::ModelSize;
use crate::pricing::{Cost, PriceTable, PricedNames, TokenMax};

/// The names under which a model is priced, and the multipliers.
pub(super) struct Tariff {
    prices: Arc<PriceTable>,
    /// The model that is sent, and what else it may be priced by.
    names: PricedNames,
    /// Tokens of that model's recent answers, on average.
    output_average: Option<u64>,
    /// The family's multiplier times the key's.
    pub(super) multiplier: Multiplier,
}

/// What a call costs.
#[derive(Clone, Copy, Default)]
pub(super) struct Charge {
    /// By the vendor's prices.
    pub(super) cost: Cost,
    /// What the key's holder is charged.
    pub(super) rated: NanoUsd,
}

impl Tariff {
    pub(super) fn of(worker: &Worker, call: &Call, entry: &AccountEntry) -> Self {
        let account = &entry.account;
        let family = account.kind.family();
        let of_key = call.key.key.rates.get(&family).copied().unwrap_or_default();
        let directory = &worker.relay.directory;
        let model = account.upstream_model(&call.model);
        Self {
            prices: directory.prices(),
            names: PricedNames::at(account, model),
            output_average: directory.averages().output_tokens(model),
            multiplier: rate(&worker.relay.settings.rates, family).times(of_key),
        }
    }

    /// What is known of the model that is sent.
    pub(super) fn model_size(&self) -> ModelSize {
        let TokenMax { input, output } = self.names.token_max(&self.prices);
        ModelSize { input_max: input, output_max: output, output_average: self.output_average }
    }

    /// Prices usage by the reply's model, else by the one sent, else by its stand-in.
    pub(super) fn charge(
        &self,
        reply_model: Option<&str>,
        usage: &Usage,
        tier: Option<ServiceTier>,
    ) -> Charge {
        let cost = self.names.cost(&self.prices, reply_model, usage, tier);
        Charge { cost, rated: cost.total.times(self.multiplier) }
    }

    /// The most that usage may cost: its prompt may be written to the dearest of caches, and it may be served in
    /// the tier that was asked for or not.
    pub(super) fn dearest(&self, usage: &Usage, tier: Option<ServiceTier>) -> Charge {
        let prompts = [UsageClass::Input, UsageClass::CacheWrite5m, UsageClass::CacheWrite1h].map(|class| {
            let mut written = *usage;
            written[UsageClass::Input] = 0;
            written[class] = usage[UsageClass::Input];
            written
        });
        let charges = prompts.iter().flat_map(|usage| [None, tier].map(|tier| (usage, tier)));
        let charges = charges.map(|(usage, tier)| self.charge(None, usage, tier));
        let dearest = charges.max_by_key(|charge| charge.cost.total).unwrap_or_default();
        // A cache or a tier that has no price of its own is charged at the usual one.
        let is_unpriced = self.charge(None, usage, None).cost.unpriced;
        Charge { cost: Cost { unpriced: is_unpriced, ..dearest.cost }, ..dearest }
    }

    /// The model that is sent.
    pub(super) fn model(&self) -> &str {
        &self.names.sent
    }

    /// The version of the price list.
    pub(super) fn version(&self) -> u64 {
        self.prices.version()
    }
}

fn rate(rates: &Rates, family: shared::domain::Family) -> Multiplier {
    rates.get(&family).copied().unwrap_or_default()
}
