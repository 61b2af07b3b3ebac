//! Which worker has the flow of a packet from the internet: by its external port, or, where every
//! session has an address of its own, by that.

use std::{net::Ipv4Addr, sync::Arc};

use weir_common::AddressPlan;
use weir_nat::{Ports, V6};
use weir_packet::headers::{TCP, UDP, V4_HEADER, V6_HEADER, half, word};

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// The IPv6 fragment header's number, and its length in bytes (RFC 8200, section 4.5).
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;
/// An IPv4 network that has an address for every slot: only the IPv6 part of the plan is used.
const ALL_SLOTS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// The number of fragmented packets whose worker is remembered.
const FRAGMENTED: usize = 256;

/// Finds the worker of packets from the internet.
pub(crate) struct Owners {
    ports: Arc<Ports>,
    workers: u32,
    prefix: Option<AddressPlan>,
    /// By the identification of fragmented packets: the identification, and the worker of the first
    /// fragment. Later ones have no port.
    fragmented: Box<[(u32, u32); FRAGMENTED]>,
}

/// The headers of a packet that tell its flow.
struct Located {
    protocol: u8,
    /// Where the transport header is.
    at: usize,
    /// The identification, if the packet is a fragment.
    id: Option<u32>,
    is_first: bool,
}

impl Owners {
    pub(crate) fn new(ports: Arc<Ports>, workers: u32, v6: V6) -> Self {
        let mut owners =
            Self { ports, workers, prefix: None, fragmented: Box::new([(0, 0); FRAGMENTED]) };
        owners.set_v6(v6);
        owners
    }

    pub(crate) fn set_v6(&mut self, v6: V6) {
        self.prefix = match v6 {
            V6::Prefix(prefix, _) => Some(AddressPlan::new(ALL_SLOTS, 8, prefix)),
            V6::None | V6::Address(_) => None,
        };
    }

    /// The worker, or `None` for what belongs to no flow.
    pub(crate) fn find(&mut self, packet: &[u8]) -> Option<u32> {
        if let (Some(plan), Some(6)) = (&self.prefix, packet.first().map(|first| first >> 4)) {
            let destination: [u8; 16] = *packet.get(24..)?.first_chunk()?;
            return plan.slot_of_v6(destination).map(|slot| slot.worker(self.workers));
        }
        let located = locate(packet)?;
        if !located.is_first {
            let id = located.id?;
            let (known, worker) = *self.fragmented.get(place(id))?;
            return (known == id).then_some(worker);
        }
        let l4 = packet.get(located.at..)?;
        let port = match (located.protocol, l4.first()?) {
            (TCP | UDP, _) => l4.get(2..4).map(|_| half(l4, 2))?,
            // Echo reply.
            (ICMP, 0) | (ICMP_V6, 129) => half(l4, 4),
            // Errors quote a packet of ours.
            (ICMP, 3 | 4 | 11 | 12) | (ICMP_V6, 1..=4) => {
                let quoted = l4.get(8..)?;
                let located = locate(quoted)?;
                let l4 = quoted.get(located.at..)?;
                match located.protocol {
                    TCP | UDP => half(l4, 0),
                    ICMP | ICMP_V6 => half(l4, 4),
                    _ => return None,
                }
            }
            _ => return None,
        };
        let worker = self.ports.worker_of(port, self.workers);
        if let Some(id) = located.id
            && let Some(entry) = self.fragmented.get_mut(place(id))
        {
            *entry = (id, worker);
        }
        Some(worker)
    }
}

fn place(id: u32) -> usize {
    (id ^ id >> 16) as usize % FRAGMENTED
}

fn locate(packet: &[u8]) -> Option<Located> {
    match packet.first()? >> 4 {
        4 => {
            let header: &[u8; V4_HEADER] = packet.first_chunk()?;
            let fragment = half(header, 6);
            let is_fragment = fragment & 0x3fff != 0;
            Some(Located {
                protocol: header[9],
                at: usize::from(header[0] & 0xf) * 4,
                id: is_fragment.then(|| word(header, 4) >> 16 ^ word(header, 12)),
                is_first: fragment & 0x1fff == 0,
            })
        }
        6 => {
            let protocol = *packet.get(6)?;
            if protocol != FRAGMENT {
                return Some(Located { protocol, at: V6_HEADER, id: None, is_first: true });
            }
            let header: &[u8; FRAGMENT_HEADER] = packet.get(V6_HEADER..)?.first_chunk()?;
            Some(Located {
                protocol: header[0],
                at: V6_HEADER + FRAGMENT_HEADER,
                id: Some(word(header, 4) ^ word(packet, 20)),
                is_first: half(header, 2) & 0xfff8 == 0,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use weir_packet::fragment;

    use super::*;

    fn owners() -> Owners {
        Owners::new(Arc::new(Ports::new(4096, 8191, 32)), 3, V6::None)
    }

    fn udp(port: u16, len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([198, 51, 100, 7], [45, 80, 2, 2], 60).udp(53, port);
        builder.write(&mut packet, &vec![7; len]).expect("a packet");
        packet[6] = 0;
        weir_packet::headers::set_v4_checksum(&mut packet[..20]);
        packet
    }

    #[test]
    fn all_fragments_of_a_packet_have_the_worker_of_its_port() {
        let mut owners = owners();
        for port in [4096, 4128, 4160, 4192] {
            let wanted = Some(owners.ports.worker_of(port, 3));
            assert_eq!(owners.find(&udp(port, 10)), wanted);
            let mut packet = udp(port, 3000);
            packet[5] = port as u8;
            packet[4] = (port >> 8) as u8;
            weir_packet::headers::set_v4_checksum(&mut packet[..20]);
            let fragments = fragment::split(&packet, 1420).expect("fragments");
            assert!(fragments.iter().all(|fragment| owners.find(fragment) == wanted), "{port}");
        }
    }

    #[test]
    fn a_later_fragment_without_its_first_is_nobodys() {
        let fragments = fragment::split(&udp(4096, 3000), 1420).expect("fragments");
        assert_eq!(owners().find(&fragments[1]), None);
    }

    #[test]
    fn an_error_belongs_to_the_flow_that_it_quotes() {
        let mut owners = owners();
        let mut quoted = Vec::new();
        let ours = PacketBuilder::ipv4([45, 80, 2, 2], [198, 51, 100, 7], 60).tcp(4130, 443, 9, 9);
        ours.write(&mut quoted, &[]).expect("a packet");
        let mut packet = Vec::new();
        let error = PacketBuilder::ipv4([203, 0, 113, 1], [45, 80, 2, 2], 60).icmpv4_raw(
            3,
            4,
            [0, 0, 5, 0],
        );
        error.write(&mut packet, &quoted[..28]).expect("a packet");
        assert_eq!(owners.find(&packet), Some(owners.ports.worker_of(4130, 3)));
        for len in 0..packet.len() - 4 {
            owners.find(&packet[..len]);
        }
    }

    #[test]
    fn an_echo_reply_goes_by_its_identifier() {
        let mut packet = Vec::new();
        let reply = PacketBuilder::ipv4([203, 0, 113, 1], [45, 80, 2, 2], 60);
        reply.icmpv4_echo_reply(4200, 1).write(&mut packet, &[]).expect("a packet");
        let mut owners = owners();
        assert_eq!(owners.find(&packet), Some(owners.ports.worker_of(4200, 3)));
    }
}
