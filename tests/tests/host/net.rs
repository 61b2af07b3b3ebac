//! A machine for the node, and an internet, each a network namespace.

use std::{
    fs,
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use weir_config::{Auto, check};
use weir_host::{Host, HostPlan, uplink::Uplink};

use super::{NODE_V4, REMOTE_V4, REMOTE_V6};

/// A node's namespace with an uplink to an internet's.
pub(crate) struct Net {
    pub(crate) node: String,
    pub(crate) internet: String,
    pub(crate) runtime: tempfile::TempDir,
    pub(crate) state: tempfile::TempDir,
}

impl Net {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("whost{}-{number}{end}", std::process::id());
        let (node, internet) = (name("n"), name("i"));
        for name in [&node, &internet] {
            sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        }
        sh(&format!(
            "ip -n {node} link add up0 type veth peer name in0 netns {internet}
             ip -n {node} addr add {NODE_V4}/24 dev up0
             ip -n {node} addr add 2a00:1::2/64 dev up0 nodad
             ip -n {node} link set up0 up
             ip -n {internet} addr add 11.0.0.1/24 dev in0
             ip -n {internet} addr add 2a00:1::1/64 dev in0 nodad
             ip -n {internet} addr add {REMOTE_V4}/32 dev lo
             ip -n {internet} addr add {REMOTE_V6}/128 dev lo nodad
             ip -n {internet} link set in0 up
             ip -n {node} route add default via 11.0.0.1
             ip -n {node} -6 route add default via 2a00:1::1
             ip -n {internet} route add 10.66.0.0/16 via {NODE_V4}
             ip -n {internet} -6 route add fd66:7765:6972::/64 via 2a00:1::2"
        ));
        // Until the link-local addresses are settled, no neighbour is found.
        sh(&format!(
            "for name in {node} {internet}; do
                 while ip -n $name -6 addr show tentative | grep -q .; do sleep 0.05; done
             done"
        ));
        let runtime = tempfile::tempdir().expect("a directory");
        let state = tempfile::tempdir().expect("a directory");
        Self { node, internet, runtime, state }
    }

    pub(crate) fn plan(&self, text: &str) -> anyhow::Result<HostPlan> {
        let text = format!(
            "{text}\n[node]\nruntime_dir = {:?}\nstate_dir = {:?}\nmax_sessions = 100",
            self.runtime.path().display().to_string(),
            self.state.path().display().to_string()
        );
        let config = check(&text, None).expect("a right configuration");
        HostPlan::new(&config, Uplink::find(&Auto::Auto)?, 2)
    }

    pub(crate) fn prepare(&self, text: &str) -> Host {
        let plan = self.plan(text).expect("a plan");
        Host::prepare(&plan).expect("the machine is prepared")
    }

    /// Everything of the node's machine that weir could have changed.
    pub(crate) fn snapshot(&self) -> String {
        let enter = format!("nsenter --net=/run/netns/{}", self.node);
        sh(&format!(
            "{enter} ip -o addr; {enter} ip route show table all; {enter} ip -6 route show table all
             {enter} ip rule; {enter} nft list ruleset; {enter} ethtool -k up0
             {enter} sysctl -a --pattern '^net.ipv[46].(conf|ip_forward|ip_local_reserved_ports)' 2>&1"
        ))
        .lines()
        // Times and the neighbours' states pass by themselves.
        .map(|line| line.split(" expires ").next().unwrap_or(line).to_owned() + "\n")
        .collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.node, &self.internet] {
            sh(&format!("ip netns del {name}"));
        }
    }
}

/// Fails with the lines that differ.
pub(crate) fn assert_same(before: &str, after: &str) {
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|it| it == *line)).map(Into::into).collect()
    };
    let (gone, new) = (only(before, after), only(after, before));
    assert!(before == after, "gone: {gone:#?}\nnew: {new:#?}");
}

pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .stderr(Stdio::inherit())
        .output()
        .expect("sh runs");
    assert!(output.status.success(), "failed: {script}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs something in a thread within a namespace.
pub(crate) fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inner = scope.spawn(|| {
            let namespace = fs::File::open(format!("/run/netns/{name}")).expect("the namespace");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the namespace: run this as root");
            work()
        });
        inner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
