//! The destinations that are refused, and under which counter. From the registries of
//! special-purpose addresses of IANA (RFC 6890 and its updates), besides what clouds serve to
//! their own machines.

pub(super) const REFUSED_V4: &[(&str, &str)] = &[
    ("0.0.0.0/8", "reserved_destination"),
    ("10.0.0.0/8", "private_destination"),
    ("100.64.0.0/10", "private_destination"),
    ("127.0.0.0/8", "reserved_destination"),
    // Azure's, which is not in any reserved range.
    ("168.63.129.16", "metadata_destination"),
    ("169.254.0.0-169.254.169.253", "private_destination"),
    ("169.254.169.254", "metadata_destination"),
    ("169.254.169.255-169.254.255.255", "private_destination"),
    ("172.16.0.0/12", "private_destination"),
    ("192.0.0.0/24", "reserved_destination"),
    ("192.0.2.0/24", "reserved_destination"),
    ("192.88.99.0/24", "reserved_destination"),
    ("192.168.0.0/16", "private_destination"),
    ("198.18.0.0/15", "reserved_destination"),
    ("198.51.100.0/24", "reserved_destination"),
    ("203.0.113.0/24", "reserved_destination"),
    ("224.0.0.0/4", "reserved_destination"),
    ("240.0.0.0/4", "reserved_destination"),
];

pub(super) const REFUSED_V6: &[(&str, &str)] = &[
    // The unspecified address, loopback, and IPv4 addresses written as IPv6 (::ffff:0:0/96).
    ("::/80", "reserved_destination"),
    ("64:ff9b:1::/48", "private_destination"),
    ("100::/64", "reserved_destination"),
    ("2001:2::/48", "reserved_destination"),
    ("2001:10::/28", "reserved_destination"),
    ("2001:db8::/32", "reserved_destination"),
    // 6to4 reaches whatever IPv4 address is inside.
    ("2002::/16", "reserved_destination"),
    ("3fff::/20", "reserved_destination"),
    ("5f00::/16", "reserved_destination"),
    ("fc00::/7", "private_destination"),
    ("fe80::/10", "private_destination"),
    ("fec0::/10", "private_destination"),
    ("ff00::/8", "reserved_destination"),
];
