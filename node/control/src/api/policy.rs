//! The request that tests a flow against the exit policy.

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};

use super::{Api, error::ApiError, off_thread};
use weir_config::Protocol;
use weir_policy::{FlowSpec, Verdict};

/// A flow, as a query.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flow {
    address: IpAddr,
    port: u16,
    #[serde(default = "tcp")]
    protocol: Protocol,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

pub(super) async fn test(
    State(api): State<Api>,
    flow: Result<Query<Flow>, QueryRejection>,
) -> Result<Json<Verdict>, ApiError> {
    let Query(Flow { address, port, protocol }) = flow.map_err(|rejection| {
        let reason = rejection.body_text();
        ApiError::bad_request(
            "bad_query",
            format!("{reason}. Fix: ask for example for ?address=9.9.9.9&port=443&protocol=udp"),
        )
    })?;
    let Some(judge) = api.judge else {
        return Err(ApiError::internal("this node has no exit policy"));
    };
    let verdict = off_thread(move || judge.judge(&FlowSpec { address, port, protocol })).await?;
    verdict.map(Json).map_err(|error| ApiError::internal(&format!("{error:#}")))
}
