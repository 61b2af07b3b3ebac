//! The keys of a registry.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;

section! {
    /// A registry of many nodes' listings: a Nostr relay with a page. Only `weir registry run` uses
    /// this; a node does not. See docs/registry.md.
    Registry {
        /// The "address:port" for Nostr clients, the page, the API and metrics. It is not encrypted:
        /// for the internet, put a proxy with TLS in front, and name it in proxies.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 7447));
        /// The registry's name for people. At most 80 characters.
        title: String = "weir registry".into();
        /// The file that keeps the listings over a restart. Its directory must exist, or be made by
        /// who starts the registry. Empty: listings are kept in memory only.
        snapshot: String = "/var/lib/weir-registry/snapshot".into();
        /// Other registries to copy listings from, "wss://host:port/path" or
        /// "ws://host:port/path". They may reconcile with this one (NIP-77) from the addresses of
        /// their names. At most 16.
        peers: Vec<String> = Vec::new();
        /// The PEM file with the CA certificates for peers with wss URLs.
        /// Empty: this machine's root certificates.
        ca_file: String = String::new();
        /// Networks of the proxies in front of the registry, whose X-Forwarded-For is believed, for
        /// example ["127.0.0.1/32"]. Empty: none.
        proxies: Vec<IpNet> = Vec::new();
        /// The maximum number of listings, of deletions, of what watchers and people say about
        /// listings, and of sealed letters: of each. 1 to 1048576.
        max_listings: u32 = 50_000;
        /// The maximum memory of all events with their indexes, in MiB. 1 to 65536.
        max_mib: u32 = 512;
        /// The maximum number of connections at once. 1 to 65535.
        max_connections: u32 = 1024;
        /// The maximum number of connections at once from one network (IPv4 /24, IPv6 /48). Those
        /// through proxies count as the network that they come from. 1 to 65535.
        connections_per_network: u32 = 32;
        /// The keys per day that were not known before and may publish from one network (IPv4 /24,
        /// IPv6 /48). 1 to 1000000.
        keys_per_network: u32 = 5;
        /// Events per second that one network may publish, in the long run; ten times that at once.
        /// 1 to 1000000.
        events_per_second: u32 = 10;
        /// Bits of proof of work (NIP-13) that a listing must have. 0 to 32; 0: none.
        proof_of_work: u16 = 0;
        /// Whether a listing is served only after its node has completed a WireGuard handshake with
        /// the registry. Nodes must have a session for the registry's key; see docs/registry.md.
        dial_back: bool = false;
        /// The file with the registry's WireGuard private key for that. Created when it is first
        /// needed, readable only by its owner.
        key_file: PathBuf = "/var/lib/weir-registry/registry.key".into();
    }
}
