//! `Debug` for types with secrets, or with more than a log should have.

/// Implements `Debug` as the name of the type and the listed members (fields, or methods without arguments). Without a
/// list it is the name alone: `Name(…)`.
#[macro_export]
macro_rules! debug_with {
    ($name:ident $(<$lifetime:lifetime>)?) => {
        impl ::std::fmt::Debug for $name $(<$lifetime>)? {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
    ($name:ident { $($($member:ident).+ $(($($none:tt)*))?),+ }) => {
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($($member).+), &self.$($member).+ $(($($none)*))?))+
                    .finish_non_exhaustive()
            }
        }
    };
}
