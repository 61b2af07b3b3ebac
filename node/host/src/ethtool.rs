//! An interface's offloads, as `ethtool -k` shows and sets them.

#![expect(unsafe_code, reason = "the ethtool ioctl")]

use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

use super::tun::request;

// Commands and a string set of <linux/ethtool.h>.
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
/// Bytes of a name (ETH_GSTRING_LEN).
const NAME_LEN: usize = 32;

/// Merging received packets of a flow before they are forwarded or reach a socket.
pub const GRO: &str = "rx-gro";
/// The same for UDP that is forwarded: downloads by QUIC reach the TUN device as super-packets.
pub(crate) const UDP_GRO_FORWARDING: &str = "rx-udp-gro-forwarding";
/// Merging received packets in the device. Neither XDP nor forwarding works with it.
pub const LRO: &str = "rx-lro";

/// The offloads that matter for a node, of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// It segments TCP itself, IPv4.
    pub tso: bool,
    /// The kernel hands super-packets down to just before the driver.
    pub gso: bool,
    /// It segments UDP itself.
    pub udp_segmentation: bool,
    /// Received packets of a flow are merged.
    pub gro: bool,
    /// Received UDP datagrams of a flow are merged also when they are forwarded.
    pub udp_gro_forwarding: bool,
    /// The device merges received packets itself, in a way that cannot be undone exactly; off
    /// while a node runs.
    pub lro: bool,
}

impl Offloads {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// Fails when there is no such interface.
    pub fn read(interface: &str) -> io::Result<Self> {
        let features = features(interface)?;
        let on = |name: &str| features.iter().any(|feature| feature.name == name && feature.active);
        Ok(Self {
            tso: on("tx-tcp-segmentation"),
            gso: on("tx-generic-segmentation"),
            udp_segmentation: on("tx-udp-segmentation"),
            gro: on(GRO),
            udp_gro_forwarding: on(UDP_GRO_FORWARDING),
            lro: on(LRO),
        })
    }

    /// What an operator would want to know, in words.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let state = |on: bool| if on { "on" } else { "off" };
        let mut lines = vec![format!(
            "uplink: TSO {}, GSO {}, UDP segmentation {}, GRO {}, forwarded UDP GRO {}",
            state(self.tso),
            state(self.gso),
            state(self.udp_segmentation),
            state(self.gro),
            state(self.udp_gro_forwarding),
        )];
        if !self.gro {
            lines.push("uplink: without GRO each datagram costs a system call".into());
        }
        lines
    }
}

/// Whether a feature is on; `None` when the kernel knows none of that name.
///
/// # Errors
///
/// Fails when there is no such interface.
pub fn feature(interface: &str, name: &str) -> io::Result<Option<bool>> {
    let features = features(interface)?;
    Ok(features.iter().find(|feature| feature.name == name).map(|feature| feature.active))
}

/// Turns a feature on or off.
///
/// # Errors
///
/// Fails when there is no such interface or feature, or the driver does not let it be changed.
pub fn set_feature(interface: &str, name: &str, on: bool) -> io::Result<()> {
    let features = features(interface)?;
    let (index, known) = features
        .iter()
        .enumerate()
        .find(|(_, feature)| feature.name == name)
        .ok_or(io::ErrorKind::NotFound)?;
    if known.active == on {
        return Ok(());
    }
    let blocks = features.len().div_ceil(32);
    let mut words = vec![0u32; 2 + 2 * blocks];
    let (block, bit) = (index / 32, 1 << (index % 32));
    for (word, value) in [
        (0, ETHTOOL_SFEATURES),
        (1, blocks as u32),
        (2 + 2 * block, bit),
        (3 + 2 * block, if on { bit } else { 0 }),
    ] {
        if let Some(place) = words.get_mut(word) {
            *place = value;
        }
    }
    call(interface, &mut words)?;
    // The kernel may take it as a wish only.
    match feature(interface, name)? {
        Some(active) if active == on => Ok(()),
        _ => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the driver does not let it be changed"))
        }
    }
}

struct Feature {
    name: String,
    active: bool,
}

fn features(interface: &str) -> io::Result<Vec<Feature>> {
    // struct ethtool_sset_info: cmd, reserved, mask (64 bits), one length per set.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    call(interface, &mut info)?;
    let count = info[4] as usize;
    // struct ethtool_gstrings: cmd, set, length, names.
    let mut names = vec![0u32; 3 + count * NAME_LEN / 4];
    names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]]);
    call(interface, &mut names)?;
    // struct ethtool_gfeatures: cmd, size, then available, requested, active, never_changed.
    let blocks = count.div_ceil(32);
    let mut bits = vec![0u32; 2 + 4 * blocks];
    bits[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
    call(interface, &mut bits)?;
    let bytes: Vec<u8> = names.iter().skip(3).flat_map(|word| word.to_ne_bytes()).collect();
    let feature = |(index, name): (usize, &[u8])| Feature {
        name: name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect(),
        active: bits
            .get(2 + 4 * (index / 32) + 2)
            .is_some_and(|word| word >> (index % 32) & 1 == 1),
    };
    Ok(bytes.chunks_exact(NAME_LEN).enumerate().map(feature).collect())
}

/// Calls an ethtool command that begins `words`, and that writes no more than its sizes in there
/// allow.
fn call(interface: &str, words: &mut [u32]) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the data is as long as the command in its first word and the sizes after it say,
    // which the callers above see to, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
