//! Makes a section of the configuration from one list of documented keys.

use toml::{Spanned, de::DeValue};

use super::value::Problem;

/// One table of the configuration.
pub(crate) trait Section: Default {
    /// Its keys, in the order of the default file.
    const KEYS: &'static [&'static str];
    /// What the section is about, line by line.
    fn about() -> &'static [&'static str];
    /// What a key means, line by line, and its value as TOML.
    fn describe(&self, key: &str) -> (&'static [&'static str], String);
    /// Takes a key's value, and says what is wrong with it when it cannot.
    fn set(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<(), Problem>;
}

macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $($(#[doc = $doc:literal])* $key:ident: $type:ty = $default:expr;)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $crate::section::Section for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];

            fn about() -> &'static [&'static str] {
                &[$($about,)*]
            }

            fn describe(&self, key: &str) -> (&'static [&'static str], String) {
                match key {
                    $(stringify!($key) => (
                        &[$($doc,)*],
                        $crate::value::Value::show(&self.$key),
                    ),)*
                    _ => (&[], String::new()),
                }
            }

            fn set(
                &mut self,
                key: &str,
                value: &toml::Spanned<toml::de::DeValue<'_>>,
            ) -> Result<(), $crate::value::Problem> {
                match key {
                    $(stringify!($key) => {
                        self.$key = $crate::value::Value::read(value)?;
                    })*
                    _ => {}
                }
                Ok(())
            }
        }
    };
}
