//! The keys of sales to strangers.

use ipnet::IpNet;

use crate::kinds::ListenAddr;

section! {
    /// Sales to strangers: they buy a session with ecash (the section `cashu`) or a voucher, and get its
    /// configuration. Over HTTPS, or by sealed letters through relays. See docs/purchase.md.
    Purchase {
        /// The "address:port" of `GET /info` and `POST /purchase`, or "off".
        listen: ListenAddr = ListenAddr::Off;
        /// The names by which buyers know that server, without "https://", for example
        /// ["exit.example.net"]. An order for another server is refused.
        server_names: Vec<String> = Vec::new();
        /// The PEM file with the server's certificates. Read again when it changes. Empty: HTTP
        /// without TLS, for a proxy on this machine.
        certificate_file: String = String::new();
        /// The PEM file with the certificate's key. Read again when it changes.
        certificate_key_file: String = String::new();
        /// The networks of proxies. The last address in their header X-Forwarded-For is taken for
        /// the buyer's.
        proxies: Vec<IpNet> = Vec::new();
        /// The relays at which sealed letters are awaited, "wss://host/path" or "ws://host:port".
        /// Empty: none.
        relays: Vec<String> = Vec::new();
        /// The PEM file with the CA certificates for wss URLs.
        /// Empty: this machine's root certificates.
        relay_ca_file: String = String::new();
        /// The fewest MiB that are sold at once. 1 to 1073741824.
        min_mib: u32 = 100;
        /// The most MiB that are sold at once. 1 to 1073741824.
        max_mib: u32 = 1 << 20;
        /// Days for which what was sold can be used. 0 to 3650; 0 means until it is used up. A
        /// voucher with a time of its own is good for that.
        valid_days: u32 = 30;
    }
}
