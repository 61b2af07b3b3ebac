//! Makes the configuration from one list of sections, and each of them from one of documented keys.

use toml::{Spanned, de::DeValue};

use super::value::Problem;

/// One table of the configuration.
pub(crate) trait Section {
    /// Its keys, in the order of the default file.
    fn keys(&self) -> &'static [&'static str];
    /// What the section is about, line by line.
    fn about(&self) -> &'static [&'static str];
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
            fn keys(&self) -> &'static [&'static str] {
                &[$(stringify!($key),)*]
            }

            fn about(&self) -> &'static [&'static str] {
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

/// Declares the sections, in the order of the default file.
macro_rules! sections {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $($(#[doc = $doc:literal])* $section:ident: $type:ty,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $section: $type,)*
        }

        impl $name {
            /// The names of the sections.
            pub(crate) const SECTIONS: &'static [&'static str] = &[$(stringify!($section),)*];

            /// Each section by its name.
            pub(crate) fn sections(
                &self,
            ) -> impl Iterator<Item = (&'static str, &dyn $crate::section::Section)> {
                [$((
                    stringify!($section),
                    &self.$section as &dyn $crate::section::Section,
                ),)*]
                .into_iter()
            }

            /// The section with this name, to be filled, and the name.
            pub(crate) fn section_mut(
                &mut self,
                name: &str,
            ) -> Option<(&'static str, &mut dyn $crate::section::Section)> {
                match name {
                    $(stringify!($section) => Some((stringify!($section), &mut self.$section)),)*
                    _ => None,
                }
            }
        }
    };
}
