//! The policy that the kernel is to have, and whether it still has it.

use std::sync::{Mutex, PoisonError};

use super::{NAME, NftError, Policy, apply, close, print, print::Print};

/// The exit policy in force: installed, replaced at a reload, and put back when somebody else has
/// changed or removed its table.
#[derive(Debug)]
pub struct InForce(Mutex<State>);

#[derive(Debug)]
struct State {
    policy: Policy,
    /// What of it this kernel cannot do.
    lacks: Option<&'static str>,
    /// The table after the last installation; `None` while there is no telling.
    print: Option<Print>,
    /// The number of the last change of any table that was looked at.
    generation: u32,
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
    /// Installs a policy.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not have it.
    pub fn install(policy: Policy) -> Result<Self, NftError> {
        let mut state = State { policy, lacks: None, print: None, generation: 0 };
        state.install()?;
        Ok(Self(Mutex::new(state)))
    }

    /// What of the policy this kernel cannot do, in words, if there is something.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lacks
    }

    /// Installs another policy in the place of this one.
    ///
    /// # Errors
    ///
    /// Says why the kernel does not have it. The one before stays in force then.
    pub fn replace(&self, policy: Policy) -> Result<(), NftError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut state.policy, policy);
        state.install().inspect_err(|_| state.policy = before)
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
                    tracing::warn!(%error, "consumers' packets pass by a changed exit policy");
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
    fn install(&mut self) -> Result<(), NftError> {
        self.lacks = apply(&self.policy)?;
        self.generation = print::generation().map_err(NftError::Ask)?;
        self.print = Print::read(NAME).map_err(NftError::Ask)?;
        Ok(())
    }
}
