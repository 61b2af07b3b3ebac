//! The table against a slow model: a list of flows with their ends, which the test itself keeps.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::FlowCounts;

const SESSIONS: u32 = 3;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// A session sends from one of a few ports to one of a few servers.
    Send {
        slot: u32,
        kind: Kind,
        port: u16,
        to: u8,
    },
    /// The destination of an open flow answers.
    Answer {
        flow: usize,
        flags: u8,
    },
    /// Somebody else sends to a flow's external end.
    Intrude {
        flow: usize,
    },
    /// A router says something about a flow's packet.
    Complain {
        flow: usize,
    },
    Wait {
        seconds: u64,
        tick: bool,
    },
    Remove {
        slot: u32,
    },
    /// The policy changes, and refuses one of the servers.
    Refuse {
        to: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Udp,
    Echo,
    Tcp(u8),
}

impl Kind {
    fn packet(self, from: End, to: End) -> Vec<u8> {
        match self {
            Self::Udp => udp(from, to),
            Self::Echo => ping(from, to.0),
            Self::Tcp(flags) => tcp(from, to, flags),
        }
    }

    fn answer(self, from: End, to: End) -> Vec<u8> {
        match self {
            Self::Echo => pong(from.0, to),
            kind => kind.packet(from, to),
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Echo => 1,
            Self::Tcp(_) => 6,
        }
    }
}

/// What the model knows of a flow.
#[derive(Clone, Copy, Debug)]
struct Known {
    slot: u32,
    kind: Kind,
    from: End,
    to: End,
    external: End,
}

fn servers(v6: bool) -> [IpAddr; 3] {
    if v6 {
        [SERVER_V6, "2a0a:1::4".parse().unwrap(), "2a0a:1::5".parse().unwrap()]
    } else {
        [SERVER, OTHER, "45.1.2.5".parse().unwrap()]
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let flags = prop_oneof![Just(SYN), Just(SYN), Just(ACK), Just(FIN | ACK), Just(RST)];
    prop_oneof![Just(Kind::Udp), Just(Kind::Echo), flags.prop_map(Kind::Tcp)]
}

fn steps() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![Just(SYN | ACK), Just(ACK), Just(FIN | ACK), Just(RST)];
    prop_oneof![
        8 => (0..SESSIONS, kinds(), 0u16..4, 0u16..4, 0u8..5)
            .prop_map(|(slot, kind, port, block, to)| {
                Step::Send { slot, kind, port: port + block * 16, to }
            }),
        6 => (any::<usize>(), flags).prop_map(|(flow, flags)| Step::Answer { flow, flags }),
        1 => any::<usize>().prop_map(|flow| Step::Intrude { flow }),
        2 => any::<usize>().prop_map(|flow| Step::Complain { flow }),
        1 => (0u64..400, any::<bool>()).prop_map(|(seconds, tick)| Step::Wait { seconds, tick }),
        1 => (0..SESSIONS).prop_map(|slot| Step::Remove { slot }),
        1 => (0u8..4).prop_map(|to| Step::Refuse { to }),
    ]
}

/// The model, and what it watches.
struct Model {
    lab: Lab,
    v6: bool,
    /// By inner tuple: protocol, inner end, destination.
    flows: HashMap<(u8, End, End), Known>,
    refused: Option<IpAddr>,
    owners: HashMap<(IpAddr, u16), Slot>,
}

impl Model {
    fn new(v6: bool, prefix: bool) -> Self {
        let lab = Lab::with(|config| {
            config.ports = Arc::new(Ports::new(4096, 4096 + 255, 16));
            config.addresses_v4 = vec![EXTERNAL, EXTERNAL_2];
            config.session_blocks = 3;
            config.session_flows = 30;
            config.max_flows = 80;
            config.pick_up = true;
            if prefix {
                config.v6 = V6::Prefix(PREFIX, 64);
            }
        });
        Self { lab, v6, flows: HashMap::new(), refused: None, owners: HashMap::new() }
    }

    fn policy(&self) -> impl Fn(&NewFlow) -> bool + Send + Sync + use<> {
        let refused = self.refused;
        move |flow| Some(flow.address) != refused
    }

    fn choose(&self, flow: usize) -> Option<Known> {
        let mut flows: Vec<&Known> = self.flows.values().collect();
        flows.sort_by_key(|known| (known.kind.protocol(), known.from, known.to));
        flows.get(flow % flows.len().max(1)).map(|known| **known)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { slot, kind, port, to } => self.send(slot, kind, 1000 + port, to),
            Step::Answer { flow, flags } => self.answer(flow, flags),
            Step::Intrude { flow } => self.intrude(flow),
            Step::Complain { flow } => self.complain(flow),
            Step::Wait { seconds, tick } => {
                self.lab.wait(seconds);
                if tick {
                    self.lab.nat.tick(self.lab.now);
                }
            }
            Step::Remove { slot } => {
                self.lab.nat.remove_session(Slot(slot));
                self.flows.retain(|_, known| known.slot != slot);
                assert_eq!(self.lab.nat.session_flows(Slot(slot)), FlowCounts::default());
            }
            Step::Refuse { to } => {
                self.refused = servers(self.v6).get(usize::from(to)).copied();
                self.lab.nat.policy_changed();
            }
        }
        self.check();
    }

    fn send(&mut self, slot: u32, kind: Kind, port: u16, to: u8) {
        let from = if self.v6 { self.lab.inner_v6(slot, port) } else { self.lab.inner(slot, port) };
        let port = if kind == Kind::Echo { 0 } else { 50 + u16::from(to / 3) };
        let to = (servers(self.v6)[usize::from(to % 3)], port);
        let key = (kind.protocol(), from, to);
        let policy = self.policy();
        match self.lab.up_by(kind.packet(from, to), &By(policy)) {
            Ok(out) => {
                assert!(checksums_are_right(&out));
                assert_ne!(Some(to.0), self.refused);
                let (external, mut destination) = ends(&out);
                if kind == Kind::Echo {
                    destination.1 = 0;
                }
                assert_eq!(destination, to, "where it goes stays");
                self.flows.insert(key, Known { slot, kind, from, to, external });
            }
            Err(refusal) => {
                if refusal.reason == DropReason::Policy {
                    assert_eq!(Some(to.0), self.refused);
                    self.flows.remove(&key);
                }
            }
        }
    }

    /// There and back is the identity. A flow may have ended meanwhile, but then none gets the packet
    /// that it is not for.
    fn answer(&mut self, flow: usize, flags: u8) {
        let Some(known) = self.choose(flow) else { return };
        let kind = if matches!(known.kind, Kind::Tcp(_)) { Kind::Tcp(flags) } else { known.kind };
        let policy = self.policy();
        let answer = kind.answer(known.to, known.external);
        if let Ok((slot, back)) = self.lab.down_by(answer, &By(policy)) {
            assert!(checksums_are_right(&back));
            let (source, destination) = ends(&back);
            assert_eq!(source.0, known.to.0);
            let owner = self.flows.values().find(|other| {
                other.kind.protocol() == kind.protocol()
                    && (other.external, other.to) == (known.external, known.to)
                    && (other.from, other.slot) == (destination, slot)
            });
            assert!(owner.is_some(), "an answer to {known:?} went to {destination:?}");
        }
    }

    fn intrude(&mut self, flow: usize) {
        let Some(known) = self.choose(flow) else { return };
        let stranger = if self.v6 { "2a0a:9::9" } else { "45.9.9.9" };
        let packet = known.kind.answer((stranger.parse().unwrap(), known.to.1), known.external);
        assert!(self.lab.down(packet).is_err());
    }

    fn complain(&mut self, flow: usize) {
        let Some(known) = self.choose(flow) else { return };
        let kind = if matches!(known.kind, Kind::Tcp(_)) { Kind::Tcp(ACK) } else { known.kind };
        let router = if self.v6 { "2a0a:9::9" } else { "45.9.9.9" }.parse().unwrap();
        let sent = kind.packet(known.external, known.to);
        let (code, policy) = (if self.v6 { 1 } else { 3 }, self.policy());
        let message = error(router, known.external.0, code, 0, &sent);
        if let Ok((slot, back)) = self.lab.down_by(message, &By(policy)) {
            assert!(checksums_are_right(&back) && checksums_are_right(quoted(&back)));
            let from = ends(quoted(&back)).0;
            assert!(self.flows.values().any(|other| {
                (other.slot, other.from, other.external) == (slot, from, known.external)
            }));
        }
    }

    /// What must hold after each step.
    fn check(&mut self) {
        for event in self.lab.nat.take_events() {
            let block = (event.address, event.block.first);
            if event.taken {
                assert_eq!(self.owners.insert(block, event.slot), None);
            } else {
                assert_eq!(self.owners.remove(&block), Some(event.slot));
            }
        }
        let nat = &self.lab.nat;
        let mut tuples = std::collections::HashSet::new();
        let mut keys = std::collections::HashSet::new();
        let mut mappings = HashMap::new();
        let mut counts: HashMap<u32, FlowCounts> = HashMap::new();
        let mut live = 0;
        for index in 1..nat.table.end() {
            let flow = nat.table.at(index);
            if flow.state == crate::flow::State::Free {
                continue;
            }
            live += 1;
            let [down, up] = [format!("{:?}", flow.down_key()), format!("{:?}", flow.up_key())];
            assert!(keys.insert(down), "a tuple is shared");
            assert!(keys.insert(up));
            tuples.insert((nat.pool.address(flow.external), flow.external_port));
            assert_eq!(nat.table.find_up(&flow.up_key()), index);
            assert_eq!(nat.table.find_down(&flow.down_key()), index);
            let count = counts.entry(flow.slot).or_default();
            match flow.protocol {
                crate::Protocol::Tcp => count.tcp += 1,
                crate::Protocol::Udp => count.udp += 1,
                crate::Protocol::Icmp => count.icmp += 1,
            }
            if flow.protocol != crate::Protocol::Tcp {
                let inner = (flow.slot, flow.protocol, flow.port);
                let outer = (flow.external, flow.external_port);
                assert_eq!(*mappings.entry(inner).or_insert(outer), outer, "two mappings");
            }
            if let Some(address) = nat.pool.address(flow.external) {
                let owner = self.owners.get(&(address, flow.external_port / 16 * 16));
                assert_eq!(owner, Some(&Slot(flow.slot)), "its block is another's");
            }
        }
        assert_eq!(nat.flows(), live);
        assert_eq!(nat.all_flows().total(), live);
        assert!(live <= nat.capacity());
        for slot in 0..SESSIONS {
            let counts = counts.get(&slot).copied().unwrap_or_default();
            assert_eq!(nat.session_flows(Slot(slot)), counts);
            assert!(counts.total() <= 30);
        }
        let in_use = |block: &(IpAddr, u16)| {
            tuples
                .iter()
                .any(|(address, port)| Some(block.0) == *address && block.1 == port / 16 * 16)
        };
        assert!(self.owners.keys().all(in_use), "a block without a flow");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_table_agrees_with_a_slow_model(
        v6 in any::<bool>(),
        prefix in any::<bool>(),
        steps in prop::collection::vec(steps(), 1..250),
    ) {
        let mut model = Model::new(v6, prefix);
        for step in &steps {
            model.step(step);
        }
    }
}
