//! The kernel's WireGuard over generic netlink (`include/uapi/linux/wireguard.h`).

use std::{fmt::Debug, net::SocketAddr};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    ParseableParametrized,
};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_GENERIC};

use super::Counts;
use crate::conf::Conf;

/// Gives an interface its keys and its only peer.
pub(super) fn configure(
    name: &str,
    conf: &Conf,
    endpoint: SocketAddr,
    mark: Option<u32>,
) -> anyhow::Result<()> {
    let mut peer = vec![
        WireguardPeerAttribute::PublicKey(conf.public_key.0),
        WireguardPeerAttribute::PresharedKey(*conf.preshared_key.as_bytes()),
        WireguardPeerAttribute::Endpoint(endpoint),
        WireguardPeerAttribute::AllowedIps(conf.allowed.iter().map(allowed).collect()),
    ];
    if conf.keepalive > 0 {
        peer.push(WireguardPeerAttribute::PersistentKeepalive(conf.keepalive));
    }
    let mut attributes = vec![
        WireguardAttribute::IfName(name.to_owned()),
        WireguardAttribute::PrivateKey(conf.private_key.secret().to_bytes()),
        WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers),
        WireguardAttribute::Peers(vec![WireguardPeer(peer)]),
    ];
    attributes.extend(mark.map(WireguardAttribute::Fwmark));
    let message = WireguardMessage { cmd: WireguardCmd::SetDevice, attributes };
    Generic::open()?
        .ask(message, NLM_F_REQUEST | NLM_F_ACK)
        .context("cannot set WireGuard's keys")?;
    Ok(())
}

fn allowed(network: &IpNet) -> WireguardAllowedIp {
    let family = match network {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(network.addr()),
        WireguardAllowedIpAttr::Cidr(network.prefix_len()),
    ])
}

/// What an interface has counted.
pub(super) fn counts(name: &str) -> anyhow::Result<Counts> {
    let attributes = vec![WireguardAttribute::IfName(name.to_owned())];
    let message = WireguardMessage { cmd: WireguardCmd::GetDevice, attributes };
    let answers = Generic::open()?.ask(message, NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut counts = Counts::default();
    let attributes = answers.iter().flat_map(|answer| &answer.attributes);
    let peers = attributes.filter_map(|attribute| match attribute {
        WireguardAttribute::Peers(peers) => Some(peers),
        _ => None,
    });
    for attribute in peers.flatten().flat_map(|peer| &peer.0) {
        match attribute {
            WireguardPeerAttribute::RxBytes(bytes) => counts.received += bytes,
            WireguardPeerAttribute::TxBytes(bytes) => counts.sent += bytes,
            WireguardPeerAttribute::LastHandshake(time) => {
                counts.is_established |= time.seconds != 0;
            }
            _ => {}
        }
    }
    Ok(counts)
}

/// A socket, and the number that the kernel has given to WireGuard.
struct Generic {
    socket: Socket,
    family: u16,
}

impl Generic {
    fn open() -> anyhow::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC).context("cannot open generic netlink")?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        let question = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(WireguardMessage::family_name().to_owned())],
        };
        let answers = exchange(&socket, question, 0, NLM_F_REQUEST | NLM_F_ACK)?;
        let family = answers.iter().flat_map(|answer| &answer.nlas).find_map(|nla| match nla {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
        Ok(Self { socket, family: family.context("this kernel has no WireGuard")? })
    }

    fn ask(&self, message: WireguardMessage, flags: u16) -> anyhow::Result<Vec<WireguardMessage>> {
        exchange(&self.socket, message, self.family, flags)
    }
}

/// Sends one request and collects the answers, until the kernel acknowledges or ends them.
fn exchange<F>(socket: &Socket, payload: F, family: u16, flags: u16) -> anyhow::Result<Vec<F>>
where
    F: GenlFamily + Emitable + Debug + ParseableParametrized<[u8], GenlHeader>,
{
    let mut message = GenlMessage::from_payload(payload);
    message.set_resolved_family_id(family);
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = zeroize::Zeroizing::new(vec![0; message.buffer_len()]);
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (received, _) = socket.recv_from_full()?;
        let mut rest = received.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<GenlMessage<F>>::deserialize(rest)
                .map_err(|error| anyhow::anyhow!("netlink: {error}"))?;
            let len = (message.header.length as usize).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => answers.push(inner.payload),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                NetlinkPayload::Done(_) => return Ok(answers),
                _ => {}
            }
            if len == 0 {
                bail!("netlink: an empty message");
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}
