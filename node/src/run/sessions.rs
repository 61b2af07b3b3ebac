//! Opens the ledger's sessions, with what they need of the node.

use std::sync::Arc;

use weir_common::{AddressPlan, PublicKey};

use super::{ebpf::Ebpf, flows::KernelFlows, ledger_path, service};
use weir_config::Config;
use weir_dataplane::Dataplane;
use weir_host::conntrack::Conntrack;
use weir_ledger::{Ledger, SharedLedger};
use weir_sessions::registry::Sessions;

/// Opens the ledger, and gives its sessions to the workers.
pub(super) fn open(
    config: &Config,
    ebpf: &Ebpf,
    dataplane: &Dataplane,
    addresses: AddressPlan,
    node_key: PublicKey,
) -> anyhow::Result<(Arc<Sessions>, SharedLedger)> {
    // It takes its time after a change of the schema, and where damage was found.
    let _starting = service::starting("reading the ledger");
    let ledger = SharedLedger::new(Ledger::open(&ledger_path(config))?)?;
    let max = config.node.max_sessions;
    let address_of = Box::new(move |slot: weir_common::Slot| {
        (slot.0 < max).then_some(())?;
        Some((addresses.address_v4(slot)?, addresses.address_v6(slot)?))
    });
    let peers = dataplane.control();
    let flows = Arc::new(KernelFlows(Conntrack {
        pool_v4: config.tunnel.pool_v4,
        pool_v6: config.tunnel.pool_v6,
        gateways: [addresses.gateway_v4().into(), addresses.gateway_v6().into()],
    }));
    let (shared, accounts) = (ledger.clone(), ebpf.accounts());
    let sessions = Sessions::open(shared, accounts, peers, flows, address_of, node_key)?;
    Ok((Arc::new(sessions), ledger))
}
