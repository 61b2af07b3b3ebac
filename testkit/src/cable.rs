//! A cable between two interfaces, of which one end hands frames on as a network card's driver does.
//!
//! What one veth sends to another is a packet buffer of the sender's. With XDP at the receiving end
//! the kernel copies each of them before the program sees it, which no driver of a card does: there
//! the program sees the frame in the page that the card has written (drivers/net/veth.c,
//! `veth_convert_skb_to_xdp_buff`). A frame that an XDP program redirects into a veth arrives in
//! such a page. So the copy is made here, on the generator's core.
//!
//! ```text
//!  outside             cable              node
//!  out0 ---------- cable0   cable1 ---------- up0
//!        frames:    XDP, redirected -->
//!               <-- whole super-packets, by tc
//! ```

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};

use super::namespace::Namespace;

/// The program's name in its object.
const PROGRAM: &str = "weir_cable";

/// The end towards the consumers and servers, and its number: of two neighbours the even one, as
/// the program wants it.
const TOWARDS_OUTSIDE: (&str, u32) = ("cable0", 100);
/// The end towards the node.
pub(super) const TOWARDS_NODE: &str = "cable1";

/// The cable; gone when dropped.
#[derive(Debug)]
pub(super) struct Cable {
    /// Where its two ends are.
    pub(super) namespace: Namespace,
    // Its link ends with it.
    _program: Ebpf,
}

impl Cable {
    /// Joins an interface to be made in `outside` with one to be made in `node`, by the program
    /// in `object` (node-ebpf/src/bin/cable.rs).
    ///
    /// # Errors
    ///
    /// Fails without root, and on kernels without XDP for veth or tc's u32 and mirred.
    pub(super) fn new(
        object: &[u8],
        (outside, outside_name): (&Namespace, &str),
        (node, node_name): (&Namespace, &str),
    ) -> anyhow::Result<Self> {
        let namespace = Namespace::bare()?;
        let (left, number) = TOWARDS_OUTSIDE;
        let right = TOWARDS_NODE;
        let ends = [(left, number, outside, outside_name), (right, number ^ 1, node, node_name)];
        for (end, index, other, name) in ends {
            namespace.ip(&format!(
                "link add {end} index {index} type veth peer name {name} netns {}",
                other.path()
            ))?;
            // Without addresses the kernel sends nothing of its own.
            namespace.ip(&format!("link set {end} addrgenmode none"))?;
            namespace.ip(&format!("link set {end} up"))?;
        }
        namespace.run(&format!("tc qdisc add dev {right} clsact"))?;
        namespace
            .run(&format!(
                "tc filter add dev {right} ingress protocol all u32 match u32 0 0 \
                 action mirred egress redirect dev {left}"
            ))
            .context("the kernel needs CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED")?;
        let mut program = EbpfLoader::new().load(object).context("cannot load the cable")?;
        namespace.enter(|| {
            let cable: &mut Xdp =
                program.program_mut(PROGRAM).context("no such program")?.try_into()?;
            cable.load()?;
            cable
                .attach_to_if_index(number, XdpMode::Driver)
                .context("cannot attach the cable's program")?;
            Ok(())
        })?;
        Ok(Self { namespace, _program: program })
    }
}
