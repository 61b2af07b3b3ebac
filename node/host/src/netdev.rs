//! Requests to the kernel's generic netlink family `netdev` (Documentation/netlink/specs/netdev.yaml).
//! It has a part of what follows since Linux 6.3, and all of it since 6.13.
//!
//! The header of generic netlink has the shape of netfilter's, with the command in the place of the
//! family, so that [`super::nfnetlink`] makes and takes these messages too.

use std::{io, ops::ControlFlow};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::nfnetlink::{ACK, DUMP, REQUEST, find, message, named, take};

// From <linux/genetlink.h>.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// A connection to the family.
pub(crate) struct Netdev {
    socket: Socket,
    family: u16,
}

impl Netdev {
    /// Finds the family.
    ///
    /// # Errors
    ///
    /// Fails with `ENOENT` before Linux 6.3.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let controller = Self { socket, family: CONTROLLER };
        let answer = controller.request(GET_FAMILY, &named(FAMILY_NAME, "netdev"))?;
        let family = answer.and_then(|family| find(&family, FAMILY_ID).try_into().ok());
        let family = family.map(u16::from_ne_bytes).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { family, ..controller })
    }

    /// Sends a command about one thing, and returns the attributes of the answer, if it has one.
    pub(crate) fn request(&self, command: u8, attributes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.ask(command, ACK, attributes)?.into_iter().next())
    }

    /// Sends a command about all things of a kind, and returns the attributes of each.
    pub(crate) fn dump(&self, command: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.ask(command, DUMP, attributes)
    }

    fn ask(&self, command: u8, flags: u16, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.socket.send(&message(self.family, REQUEST | flags, command, attributes), 0)?;
        let mut answers = Vec::new();
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let is_last = take(&answer, &mut |_, attributes| {
                answers.push(attributes.to_vec());
                ControlFlow::Continue(())
            })?;
            if is_last {
                return Ok(answers);
            }
        }
    }
}

/// The number in the first attribute of a kind, which has four or eight bytes of this machine's order.
pub(crate) fn number(attributes: &[u8], kind: u16) -> Option<u64> {
    let value = find(attributes, kind);
    match value.len() {
        4 => value.try_into().ok().map(u32::from_ne_bytes).map(u64::from),
        _ => value.try_into().ok().map(u64::from_ne_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfnetlink::attribute;

    #[test]
    fn numbers_have_four_or_eight_bytes_and_others_are_none() {
        let all = [attribute(7, b"abcde"), attribute(3, &5u64.to_ne_bytes())].concat();
        assert_eq!((number(&all, 3), number(&all, 7), number(&all, 9)), (Some(5), None, None));
        assert_eq!(number(&attribute(9, &7u32.to_ne_bytes()), 9), Some(7));
    }
}
