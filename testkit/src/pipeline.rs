//! A node's packet path in this process: no sockets, no devices, no threads.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Context as _;
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
use weir_packet::virtio::{Gso, NetHeader};
use weir_wireguard::{aead::Path, identity::Identity, tunnel::Tunnel as NodeTunnel};

use crate::{
    packet::{SERVER, tcp},
    tunnel::{OVERHEAD, Tunnel, public_key},
};

/// A node with one worker and without I/O.
pub struct Node {
    /// Its packet path.
    pub pipeline: Pipeline,
    shared: Shared,
    identity: Identity,
}

/// A connected consumer.
pub struct Consumer {
    tunnel: Tunnel,
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
            cipher: Path::from_environment()?.into(),
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
        let private = [slot.0 as u8 ^ 0x55; 32];
        let public = public_key(private);
        let address = self.shared.addresses.address_v4(slot).context("no such slot")?;
        let spec = PeerSpec {
            slot,
            public_key: PublicKey(public),
            preshared_key: None,
            address_v4: address,
            address_v6: self.shared.addresses.address_v6(slot).context("no such slot")?,
        };
        let account = self.shared.accounts.get(slot).context("no such slot")?;
        account.assign(u64::from(slot.0) + 1, &Counters::default());
        account.set_state(SessionState::Open);
        let index = self.shared.permutation.index_of(slot);
        let tunnel = NodeTunnel::new(&self.identity, public, index);
        let peer = Peer::new(&spec, tunnel, Arc::clone(&self.shared.accounts));
        self.pipeline.add(Box::new(peer));
        let mut tunnel = Tunnel::new(private, self.identity.public().to_bytes(), slot.0);
        let remote = (Ipv4Addr::new(198, 51, 100, 7), 4000).into();
        let endpoint = Endpoint { remote, local: None };
        let message = Bytes::from(tunnel.initiation().context("no initiation")?);
        self.pipeline.begin(Now::read());
        let identity = self.identity.clone();
        let initiation = Initiation { slot, from: endpoint, identity, message };
        self.pipeline.handle_initiation(&initiation);
        self.pipeline.finish();
        let run = self.pipeline.gso_batches().first().context("no response")?;
        let response: Vec<u8> = self.pipeline.gso_batch_bytes(run).flatten().copied().collect();
        let keepalive = tunnel.handshake(&response).context("the response was not accepted")?;
        self.pipeline.begin(Now::read());
        self.pipeline.handle_datagram(endpoint, &keepalive);
        self.pipeline.finish();
        Ok(Consumer { tunnel, endpoint, address })
    }

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
            buffer.resize(start + packet.len() + OVERHEAD, 0);
            self.tunnel.seal(packet, &mut buffer[start..]);
        }
        buffer
    }
}

/// A packet from the TUN device with a TCP super-packet of `packets` packets of `len` bytes to
/// `to`; and its length, behind which there is the room that the pipeline wants.
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
