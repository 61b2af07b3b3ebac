//! Which XDP features the driver of an interface supports. Linux 6.3 and later tell.

use std::io;

use super::{
    netdev::{Netdev, number},
    nfnetlink::attribute,
};

// From <linux/netdev.h>.
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
/// The driver runs XDP and takes its four plain verdicts.
const BASIC: u64 = 1;
/// The driver has the zero-copy mode of `AF_XDP`.
const XSK_ZEROCOPY: u64 = 1 << 3;

/// The XDP features that matter for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// XDP in the driver.
    pub native: bool,
    /// The zero-copy mode of `AF_XDP`.
    pub zero_copy: bool,
}

/// Reads which XDP features the driver of interface `index` supports.
///
/// # Errors
///
/// Fails when the kernel does not tell, as those before Linux 6.3.
pub fn read(index: u32) -> io::Result<XdpFeatures> {
    let device = Netdev::open()?.request(DEV_GET, &attribute(DEV_IFINDEX, &index.to_ne_bytes()))?;
    let features = device.and_then(|device| number(&device, DEV_XDP_FEATURES));
    let features = features.ok_or(io::ErrorKind::Unsupported)?;
    let has = |feature| features & feature != 0;
    Ok(XdpFeatures { native: has(BASIC), zero_copy: has(XSK_ZEROCOPY) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_no_driver_with_xdp() {
        // Linux 6.3 and later tell; on older ones there is no such family.
        match read(1) {
            Ok(features) => {
                assert_eq!(features, XdpFeatures { native: false, zero_copy: false });
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
        }
    }
}
