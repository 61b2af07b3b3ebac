//! What the tests of this module build packets and consumers with.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use boringtun::noise::{Tunn, TunnResult};
use weir_common::{
    AddressPlan, Slot, SlotPermutation,
    account::{Counters, SessionState},
};
pub(crate) use weir_packet::testing::{SERVER_V4, SERVER_V6, tcp, udp};

use crate::{
    limit::flow_key::FlowSecret,
    mailbox::Initiation,
    now::Now,
    peer::Peer,
    pipeline::gso_batch::{BatchKind, UdpSegmentation},
    pipeline::{Cipher, Misdirected, Owner, Pipeline, Shared, outlet::Device, parcel::Parcel},
    stats::WorkerStats,
};
use weir_accounts::Endpoint;
use weir_accounts::{Accounts, PeerSpec};
use weir_common::PublicKey;
use weir_packet::virtio::{HEADER_LEN, NetHeader};
use weir_wireguard::{aead::Path, identity::Identity, tunnel::Tunnel};

pub(crate) const MTU: usize = 1420;

/// A TUN frame of one packet, with the slack that [`Pipeline::handle_tun_packet`] wants; and its length.
pub(crate) fn frame(header: NetHeader, packet: &[u8]) -> (Vec<u8>, usize) {
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(packet);
    let len = bytes.len();
    bytes.extend_from_slice(&[0xaa; crate::pipeline::TAILROOM]);
    (bytes, len)
}

/// A node without I/O.
pub(crate) struct Node {
    pub(crate) pipeline: Pipeline,
    pub(crate) shared: Shared,
    /// The time, which passes only as a test says.
    pub(crate) now: Now,
}

/// A consumer with keys of its own.
pub(crate) struct Consumer {
    pub(crate) tunn: Tunn,
    pub(crate) endpoint: Endpoint,
    pub(crate) slot: Slot,
    pub(crate) public: [u8; 32],
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
}

/// The node's key in all of these tests.
pub(crate) fn identity() -> Identity {
    Identity::new([7; 32])
}

impl Node {
    pub(crate) fn new(slots: u32, workers: u32, worker: u32) -> Self {
        let pool_v6 = Ipv6Addr::new(0xfd66, 0x7765, 0x6972, 0, 0, 0, 0, 0);
        let shared = Shared {
            accounts: Arc::new(Accounts::private(slots).expect("memory")),
            permutation: SlotPermutation { keys: [1, 2, 3, 4] },
            addresses: AddressPlan::new(Ipv4Addr::new(10, 66, 0, 0), 16, pool_v6),
            workers,
            mtu: MTU,
            uso: true,
            udp_segmentation: UdpSegmentation::On,
            limits: Arc::default(),
            flow_secret: FlowSecret([0x243f_6a88_85a3_08d3, 5, 6, 0x082e_fa98_ec4e_6c89]),
            cipher: Path::from_environment().expect("a path of the cipher").into(),
        };
        Self::of(shared, worker)
    }

    /// With a helper for the cipher.
    pub(crate) fn with_helpers(slots: u32) -> Self {
        let mut shared = Self::new(slots, 1, 0).shared;
        let path = Path::from_environment().expect("a path of the cipher");
        shared.cipher = Cipher::with_helpers(path, vec![0]).expect("a thread");
        Self::of(shared, 0)
    }

    /// One of the workers that share this.
    pub(crate) fn of(shared: Shared, worker: u32) -> Self {
        let pipeline = Pipeline::new(shared.clone(), worker, Arc::new(WorkerStats::default()));
        let now = Now { nanos: 1_000_000_000, unix: 1_700_000_000, unix_nanos: 0 };
        Self { pipeline, shared, now }
    }

    /// Adds a session at `slot`, and returns its consumer, not connected yet.
    pub(crate) fn add(&mut self, slot: u32) -> Consumer {
        let slot = Slot(slot);
        let private = boringtun::x25519::StaticSecret::from([slot.0 as u8 + 100; 32]);
        let public = boringtun::x25519::PublicKey::from(&private);
        let spec = PeerSpec {
            slot,
            public_key: PublicKey(public.to_bytes()),
            preshared_key: None,
            address_v4: self.shared.addresses.address_v4(slot).expect("an address"),
            address_v6: self.shared.addresses.address_v6(slot).expect("an address"),
        };
        let account = self.shared.accounts.get(slot).expect("an account");
        account.assign(u64::from(slot.0) + 1, &Counters::default());
        account.set_state(SessionState::Open);
        let index = self.shared.permutation.index_of(slot);
        let identity = identity();
        let tunnel = Tunnel::new(&identity, spec.public_key.0, index);
        let peer = Peer::new(&spec, tunnel, Arc::clone(&self.shared.accounts));
        self.pipeline.add(Box::new(peer));
        Consumer {
            tunn: Tunn::new(private, *identity.public(), None, None, 5, None),
            endpoint: Endpoint {
                remote: ([198, 51, 100, 7], 4000 + slot.0 as u16).into(),
                local: None,
            },
            slot,
            public: spec.public_key.0,
            v4: IpAddr::V4(spec.address_v4),
            v6: IpAddr::V6(spec.address_v6),
        }
    }

    /// Adds a session and completes its handshake.
    pub(crate) fn connect(&mut self, slot: u32) -> Consumer {
        let mut consumer = self.add(slot);
        let initiation = consumer.initiation();
        let replies = self.iterate(|pipeline| {
            pipeline.handle_initiation(&initiation);
        });
        let [(BatchKind::Handshake, response)] = &replies.datagrams[..] else {
            panic!("one handshake response");
        };
        let keepalive = consumer.take_response(response);
        self.iterate(|pipeline| pipeline.handle_datagram(consumer.endpoint, &keepalive));
        consumer
    }

    /// One output, in which everything is written and sent.
    pub(crate) fn iterate(&mut self, act: impl FnOnce(&mut Pipeline)) -> Output {
        self.pipeline.begin(self.now);
        act(&mut self.pipeline);
        self.pipeline.finish();
        let pipeline = &self.pipeline;
        let mut output = Output::default();
        for frame in pipeline.packets(Device::Tun) {
            let bytes: Vec<u8> =
                pipeline.packet_bytes(Device::Tun, frame).flatten().copied().collect();
            assert_eq!(bytes.len(), frame.len as usize);
            let header = bytes.first_chunk::<HEADER_LEN>().and_then(NetHeader::parse);
            output.frames.push((header.expect("a virtio header"), bytes[HEADER_LEN..].to_vec()));
            pipeline.write_done(Device::Tun, frame, true);
        }
        for frame in pipeline.packets(Device::Uplink).iter().filter(|frame| !frame.is_small) {
            let bytes: Vec<u8> =
                pipeline.packet_bytes(Device::Uplink, frame).flatten().copied().collect();
            assert_eq!(bytes.len(), frame.len as usize);
            let header = bytes.first_chunk::<HEADER_LEN>().and_then(NetHeader::parse);
            output.uplink.push((header.expect("a virtio header"), bytes[HEADER_LEN..].to_vec()));
            pipeline.write_done(Device::Uplink, frame, true);
        }
        for batch in pipeline.gso_batches().iter().filter(|batch| !batch.is_small) {
            let bytes: Vec<u8> = pipeline.gso_batch_bytes(batch).flatten().copied().collect();
            assert_eq!(bytes.len(), batch.bytes as usize);
            let datagrams = bytes.chunks(usize::from(batch.segment));
            assert_eq!(datagrams.len(), usize::from(batch.datagrams));
            output.batches.push(batch.datagrams);
            output.datagrams.extend(datagrams.map(|datagram| (batch.kind, datagram.to_vec())));
            pipeline.udp_send_done(batch, batch.datagrams, batch.bytes);
        }
        self.pipeline.send_small(|parts| {
            output.small.push(parts.concat());
            true
        });
        output.misdirected = self.pipeline.take_misdirected().collect();
        output.parcels = self.pipeline.take_parcels().collect();
        output
    }

    /// Where a session was last heard.
    pub(crate) fn endpoint(&self, slot: Slot) -> Option<Endpoint> {
        self.pipeline.endpoint(slot)
    }

    pub(crate) fn dropped(&self, reason: weir_common::DropReason) -> u64 {
        self.pipeline.stats().dropped(reason)
    }

    pub(crate) fn counters(&self, slot: Slot) -> Counters {
        self.shared.accounts.get(slot).expect("an account").counters()
    }
}

/// What came out of a output.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) frames: Vec<(NetHeader, Vec<u8>)>,
    /// Frames on the uplink: super-packets, with their virtio headers.
    pub(crate) uplink: Vec<(NetHeader, Vec<u8>)>,
    /// Single frames on the uplink, those to consumers included.
    pub(crate) small: Vec<Vec<u8>>,
    pub(crate) datagrams: Vec<(BatchKind, Vec<u8>)>,
    /// Datagrams in each batch.
    pub(crate) batches: Vec<u16>,
    pub(crate) misdirected: Vec<(Owner, Misdirected)>,
    /// With the numbers of the workers that they are for.
    pub(crate) parcels: Vec<(u32, Parcel)>,
}

impl Consumer {
    /// An initiation for the node's key, as the handshake thread hands it over.
    pub(crate) fn initiation(&mut self) -> Initiation {
        let mut out = [0; 256];
        let TunnResult::WriteToNetwork(message) =
            self.tunn.format_handshake_initiation(&mut out, true)
        else {
            panic!("no initiation");
        };
        let message = bytes::Bytes::copy_from_slice(message);
        Initiation { slot: self.slot, from: self.endpoint, identity: identity(), message }
    }

    /// Takes the node's response, and returns the keepalive that confirms it.
    pub(crate) fn take_response(&mut self, response: &[u8]) -> Vec<u8> {
        let mut out = [0; 256];
        match self.tunn.decapsulate(None, response, &mut out) {
            TunnResult::WriteToNetwork(keepalive) => keepalive.to_vec(),
            other => panic!("a keepalive, not {other:?}"),
        }
    }

    pub(crate) fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; packet.len() + 32];
        match self.tunn.encapsulate(packet, &mut out) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            other => panic!("a data message, not {other:?}"),
        }
    }

    /// Opens a data message; empty for a keepalive.
    pub(crate) fn open(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = vec![0; message.len()];
        match self.tunn.decapsulate(None, message, &mut out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                packet.to_vec()
            }
            TunnResult::Done => Vec::new(),
            other => panic!("a data message, not {other:?}"),
        }
    }
}
