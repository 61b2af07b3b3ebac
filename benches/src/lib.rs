//! What the benchmarks share: a node without I/O, and consumers that seal for it.
//!
//! [`compare`] is the end-to-end comparison with other WireGuard implementations.

pub mod compare;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey as X25519Public, StaticSecret},
};
use bytes::Bytes;
use weir_accounts::{Accounts, Endpoint, FlowLimits, PeerSpec};
use weir_common::PublicKey;
use weir_common::{
    AddressPlan, Slot, SlotPermutation,
    account::{Counters, SessionState},
};
use weir_dataplane::{
    FlowSecret, Shared, UdpSegmentation,
    internals::{Initiation, Now, Peer, Pipeline, TAILROOM, WorkerStats},
};
use weir_packet::{
    checksum::{Sum, pseudo_header},
    virtio::{Gso, NetHeader},
};
use weir_wireguard::{identity::Identity, tunnel::Tunnel};

/// A server on the internet.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(45, 1, 2, 3);

/// A node with one worker and without I/O.
pub struct Node {
    /// Its packet path.
    pub pipeline: Pipeline,
    shared: Shared,
    identity: Identity,
}

/// A connected consumer.
pub struct Consumer {
    tunn: Tunn,
    /// Where it sends from.
    pub endpoint: Endpoint,
    /// Its inner address.
    pub address: Ipv4Addr,
}

impl Node {
    /// A node with room for `slots` sessions.
    ///
    /// # Errors
    ///
    /// Fails when memory is short.
    pub fn new(slots: u32) -> anyhow::Result<Self> {
        let v6 = Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 0);
        let shared = Shared {
            accounts: Arc::new(Accounts::private(slots)?),
            permutation: SlotPermutation { keys: [1, 2, 3, 4] },
            addresses: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 16, v6),
            workers: 1,
            mtu: 1420,
            uso: true,
            udp_segmentation: UdpSegmentation::On,
            limits: Arc::default(),
            flow_secret: FlowSecret([0x243f_6a88_85a3_08d3, 5, 6, 0x082e_fa98_ec4e_6c89]),
        };
        let pipeline = Pipeline::new(shared.clone(), 0, Arc::new(WorkerStats::default()));
        Ok(Self { pipeline, shared, identity: Identity::new([7; 32]) })
    }

    /// A new session at `slot`, connected.
    ///
    /// # Errors
    ///
    /// Fails when the handshake does.
    pub fn connect(&mut self, slot: u32) -> anyhow::Result<Consumer> {
        let slot = Slot(slot);
        let private = StaticSecret::from([slot.0 as u8 ^ 0x55; 32]);
        let public = X25519Public::from(&private).to_bytes();
        let address = self.shared.addresses.address_v4(slot).context("no such slot")?;
        let spec = PeerSpec {
            slot,
            public_key: PublicKey(public),
            address_v4: address,
            address_v6: self.shared.addresses.address_v6(slot).context("no such slot")?,
        };
        let account = self.shared.accounts.get(slot).context("no such slot")?;
        account.assign(u64::from(slot.0) + 1, &Counters::default());
        account.set_state(SessionState::Open);
        let index = self.shared.permutation.index_of(slot);
        let tunnel = Tunnel::new(&self.identity, public, index);
        let peer = Peer::new(&spec, tunnel, Arc::clone(&self.shared.accounts));
        self.pipeline.add(Box::new(peer));
        let node_key = *self.identity.public();
        let mut tunn = Tunn::new(private, node_key, None, None, slot.0, None);
        let remote = (Ipv4Addr::new(198, 51, 100, 7), 4000).into();
        let endpoint = Endpoint { remote, local: None };
        let mut out = [0; 256];
        let TunnResult::WriteToNetwork(initiation) =
            tunn.format_handshake_initiation(&mut out, false)
        else {
            bail!("no initiation");
        };
        self.pipeline.begin(Now::read());
        let message = Bytes::copy_from_slice(initiation);
        let identity = self.identity.clone();
        let initiation = Initiation { slot, from: endpoint, identity, message };
        self.pipeline.handle_initiation(&initiation);
        self.pipeline.finish();
        let run = self.pipeline.gso_batches().first().context("no response")?;
        let response: Vec<u8> = self.pipeline.gso_batch_bytes(run).flatten().copied().collect();
        let TunnResult::WriteToNetwork(keepalive) = tunn.decapsulate(None, &response, &mut out)
        else {
            bail!("the response was not accepted");
        };
        self.pipeline.begin(Now::read());
        self.pipeline.handle_datagram(endpoint, keepalive);
        self.pipeline.finish();
        Ok(Consumer { tunn, endpoint, address })
    }
}

impl Node {
    /// Holds the session at `slot` to rates, in bytes per second each way.
    pub fn set_rates(&self, slot: u32, up: u64, down: u64) {
        if let Some(account) = self.shared.accounts.get(Slot(slot)) {
            account.set_rates(up, down);
        }
    }

    /// Holds every session to a share of the node's rate, in bytes per second each way.
    pub fn set_fair_share(&self, up: u64, down: u64) {
        self.shared.limits.set_fair_share(up, down);
    }

    /// Limits what every session may reach, as the default configuration does.
    pub fn limit_flows(&self) {
        let limits = FlowLimits { new_flows: 200, destinations: 1000 };
        self.shared.limits.set_flow_limits(limits);
    }
}

impl Consumer {
    /// Seals packets one behind the other, as a receive call brings them.
    #[must_use]
    pub fn seal<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut buffer = Vec::new();
        for packet in packets {
            let start = buffer.len();
            buffer.resize(start + packet.len() + 32, 0);
            self.tunn.encapsulate(packet, &mut buffer[start..]);
        }
        buffer
    }
}

/// A TCP segment with right checksums, `len` bytes in all.
#[must_use]
pub fn tcp(from: Ipv4Addr, to: Ipv4Addr, port: u16, sequence: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; len];
    packet[..20]
        .copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let checksum = Sum::default().bytes(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let (ip, l4) = packet.split_at_mut(20);
    l4[..20].fill(0);
    l4[..2].copy_from_slice(&port.to_be_bytes());
    l4[2..4].copy_from_slice(&443u16.to_be_bytes());
    l4[4..8].copy_from_slice(&sequence.to_be_bytes());
    l4[12..16].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
    let checksum = pseudo_header(&ip[12..20], 6, l4.len()).bytes(l4).checksum();
    l4[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// A TUN frame with a TCP super-packet of `packets` packets of `len` bytes to `to`; and its length.
#[must_use]
pub fn super_frame(to: Ipv4Addr, port: u16, packets: usize, len: usize) -> (Vec<u8>, usize) {
    let segment = len - 40;
    let header = NetHeader {
        gso: Gso::TcpV4,
        gso_size: segment as u16,
        header_len: 40,
        checksum: Some((20, 16)),
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(tcp(SERVER, to, port, 1, 40 + packets * segment));
    let len = bytes.len();
    bytes.resize(len + TAILROOM, 0);
    (bytes, len)
}
