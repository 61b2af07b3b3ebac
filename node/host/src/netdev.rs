//! Requests to the kernel's generic netlink family `netdev` (Documentation/netlink/specs/netdev.yaml).
//! It has a part of what follows since Linux 6.3, and all of it since 6.13.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType,
    netlink::{GENERIC, SocketAddrNetlink},
    recv, sendto, socket,
    sockopt::{Timeout, set_socket_timeout},
};

// From <linux/netlink.h> and <linux/genetlink.h>.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// The header of netlink, in bytes.
const HEADER: usize = 16;
/// The headers of netlink and of generic netlink, in bytes.
const HEADERS: usize = 20;
/// The largest part of an answer, in bytes.
const MAX_PART: usize = 32_768;

/// A connection to the family.
pub(crate) struct Netdev {
    socket: OwnedFd,
    family: u16,
}

impl Netdev {
    /// Finds the family.
    ///
    /// # Errors
    ///
    /// Fails with `ENOENT` before Linux 6.3.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(GENERIC))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(2)))?;
        let controller = Self { socket, family: CONTROLLER };
        let answer = controller.ask(GET_FAMILY, 0, &attribute(FAMILY_NAME, b"netdev\0"))?;
        let family = answer.first().and_then(|family| find(family, FAMILY_ID));
        let family = family.and_then(|value| value.try_into().ok()).map(u16::from_ne_bytes);
        Ok(Self { family: family.ok_or(io::ErrorKind::Unsupported)?, ..controller })
    }

    /// Sends a command about one thing, and returns the attributes of the answer, if it has one.
    pub(crate) fn request(&self, command: u8, attributes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.ask(command, 0, attributes)?.into_iter().next())
    }

    /// Sends a command about all things of a kind, and returns the attributes of each.
    pub(crate) fn dump(&self, command: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.ask(command, NLM_F_DUMP, attributes)
    }

    fn ask(&self, command: u8, flags: u16, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let length = u32::try_from(HEADERS + attributes.len()).unwrap_or_default();
        let mut message = Vec::new();
        message.extend(length.to_ne_bytes());
        message.extend(self.family.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answers = Vec::new();
        let mut part = vec![0; MAX_PART];
        loop {
            let (taken, _) = recv(&self.socket, &mut part[..], RecvFlags::empty())?;
            if take(part.get(..taken).unwrap_or_default(), &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Takes the messages of a part of an answer. Returns whether it was the last part.
fn take(mut part: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    loop {
        if part.is_empty() {
            return Ok(false);
        }
        let length = part.first_chunk().copied().map(u32::from_ne_bytes).unwrap_or_default();
        let message = part.get(..length as usize).filter(|message| message.len() >= HEADERS);
        let message = message.ok_or(io::ErrorKind::UnexpectedEof)?;
        let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok());
        match kind.map(u16::from_ne_bytes) {
            // The acknowledgement is an error of number 0.
            Some(NLMSG_ERROR | NLMSG_DONE) => {
                let code = message.get(HEADER..HEADERS).and_then(|bytes| bytes.try_into().ok());
                return match code.map(i32::from_ne_bytes).unwrap_or_default() {
                    code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
                    _ => Ok(true),
                };
            }
            _ => answers.push(message.get(HEADERS..).unwrap_or_default().to_vec()),
        }
        part = part.get(message.len().next_multiple_of(4)..).unwrap_or_default();
    }
}

/// An attribute, padded to four bytes.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
pub(crate) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
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

/// The number in the first attribute of a kind, which has four or eight bytes.
pub(crate) fn number(attributes: &[u8], kind: u16) -> Option<u64> {
    let value = find(attributes, kind)?;
    match value.len() {
        4 => value.try_into().ok().map(u32::from_ne_bytes).map(u64::from),
        _ => value.try_into().ok().map(u64::from_ne_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).expect("short");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn attributes_are_found_behind_others_and_broken_ones_end_the_search() {
        let all = [attribute(7, b"abcde"), attribute(3, &5u64.to_ne_bytes())].concat();
        assert_eq!(find(&all, 3), Some(&5u64.to_ne_bytes()[..]));
        assert_eq!((number(&all, 3), number(&all, 7)), (Some(5), None));
        assert_eq!(number(&attribute(9, &7u32.to_ne_bytes()), 9), Some(7));
        assert_eq!(find(&all, 9), None);
        assert_eq!(find(&[0, 0, 9, 0], 3), None);
        assert_eq!(find(&[255, 255, 3, 0, 1], 3), None);
    }

    #[test]
    fn an_answer_ends_with_its_acknowledgement_and_an_error_is_one() {
        let mut answers = Vec::new();
        let one = message(30, &[1, 2, 0, 0, 9, 9, 9, 9]);
        assert!(!take(&one, &mut answers).expect("a part"));
        let last = [one, message(NLMSG_DONE, &[0; 4])].concat();
        assert!(take(&last, &mut answers).expect("the last part"));
        assert_eq!(answers, [[9; 4], [9; 4]]);
        let error = message(NLMSG_ERROR, &(-libc::ENODEV).to_ne_bytes());
        let error = take(&error, &mut answers).expect_err("an error");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_short_answer_is_an_error() {
        for broken in [&[0; 10][..], &[0; 40], &[255; 40]] {
            assert!(take(broken, &mut Vec::new()).is_err());
        }
    }
}
