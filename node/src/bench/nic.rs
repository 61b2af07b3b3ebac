//! What the uplink of this machine offers. It is only looked at.

use std::{fs, path::PathBuf};

use serde::Serialize;

use weir_config::Auto;
use weir_host::{ethtool::Offloads, uplink::Uplink};

/// A network card.
#[derive(Clone, Debug, Serialize)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its driver, where it says so.
    pub driver: Option<String>,
    /// Its line rate, where it says so; virtual ones often do not.
    pub bits_per_second: Option<f64>,
    /// Receive queues: more than one spreads the receive path over cores.
    pub receive_queues: usize,
    /// Its offloads, in words.
    pub offloads: Vec<String>,
}

impl Nic {
    /// The interface of the default route, if there is one.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        let name = Uplink::find(&Auto::Auto).ok()?.name;
        let place = PathBuf::from("/sys/class/net").join(&name);
        let driver = fs::read_link(place.join("device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let speed = fs::read_to_string(place.join("speed")).ok();
        let megabits: Option<f64> = speed.and_then(|text| text.trim().parse().ok());
        let queues = fs::read_dir(place.join("queues")).into_iter().flatten().flatten();
        let is_receive = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("rx-");
        Some(Self {
            driver,
            bits_per_second: megabits.filter(|speed| *speed > 0.0).map(|speed| speed * 1e6),
            receive_queues: queues.filter(|entry| is_receive(&entry.file_name())).count(),
            offloads: Offloads::read(&name).map(|offloads| offloads.describe()).unwrap_or_default(),
            name,
        })
    }
}
