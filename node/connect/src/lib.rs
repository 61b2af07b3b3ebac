//! The consumer's side: a tunnel through a WireGuard exit, with nothing beside it.
//!
//! It fails closed by construction. [`firewall`] loads one nftables table before there is a tunnel,
//! and only [`disconnect`] removes it. What the table allows out is encrypted, or never leaves the
//! local link.
//!
//! 1. [`conf`] reads a wg-quick configuration.
//! 2. [`tunnel`] is WireGuard: the kernel's, or else weir's own as a client.
//! 3. [`firewall`], [`routes`], [`dns`] are what a connection changes on the machine.
//! 4. [`health`], [`change_over`], [`entries`], [`bill`], [`receipt`] and [`pay`] decide. They are pure:
//!    `now` is passed in.
//! 5. [`spare`] buys another exit through the tunnel, before it is needed.
//! 6. [`run`] drives them. [`state`] says whether it runs, and what it does. [`visit`] is what is remembered.
//! 7. [`exec`] runs one program in a network namespace whose only way out is a tunnel.

pub mod bill;
pub mod change_over;
pub mod clock;
pub mod conf;
pub mod disconnect;
pub mod dns;
pub mod entries;
pub mod exec;
pub mod firewall;
pub mod gateway;
pub mod health;
pub mod inside;
pub mod link;
pub mod lockdown;
pub mod namespace;
pub mod pay;
pub mod probe;
pub mod receipt;
pub mod routes;
pub mod run;
pub mod source;
pub mod spare;
pub mod state;
pub mod tunnel;
pub mod visit;

/// The mark of the tunnel's own datagrams (`SO_MARK`), the only ones that leave beside it.
pub const MARK: u32 = 0x7765_6972;
/// The routing table whose default route is the tunnel.
pub const TABLE: u32 = 0x7765;
/// The mark of datagrams to an exit that is reached through an entry.
pub const INNER_MARK: u32 = 0x7765_6973;
/// The routing table whose default route is the tunnel to the entry.
pub const ENTRY_TABLE: u32 = 0x7766;
/// The interface to the entry.
pub const ENTRY_INTERFACE: &str = "weir-v";
/// The protocol number of our routes and rules (`RTA_PROTOCOL`, `FRA_PROTOCOL`), by which they are
/// found again. None is registered at this number in iproute2's `rt_protos`.
pub const PROTOCOL: u8 = 119;

/// One of the two interfaces of a connection. There are two, so that the next tunnel is up before
/// the present one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The name of its interface.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::A => "weir-a",
            Self::B => "weir-b",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}
