//! The maps. User space sets the sizes of the ones that depend on the configuration.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, ReusePortSockArray, XskMap},
};
use weir_common::{
    Account, GuardConfig,
    exit::{ExitConfig, FRAGMENTS as FRAGMENT_COUNT, FragmentKey, PORT_WORDS},
    guard::{Lane, SOURCES as SOURCE_COUNT, Tally, VERDICTS as VERDICT_COUNT},
    xsk::XSK_QUEUES,
};

/// An [`Account`], in a type that a static may hold: this target's atomics are no `Sync`.
pub type Record = [u64; size_of::<Account>() / 8];

#[map]
pub static ACCOUNTS: Array<Record> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static CONFIG: Array<GuardConfig> = Array::with_max_entries(1, 0);

#[map]
pub static VERDICTS: PerCpuArray<Tally> = PerCpuArray::with_max_entries(VERDICT_COUNT as u32, 0);

#[map]
pub static SOCKETS: ReusePortSockArray = ReusePortSockArray::with_max_entries(4, 0);

/// The sockets of the XSK fast path, each bound to the queue that is its index.
#[map]
pub static XSKS: XskMap = XskMap::with_max_entries(XSK_QUEUES, 0);

/// When the buckets of this CPU's initiations will be full again, by lane.
#[map]
pub static CEILINGS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Lane::COUNT as u32, 0);

/// When the bucket of each source's initiations will be full again.
#[map]
pub static SOURCES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(SOURCE_COUNT, 0);

/// The external addresses of the node's NAT.
#[map]
pub static EXIT: Array<ExitConfig> = Array::with_max_entries(1, 0);

/// The external ports of the node's NAT, as a bitmap.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS as u32, 0);

/// When the first fragment of a packet came that was return traffic.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, u64> =
    LruHashMap::with_max_entries(FRAGMENT_COUNT, 0);
