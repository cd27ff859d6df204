//! Names that users log in with. A database or an LDAP server compares names without regard to case, blanks and often
//! accents. So the spellings of one name must share one limit (requirement I26).

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The longest name, in bytes.
const MAX_BYTES: usize = 256;

/// Whether a name may be sent to a source: 1 to 256 bytes, no control characters, no leading, trailing or double blank,
/// no other white space, and no character that string preparation (RFC 4518 §2, by RFC 3491) prohibits.
pub(crate) fn is_acceptable(name: &str) -> bool {
    (1..=MAX_BYTES).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' '))
        && !name.starts_with(' ')
        && !name.ends_with(' ')
        && !name.contains("  ")
        && stringprep::nameprep(name).is_ok_and(|prepared| !prepared.is_empty())
}

/// The name under which limits count: case folded, compatible characters unified, ignored characters and accents
/// removed. Names that a source distinguishes may share a limit; names that it does not distinguish always do.
pub(crate) fn limit_key(name: &str) -> String {
    let prepared = stringprep::nameprep(name).map_or_else(|_| name.to_lowercase(), |prepared| prepared.into_owned());
    prepared.nfkd().filter(|c| !is_combining_mark(*c) && !c.is_control() && !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i26_spellings_of_one_name_share_one_limit() {
        for spelling in
            ["ada", "ADA", "Ada", "\u{ff21}\u{ff24}\u{ff21}", "a\u{ad}da", "\u{e1}da", "a\u{301}da", " ada "]
        {
            assert_eq!(limit_key(spelling), "ada", "{spelling:?}");
        }
        assert_eq!(limit_key("ada b"), limit_key("ada  B"));
        assert_ne!(limit_key("ada"), limit_key("adb"));
    }

    #[test]
    fn i26_names_with_insignificant_characters_are_not_asked_for() {
        for name in
            ["ada", "ada@example.com", "Ada Lovelace", "a*)(uid=*", "\u{e5}sa", "\u{5f20}\u{4e09}", &"x".repeat(256)]
        {
            assert!(is_acceptable(name), "{name:?}");
        }
        for name in [
            "",
            " ada",
            "ada ",
            "a  b",
            "a\0b",
            "a\tb",
            "a\u{a0}b",
            "a\u{2028}b",
            "a\u{200e}b",
            "\u{ad}",
            &"x".repeat(257),
        ] {
            assert!(!is_acceptable(name), "{name:?}");
        }
    }
}
