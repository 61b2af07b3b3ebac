//! Keeps the exit policy in force: checks whether the kernel still has it, and restores it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::{
    Applied, NAME, NftError, Policy, Site, apply, close, kernel::Generations, print::Print,
    session_flows, set_new_flows,
};
use weir_config::{Auto, amounts::AtMost};

/// The exit policy in force. It is replaced at a reload, and restored if another program changes or
/// removes its table.
#[derive(Debug)]
pub struct InForce {
    state: Mutex<State>,
    /// The maximum number of concurrent flows of a session, for each family. It is outside the
    /// lock, which is held while the kernel loads long lists.
    session_flows: AtomicU32,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    /// Whether consumers may begin flows.
    new_flows: NewFlows,
    /// The table's print after the last installation; `None` while unknown.
    print: Option<Print>,
    /// The last ruleset generation that was checked.
    generation: u32,
    generations: Generations,
}

/// Whether consumers may begin flows. Open flows continue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewFlows {
    /// New flows are accepted.
    #[default]
    Accepted,
    /// New flows are refused, because the kernel's flow table is nearly full.
    Refused,
}

/// The result of a check of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The table is unchanged.
    Intact,
    /// The table was missing and has been restored.
    Missing,
    /// The table was changed and has been restored.
    Changed,
}

impl InForce {
    /// Installs a policy. Also returns what this kernel does not support of it, in words.
    ///
    /// # Errors
    ///
    /// Fails if the kernel rejects the policy.
    pub fn install(policy: Policy) -> Result<(Self, Option<&'static str>), NftError> {
        let new_flows = NewFlows::default();
        let generations = Generations::default();
        let mut state = State { policy, new_flows, print: None, generation: 0, generations };
        let Applied { session_flows, note } = state.install()?;
        Ok((Self { state: Mutex::new(state), session_flows: session_flows.into() }, note))
    }

    /// The interfaces and addresses of the node's packets.
    #[must_use]
    pub fn site(&self) -> Site {
        Site::of_policy(&self.state().policy)
    }

    /// Blocks or allows new flows of consumers.
    ///
    /// # Errors
    ///
    /// Fails if `nft` cannot be run or refuses. Nothing has changed then.
    pub fn set_new_flows(&self, new_flows: NewFlows) -> Result<(), NftError> {
        let mut state = self.state();
        set_new_flows(&state.policy.interface, new_flows)?;
        state.new_flows = new_flows;
        state.note_present()
    }

    /// Replaces the policy. Ignores its limit on open flows, which only
    /// [`InForce::set_session_flows`] changes.
    ///
    /// # Errors
    ///
    /// Fails if the kernel rejects the policy. The previous one then stays in force.
    pub fn replace(&self, policy: Policy) -> Result<(), NftError> {
        let mut state = self.state();
        let session_flows = state.policy.session_flows.clone();
        self.exchange(&mut state, Policy { session_flows, ..policy })
    }

    /// Limits the concurrent flows of a session, for each family. Flows that are open already do
    /// not count towards the new limit.
    ///
    /// # Errors
    ///
    /// Fails if the kernel rejects the limit. The previous one then stays in force.
    pub fn set_session_flows(&self, limit: &Auto<AtMost>) -> Result<(), NftError> {
        let mut state = self.state();
        if state.policy.session_flows == *limit && self.session_flows() == session_flows(limit) {
            return Ok(());
        }
        let policy = Policy { session_flows: limit.clone(), ..state.policy.clone() };
        self.exchange(&mut state, policy)
    }

    /// The maximum number of concurrent flows of a session, for each family; 0 means no limit.
    #[must_use]
    pub fn session_flows(&self) -> u32 {
        self.session_flows.load(Relaxed)
    }

    /// Checks the table, and installs the policy again if it has changed. `elements` is the
    /// generation in which another program changed elements of weir's sets, if any did.
    ///
    /// # Errors
    ///
    /// Fails if the kernel rejects the policy.
    pub fn look(&self, elements: Option<u32>) -> Result<Look, NftError> {
        let mut state = self.state();
        let generation = state.generations.now().map_err(NftError::Ask)?;
        // Changes up to that generation were weir's own, or have been checked.
        let is_new = |change: u32| change.wrapping_sub(state.generation).cast_signed() > 0;
        let elements = elements.is_some_and(is_new);
        if generation == state.generation && state.print.is_some() {
            return Ok(Look::Intact);
        }
        let now = Print::read(NAME).map_err(NftError::Ask)?;
        let look = match now {
            None => Look::Missing,
            Some(_) if now != state.print || elements => {
                // What is left of the table may pass packets that it should drop. So close the gate
                // until the policy is complete.
                if let Err(error) = close() {
                    tracing::warn!(%error, "consumers' packets pass through an exit policy that \
                        was changed");
                }
                Look::Changed
            }
            Some(_) => {
                state.generation = generation;
                return Ok(Look::Intact);
            }
        };
        state.print = None;
        self.install_again(&mut state)?;
        Ok(look)
    }

    fn exchange(&self, state: &mut State, policy: Policy) -> Result<(), NftError> {
        let before = std::mem::replace(&mut state.policy, policy);
        self.install_again(state).inspect_err(|_| state.policy = before)
    }

    fn install_again(&self, state: &mut State) -> Result<(), NftError> {
        let applied = state.install()?;
        self.session_flows.store(applied.session_flows, Relaxed);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn install(&mut self) -> Result<Applied, NftError> {
        let applied = apply(&self.policy)?;
        if self.new_flows == NewFlows::Refused {
            set_new_flows(&self.policy.interface, self.new_flows)?;
        }
        self.note_present()?;
        Ok(applied)
    }

    /// The current table is weir's own.
    fn note_present(&mut self) -> Result<(), NftError> {
        self.generation = self.generations.now().map_err(NftError::Ask)?;
        self.print = Print::read(NAME).map_err(NftError::Ask)?;
        Ok(())
    }
}
