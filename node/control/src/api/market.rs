//! The requests about the node's listing.

use axum::{Json, extract::State, http::StatusCode};

use super::{Api, error::ApiError, off_thread};
use crate::market::{Market, SharedMarket, view::MarketView};

pub(super) async fn show(State(api): State<Api>) -> Result<Json<MarketView>, ApiError> {
    answer(api, |_| {}).await
}

pub(super) async fn publish(State(api): State<Api>) -> Result<Json<MarketView>, ApiError> {
    answer(api, |market| market.publish()).await
}

pub(super) async fn withdraw(State(api): State<Api>) -> Result<Json<MarketView>, ApiError> {
    answer(api, |market| market.withdraw()).await
}

async fn answer(
    api: Api,
    command: impl FnOnce(&Market) + Send + 'static,
) -> Result<Json<MarketView>, ApiError> {
    let market: SharedMarket = api.market.ok_or_else(off)?;
    let view = off_thread(move || {
        command(&market);
        market.view()
    });
    Ok(Json(view.await?))
}

fn off() -> ApiError {
    let what = "this node publishes no listing. Fix: set market.enabled = true and \
                market.registries in the configuration, and restart weir";
    ApiError::new(StatusCode::CONFLICT, "market_off", what)
}
