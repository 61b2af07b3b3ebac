//! A value that can be replaced while others read it, as a reload does.

use std::sync::{Arc, PoisonError, RwLock};

/// A shared value. Clones see the same one. A reader keeps the value that it has read.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<RwLock<Arc<T>>>);

impl<T> Shared<T> {
    /// The value now.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value by one that is made from it; nobody else changes it meanwhile.
    pub fn change(&self, make: impl FnOnce(&T) -> T) {
        let mut value = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *value = Arc::new(make(&value));
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_see_the_new_value_and_who_has_read_keeps_the_old() {
        let shared = Shared::from(1);
        let (other, read) = (shared.clone(), shared.get());
        shared.set(2);
        assert_eq!((*other.get(), *read), (2, 1));
    }
}
