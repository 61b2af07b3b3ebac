//! The policy that the kernel is to have, and whether it still has it.

use std::sync::{Mutex, PoisonError};

use super::{NAME, NftError, Policy, Site, apply, close, print, print::Print, set_new_flows};

/// The exit policy in force: installed, replaced at a reload, and put back when somebody else has
/// changed or removed its table.
#[derive(Debug)]
pub struct InForce(Mutex<State>);

#[derive(Debug)]
struct State {
    policy: Policy,
    /// Whether consumers may begin flows.
    new_flows: NewFlows,
    /// The table after the last installation; `None` while there is no telling.
    print: Option<Print>,
    /// The number of the last change of any table that was looked at.
    generation: u32,
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
        let mut state = State { policy, new_flows, print: None, generation: 0 };
        let note = state.install()?;
        Ok((Self(Mutex::new(state)), note))
    }

    /// Where packets of the node's pass, as things are.
    #[must_use]
    pub fn site(&self) -> Site {
        Site::of_policy(&self.0.lock().unwrap_or_else(PoisonError::into_inner).policy)
    }

    /// Has consumers begin no new flows, or begin them again.
    ///
    /// # Errors
    ///
    /// Fails when `nft` cannot be run or refuses; nothing has changed then.
    pub fn set_new_flows(&self, new_flows: NewFlows) -> Result<(), NftError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set_new_flows(&state.policy.interface, new_flows)?;
        state.new_flows = new_flows;
        state.note_present()
    }

    /// Installs another policy in the place of this one.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not have it. The one before stays in force then.
    pub fn replace(&self, policy: Policy) -> Result<(), NftError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut state.policy, policy);
        state.install().map(drop).inspect_err(|_| state.policy = before)
    }

    /// Looks at the table, and installs the policy again where it is not as it was. `elements` is
    /// the number of a change in which somebody has changed elements of its sets, if there was one.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not have it.
    pub fn look(&self, elements: Option<u32>) -> Result<Look, NftError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = print::generation().map_err(NftError::Ask)?;
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
        state.install()?;
        Ok(look)
    }
}

impl State {
    fn install(&mut self) -> Result<Option<&'static str>, NftError> {
        let note = apply(&self.policy)?;
        if self.new_flows == NewFlows::Refused {
            set_new_flows(&self.policy.interface, self.new_flows)?;
        }
        self.note_present()?;
        Ok(note)
    }

    /// What is there now is weir's own.
    fn note_present(&mut self) -> Result<(), NftError> {
        self.generation = print::generation().map_err(NftError::Ask)?;
        self.print = Print::read(NAME).map_err(NftError::Ask)?;
        Ok(())
    }
}
