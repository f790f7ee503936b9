//! Calls about prices.

use shared::admin::{PriceUnset, PriceView, PricesUpdated, SetPrice, ShowPrices, UnsetPrice, UpdatePrices};
use shared::domain::MODEL_BYTES_MAX;

use super::{Admin, AdminError, Invalid, Missing, Peer, PricesError};
use crate::pricing::SetPriceError;

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
        let set = self.directory.set_price(&call.model, &call.prices, audit).await;
        set.map_err(|error| match error {
            PricesError::Price(SetPriceError::NothingLeft) => Invalid::NoPriceLeft(call.model.clone()).into(),
            error => AdminError::from(error),
        })?;
        self.directory.prices().view(&call.model).ok_or_else(|| Invalid::Model.into())
    }

    pub(super) async fn unset_price(&self, call: UnsetPrice, peer: Peer) -> Result<PriceUnset, AdminError> {
        let UnsetPrice { model } = call;
        let audit = self.audit(peer, "prices.unset", &model, &model, Vec::new());
        let unset = self.directory.unset_price(&model, audit).await;
        unset.map_err(|error| match error {
            PricesError::NotSet => self.not_set(&model),
            error => error.into(),
        })?;
        Ok(PriceUnset { now: self.directory.prices().view(&model), model })
    }

    fn not_set(&self, model: &str) -> AdminError {
        let prices = self.directory.prices();
        AdminError::NotSet(Missing::among(model, prices.names_set()))
    }
}
