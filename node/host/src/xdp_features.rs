//! Which XDP features the driver of an interface supports. Linux 6.3 and later tell (the generic
//! netlink family `netdev`).

use std::{io, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType,
    netlink::{GENERIC, SocketAddrNetlink},
    recv, sendto, socket,
    sockopt::{Timeout, set_socket_timeout},
};

// From <linux/netlink.h>, <linux/genetlink.h> and <linux/netdev.h>.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
/// The driver runs XDP and takes its four plain verdicts.
const BASIC: u64 = 1;
/// The driver has the zero-copy mode of `AF_XDP`.
const XSK_ZEROCOPY: u64 = 1 << 3;
/// The headers of netlink and of generic netlink, in bytes.
const HEADERS: usize = 20;

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
    let family = ask(CONTROLLER, GET_FAMILY, &attribute(FAMILY_NAME, b"netdev\0"))?;
    let family = find(&family, FAMILY_ID)
        .and_then(|value| value.try_into().ok())
        .map(u16::from_ne_bytes)
        .ok_or(io::ErrorKind::Unsupported)?;
    let device = ask(family, DEV_GET, &attribute(DEV_IFINDEX, &index.to_ne_bytes()))?;
    let features = find(&device, DEV_XDP_FEATURES)
        .and_then(|value| value.try_into().ok())
        .map(u64::from_ne_bytes)
        .ok_or(io::ErrorKind::Unsupported)?;
    let has = |feature| features & feature != 0;
    Ok(XdpFeatures { native: has(BASIC), zero_copy: has(XSK_ZEROCOPY) })
}

/// Sends a command and gives the attributes of its answer.
fn ask(family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, Some(GENERIC))?;
    set_socket_timeout(&netlink, Timeout::Recv, Some(Duration::from_secs(2)))?;
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or_default();
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    sendto(&netlink, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = vec![0; 16384];
    let (taken, _) = recv(&netlink, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(taken);
    attributes_of(&answer)
}

/// The attributes of an answer, or the error that it is.
fn attributes_of(answer: &[u8]) -> io::Result<Vec<u8>> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    if kind == Some(NLMSG_ERROR) {
        let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
        let code = code.map(i32::from_ne_bytes).unwrap_or_default();
        return Err(io::Error::from_raw_os_error(-code));
    }
    answer.get(HEADERS..).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// An attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let number = |at: usize| {
            attributes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes).map(usize::from)
        };
        let (length, found) = (number(0)?, number(2)?);
        // The highest two bits are flags.
        if found & 0x3fff == usize::from(kind) {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_and_broken_ones_end_the_search() {
        let all = [attribute(7, b"abcde"), attribute(3, &5u64.to_ne_bytes())].concat();
        assert_eq!(find(&all, 3), Some(&5u64.to_ne_bytes()[..]));
        assert_eq!(find(&all, 9), None);
        assert_eq!(find(&[0, 0, 9, 0], 3), None);
        assert_eq!(find(&[255, 255, 3, 0, 1], 3), None);
    }

    #[test]
    fn an_error_is_an_error_and_a_short_answer_too() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(
            attributes_of(&answer).expect_err("an error").raw_os_error(),
            Some(libc::ENODEV)
        );
        assert!(attributes_of(&[0; 10]).is_err());
    }

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
