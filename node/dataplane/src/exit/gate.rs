//! A session's limits on new flows and destinations, as the flow table asks them.

use weir_accounts::FlowLimits;
use weir_common::DropReason;
use weir_nat::{FlowGate, NewFlow};

use crate::{
    limit::flow_key::{FlowKey, FlowSecret},
    peer::Peer,
};

/// Admits a session's new flows.
pub(crate) struct Gate<'a> {
    pub(crate) peer: &'a mut Peer,
    pub(crate) limits: FlowLimits,
    pub(crate) secret: &'a FlowSecret,
}

impl FlowGate for Gate<'_> {
    fn admit(&mut self, flow: &NewFlow, now: u64) -> Result<(), DropReason> {
        if self.limits.is_off() {
            return Ok(());
        }
        let key = FlowKey::to(self.secret, flow.address, flow.protocol as u8, flow.port);
        self.peer.exact_limiter().admit(self.limits, &key, now)
    }
}
