//! The policy that the kernel is to have, and whether it still has it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::{
    Applied, NAME, NftError, Policy, Site, apply, close, kernel::Generations, print::Print,
    session_flows, set_new_flows,
};
use weir_config::{Auto, amounts::AtMost};

/// The exit policy in force: installed, replaced at a reload, and put back when somebody else has
/// changed or removed its table.
#[derive(Debug)]
pub struct InForce {
    state: Mutex<State>,
    /// The flows of each family that a session may have at once. Beside the lock, which is held
    /// while the kernel takes long lists.
    session_flows: AtomicU32,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    /// Whether consumers may begin flows.
    new_flows: NewFlows,
    /// The table after the last installation; `None` while there is no telling.
    print: Option<Print>,
    /// The number of the last change of any table that was looked at.
    generation: u32,
    generations: Generations,
}

/// Whether consumers may begin flows. What is open goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewFlows {
    /// They may.
    #[default]
    Accepted,
    /// They may not: the kernel's flow table is nearly full.
    Refused,
}

/// What a look at the table found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is as weir made it.
    Intact,
    /// It was gone, and is back.
    Missing,
    /// It was changed, and is as weir made it again.
    Changed,
}

impl InForce {
    /// Installs a policy. Says what of it this kernel cannot do, in words, if there is something.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not have it.
    pub fn install(policy: Policy) -> Result<(Self, Option<&'static str>), NftError> {
        let new_flows = NewFlows::default();
        let generations = Generations::default();
        let mut state = State { policy, new_flows, print: None, generation: 0, generations };
        let Applied { session_flows, note } = state.install()?;
        Ok((Self { state: Mutex::new(state), session_flows: session_flows.into() }, note))
    }

    /// Where packets of the node's pass, as things are.
    #[must_use]
    pub fn site(&self) -> Site {
        Site::of_policy(&self.state().policy)
    }

    /// Has consumers begin no new flows, or begin them again.
    ///
    /// # Errors
    ///
    /// Fails when `nft` cannot be run or refuses; nothing has changed then.
    pub fn set_new_flows(&self, new_flows: NewFlows) -> Result<(), NftError> {
        let mut state = self.state();
        set_new_flows(&state.policy.interface, new_flows)?;
        state.new_flows = new_flows;
        state.note_present()
    }

    /// Installs another policy in the place of this one. Its limit of open flows does not count:
    /// [`InForce::set_session_flows`] changes that.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not have it. The one before stays in force then.
    pub fn replace(&self, policy: Policy) -> Result<(), NftError> {
        let mut state = self.state();
        let session_flows = state.policy.session_flows.clone();
        self.exchange(&mut state, Policy { session_flows, ..policy })
    }

    /// Limits the flows of each family that a session may have at once. Flows that are open are not
    /// counted under the new number.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not take it. The limit before stays in force then.
    pub fn set_session_flows(&self, limit: &Auto<AtMost>) -> Result<(), NftError> {
        let mut state = self.state();
        if state.policy.session_flows == *limit && self.session_flows() == session_flows(limit) {
            return Ok(());
        }
        let policy = Policy { session_flows: limit.clone(), ..state.policy.clone() };
        self.exchange(&mut state, policy)
    }

    /// The flows of each family that a session may have at once; 0 for no limit.
    #[must_use]
    pub fn session_flows(&self) -> u32 {
        self.session_flows.load(Relaxed)
    }

    /// Looks at the table, and installs the policy again where it is not as it was. `elements` is
    /// the number of a change in which somebody has changed elements of its sets, if there was one.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not have it.
    pub fn look(&self, elements: Option<u32>) -> Result<Look, NftError> {
        let mut state = self.state();
        let generation = state.generations.now().map_err(NftError::Ask)?;
        // Changes up to that one were weir's own, or have been looked at.
        let is_new = |change: u32| change.wrapping_sub(state.generation).cast_signed() > 0;
        let elements = elements.is_some_and(is_new);
        if generation == state.generation && state.print.is_some() {
            return Ok(Look::Intact);
        }
        let now = Print::read(NAME).map_err(NftError::Ask)?;
        let look = match now {
            None => Look::Missing,
            Some(_) if now != state.print || elements => {
                // What is left of it may let through what it must not, until all of it is back.
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

    /// What is there now is weir's own.
    fn note_present(&mut self) -> Result<(), NftError> {
        self.generation = self.generations.now().map_err(NftError::Ask)?;
        self.print = Print::read(NAME).map_err(NftError::Ask)?;
        Ok(())
    }
}
