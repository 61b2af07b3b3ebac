//! The sockets of this machine's own programs whose port is one of the node's: the node leaves these
//! ports to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The most services that are named in one line.
const MAX_NAMED: usize = 10;
/// The states of a socket in the kernel's tables (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What a socket is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Anybody may send to it.
    Service,
    /// It has one other end.
    Connection,
}

/// A socket that packets from other machines can be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostSocket {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port on this machine.
    pub port: u16,
    /// Service or connection.
    pub purpose: Purpose,
    /// Its number in the kernel's table of files; 0 if it belongs to no program any more.
    pub inode: u64,
}

/// The sockets of this thread's network namespace whose port lies between the first and the last, in
/// the order of protocol and port: one for each, services before connections.
///
/// # Errors
///
/// Fails when the kernel's tables in /proc cannot be read.
pub fn in_range(first: u16, last: u16) -> io::Result<Vec<HostSocket>> {
    let mut found = BTreeSet::new();
    for (table, protocol) in [
        ("tcp", Protocol::Tcp),
        ("tcp6", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("udp6", Protocol::Udp),
    ] {
        // Not /proc/net, which is of the namespace of the process.
        let path = format!("/proc/thread-self/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => found.extend(parse(&text, protocol)),
            // There is no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }
    let mut sockets: Vec<_> = found.into_iter().collect();
    sockets.retain(|socket| (first..=last).contains(&socket.port));
    sockets.dedup_by_key(|socket| (socket.protocol, socket.port));
    Ok(sockets)
}

/// The sockets in one of the kernel's tables that packets from other machines can be for.
fn parse(table: &str, protocol: Protocol) -> impl Iterator<Item = HostSocket> {
    table.lines().skip(1).filter_map(move |line| socket(line, protocol))
}

fn socket(line: &str, protocol: Protocol) -> Option<HostSocket> {
    let mut words = line.split_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let state = u8::from_str_radix(words.nth(1)?, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    let purpose = match (protocol, state) {
        (Protocol::Tcp, LISTEN) | (Protocol::Udp, CLOSE) => Purpose::Service,
        (Protocol::Tcp, TIME_WAIT | CLOSE) => return None,
        (Protocol::Tcp, _) | (Protocol::Udp, ESTABLISHED) => Purpose::Connection,
        (Protocol::Udp, _) => return None,
    };
    // What is sent to such an address stays on this machine.
    if port == 0 || self::address(address)?.is_loopback() {
        return None;
    }
    Some(HostSocket { protocol, port, purpose, inode })
}

/// An address as the kernel writes it: words of 32 bits, each as a number of this processor's.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut octets = [0; 16];
            for (to, from) in octets.iter_mut().zip(words.into_iter().flatten()) {
                *to = from;
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// The names of the programs that have these sockets, as far as they may be seen.
#[must_use]
pub fn programs(sockets: &[HostSocket]) -> BTreeMap<HostSocket, String> {
    let mut programs = BTreeMap::new();
    let links: BTreeMap<String, HostSocket> =
        sockets.iter().map(|socket| (format!("socket:[{}]", socket.inode), *socket)).collect();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = process.path();
        // Others than processes have none.
        for file in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Ok(link) = fs::read_link(file.path()) else { continue };
            let Some(socket) = link.to_str().and_then(|link| links.get(link)) else { continue };
            if let Ok(name) = fs::read_to_string(process.join("comm")) {
                programs.entry(*socket).or_insert_with(|| name.trim().to_owned());
            }
        }
    }
    programs
}

/// The services among the sockets in one line, which says that they are spared; `None` without one.
#[must_use]
pub fn describe(
    sockets: &[HostSocket],
    programs: &BTreeMap<HostSocket, String>,
    (first, last): (u16, u16),
) -> Option<String> {
    let services: Vec<_> =
        sockets.iter().filter(|socket| socket.purpose == Purpose::Service).collect();
    let named = services.iter().take(MAX_NAMED).map(|socket| {
        let program = programs.get(socket).map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{} {}{program}", socket.protocol, socket.port)
    });
    let mut named = named.collect::<Vec<_>>().join(", ");
    if let Some(more) = services.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        named += &format!(" and {more} more");
    }
    let (count, are) = match services.len() {
        0 => return None,
        1 => ("1 host service listens".to_owned(), "is"),
        count => (format!("{count} host services listen"), "are"),
    };
    Some(format!("{count} inside the node's port range {first}-{last} and {are} spared: {named}"))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::sysctl::tests::in_a_namespace;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000\n"
        )
    }

    fn found(protocol: Protocol, lines: &[String]) -> Vec<(u16, Purpose, u64)> {
        let text = format!("{HEAD}{}", lines.concat());
        parse(&text, protocol).map(|it| (it.port, it.purpose, it.inode)).collect()
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let [any, loopback] = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST]
            .map(|it| format!("{:08X}", u32::from_ne_bytes(it.octets())));
        let mapped = |tail: &str| format!("{:016X}{:08X}{tail}", 0, u32::from_be(0xffff));
        let lines = [
            line(&format!("{any}:1F90"), "0A", 7),
            line(&format!("{loopback}:1F91"), "0A", 8),
            line(&format!("{any}:1F92"), "01", 9),
            line(&format!("{any}:1F93"), "06", 0),
            line(&format!("{}:1F94", mapped(&loopback)), "0A", 10),
            line(&format!("{}:1F95", "0".repeat(32)), "0A", 11),
            line("xx:1F96", "0A", 12),
            "garbage".into(),
        ];
        let wanted = [
            (8080, Purpose::Service, 7),
            (8082, Purpose::Connection, 9),
            (8085, Purpose::Service, 11),
        ];
        assert_eq!(found(Protocol::Tcp, &lines), wanted);
        let lines = [
            line(&format!("{any}:14E9"), "07", 1),
            line(&format!("{any}:14EA"), "01", 2),
            line(&format!("{any}:0000"), "07", 3),
        ];
        let wanted = [(5353, Purpose::Service, 1), (5354, Purpose::Connection, 2)];
        assert_eq!(found(Protocol::Udp, &lines), wanted);
    }

    #[test]
    fn services_are_named_and_connections_are_not() {
        let socket = |protocol, port, purpose| HostSocket { protocol, port, purpose, inode: 0 };
        let web = socket(Protocol::Tcp, 8080, Purpose::Service);
        let mut sockets = vec![web, socket(Protocol::Tcp, 8081, Purpose::Connection)];
        let programs = BTreeMap::from([(web, "nginx".to_owned())]);
        let words = |sockets: &[HostSocket]| describe(sockets, &programs, (4096, 32767));
        let one = "1 host service listens inside the node's port range 4096-32767 and is spared: \
                   tcp 8080 (nginx)";
        assert_eq!(words(&sockets).as_deref(), Some(one));
        assert_eq!(words(&sockets[1..]), None);
        sockets.extend((0..11).map(|it| socket(Protocol::Udp, 5000 + it, Purpose::Service)));
        let many = words(&sockets).expect("services");
        assert!(many.starts_with("12 host services listen") && many.ends_with(" and 2 more"));
    }

    #[test]
    fn the_sockets_of_the_namespace_are_found_with_their_programs() {
        in_a_namespace(&format!("wlisten{}", std::process::id()), || {
            crate::sysctl::tests::ip("link set lo up");
            crate::sysctl::tests::ip("link set va up");
            crate::sysctl::tests::ip("addr add 11.0.0.1/24 dev va");
            let web = TcpListener::bind("0.0.0.0:8080").expect("bound");
            let _web_v6 = TcpListener::bind("[::]:9443").expect("bound");
            let _names = UdpSocket::bind("0.0.0.0:5353").expect("bound");
            let _here = UdpSocket::bind("127.0.0.1:5354").expect("bound");
            let _below = TcpListener::bind("0.0.0.0:4095").expect("bound");
            let _client = TcpStream::connect("11.0.0.1:8080").expect("connected");
            let _served = web.accept().expect("accepted");
            let sockets = in_range(4096, 32767).expect("read");
            let all: Vec<_> = sockets.iter().map(|it| (it.protocol, it.port, it.purpose)).collect();
            let service = |protocol, port| (protocol, port, Purpose::Service);
            let wanted = [
                service(Protocol::Tcp, 8080),
                service(Protocol::Tcp, 9443),
                service(Protocol::Udp, 5353),
            ];
            assert_eq!(all, wanted);
            let own = fs::read_to_string("/proc/self/comm").expect("a name");
            let programs = programs(&sockets);
            assert_eq!(programs.values().collect::<Vec<_>>(), [own.trim(); 3]);
        });
    }
}
