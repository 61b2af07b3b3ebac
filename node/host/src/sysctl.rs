//! Kernel parameters below /proc/sys/net, of the network namespace of this thread.
//!
//! Forwarding is turned on for the interfaces that need it, and not for the whole machine where
//! the kernel allows that: a machine that was no router does not become one between its other
//! networks, and what else hangs on the machine-wide switches stays as it is. What is turned on
//! all the same, the exit policy narrows to consumers: see [`transits`]. Nothing is turned on where
//! consumers' packets leave past the kernel's stack.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use super::{
    journal::{Change, UndoJournal},
    nft::{Transit, Transits},
    reserved_ports,
};

/// A parameter by its path below /proc/sys, such as `net/ipv4/ip_forward`.
pub(super) fn read(parameter: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(parameter))?.trim().to_owned())
}

/// Sets a parameter.
pub(super) fn write(parameter: &str, value: &str) -> io::Result<()> {
    fs::write(path(parameter), value).map_err(|error| {
        let problem = format!("cannot set /proc/sys/{parameter} to {value}: {error}");
        io::Error::new(error.kind(), problem)
    })
}

fn path(parameter: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(parameter)
}

/// Whether this machine speaks IPv6 at all.
#[must_use]
pub fn has_ipv6() -> bool {
    path("net/ipv6/conf/all").exists()
}

/// What is set on the TUN device alone. It goes with the device, so nothing is recorded.
pub(super) fn prepare_tun(interface: &str) -> io::Result<()> {
    for (parameter, value) in of_tun(interface) {
        write(&parameter, value)?;
    }
    Ok(())
}

fn of_tun(interface: &str) -> Vec<(String, &'static str)> {
    let v4 = |key: &str, value| (format!("net/ipv4/conf/{interface}/{key}"), value);
    let v6 = |key: &str, value| (format!("net/ipv6/conf/{interface}/{key}"), value);
    // A second line of defence behind the worker's check of each source.
    let mut all = vec![v4("rp_filter", "1"), v4("send_redirects", "0")];
    if has_ipv6() {
        all.push(v6("disable_ipv6", "0"));
        // No link-local address: consumers have no use for one, and would be sent its reports.
        all.extend([v6("addr_gen_mode", "1"), v6("accept_ra", "0")]);
    }
    all
}

fn forwarding_of_tun(interface: &str) -> Vec<(String, &'static str)> {
    let mut all = vec![(format!("net/ipv4/conf/{interface}/forwarding"), "1")];
    if has_forwarding_by_interface(interface) {
        all.push((format!("net/ipv6/conf/{interface}/force_forwarding"), "1"));
    }
    all
}

/// By which interfaces consumers' packets leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uplinks<'a> {
    pub(super) v4: &'a str,
    pub(super) v6: &'a str,
}

/// A parameter that is read again and again, by a descriptor that is kept.
#[derive(Debug)]
pub struct Parameter {
    name: String,
    file: Option<File>,
}

impl Parameter {
    /// The parameter of this name, which need not be there yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), file: None }
    }

    /// Its value as it is now.
    ///
    /// # Errors
    ///
    /// Fails when there is no such parameter, as when its interface is gone.
    pub fn read(&mut self) -> io::Result<String> {
        if let Some(value) = self.file.as_ref().and_then(|file| value_of(file).ok()) {
            return Ok(value);
        }
        // Its interface has gone since, and another one may have its name by now.
        self.file = None;
        let file = File::open(path(&self.name))?;
        let value = value_of(&file)?;
        self.file = Some(file);
        Ok(value)
    }
}

fn value_of(file: &File) -> io::Result<String> {
    let mut buffer = [0; 64];
    let len = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).trim().to_owned())
}

/// The parameters that weir has set, while they are watched.
#[derive(Debug)]
pub(super) struct Kept {
    of_tun: Vec<(Parameter, &'static str)>,
    of_uplinks: Vec<(Parameter, &'static str)>,
    ports: Option<(u16, u16)>,
}

impl Kept {
    /// Those of [`prepare_tun`], of [`forward`] where the kernel forwards between the TUN device and
    /// uplinks, and the reserved ports.
    pub(super) fn new(tun: &str, uplinks: Option<Uplinks<'_>>, ports: Option<(u16, u16)>) -> Self {
        let kept = |all: Vec<(String, &'static str)>| {
            all.into_iter().map(|(name, value)| (Parameter::new(name), value)).collect()
        };
        let forwarding = uplinks.map(|_| forwarding_of_tun(tun)).unwrap_or_default();
        Self {
            of_tun: kept([of_tun(tun), forwarding].concat()),
            of_uplinks: kept(uplinks.map(of_uplinks).unwrap_or_default()),
            ports,
        }
    }

    /// Puts back what somebody has set otherwise; says what that was.
    pub(super) fn put_back(&mut self, journal: &mut UndoJournal) -> io::Result<Vec<String>> {
        let is_set = |parameter: &mut Parameter, value| match parameter.read() {
            Ok(now) => now == value,
            // The interface is gone, which is seen elsewhere.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let mut lost = Vec::new();
        for (parameter, value) in &mut self.of_tun {
            if !is_set(parameter, *value) {
                write(&parameter.name, value)?;
                lost.push(parameter.name.clone());
            }
        }
        for (parameter, value) in &mut self.of_uplinks {
            if is_set(parameter, *value) {
                continue;
            }
            if parameter.name == EVERYWHERE_V6 {
                forward_everywhere_v6(journal)?;
            } else {
                set(journal, &parameter.name, value)?;
            }
            lost.push(parameter.name.clone());
        }
        if let Some(ports) = self.ports
            && reserved_ports::put_back(ports)?
        {
            lost.push(reserved_ports::PARAMETER.to_owned());
        }
        Ok(lost)
    }
}

fn of_uplinks(uplinks: Uplinks<'_>) -> Vec<(String, &'static str)> {
    let mut all = vec![(format!("net/ipv4/conf/{}/forwarding", uplinks.v4), "1")];
    if has_ipv6() {
        let v6 = if has_forwarding_by_interface(uplinks.v6) {
            format!("net/ipv6/conf/{}/force_forwarding", uplinks.v6)
        } else {
            EVERYWHERE_V6.to_owned()
        };
        all.push((v6, "1"));
    }
    all
}

/// Lets packets from the uplinks reach the TUN device, and back.
pub(super) fn forward(
    journal: &mut UndoJournal,
    tun: &str,
    uplinks: Uplinks<'_>,
) -> io::Result<()> {
    for (parameter, value) in forwarding_of_tun(tun) {
        write(&parameter, value)?;
    }
    let uplink = uplinks.v4;
    let parameter = format!("net/ipv4/conf/{uplink}/forwarding");
    if read(EVERYWHERE_V4)? == "1" && read(&parameter)? == "0" {
        // Somebody has excepted the uplink, which must come back in any case.
        journal.record(Change::Sysctl {
            parameter: parameter.clone(),
            old: "0".into(),
            set: None,
        })?;
    }
    set(journal, &parameter, "1")?;
    if !has_ipv6() {
        return Ok(());
    }
    let uplink = uplinks.v6;
    if has_forwarding_by_interface(uplink) {
        set(journal, &format!("net/ipv6/conf/{uplink}/force_forwarding"), "1")
    } else {
        forward_everywhere_v6(journal)
    }
}

/// What of this machine's forwarding would be weir's doing alone, so that it must be refused again
/// but for consumers. What a killed run has turned on counts as its, not as the operator's.
pub(super) fn transits(journal: &UndoJournal, uplinks: Uplinks<'_>) -> io::Result<Transits> {
    let parameter = format!("net/ipv4/conf/{}/forwarding", uplinks.v4);
    let v4 = match journal.sysctl(&parameter) {
        Some((_, Some(_))) if is_forwarding_everywhere_since(&parameter) => Transit::AsBefore,
        Some(("0", _)) => Transit::NotFromUplink,
        Some(_) => Transit::AsBefore,
        None => off_is(Transit::NotFromUplink, &read(&parameter)?),
    };
    if !has_ipv6() {
        return Ok(Transits { v4, v6: Transit::AsBefore });
    }
    let everywhere = match journal.sysctl(EVERYWHERE_V6) {
        Some((old, _)) => off_is(Transit::None, old),
        None => off_is(Transit::None, &read(EVERYWHERE_V6)?),
    };
    let parameter = format!("net/ipv6/conf/{}/force_forwarding", uplinks.v6);
    let v6 = match (everywhere, has_forwarding_by_interface(uplinks.v6)) {
        (Transit::None, true) => match journal.sysctl(&parameter) {
            Some((old, _)) => off_is(Transit::NotFromUplink, old),
            None => off_is(Transit::NotFromUplink, &read(&parameter)?),
        },
        (everywhere, _) => everywhere,
    };
    Ok(Transits { v4, v6 })
}

/// What follows when forwarding was off.
fn off_is(off: Transit, value: &str) -> Transit {
    if value == "0" { off } else { Transit::AsBefore }
}

/// Makes IPv6 forward by every interface.
const EVERYWHERE_V6: &str = "net/ipv6/conf/all/forwarding";

/// Sets IPv4 forwarding of every interface, at the moment when it is written.
const EVERYWHERE_V4: &str = "net/ipv4/ip_forward";

/// Whether `parameter` is an interface's IPv4 forwarding, and somebody has turned it on for the
/// whole machine since weir did for the interface, as Docker does when it starts.
pub(super) fn is_forwarding_everywhere_since(parameter: &str) -> bool {
    let of_interface =
        parameter.starts_with("net/ipv4/conf/") && parameter.ends_with("/forwarding");
    of_interface && read(EVERYWHERE_V4).is_ok_and(|value| value == "1")
}

/// Since Linux 6.17.
fn has_forwarding_by_interface(interface: &str) -> bool {
    path(&format!("net/ipv6/conf/{interface}/force_forwarding")).exists()
}

/// The only way before Linux 6.17. It makes every interface a router's, which no longer takes its
/// routes and addresses from router advertisements unless `accept_ra` is 2.
pub(super) fn forward_everywhere_v6(journal: &mut UndoJournal) -> io::Result<()> {
    if read(EVERYWHERE_V6)? == "1" && !journal.has_sysctl(EVERYWHERE_V6) {
        return Ok(());
    }
    let mut interfaces = Vec::new();
    for entry in fs::read_dir(path("net/ipv6/conf"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "all" && name != "default" {
            interfaces.push(name);
        }
    }
    for name in &interfaces {
        let accept_ra = format!("net/ipv6/conf/{name}/accept_ra");
        // An interface may vanish meanwhile.
        if read(&accept_ra).is_ok_and(|value| value == "1") {
            set(journal, &accept_ra, "2")?;
        }
    }
    let left = journal.has_sysctl(EVERYWHERE_V6);
    for name in interfaces.iter().map(String::as_str).chain(["default"]) {
        // The machine-wide switch sets all of them, also when it is turned off again.
        let forwarding = format!("net/ipv6/conf/{name}/forwarding");
        // After a killed run it has: then only that run knew which were on before.
        let was_on = if left {
            journal.has_sysctl(&forwarding)
        } else {
            read(&forwarding).is_ok_and(|value| value == "1")
        };
        if was_on {
            journal.record(Change::Sysctl { parameter: forwarding, old: "1".into(), set: None })?;
        }
    }
    set(journal, EVERYWHERE_V6, "1")
}

/// Records a parameter's value and sets it.
fn set(journal: &mut UndoJournal, parameter: &str, value: &str) -> io::Result<()> {
    let old = read(parameter).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot read /proc/sys/{parameter}: {error}"))
    })?;
    if old == value && !journal.has_sysctl(parameter) {
        return Ok(());
    }
    journal.record(Change::Sysctl { parameter: parameter.into(), old, set: Some(value.into()) })?;
    write(parameter, value)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeMap, os::fd::AsFd as _, process::Command, thread};

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::*;

    pub(crate) fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.expect("ip runs").success(), "failed, which needs root: ip {arguments}");
    }

    /// A thread in a new namespace with two interfaces, `a` and `b`.
    pub(crate) fn in_a_namespace(name: &str, work: impl FnOnce() + Send) {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link add va type veth peer name vb"));
        let result = thread::scope(|scope| {
            let enter_and_work = || {
                let namespace = File::open(format!("/run/netns/{name}")).expect("it is there");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("entered");
                work();
            };
            scope.spawn(enter_and_work).join()
        });
        ip(&format!("netns del {name}"));
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    fn router_parameters() -> BTreeMap<String, String> {
        let names = ["all", "default", "lo", "va", "vb"];
        let keys = ["forwarding", "accept_ra"];
        let all =
            names.iter().flat_map(|name| keys.map(|key| format!("net/ipv6/conf/{name}/{key}")));
        all.map(|parameter| (parameter.clone(), read(&parameter).expect("read"))).collect()
    }

    #[test]
    fn a_kept_parameter_is_that_of_the_interface_that_has_the_name_now() {
        in_a_namespace(&format!("whostkept{}", std::process::id()), || {
            let name = "net/ipv4/conf/va/forwarding";
            let mut parameter = Parameter::new(name);
            for value in ["1", "0", "1"] {
                write(name, value).expect("written");
                assert_eq!(parameter.read().expect("it is there"), value);
            }
            ip("link del va");
            let gone = parameter.read().expect_err("it went with its interface");
            assert_eq!(gone.kind(), io::ErrorKind::NotFound);
            ip("link add va type veth peer name vb");
            assert_eq!(parameter.read().expect("another one"), "0");
        });
    }

    #[test]
    fn machine_wide_forwarding_keeps_router_advertisements_and_is_undone_exactly() {
        let name = format!("whostsysctl{}", std::process::id());
        let directory = tempfile::tempdir().expect("a directory");
        in_a_namespace(&name, || {
            write("net/ipv6/conf/vb/forwarding", "1").expect("written");
            write("net/ipv6/conf/vb/accept_ra", "0").expect("written");
            let before = router_parameters();
            for _ in 0..2 {
                // The first run is killed, as far as its list of changes can tell.
                let mut journal = UndoJournal::open(directory.path(), None).expect("opened");
                forward_everywhere_v6(&mut journal).expect("forwarding");
                assert_eq!(read("net/ipv6/conf/va/accept_ra").expect("read"), "2");
                assert_eq!(read("net/ipv6/conf/vb/accept_ra").expect("read"), "0");
                assert_eq!(read("net/ipv6/conf/all/forwarding").expect("read"), "1");
            }
            let mut journal = UndoJournal::open(directory.path(), None).expect("opened");
            assert!(journal.has_recovered());
            crate::undo::roll_back(&mut journal, crate::undo::Files::Remove).expect("undone");
            assert_eq!(router_parameters(), before);
        });
    }
}
