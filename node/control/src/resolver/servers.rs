//! The name servers that this machine asks (resolv.conf(5)).

use std::{fs, io, net::IpAddr};

const FILE: &str = "/etc/resolv.conf";

/// The name servers of `FILE`, and those in it that are no address by themselves
/// (`fe80::1%eth0`).
///
/// # Errors
///
/// When the file cannot be read.
pub fn read() -> io::Result<(Vec<IpAddr>, Vec<String>)> {
    Ok(parse(&fs::read_to_string(FILE)?))
}

fn parse(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let (mut servers, mut others) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some("nameserver"), Some(server)) = (words.next(), words.next()) {
            match server.parse() {
                Ok(address) => servers.push(address),
                Err(_) => others.push(server.to_owned()),
            }
        }
    }
    (servers, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_servers_are_read_and_nothing_else() {
        let text = "# nameserver 1.1.1.1\nsearch corp.example\nnameserver 127.0.0.53\n\
                    nameserver\t2620:fe::fe # two\nnameserver fe80::1%eth0\noptions edns0\n";
        let expected: [IpAddr; 2] =
            [[127, 0, 0, 53].into(), "2620:fe::fe".parse().expect("an address")];
        assert_eq!(parse(text), (expected.to_vec(), vec!["fe80::1%eth0".to_owned()]));
        assert_eq!(parse("nameserver\n"), (Vec::new(), Vec::new()));
    }
}
