//! Where channels are: addresses that contracts will have, known before they exist.

use alloy_primitives::{Address, B256, keccak256};

/// The code of a minimal proxy (EIP-1167) before and after the address that it stands for.
const PROXY: ([u8; 20], [u8; 15]) = (
    [
        0x3d, 0x60, 0x2d, 0x80, 0x60, 0x0a, 0x3d, 0x39, 0x81, 0xf3, 0x36, 0x3d, 0x3d, 0x37, 0x3d,
        0x3d, 0x3d, 0x36, 0x3d, 0x73,
    ],
    [0x5a, 0xf4, 0x3d, 0x82, 0x80, 0x3e, 0x90, 0x3d, 0x91, 0x60, 0x2b, 0x57, 0xfd, 0x5b, 0xf3],
);

/// The address of a consumer's channel with a hub.
#[must_use]
pub fn consumer(
    identity: Address,
    hermes: Address,
    registry: Address,
    implementation: Address,
) -> Address {
    registry.create2(keccak256([identity, hermes].concat()), proxy_hash(implementation))
}

/// The identifier of a provider's channel within a hub.
#[must_use]
pub fn provider(identity: Address, hermes: Address) -> B256 {
    keccak256([identity, hermes].concat())
}

/// The address of the hub that an operator runs.
#[must_use]
pub fn hermes(operator: Address, registry: Address, implementation: Address) -> Address {
    registry.create2(operator.into_word(), proxy_hash(implementation))
}

fn proxy_hash(implementation: Address) -> B256 {
    keccak256([&PROXY.0[..], implementation.as_slice(), &PROXY.1].concat())
}
