//! iptables' matches, which the kernel runs through nftables' compatibility layer (nft_compat).

use super::{
    Step,
    packet::{Packet, TRANSPORT},
    registers::Registers,
};
use crate::nfnetlink::{find, text};

/// The matches of iptables, through nftables' compatibility layer.
pub(super) fn iptables_match(data: &[u8], packet: &Packet, registers: &mut Registers) -> Step {
    let info = find(data, 3);
    let half = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    match text(find(data, 1)).as_str() {
        "comment" | "limit" => Step::Continue,
        "conntrack" | "state" => {
            // struct xt_conntrack_mtinfo*: the flags of what is compared, then the states. Before
            // them four addresses with their masks, two times, a protocol and four ports.
            const FLAGS: usize = 4 * 32 + 8 + 2 + 8;
            const STATE: u16 = 1;
            const STATE_ALIAS: u16 = 1 << 13;
            let wanted = if text(find(data, 1)) == "state" {
                info.first_chunk().map(|states| u32::from_ne_bytes(*states))
            } else {
                let only = half(FLAGS).filter(|flags| flags & !(STATE | STATE_ALIAS) == 0);
                let inverted = half(FLAGS + 2).is_some_and(|flags| flags & STATE != 0);
                let states = half(FLAGS + 4).map(|states| if inverted { !states } else { states });
                only.and(states).map(u32::from)
            };
            let fits = wanted.zip(packet.ct_state).map(|(wanted, state)| wanted & state != 0);
            registers.judge(fits, false)
        }
        "udp" => {
            let ports = [0, 4].map(|at| half(at).zip(half(at + 2)));
            let own = [0, 2].map(|at| packet.payload(TRANSPORT, at, 2));
            let is_plain = info.get(8) == Some(&0) && packet.protocol == libc::IPPROTO_UDP as u8;
            let fits = ports.iter().zip(&own).try_fold(is_plain, |fits, (range, port)| {
                let (low, high) = (*range)?;
                let port = u16::from_be_bytes(*port.as_ref()?.first_chunk()?);
                Some(fits && (low..=high).contains(&port))
            });
            registers.judge(fits, true)
        }
        _ => registers.judge(None, false),
    }
}
