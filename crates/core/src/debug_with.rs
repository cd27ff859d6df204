//! `Debug` implementations for types with secrets or very long content.

/// Implements `Debug` with the type's name and the listed members. If no members are listed, prints only the name:
/// `Name(…)`. `|it|` binds the value for the members' expressions. With `|it, f|`, one expression writes the whole
/// output to the formatter `f`.
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
