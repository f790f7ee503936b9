//! Calls about prices.

use shared::admin::{PriceView, PricesUpdated, SetPrice, ShowPrices, UpdatePrices};

use super::{Admin, AdminError, Invalid, Peer};

const MODEL_BYTES_MAX: usize = 256;

impl Admin {
    pub(super) fn show_prices(&self, call: &ShowPrices) -> Vec<PriceView> {
        self.directory.prices().views(call.model.as_ref())
    }

    pub(super) async fn update_prices(
        &self,
        call: UpdatePrices,
        peer: Peer,
    ) -> Result<PricesUpdated, AdminError> {
        let audit = self.audit(peer, "prices.update", "prices", "prices", Vec::new());
        Ok(self.directory.update_prices(call.json, call.dry_run, audit).await?)
    }

    pub(super) async fn set_price(&self, call: &SetPrice, peer: Peer) -> Result<PriceView, AdminError> {
        if call.model.is_empty() || call.model.len() > MODEL_BYTES_MAX || call.model.contains('*') {
            return Err(Invalid::Model.into());
        }
        let fields = call.prices.keys().cloned().collect();
        let audit = self.audit(peer, "prices.set", &call.model, &call.model, fields);
        self.directory.set_price(&call.model, &call.prices, audit).await?;
        self.directory.prices().view(&call.model).ok_or_else(|| Invalid::Model.into())
    }
}
