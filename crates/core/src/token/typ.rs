//! The types of the gate's own tokens (`typ` in the header), so that one kind is never taken for another (RFC 8725 §3.11).

/// The `typ` of every access token that the gate mints (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";

/// The `typ` of an assertion.
// Requirement N58.
pub const ASSERTION_TYP: &str = "identity+jwt";

/// Returns whether this `typ`, without `application/`, denotes an assertion.
pub fn is_assertion_typ(typ: &str) -> bool {
    typ.eq_ignore_ascii_case(ASSERTION_TYP)
}
