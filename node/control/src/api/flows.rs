//! The requests about flows and about who held a port.

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;

use super::{Api, error::ApiError, off_thread};
use crate::flows::{FlowsView, PortOwner, PortOwners, read_time};

/// A port of an external address at a moment, as a query.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    address: IpAddr,
    port: u16,
    time: String,
}

pub(super) async fn show(State(api): State<Api>) -> Result<Json<FlowsView>, ApiError> {
    let Some(flows) = api.flows else {
        return Err(ApiError::internal("this node does not show its flows"));
    };
    let look = move || FlowsView {
        egress: flows.egress(),
        nat: flows.totals(),
        sessions: flows.sessions(),
    };
    Ok(Json(off_thread(look).await?))
}

pub(super) async fn owner(
    State(api): State<Api>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<PortOwners>, ApiError> {
    let bad = |reason: String| {
        let example = "?address=198.51.100.7&port=4711&time=2026-11-29T13:45:10Z";
        ApiError::bad_request("bad_query", format!("{reason}. Fix: ask for example for {example}"))
    };
    let Query(Asked { address, port, time }) =
        asked.map_err(|rejection| bad(rejection.body_text()))?;
    let at = read_time(&time).map_err(|error| bad(error.to_string()))?;
    let Some(ports) = api.ports else {
        return Err(ApiError::internal("this node does not know who held a port"));
    };
    let owners = off_thread(move || ports.owners(address, port, at)).await??;
    Ok(Json(PortOwners { owners: owners.into_iter().map(PortOwner::from).collect() }))
}
