//! [`section!`] declares a section of `gateway.toml`, or a table in a section.
//!
//! ```ignore
//! section! {
//!     /// `[cors]`
//!     #[derive(Clone, Debug, PartialEq, Eq)]
//!     pub struct CorsConfig, read by read_keys(section) {
//!         /// How long a browser may cache a preflight.
//!         reload max_age: Duration = get_or(value::duration_within(Duration::ZERO, DAY), Duration::from_secs(600)),
//!     }
//! }
//! ```
//!
//! A line has four parts:
//! - the class, which states how a change of the key takes effect: `reload` or `restart`. `no_key` is for a computed
//!   field. `restart("listen" if differs)` is for a key that needs a restart only if `differs(old, new)` returns true.
//!   The restart is then reported for the key `listen`. `each` is for a section in which each key has its own class.
//! - the key, which is the name of the field unless an `as` follows. `as "other"`: the key has another name than the
//!   field. `as ".."`: the value is made of several keys of the section. `as "..?"`: like `as ".."`, for keys of only
//!   one `kind`, which the reference shows in a separate table. `as ("other" WORDS)`: the value is a boolean that is
//!   written as one of two words. `as some`: an empty value is not printed. `as "-"`: the key is printed elsewhere.
//! - the type, which decides how the key is printed: see `Print`.
//! - how the key is read: a method of [`Section`], without its `key` argument, or `by { … }` with any expression. The
//!   expression can use the parameters of the section and the fields above.
//!
//! The doc comment above a line is the text about the key in docs/configuration.md and reference.toml. It states the
//! key's effect, unit and bounds. The comment begins with `Required: ` if no default is possible and the key is not
//! read by `required`. The comment ends with a sentence `Default: …` if the default is not a value.
//!
//! After the lines, `with { … }` describes the keys that the `by { … }` expressions read. Each has a class, a name and
//! a word for its type. A table also names the type that declares its keys (`fetch: table of FetchKeys`).
//! `section!(keys { … })` describes the keys of a type that is not declared by lines.
//!
//! The class `fixed` is for a value that users cannot set. A line of this class does not read a key and is not printed.
//! The reference lists its name, its value and its meaning below the keys of the section. To make a key fixed, change
//! its class:
//!
//! ```ignore
//! /// How long a browser caches a preflight.
//! fixed max_age: Duration = get_or(value::duration_within(Duration::ZERO, DAY), Duration::from_secs(600)),
//! ```
//!
//! The value is the default of `get_or`, `some_or` or `share_of`, or `VALUE` of `always(VALUE)`. The reference shows
//! the value, so the value must not depend on parameters or on fields above. Only `share_of` may refer to a field
//! above. For tests with the feature `failpoints`, `read_keys` reads the key from a table such as `[cors.for_tests]`.
//! In `with { … }`, a fixed key without a field has its value after the type: `fixed subject_encoding: text =
//! "percent"`.
//!
//! If a key becomes fixed, add a row to `crate::removed`. `rotogate check` shows this row to users who still set the
//! key.
//!
//! The generated function `read_keys` has the parameters that the expressions in the lines use. `read_keys` leaves
//! [`Section::finish`] to its caller, who first checks the rules that span several keys. For a type of another crate,
//! write `impl Type` instead of `pub struct Type`, and list all its fields.

#[cfg(doc)]
use rotogate_kit::config::Section;

#[cfg(test)]
pub(crate) use for_tests::Key;

#[cfg(test)]
mod for_tests {
    pub(crate) struct Key {
        pub name: &'static str,
        pub class: &'static str,
        /// The lines of the key's doc comment.
        pub about: &'static [&'static str],
        pub type_name: &'static str,
        /// The source text of the expression that reads the key.
        pub how: &'static str,
        /// The keys in a table or a list of tables.
        pub inner: &'static [Self],
        /// The value of a fixed key, or `None` if users can set the key.
        pub fixed: Option<fn() -> toml::Value>,
    }
}

/// Applies a reload to the keys of a type that `section!` declares.
pub trait DeclaredKeys: Sized {
    /// Whether all keys need a restart.
    const NEED_RESTART: bool;
    /// Whether a reload applies all keys.
    const RELOAD: bool;

    /// Restores the changed keys that need a restart, and returns their names.
    fn keep(&mut self, old: &Self) -> Vec<String>;

    /// The names of all keys whose values differ.
    fn changed(&self, old: &Self) -> Vec<&'static str>;
}

pub(crate) trait Sections: Clone + PartialEq {
    /// Restores the keys that need a restart, and returns their names. If all keys need a restart, returns only the
    /// section's name.
    fn keep_section(&mut self, old: &Self, name: &str) -> Vec<String>;
}

impl<T: DeclaredKeys + Clone + PartialEq> Sections for T {
    fn keep_section(&mut self, old: &Self, name: &str) -> Vec<String> {
        if T::NEED_RESTART {
            return keep_whole(self, old, name);
        }
        self.keep(old).iter().map(|key| format!("{name}.{key}")).collect()
    }
}

impl<T: DeclaredKeys + Clone + PartialEq> Sections for Vec<T> {
    /// Restores the whole list or nothing, because old and new entries cannot be paired.
    fn keep_section(&mut self, old: &Self, name: &str) -> Vec<String> {
        const { assert!(T::NEED_RESTART || T::RELOAD, "in a list, either all keys or no key may need a restart") };
        if T::NEED_RESTART { keep_whole(self, old, name) } else { Vec::new() }
    }
}

impl<T: DeclaredKeys + Clone + PartialEq> Sections for Option<T> {
    fn keep_section(&mut self, old: &Self, name: &str) -> Vec<String> {
        const { assert!(T::NEED_RESTART || T::RELOAD, "a section without a default that has keys of both classes") };
        if T::NEED_RESTART { keep_whole(self, old, name) } else { Vec::new() }
    }
}

fn keep_whole<T: Clone + PartialEq>(new: &mut T, old: &T, name: &str) -> Vec<String> {
    if new == old {
        return Vec::new();
    }
    new.clone_from(old);
    vec![name.to_owned()]
}

macro_rules! section {
    (
        $(#[$about:meta])*
        $visible:vis struct $Type:ident, read by $reader:vis $read:ident($($parameters:tt)*) {
            $(
                $(#[doc = $text:literal])+
                $class:ident $(($shown:literal if $differs:expr))? $key:ident $(as $name:tt)?: $T:ty = $how:ident $with:tt
            ),* $(,)?
        }
        $(with $further:tt)?
    ) => {
        $(#[$about])*
        $visible struct $Type {
            $( $(#[doc = $text])+ pub $key: $T, )*
        }

        section! {
            impl $Type, read by $reader $read($($parameters)*) {
                $( $(#[doc = $text])+ $class $(($shown if $differs))? $key $(as $name)?: $T = $how $with, )*
            }
            $(with $further)?
        }
    };
    (
        impl $Type:ident, read by $reader:vis $read:ident($section:ident $(, $parameter:ident: $Of:ty)* $(,)?) {
            $(
                $(#[doc = $text:literal])*
                $class:ident $(($shown:literal if $differs:expr))? $key:ident $(as $name:tt)?: $T:ty = $how:ident $with:tt
            ),* $(,)?
        }
        $(with $further:tt)?
    ) => {
        $reader fn $read($section: &rotogate_kit::config::Section<'_> $(, $parameter: $Of)*) -> $Type {
            $( let $key: $T = section!(@read $class $section ($key $($name)?) $how $with); )*
            $Type { $($key),* }
        }

        impl $crate::print::Print for $Type {
            #[cfg(test)]
            const KEYS: &'static [$crate::declare::Key] = &[
                $( $crate::declare::Key {
                    name: section!(@shown ($key $($name)?)),
                    class: section!(@class $class $(($shown))?),
                    about: &[$($text),*],
                    type_name: stringify!($T),
                    how: stringify!($how $with),
                    inner: section!(@inner $class ($($name)?) $T),
                    fixed: section!(@fixed $class $T = $how $with),
                }, )*
                $( $crate::declare::Key {
                    name: "..",
                    class: "each",
                    about: &[],
                    type_name: "",
                    how: "",
                    inner: section!(keys $further),
                    fixed: None,
                }, )?
            ];

            fn print(&self) -> toml::Value {
                let mut table = toml::Table::new();
                let Self { $($key),* } = self;
                $( section!(@put $class table ($key $($name)?)); )*
                table.into()
            }
        }

        impl $crate::declare::DeclaredKeys for $Type {
            const NEED_RESTART: bool = true $(&& section!(@needs_restart $class $(($shown))?))*;
            const RELOAD: bool = true $(&& section!(@reloads $class))*;

            fn keep(&mut self, old: &Self) -> Vec<String> {
                let kept: Vec<Vec<String>> = vec![
                    $( section!(@keep $class $(($shown if $differs))? self old ($key $($name)?)) ),*
                ];
                kept.concat()
            }

            fn changed(&self, old: &Self) -> Vec<&'static str> {
                let changed = [ $( section!(@changed $class self old ($key $($name)?)) ),* ];
                changed.into_iter().flatten().collect()
            }
        }
    };

    (keys { $(
        $(#[doc = $about:literal])+
        $class:ident $key:ident $(as $name:literal)?: $kind:ident $(of $Inner:ty)? $(= $value:expr)?
    ),* $(,)? }) => {
        &[ $( $crate::declare::Key {
            name: section!(@name ($key $($name)?)),
            class: stringify!($class),
            about: &[$($about),*],
            type_name: stringify!($kind),
            how: "",
            inner: section!(@keys $($Inner)?),
            fixed: section!(@value $($value)?),
        } ),* ]
    };

    (@fixed fixed $T:ty = always($value:expr)) => { section!(@value { let value: $T = $value; value }) };
    (@fixed fixed $T:ty = get_or($read:expr, $value:expr $(,)?)) => { section!(@value { let value: $T = $value; value }) };
    (@fixed fixed $T:ty = some_or($read:expr, $value:expr $(,)?)) => { section!(@value $value) };
    (@fixed fixed $T:ty = share_of($of:expr, $value:expr $(,)?)) => { section!(@value $value) };
    (@fixed $class:ident $T:ty = $how:ident $with:tt) => { None };
    (@value) => { None };
    (@value $value:expr) => { Some(|| $crate::print::printed(&$value)) };

    (@name ($key:ident)) => { stringify!($key) };
    (@name ($key:ident ($name:literal $words:ident))) => { $name };
    (@name ($key:ident "-")) => { stringify!($key) };
    (@name ($key:ident some)) => { stringify!($key) };
    (@name ($key:ident $name:tt)) => { $name };

    (@class $class:ident) => { stringify!($class) };
    (@class $class:ident($shown:literal)) => { "each" };

    (@shown ($key:ident "-")) => { "-" };
    (@shown ($key:ident "..?")) => { "-" };
    (@shown $key:tt) => { section!(@name $key) };

    (@inner no_key $name:tt $T:ty) => { &[] };
    (@inner fixed $name:tt $T:ty) => { &[] };
    (@inner $class:ident ("-") $T:ty) => { &[] };
    (@inner $class:ident ("..?") $T:ty) => { &[] };
    (@inner $class:ident $name:tt $T:ty) => { <$T as $crate::print::Put>::KEYS };
    (@keys) => { &[] };
    (@keys $T:ty) => { <$T as $crate::print::Put>::KEYS };

    (@read $class:ident $section:ident $key:tt by { $($code:tt)* }) => { { $($code)* } };
    (@read fixed $section:ident $key:tt always($value:expr)) => { $value };
    (@read fixed $section:ident $key:tt $how:ident($($with:tt)*)) => {
        $section.for_tests().$how(section!(@name $key), $($with)*)
    };
    (@read $class:ident $section:ident $key:tt $how:ident($($with:tt)*)) => { $section.$how(section!(@name $key), $($with)*) };

    (@put no_key $table:ident ($key:ident $($name:tt)?)) => { let _ = $key; };
    (@put fixed $table:ident ($key:ident $($name:tt)?)) => { let _ = $key; };
    (@put $class:ident $table:ident ($key:ident "-")) => { let _ = $key; };
    (@put $class:ident $table:ident ($key:ident "..?")) => {
        $crate::print::Put::put($key, &mut $table, "..");
    };
    (@put $class:ident $table:ident ($key:ident ($name:literal $words:ident))) => {
        $crate::print::Put::put(&$crate::print::word(&$words, *$key), &mut $table, $name);
    };
    (@put $class:ident $table:ident ($key:ident some)) => {
        if !$crate::print::is_default($key) {
            $crate::print::Put::put($key, &mut $table, stringify!($key));
        }
    };
    (@put $class:ident $table:ident ($key:ident $($name:tt)?)) => {
        $crate::print::Put::put($key, &mut $table, section!(@name ($key $($name)?)));
    };

    (@needs_restart restart) => { true };
    (@needs_restart no_key) => { true };
    (@needs_restart fixed) => { true };
    (@needs_restart $class:ident $(($shown:literal))?) => { false };
    (@reloads reload) => { true };
    (@reloads no_key) => { true };
    (@reloads fixed) => { true };
    (@reloads $class:ident) => { false };

    (@changed no_key $new:ident $old:ident $key:tt) => { None };
    (@changed fixed $new:ident $old:ident $key:tt) => { None };
    (@changed $class:ident $new:ident $old:ident ($key:ident $($name:tt)?)) => {
        ($new.$key != $old.$key).then_some(section!(@name ($key $($name)?)))
    };

    (@keep restart $new:ident $old:ident ($key:ident $($name:tt)?)) => {
        section!(@keep_if ($new.$key != $old.$key), section!(@name ($key $($name)?)), $new $old $key)
    };
    (@keep restart($shown:literal if $differs:expr) $new:ident $old:ident ($key:ident $($name:tt)?)) => {
        section!(@keep_if $differs(&$old.$key, &$new.$key), $shown, $new $old $key)
    };
    (@keep_if $differs:expr, $shown:expr, $new:ident $old:ident $key:ident) => {
        if $differs {
            $new.$key.clone_from(&$old.$key);
            vec![$shown.to_owned()]
        } else {
            Vec::new()
        }
    };
    (@keep each $new:ident $old:ident ($key:ident $($name:tt)?)) => {
        $crate::declare::Sections::keep_section(&mut $new.$key, &$old.$key, section!(@name ($key $($name)?)))
    };
    (@keep reload $new:ident $old:ident $key:tt) => { { let _ = $old; Vec::new() } };
    (@keep no_key $new:ident $old:ident $key:tt) => { { let _ = $old; Vec::new() } };
    (@keep fixed $new:ident $old:ident $key:tt) => { { let _ = $old; Vec::new() } };
}
pub(super) use section;

#[cfg(test)]
mod tests;
