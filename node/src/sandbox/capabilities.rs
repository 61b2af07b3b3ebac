//! The capabilities that stay.

use anyhow::Context as _;
use rustix::{
    process::{Gid, Uid, geteuid, getgroups},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// nftables, offloads and sysctls; the guard's maps; ports below 1024.
const KEPT: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF).union(CapabilitySet::NET_BIND_SERVICE);

/// The user and the group that own nothing (`overflowuid` of the kernel, `nobody` in /etc/passwd).
const NOBODY: u32 = 65534;

/// Gives up all capabilities of this thread but the ones that a running node needs.
pub(super) fn keep(mounted_bpffs: bool) -> anyhow::Result<String> {
    let mut kept = KEPT;
    if mounted_bpffs {
        kept |= CapabilitySet::SYS_ADMIN;
    }
    let now = capabilities(None).context("cannot read the capabilities")?;
    kept &= now.permitted;
    // A program that root starts gets what is in the bounding set.
    if now.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            if kept.contains(one) {
                continue;
            }
            match capability_is_in_bounding_set(one) {
                Ok(true) => remove_capability_from_bounding_set(one)
                    .context("cannot shrink the bounding set")?,
                Ok(false) => {}
                // The kernel knows neither this capability nor any after it.
                Err(_) => break,
            }
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).context("cannot give up capabilities")?;
    if !geteuid().is_root() {
        // Then `nft` has its rights from here.
        for one in kept.iter() {
            configure_capability_in_ambient_set(one, true)
                .context("cannot pass capabilities on")?;
        }
    }
    let names: Vec<_> = kept.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    Ok(format!("capabilities {}", if names.is_empty() { "none".into() } else { names.join(" ") }))
}

/// Gives up all capabilities of this thread.
pub(super) fn drop_all() -> anyhow::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).context("cannot give up capabilities")
}

/// Makes this thread that of a user who owns nothing, in no group but that user's.
pub(super) fn become_nobody() -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Lets nothing that this thread starts have more rights than it.
pub(super) fn no_new_privileges() -> anyhow::Result<String> {
    set_no_new_privs(true).context("prctl")?;
    Ok("no new privileges".into())
}

/// Makes this thread a member of a group, so that it can give files to it without CAP_CHOWN.
pub(super) fn join_group(name: &str) -> anyhow::Result<()> {
    let group = Gid::from_raw(weir_control::api::group_id(name)?);
    let mut groups = getgroups().context("cannot read the groups")?;
    if groups.contains(&group) || rustix::process::getegid() == group {
        return Ok(());
    }
    groups.push(group);
    if let Err(error) = set_thread_groups(&groups) {
        // As with any other lack of rights, the socket says so when it is made.
        tracing::debug!(%error, "cannot join the group {name}");
    }
    Ok(())
}
