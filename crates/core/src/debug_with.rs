//! `Debug` implementations for types that contain secrets, or more than a log should contain.

/// Implements `Debug` with the name of the type and the listed members, which are fields or methods without arguments.
/// Without a list, only the name is printed: `Name(…)`. After `|it|`, each member has a name and an expression of the
/// value `it`. After `|it, f|`, an expression writes to `f`.
#[macro_export]
macro_rules! debug_with {
    ($name:ident $(<$lifetime:lifetime>)?) => {
        $crate::debug_with!($name $(<$lifetime>)?, |_it, f| f.write_str(concat!(stringify!($name), "(…)")));
    };
    ($name:ident $(<$lifetime:lifetime>)?, |$it:ident| { $($member:ident: $value:expr),+ }) => {
        $crate::debug_with!($name $(<$lifetime>)?, |$it, f| {
            f.debug_struct(stringify!($name))$(.field(stringify!($member), &$value))+.finish_non_exhaustive()
        });
    };
    ($name:ident $(<$lifetime:lifetime>)?, |$it:ident, $f:ident| $text:expr) => {
        impl ::std::fmt::Debug for $name $(<$lifetime>)? {
            fn fmt(&self, $f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let $it = self;
                $text
            }
        }
    };
    ($name:ident $(<$lifetime:lifetime>)? { $($($member:ident).+ $(($($none:tt)*))?),+ }) => {
        impl ::std::fmt::Debug for $name $(<$lifetime>)? {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($($member).+), &self.$($member).+ $(($($none)*))?))+
                    .finish_non_exhaustive()
            }
        }
    };
}
