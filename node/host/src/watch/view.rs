//! What the machine is like, and what of it is not as a node needs it. The node that serves and
//! `weir doctor` look by this.

use std::net::IpAddr;

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use rtnetlink::IpVersion;

use super::conditions::{Condition, Part};
use crate::{
    netlink::{self, NetlinkError},
    nft::{self, NftError, Refusal, Site},
    uplink::{self, Uplink},
};
use weir_config::Config;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is up, and has a carrier as far as it can tell.
    pub is_up: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The machine as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// The interface of IPv4's default route.
    pub default_v4: Option<u32>,
    /// The interface of IPv6's default route.
    pub default_v6: Option<u32>,
}

impl View {
    /// Looks at the machine.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not say.
    pub fn read() -> Result<Self, NetlinkError> {
        let (links, addresses, default_v4, default_v6) = netlink::run(async |handle| {
            let v4 = uplink::default_route(&handle, IpVersion::V4).await?;
            let v6 = uplink::default_route(&handle, IpVersion::V6).await?;
            Ok((uplink::links(&handle).await?, uplink::addresses(&handle).await?, v4, v6))
        })?;
        let interface = |link: &LinkMessage| {
            let index = link.header.index;
            let own = addresses.iter().filter(|address| address.header.index == index);
            Some(Interface {
                name: uplink::name_of(link)?,
                index,
                mtu: uplink::mtu_of(link).unwrap_or_default(),
                is_up: is_up(link),
                addresses: own.filter_map(uplink::network_of).map(|net| net.addr()).collect(),
            })
        };
        let interfaces = links.iter().filter_map(interface).collect();
        Ok(Self { interfaces, default_v4, default_v6 })
    }

    pub(super) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    fn name(&self, index: u32) -> &str {
        self.interface(index).map_or("an interface that is gone", |it| it.name.as_str())
    }
}

fn is_up(link: &LinkMessage) -> bool {
    let operates = link.attributes.iter().all(|attribute| {
        !matches!(
            attribute,
            LinkAttribute::OperState(State::Down | State::LowerLayerDown | State::NotPresent)
        )
    });
    link.header.flags.contains(LinkFlags::Up) && operates
}

/// What a node expects of the machine.
#[derive(Clone, Debug)]
pub struct Expected {
    config: Config,
    uplink: String,
    index: u32,
    uplink_v6: String,
    /// Whether there was a default route of each family by its uplink.
    has_v4: bool,
    has_v6: bool,
}

impl Expected {
    /// What a node with this configuration expects, which was started on the machine in `view`.
    #[must_use]
    pub fn new(config: &Config, uplink: &Uplink, view: &View) -> Self {
        let uplink_v6 = uplink.ipv6.other().unwrap_or(&uplink.name).to_owned();
        let mut expected = Self {
            config: config.clone(),
            uplink: uplink.name.clone(),
            index: uplink.index,
            uplink_v6,
            has_v4: false,
            has_v6: false,
        };
        expected.learn(view);
        expected
    }

    /// A default route that has come is expected to stay.
    pub(super) fn learn(&mut self, view: &View) {
        let goes_by = |default: Option<u32>, name: &str| {
            default.is_some_and(|index| view.name(index) == name)
        };
        self.has_v4 |= goes_by(view.default_v4, &self.uplink);
        self.has_v6 |= goes_by(view.default_v6, &self.uplink_v6);
    }

    /// What is not as expected.
    #[must_use]
    pub fn judge(&self, view: &View) -> Vec<Condition> {
        let mut found = Vec::new();
        let Some(uplink) = view.interface(self.index) else {
            let problem = format!("the uplink {} is gone: no consumer is served", self.uplink);
            return vec![Condition::new(Part::Uplink, problem, "connect it, and restart weir")];
        };
        let name = &uplink.name;
        if !uplink.is_up {
            let problem =
                format!("the uplink {name} is down or has no carrier: no consumer is served");
            let fix = format!("ip link set {name} up, and check its cable or peer");
            found.push(Condition::new(Part::Uplink, problem, fix));
        }
        if let Some((problem, fix)) = weir_config::misfit(&self.config, uplink.mtu) {
            let problem = format!("tunnel.mtu: {problem}, so consumers may lose large packets");
            let fix = format!("raise the MTU of {name} again; or {fix}, and restart weir");
            found.push(Condition::new(Part::Mtu, problem, fix));
        }
        if self.config.node.endpoint.set().is_none() && !uplink.addresses.iter().any(is_told) {
            let problem =
                format!("the uplink {name} has no address: new consumers get the last known one");
            found.push(Condition::new(Part::Address, problem, "give it one, or set node.endpoint"));
        }
        let families = [
            ("IPv4", "-4", self.has_v4, view.default_v4, &self.uplink),
            ("IPv6", "-6", self.has_v6, view.default_v6, &self.uplink_v6),
        ];
        for (family, flag, expected, default, uplink) in families {
            let by = default.map(|index| view.name(index));
            let problem = match by {
                Some(by) if by == uplink => continue,
                None if !expected => continue,
                None => format!("{family} has no default route: consumers cannot use it"),
                Some(by) => format!(
                    "the default route of {family} uses {by}: consumers' {family} is refused \
                     there (not_uplink), because they leave only through {uplink}"
                ),
            };
            let fix = if by.is_some() && self.config.node.uplink.set().is_none() {
                "restart weir to use it as the uplink, or set node.uplink".into()
            } else {
                format!("ip {flag} route add default via ROUTER dev {uplink}")
            };
            found.push(Condition::new(Part::DefaultRoute, problem, fix));
        }
        found
    }
}

/// Whether consumers could be told this address.
pub(super) fn is_told(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

/// Other programs' chains that refuse what the node needs.
///
/// # Errors
///
/// Fails when the kernel does not say.
pub fn firewalls(site: &Site) -> Result<Vec<Condition>, NftError> {
    let refusals = nft::foreign_drops(site)?;
    // One for each chain, whose refusals stand together.
    let of_chain = |all: &[Refusal]| {
        let joined =
            |part: fn(&Refusal) -> String| all.iter().map(part).collect::<Vec<_>>().join("; ");
        let (problem, fix) = (joined(ToString::to_string), joined(|it| it.fix.clone()));
        Condition::new(Part::Firewall, problem, fix)
    };
    Ok(refusals.chunk_by(|one, two| one.chain == two.chain).map(of_chain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (Expected, View) {
        let interface = |name: &str, index, address: [u8; 4]| Interface {
            name: name.into(),
            index,
            mtu: 1500,
            is_up: true,
            addresses: vec![address.into()],
        };
        let view = View {
            interfaces: vec![
                interface("eth0", 2, [192, 0, 2, 1]),
                interface("six0", 3, [192, 0, 2, 9]),
            ],
            default_v4: Some(2),
            default_v6: Some(3),
        };
        let uplink = Uplink {
            name: "eth0".into(),
            index: 2,
            mtu: 1500,
            v4: vec![[192, 0, 2, 1].into()],
            v6: Vec::new(),
            ipv6: uplink::Ipv6Uplink::Other("six0".into()),
            ports: Vec::new(),
        };
        (Expected::new(&Config::default(), &uplink, &view), view)
    }

    #[test]
    fn each_change_is_a_condition_of_its_part_alone() {
        let (expected, view) = machine();
        assert_eq!(expected.judge(&view), []);
        type Change = fn(&mut View);
        let cases: [(Part, &str, Change); 8] = [
            (Part::Uplink, "gone", |view| drop(view.interfaces.remove(0))),
            (Part::Uplink, "no carrier", |view| view.interfaces[0].is_up = false),
            (Part::Mtu, "1400", |view| view.interfaces[0].mtu = 1400),
            (Part::Address, "no address", |view| view.interfaces[0].addresses.clear()),
            (Part::DefaultRoute, "IPv4 has no default route", |view| view.default_v4 = None),
            (Part::DefaultRoute, "IPv6 has no default route", |view| view.default_v6 = None),
            (Part::DefaultRoute, "of IPv4 uses six0", |view| view.default_v4 = Some(3)),
            (Part::DefaultRoute, "of IPv6 uses eth0", |view| view.default_v6 = Some(2)),
        ];
        for (part, problem, change) in cases {
            let mut view = view.clone();
            change(&mut view);
            let found = expected.judge(&view);
            assert_eq!(found.len(), 1, "{problem}: {found:?}");
            assert_eq!(found[0].part, part, "{found:?}");
            assert!(found[0].problem.contains(problem), "{found:?} does not say {problem:?}");
        }
    }

    #[test]
    fn a_route_that_never_was_is_missed_by_nobody_until_it_has_come() {
        let (_, mut view) = machine();
        let uplink = Uplink { ipv6: uplink::Ipv6Uplink::Same, ..uplink_of(&view) };
        view.default_v6 = None;
        let mut expected = Expected::new(&Config::default(), &uplink, &view);
        assert_eq!(expected.judge(&view), []);
        expected.learn(&View { default_v6: Some(2), ..view.clone() });
        assert_eq!(expected.judge(&view).len(), 1);
    }

    fn uplink_of(view: &View) -> Uplink {
        let eth0 = &view.interfaces[0];
        Uplink {
            name: eth0.name.clone(),
            index: eth0.index,
            mtu: eth0.mtu,
            v4: Vec::new(),
            v6: Vec::new(),
            ipv6: uplink::Ipv6Uplink::Same,
            ports: Vec::new(),
        }
    }
}
