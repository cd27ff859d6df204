//! Login names. Databases often ignore case, spaces and accents, so all spellings of a name share one rate limit
//! (requirement I26).

use std::borrow::Cow;

use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use rotogate_core::bounds::MAX_USERNAME;

/// Returns a name in NFC (RFC 8265 §3.3.2), because some systems type accented letters as two characters.
pub(crate) fn composed(name: &str) -> Cow<'_, str> {
    if is_nfc(name) { Cow::Borrowed(name) } else { Cow::Owned(name.nfc().collect()) }
}

/// Returns whether a name may be sent to a source: 1 to 256 bytes, without characters that string preparation prohibits
/// (RFC 4518 §2, RFC 3491).
pub(crate) fn is_acceptable(name: &str) -> bool {
    (1..=MAX_USERNAME).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' '))
        && !name.starts_with(' ')
        && !name.ends_with(' ')
        && !name.contains("  ")
        && stringprep::nameprep(name).is_ok_and(|prepared| !prepared.is_empty())
}

/// The zeros of digit sets that collations treat as ASCII digits. If a set has no zero, its entry is the code point
/// before the digit 1.
const ZEROS: [u32; 25] = [
    0x660, 0x6f0, 0x966, 0x9e6, 0x9f3, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xe50, 0xed0, 0xf20, 0xf29,
    0x1040, 0x1368, 0x17e0, 0x1810, 0x24f4, 0x2775, 0x277f, 0x2789, 0x3020,
];
const LETTERS_ABOVE: &str = "aeioucdhmrtvx";

/// The rate-limit key of a name. Names that a source treats as equal share a key, with rare exceptions. Different names
/// may also share a key.
///
/// `as_one` is [`vowels_as_one`] for sources with collations, otherwise the identity.
pub(crate) fn limit_key(name: &str, as_one: impl Fn(char) -> char) -> String {
    // Case folding would turn the combining mark U+0345 into a letter.
    let name = name.replace('\u{345}', "");
    let prepared = stringprep::nameprep(&name).map_or_else(|_| name.to_lowercase(), |prepared| prepared.into_owned());
    let is_kept = |c: &char| !is_combining_mark(*c) && !c.is_control() && !c.is_whitespace();
    let plain: String = prepared.nfkd().flat_map(with_ascii_digits).filter(is_kept).collect();
    if let Some(number) = number(&plain) {
        return number.to_string();
    }
    let mut key = String::new();
    for c in plain.chars().flat_map(folded).map(as_one) {
        // Collations treat some letters as two: ß is ss, å is aa, ö is oe, ᾳ is α.
        let is_second = match key.chars().next_back() {
            Some('a' | 'i' | 'o') if c == 'e' => true,
            Some('α' | 'η' | 'ω') if c == 'ι' => true,
            last => last == Some(c) && c.is_alphabetic(),
        };
        if !is_second {
            key.push(c);
        }
    }
    key
}

/// Replaces a digit of any script by the ASCII digit.
fn with_ascii_digits(c: char) -> impl Iterator<Item = char> {
    let code = u32::from(c);
    let value = match c {
        '\u{f33}' | '\u{3007}' => Some(0),
        '\u{24eb}'..='\u{24f4}' => Some(code - 0x24e0),
        '\u{24fe}' | '\u{277f}' | '\u{2789}' | '\u{2793}' => Some(10),
        _ => ZEROS.iter().filter_map(|zero| code.checked_sub(*zero)).find(|value| *value <= 9),
    };
    let letter = code.checked_sub(0x363).and_then(|at| LETTERS_ABOVE.chars().nth(at as usize));
    let text = value.map_or_else(|| letter.unwrap_or(c).to_string(), |value| value.to_string());
    text.chars().collect::<Vec<_>>().into_iter()
}

/// The number that a PostgreSQL numeric column would read: `+017`, `1_7` and `0x11` are 17.
fn number(name: &str) -> Option<u128> {
    let digits = name.replace('_', "");
    let digits = digits.strip_prefix('+').unwrap_or(&digits);
    let in_base = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, base)| {
        let digits = digits.strip_prefix(prefix)?;
        Some((digits, base))
    });
    let (digits, base) = in_base.unwrap_or((digits, 10));
    u128::from_str_radix(digits, base).ok()
}

/// Unifies letters that few collations treat as equal: i and j, u and v (Latin), i and y (Lithuanian), ü and y
/// (Swedish). LDAP never does.
pub(crate) const fn vowels_as_one(c: char) -> char {
    match c {
        'j' | 'u' | 'v' | 'y' => 'i',
        _ => c,
    }
}

/// Returns the representative of all letters that a collation treats as equal to `c`.
fn folded(c: char) -> impl Iterator<Item = char> {
    let moved = |by: u32| char::from_u32(u32::from(c).wrapping_add(by)).unwrap_or(c);
    let (first, second) = match c {
        // Characters that collations ignore.
        '\u{b7}' | '\u{640}' | '\u{6de}' | '\u{180a}' | '\u{fe73}' => return [None, None].into_iter().flatten(),
        'ß' | '§' => ('s', None),
        'æ' => ('a', None),
        'œ' | 'ø' => ('o', None),
        'đ' | 'ð' => ('d', None),
        'ħ' => ('h', None),
        'ł' => ('l', None),
        'ı' => ('i', None),
        'ʣ' => ('d', Some('z')),
        'ʦ' | 'ƾ' => ('t', Some('s')),
        'ʪ' => ('l', Some('s')),
        'ʫ' => ('l', Some('z')),
        'ƍ' => ('z', Some('w')),
        'ґ' => ('г', None),
        // Final forms of Hebrew letters.
        'ך' | 'ם' | 'ן' | 'ף' | 'ץ' => (moved(1), None),
        '\u{10a0}'..='\u{10c5}' => (moved(0x30), None),
        'ヵ' => ('か', None),
        'ヶ' => ('け', None),
        'ァ' | 'ィ' | 'ゥ' | 'ェ' | 'ォ' | 'ッ' | 'ャ' | 'ュ' | 'ョ' | 'ヮ' => {
            (moved(1_u32.wrapping_sub(0x60)), None)
        }
        '\u{30a1}'..='\u{30f4}' | 'ヽ' => (moved(0_u32.wrapping_sub(0x60)), None),
        'ぁ' | 'ぃ' | 'ぅ' | 'ぇ' | 'ぉ' | 'っ' | 'ゃ' | 'ゅ' | 'ょ' | 'ゎ' => (moved(1), None),
        // The collation utf8mb4_general_ci treats all these characters as one.
        '\u{10000}'.. => (char::REPLACEMENT_CHARACTER, None),
        _ => (c, None),
    };
    [Some(first), second].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> String {
        limit_key(name, vowels_as_one)
    }

    #[test]
    fn i26_spellings_of_one_name_share_one_limit() {
        for spelling in
            ["ada", "ADA", "Ada", "\u{ff21}\u{ff24}\u{ff21}", "a\u{ad}da", "\u{e1}da", "a\u{301}da", " ada "]
        {
            assert_eq!(key(spelling), "ada", "{spelling:?}");
        }
        assert_eq!(key("ada b"), key("ada  B"));
        assert_ne!(key("ada"), key("adb"));
    }

    /// Each line has spellings that MariaDB 10.11 collations treat as equal. The last line has spellings that
    /// PostgreSQL numeric columns treat as equal.
    #[test]
    fn i26_what_a_collation_or_a_numeric_column_treats_as_equal_shares_one_limit() {
        for line in [
            "strasse straße strase STRAẞE",
            "soren søren sören soeren sœren SǾREN s\u{366}ren so\u{345}ren",
            "lodz łodz Łódź ŀodz loʣ lodź",
            "dada dad\u{640}a dad\u{fe73}a đada ðaða \u{369}ada dæda daeda dåda daada",
            "hans ħans ℏans",
            "ipek ıpek İpek ypek üpek jpek",
            "tsar ʦar ƾar",
            "user17 user١٧ user१७ user１７ user⓱ user➀➆ user༡༧",
            "さくら サクラ ｻｸﾗ さぐら",
            "っと ット つと",
            "αδα ᾳδα ἁδα",
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{5e9}\u{5dc}\u{5d5}\u{5de}",
            "\u{20bb7}田 \u{20000}田",
            "17 017 00017 +17 1_7 0x11 0X0011 0o21 0b10001 ١٧ ٠١٧ ⓱",
        ] {
            let mut spellings = line.split(' ');
            let first = spellings.next().unwrap();
            for spelling in spellings {
                assert_eq!(key(spelling), key(first), "{spelling} {first}");
            }
        }
        let distinct = ["ada", "ade", "adb", "17", "18", "170", "0x", "user1", "user2", "さくら", "さくり", "b", "ba"];
        let keys: std::collections::BTreeSet<_> = distinct.into_iter().map(key).collect();
        assert_eq!(keys.len(), distinct.len(), "{keys:?}");
    }

    #[test]
    fn i26_where_no_collation_is_at_work_a_name_shares_its_limit_with_its_spellings_and_no_neighbour() {
        let key = |name| limit_key(name, |c| c);
        for spelling in ["JAN", "ján", "j\u{ad}an", "\u{ff2a}an", " jan "] {
            assert_eq!(key(spelling), key("jan"), "{spelling:?}");
        }
        let distinct = ["jan", "ian", "ivan", "yuan", "juan", "uan", "van"];
        let keys: std::collections::BTreeSet<_> = distinct.into_iter().map(key).collect();
        assert_eq!(keys.len(), distinct.len(), "{keys:?}");
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
