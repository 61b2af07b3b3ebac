//! Which worker a packet from the internet belongs to.

use super::*;

const WORKERS: u32 = 3;

fn lab(v6: V6) -> Lab {
    Lab::with(|config| (config.workers, config.v6) = (WORKERS, v6))
}

fn worker_of_port(port: u16) -> Option<u32> {
    Some(config().ports.worker_of(port, WORKERS))
}

#[test]
fn a_port_or_an_echo_has_the_worker_of_its_block() {
    let mut lab = lab(V6::Address(EXTERNAL_V6));
    for port in [4096, 4128, 4160, 4192] {
        let packets = [
            udp((SERVER, 53), (EXTERNAL.into(), port)),
            tcp((SERVER, 443), (EXTERNAL.into(), port), ACK),
            udp((SERVER_V6, 53), (EXTERNAL_V6.into(), port)),
            pong(SERVER, (EXTERNAL.into(), port)),
        ];
        for packet in packets {
            assert_eq!(lab.nat.worker_of(&packet), worker_of_port(port), "{port}");
        }
    }
}

#[test]
fn all_fragments_of_a_packet_have_the_worker_of_its_port() {
    let mut lab = lab(V6::None);
    for (number, port) in [4096, 4128, 4160, 4192].into_iter().enumerate() {
        let packet = udp_with((SERVER, 53), (EXTERNAL.into(), port), &[7; 3000]);
        let fragments = fragments::split(&packet, number as u32, 1400);
        for fragment in &fragments {
            assert_eq!(lab.nat.worker_of(fragment), worker_of_port(port), "{port}");
        }
    }
}

#[test]
fn a_later_fragment_without_its_first_is_nobodys() {
    let mut lab = lab(V6::None);
    let packet = udp_with((SERVER, 53), (EXTERNAL.into(), 4096), &[7; 3000]);
    let fragments = fragments::split(&packet, 9, 1400);
    assert_eq!(lab.nat.worker_of(&fragments[1]), None);
}

#[test]
fn an_error_has_the_worker_of_the_flow_that_it_quotes() {
    let mut lab = lab(V6::None);
    let ours = tcp((EXTERNAL.into(), 4130), (SERVER, 443), SYN);
    let error = error(OTHER, EXTERNAL.into(), 3, 4, &ours[..28]);
    assert_eq!(lab.nat.worker_of(&error), worker_of_port(4130));
    for len in 0..error.len() {
        assert_eq!(lab.nat.worker_of(&error[..len]), None, "{len} bytes");
    }
}

#[test]
fn an_address_of_a_prefix_of_any_length_has_the_worker_of_its_slot() {
    for len in [48, 64, 96, 112] {
        let mut lab = lab(V6::Prefix(PREFIX, len));
        for slot in 0..9 {
            let own = Ipv6Addr::from_bits(PREFIX.to_bits() + 2 + slot);
            let packet = udp((SERVER_V6, 53), (own.into(), 4096));
            assert_eq!(lab.nat.worker_of(&packet), Some(slot as u32 % WORKERS), "/{len} {slot}");
        }
        let nobody = udp((SERVER_V6, 53), (PREFIX.into(), 4096));
        assert_eq!(lab.nat.worker_of(&nobody), None);
    }
}
