//! What a worker's table knows of each session.

use crate::{blocks::Held, config::FlowCounts};

/// A session: its flows, its blocks and its fragments on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Session {
    /// Its newest flow. Its flows are a ring.
    pub(crate) newest: u32,
    pub(crate) counts: FlowCounts,
    v4: Held,
    v6: Held,
    /// How many packets of it are on the way in fragments.
    pub(crate) fragments: u16,
}

impl Session {
    pub(crate) fn held(&self, v6: bool) -> &Held {
        if v6 { &self.v6 } else { &self.v4 }
    }

    pub(crate) fn held_mut(&mut self, v6: bool) -> &mut Held {
        if v6 { &mut self.v6 } else { &mut self.v4 }
    }
}
