//! Return traffic of the NAT: the guard's choice of frames, and their reader.

use std::{
    cell::RefCell,
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use weir_common::{
    exit::{ExitConfig, ExitMemory, ExitV6, FragmentKey, is_for_port, return_packet},
    xsk::XSK_MAX_LEN,
};

use crate::Input;

const PORT: u16 = 51820;
const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 114, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 5, 0, 0, 0, 9);

/// Every other port, and the fragments that were noted.
#[derive(Default)]
struct Model(RefCell<HashSet<FragmentKey>>);

impl ExitMemory for Model {
    fn has_port(&self, port: u16) -> bool {
        port & 1 == 0
    }

    fn note_fragment(&self, key: &FragmentKey) {
        self.0.borrow_mut().insert(*key);
    }

    fn forget_fragment(&self, key: &FragmentKey) {
        self.0.borrow_mut().remove(key);
    }

    fn is_fragment_noted(&self, key: &FragmentKey) -> bool {
        self.0.borrow().contains(key)
    }
}

/// Whatever arrives, return traffic is to the NAT's addresses, and what is read of it is within the
/// frame.
pub fn exit(bytes: &[u8]) {
    let mut input = Input(bytes);
    let v6 = match input.byte() & 1 {
        0 => ExitV6::Address(V6),
        _ => ExitV6::Prefix { address: V6, len: 64, host: &[] },
    };
    let Ok(exit) = ExitConfig::new(&[V4], v6) else { panic!("one address of each family") };
    let model = Model::default();
    while !input.is_empty() {
        let frame = input.bytes(2000);
        let is_routed = exit.is_routed(frame);
        let is_return = is_routed || exit.is_translated(frame, &model);
        if let Some(packet) = return_packet(frame) {
            let (packet, whole) = (packet.as_ptr_range(), frame.as_ptr_range());
            assert!(packet.start as usize == whole.start as usize + 14 && packet.end <= whole.end);
        }
        assert!(!(is_routed && exit.is_message(frame, PORT)));
        assert!(is_for_port(frame, PORT) || !exit.is_message(frame, PORT));
        if !is_return {
            continue;
        }
        assert!(frame.len() <= XSK_MAX_LEN && frame[0] & 1 == 0);
        let ether_type = u16::from_be_bytes([frame[12], frame[13]]);
        match ether_type {
            0x0800 => assert_eq!(frame[30..34], V4.octets()),
            0x86dd if is_routed => assert_eq!(frame[38..46], V6.octets()[..8]),
            0x86dd => assert_eq!(frame[38..54], V6.octets()),
            other => panic!("ether type {other:#x}"),
        }
        // Nothing but an IPv4 checksum, or a length below the header's, that the guard does not see.
        assert!(ether_type == 0x0800 || return_packet(frame).is_some());
    }
}
