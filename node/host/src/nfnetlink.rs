//! Netfilter's netlink messages: what is sent and understood here, for nftables and conntrack
//! alike (`include/uapi/linux/netfilter/nfnetlink.h`).

use std::{io, ops::ControlFlow};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// NLM_F_REQUEST.
pub(super) const REQUEST: u16 = 0x1;
/// NLM_F_ACK.
pub(super) const ACK: u16 = 0x4;
/// NLM_F_ROOT | NLM_F_MATCH.
pub(super) const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The header of a netlink message, and that of netfilter behind it.
pub(super) const HEADER: usize = 16;
pub(super) const NF_HEADER: usize = 4;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER: not part of an attribute's kind.
const NESTED: u16 = 0x8000;
const FLAGS: u16 = 0xc000;
/// Requests that are under way together: their acknowledgements must fit the socket's buffer.
const BATCH: usize = 64;
/// Room for an answer that is one message of a few attributes.
const SMALL_ANSWER: usize = 4096;

/// The family of a message, and its attributes.
pub(super) type Message = (u8, Vec<u8>);

/// Asks for everything of a kind, which is `subsystem << 8 | message`.
pub(super) fn dump(kind: u16, family: u8, attributes: &[u8]) -> io::Result<Vec<Message>> {
    let mut found = Vec::new();
    walk(kind, family, attributes, &mut |family, attributes| {
        found.push((family, attributes.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// What is done with each message: its family and its attributes. It may be the last that is wanted.
type Each<'e> = &'e mut dyn FnMut(u8, &[u8]) -> ControlFlow<()>;

/// As [`dump`], for answers that are too many to keep.
pub(super) fn walk(kind: u16, family: u8, attributes: &[u8], each: Each<'_>) -> io::Result<()> {
    let socket = open()?;
    socket.send(&message(kind, REQUEST | DUMP, family, attributes), 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if take(&answer, each)? {
            return Ok(());
        }
    }
}

/// A socket that is kept between questions, for what is asked again and again.
#[derive(Debug, Default)]
pub(super) struct Connection(Option<Socket>);

impl Connection {
    /// Asks for the one thing of a kind. The answer fits [`SMALL_ANSWER`].
    pub(super) fn ask(&mut self, kind: u16) -> io::Result<Vec<Message>> {
        // It is put back only when nothing can be left in it to read.
        let socket = self.0.take().map_or_else(open, Ok)?;
        socket.send(&message(kind, REQUEST, 0, &[]), 0)?;
        let mut answer = Vec::with_capacity(SMALL_ANSWER);
        socket.recv(&mut answer, 0)?;
        let mut found = Vec::new();
        take(&answer, &mut |family, attributes| {
            found.push((family, attributes.to_vec()));
            ControlFlow::Continue(())
        })?;
        self.0 = Some(socket);
        Ok(found)
    }
}

/// Has the kernel do one thing after the other. What one of them fails with is given to `refused`,
/// which says whether that is an error.
pub(super) fn request(
    kind: u16,
    requests: &[Message],
    refused: fn(io::Error) -> io::Result<()>,
) -> io::Result<()> {
    let socket = open()?;
    for batch in requests.chunks(BATCH) {
        let messages: Vec<u8> = batch
            .iter()
            .flat_map(|(family, attributes)| message(kind, REQUEST | ACK, *family, attributes))
            .collect();
        socket.send(&messages, 0)?;
        let mut acknowledged = 0;
        while acknowledged < batch.len() {
            let (answer, _) = socket.recv_from_full()?;
            acknowledged += 1;
            if let Err(error) = take(&answer, &mut |_, _| ControlFlow::Continue(())) {
                refused(error)?;
            }
        }
    }
    Ok(())
}

/// A socket to netfilter.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A message with its headers.
pub(super) fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + NF_HEADER + attributes.len();
    let mut message = (length as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    message.resize(length.next_multiple_of(4), 0);
    message
}

/// Takes the messages of one answer; whether that was the last, or no more are wanted.
pub(super) fn take(mut answer: &[u8], each: Each<'_>) -> io::Result<bool> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is cut off");
    while let Some(header) = answer.first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = answer.get(HEADER..length).ok_or_else(broken)?;
        match u16::from_ne_bytes([t0, t1]) {
            DONE => return Ok(true),
            ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            _ => {
                let (header, attributes) = body.split_at_checked(NF_HEADER).ok_or_else(broken)?;
                if each(header.first().copied().unwrap_or_default(), attributes).is_break() {
                    return Ok(true);
                }
            }
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// An attribute as bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut attribute = (length as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(length.next_multiple_of(4), 0);
    attribute
}

/// An attribute whose value is text.
pub(super) fn named(kind: u16, text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    attribute(kind, &value)
}

/// An attribute with attributes inside.
pub(super) fn nested(kind: u16, inside: &[u8]) -> Vec<u8> {
    attribute(NESTED | kind, inside)
}

/// Attributes in their order: the kind and the value of each.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[l0, l1, k0, k1] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & !FLAGS, value))
    })
}

/// The value of the attribute of a kind; empty if there is none.
pub(super) fn find(bytes: &[u8], kind: u16) -> &[u8] {
    attributes(bytes).find(|(found, _)| *found == kind).map_or(&[], |(_, value)| value)
}

pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// Numbers of netfilter are big-endian, of 4 or 8 bytes.
pub(super) fn number(value: &[u8]) -> u64 {
    value.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let mut both = named(1, "weir");
        both.extend(nested(2, b"x"));
        assert_eq!((text(find(&both, 1)), find(&both, 2)), ("weir".into(), &b"x"[..]));
        assert_eq!(find(&both, 3), b"");
        assert_eq!(attributes(&both).map(|(kind, _)| kind).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(number(&[0, 0, 1, 2]), 258);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(take(&bytes, &mut |_, _| ControlFlow::Continue(())));
            for kind in 0..4 {
                find(&bytes, kind);
            }
        }
    }
}
