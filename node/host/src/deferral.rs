//! Puts off a device's interrupts (Documentation/networking/napi.rst, "IRQ mitigation").
//!
//! After packets came, the kernel looks for more of them when a time has passed, instead of having
//! the device interrupt for each. Linux 6.13 has that for each NAPI, by netlink. Older kernels have it
//! for the device, in sysfs.

use std::{fs, io, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    Host,
    journal::Change,
    link,
    netdev::{Netdev, number},
    nfnetlink::attribute,
    tun,
};

// From <linux/netdev.h>.
const NAPI_GET: u8 = 11;
const NAPI_SET: u8 = 14;
const NAPI_IFINDEX: u16 = 1;
const NAPI_ID: u16 = 2;
const NAPI_DEFER_HARD_IRQS: u16 = 5;
const NAPI_GRO_FLUSH_TIMEOUT: u16 = 6;

/// The same in sysfs, below `/sys/class/net/INTERFACE`: how often, and how long.
const FILES: [&str; 2] = ["napi_defer_hard_irqs", "gro_flush_timeout"];

/// How long interrupts wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deferral {
    /// How often in a row the kernel may look and find nothing before it has the device interrupt
    /// again.
    pub empty_polls: u32,
    /// The time until it looks, in nanoseconds.
    pub nanos: u64,
}

/// What weir sets. What comes soon after something else waits at most so long. Longer is cheaper for
/// many short bursts (docs/performance.md), and slower for one fast flow: a `veth` has room for 256
/// frames.
pub const WANTED: Deferral = Deferral { empty_polls: 1, nanos: 200_000 };

/// The files that undoing it writes. None where it goes by netlink, or not at all.
#[must_use]
pub fn files(interface: &str) -> Vec<PathBuf> {
    match napis(interface) {
        Ok(None) => own_files(interface).map(Vec::from).unwrap_or_default(),
        _ => Vec::new(),
    }
}

impl Host {
    /// Puts off the interrupts of an interface, unless somebody else has. The guard must be attached:
    /// drivers make new NAPIs for XDP.
    ///
    /// # Errors
    ///
    /// Says why it cannot be done here.
    pub fn defer_interrupts(&mut self, interface: &str) -> anyhow::Result<()> {
        let old = read(interface)?;
        if old != Deferral::default() {
            return Ok(());
        }
        self.journal
            .record(Change::Deferral { interface: interface.into(), old })
            .context("cannot record a change")?;
        set(interface, WANTED)
    }
}

/// Reads how long the interrupts of an interface wait.
///
/// # Errors
///
/// Says why it cannot be read here.
pub fn read(interface: &str) -> anyhow::Result<Deferral> {
    if let Some(napis) = napis(interface)? {
        let mut all = napis.iter().map(|napi| napi.deferral);
        let first = all.next().context("the driver has no NAPI here")?;
        ensure!(all.all(|other| other == first), "its queues have different settings");
        return Ok(first);
    }
    let [empty_polls, nanos] = own_files(interface)?.map(|file| {
        let text = fs::read_to_string(&file)?;
        text.trim().parse::<u64>().map_err(io::Error::other)
    });
    Ok(Deferral { empty_polls: u32::try_from(empty_polls?)?, nanos: nanos? })
}

/// Sets how long the interrupts of an interface wait. One that is gone needs nothing.
///
/// # Errors
///
/// Says why it cannot be done here.
pub fn set(interface: &str, wanted: Deferral) -> anyhow::Result<()> {
    if tun::index_of(interface).is_err() {
        return Ok(());
    }
    if let Some(napis) = napis(interface)? {
        let netdev = Netdev::open()?;
        for napi in napis {
            let attributes = [
                attribute(NAPI_ID, &napi.id.to_ne_bytes()),
                attribute(NAPI_DEFER_HARD_IRQS, &wanted.empty_polls.to_ne_bytes()),
                attribute(NAPI_GRO_FLUSH_TIMEOUT, &wanted.nanos.to_ne_bytes()),
            ];
            netdev.request(NAPI_SET, &attributes.concat()).context("the kernel refuses it")?;
        }
        return Ok(());
    }
    let [empty_polls, nanos] = own_files(interface)?;
    for (file, value) in [(empty_polls, u64::from(wanted.empty_polls)), (nanos, wanted.nanos)] {
        fs::write(&file, value.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Gives the interrupts of an interface back what they were, unless somebody else has changed them
/// meanwhile.
pub(super) fn restore(interface: &str, old: Deferral) -> anyhow::Result<()> {
    match read(interface) {
        Ok(now) if now != WANTED => Ok(()),
        _ => set(interface, old),
    }
}

/// A NAPI of a device.
struct Napi {
    id: u32,
    deferral: Deferral,
}

/// The NAPIs of an interface. `None` if this kernel does not have settings for each.
fn napis(interface: &str) -> anyhow::Result<Option<Vec<Napi>>> {
    let index = tun::index_of(interface)?;
    let of_device = attribute(NAPI_IFINDEX, &index.to_ne_bytes());
    let Ok(napis) = Netdev::open().and_then(|netdev| netdev.dump(NAPI_GET, &of_device)) else {
        return Ok(None);
    };
    let napi = |attributes: &Vec<u8>| {
        let number = |kind| number(attributes, kind);
        let empty_polls = u32::try_from(number(NAPI_DEFER_HARD_IRQS)?).ok()?;
        let deferral = Deferral { empty_polls, nanos: number(NAPI_GRO_FLUSH_TIMEOUT)? };
        Some(Napi { id: u32::try_from(number(NAPI_ID)?).ok()?, deferral })
    };
    Ok(napis.iter().map(napi).collect())
}

/// The files of an interface in sysfs, if that is of this network namespace: a process that changed
/// the namespace may still see the one before, with another interface of this name.
fn own_files(interface: &str) -> anyhow::Result<[PathBuf; 2]> {
    let read = |file: &str| {
        let path = PathBuf::from("/sys/class/net").join(interface).join(file);
        let text = fs::read_to_string(&path);
        text.map(|text| text.trim().to_owned())
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let index = tun::index_of(interface)?;
    let address = link::hardware_address(index).context("cannot read the hardware address")?;
    let address = address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    if read("ifindex")? != index.to_string() || read("address")? != address {
        bail!("/sys shows another network namespace");
    }
    Ok(FILES.map(|file| PathBuf::from("/sys/class/net").join(interface).join(file)))
}
