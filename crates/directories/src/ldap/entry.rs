//! Converts LDAP entries to users.

use ldap3::SearchEntry;
use rotogate_core::clock::Timestamp;
use std::time::Duration;
use uuid::Uuid;

use super::super::{Cause, SourceError};

const FILETIME_EPOCH_SECONDS: u64 = 11_644_473_600;
const FILETIME_PER_MILLISECOND: u64 = 10_000;
/// A GUID of 16 bytes in Active Directory.
const OBJECT_GUID: &str = "objectGUID";

pub(super) fn filetime(now: Timestamp) -> u64 {
    (now.as_millis() + FILETIME_EPOCH_SECONDS * 1000) * FILETIME_PER_MILLISECOND
}

/// Attribute names are compared case-insensitively.
pub(super) struct Entry(pub(super) SearchEntry);

fn wrong(attribute: &str, expected: &str) -> SourceError {
    SourceError::new(Cause::Entry, format!("attribute {attribute}: expected {expected}"))
}

impl Entry {
    pub(super) fn dn(&self) -> &str {
        &self.0.dn
    }

    fn bytes(&self, attribute: &str) -> Vec<&[u8]> {
        let is_it = |name: &str| name.eq_ignore_ascii_case(attribute);
        let texts = self.0.attrs.iter().filter(|(name, _)| is_it(name)).flat_map(|(_, values)| values);
        let binary = self.0.bin_attrs.iter().filter(|(name, _)| is_it(name)).flat_map(|(_, values)| values);
        texts.map(String::as_bytes).chain(binary.map(Vec::as_slice)).collect()
    }

    /// Returns an error if the list of values is incomplete. Active Directory splits long lists, for example into
    /// `memberOf;range=0-1499`.
    fn check_whole(&self, attribute: &str) -> Result<(), SourceError> {
        let is_part = |name: &&String| {
            let mut options = name.split(';');
            let is_it = options.next().is_some_and(|name| name.eq_ignore_ascii_case(attribute));
            is_it && options.any(|option| option.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("range=")))
        };
        match self.0.attrs.keys().chain(self.0.bin_attrs.keys()).find(is_part) {
            None => Ok(()),
            Some(part) => {
                let message = format!(
                    "the server returned only a part of attribute {attribute}: {part}. If the attribute names \
                     groups, find the groups with `groups.filter`"
                );
                Err(SourceError::new(Cause::Entry, message))
            }
        }
    }

    pub(super) fn texts(&self, attribute: &str) -> Result<Vec<&str>, SourceError> {
        self.check_whole(attribute)?;
        let text = |bytes| str::from_utf8(bytes).map_err(|_| wrong(attribute, "text in UTF-8"));
        self.bytes(attribute).into_iter().map(text).collect()
    }

    pub(super) fn text(&self, attribute: &str) -> Result<Option<&str>, SourceError> {
        match self.texts(attribute)?.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            [..] => Err(wrong(attribute, "one value, found several")),
        }
    }

    pub(super) fn subject(&self, attribute: &str) -> Result<String, SourceError> {
        if !attribute.eq_ignore_ascii_case(OBJECT_GUID) {
            let found = self.text(attribute)?.map(str::to_owned);
            return found.ok_or_else(|| wrong(attribute, "the subject, but the entry does not have the attribute"));
        }
        match self.bytes(attribute).as_slice() {
            [guid] => Uuid::from_slice_le(guid).map(|guid| guid.to_string()).map_err(|_| wrong(attribute, "16 bytes")),
            _ => Err(wrong(attribute, "one value of 16 bytes")),
        }
    }

    /// Parses a generalized time in UTC (RFC 4517 §3.3.13) or a FILETIME. A time in whole seconds is rounded up.
    pub(super) fn moment(&self, attribute: &str) -> Result<Timestamp, SourceError> {
        let Some(text) = self.text(attribute)? else { return Ok(Timestamp::ZERO) };
        let found = if text.ends_with('Z') { generalized(text) } else { of_filetime(text) };
        found.ok_or_else(|| wrong(attribute, "a time such as 20260131120000Z, or a FILETIME"))
    }
}

/// The attribute value for a subject, or `None` if no entry can have this subject.
pub(super) fn subject_value(attribute: &str, subject: &str) -> Option<String> {
    if attribute.eq_ignore_ascii_case(OBJECT_GUID) {
        return Uuid::parse_str(subject).ok().map(|guid| super::filter::escaped(&guid.to_bytes_le()));
    }
    Some(ldap3::ldap_escape(subject).into_owned())
}

fn generalized(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = match text.strip_suffix('Z')?.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text.strip_suffix('Z')?, None),
    };
    if whole.len() != 14 || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from, to| whole.get(from..to);
    let (date, time) = ((part(0, 4)?, part(4, 6)?, part(6, 8)?), (part(8, 10)?, part(10, 12)?, part(12, 14)?));
    let fraction = fraction.unwrap_or("999");
    let text = format!("{}-{}-{}T{}:{}:{}.{fraction}Z", date.0, date.1, date.2, time.0, time.1, time.2);
    let since = humantime::parse_rfc3339(&text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros().div_ceil(1000)).ok().map(Timestamp::from_millis)
}

fn of_filetime(text: &str) -> Option<Timestamp> {
    let count: u64 = text.parse().ok()?;
    // 0 means that the user must change the password.
    let millis = count.div_ceil(FILETIME_PER_MILLISECOND);
    Some(Timestamp::from_millis(millis).minus(Duration::from_secs(FILETIME_EPOCH_SECONDS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(attribute: &str, values: &[&[u8]]) -> Entry {
        let mut entry = SearchEntry { dn: "cn=x".to_owned(), attrs: Default::default(), bin_attrs: Default::default() };
        let texts: Option<Vec<String>> = values.iter().map(|value| String::from_utf8(value.to_vec()).ok()).collect();
        match texts {
            Some(texts) => drop(entry.attrs.insert(attribute.to_owned(), texts)),
            None => drop(entry.bin_attrs.insert(attribute.to_owned(), values.iter().map(|v| v.to_vec()).collect())),
        }
        Entry(entry)
    }

    #[test]
    fn a_guid_is_read_and_searched_for_whether_its_bytes_are_text_or_not() {
        for bytes in
            [*b"0123456789abcdef", [0xff; 16], [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0, 1, 2, 3, 4, 5, 6, 7]]
        {
            let subject = entry("objectguid", &[&bytes]).subject("objectGUID").unwrap();
            let expected: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
            assert_eq!(subject_value("objectGUID", &subject), Some(expected));
        }
        let guid = [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        assert_eq!(
            entry("objectGUID", &[&guid]).subject("objectGUID").unwrap(),
            "00112233-4455-6677-8899-aabbccddeeff"
        );
        assert_eq!(subject_value("objectGUID", "ada"), None);
        assert_eq!(subject_value("uid", "a*"), Some("a\\2a".to_owned()));
        for values in [&[][..], &[&b"short"[..]], &[&[0; 16][..], &[1; 16][..]]] {
            assert!(entry("objectGUID", values).subject("objectGUID").is_err());
        }
        assert!(entry("uid", &[b"a", b"b"]).subject("uid").is_err(), "several values");
    }

    #[test]
    fn a_part_of_a_list_is_a_fault() {
        let mut whole = entry("memberOf", &[b"cn=a"]);
        assert_eq!(whole.texts("memberof").unwrap(), ["cn=a"]);
        whole.0.attrs.insert("memberOf;lang-en".to_owned(), vec!["cn=b".to_owned()]);
        whole.0.attrs.insert("member;range=0-1499".to_owned(), vec!["cn=b".to_owned()]);
        assert_eq!(whole.texts("memberOf").unwrap(), ["cn=a"], "other attributes");
        for name in ["memberOf;range=0-1499", "memberof;RANGE=1500-*", "memberOf;lang-en;range=0-*"] {
            for mut part in [entry("memberOf", &[]), entry("memberOf", &[b"cn=a"])] {
                part.0.attrs.insert(name.to_owned(), vec!["cn=b".to_owned()]);
                let said = part.texts("memberOf").unwrap_err();
                assert_eq!(said.cause, Cause::Entry);
                assert!(said.to_string().contains(name) && said.to_string().contains("groups.filter"), "{said}");
            }
        }
    }

    #[test]
    fn times_of_both_kinds_are_read() {
        let moment = |text: &str| entry("t", &[text.as_bytes()]).moment("T");
        let noon = Timestamp::from_secs(1_769_860_800);
        assert_eq!(moment("20260131120000Z").unwrap(), noon.plus(Duration::from_millis(999)));
        assert_eq!(moment("20260131120000.25Z").unwrap(), noon.plus(Duration::from_millis(250)));
        assert_eq!(moment(&filetime(noon).to_string()).unwrap(), noon);
        assert_eq!(moment("0").unwrap(), Timestamp::ZERO);
        for wrong in ["", "now", "2026013112Z", "20261331120000Z", "20260131120000+0100", "-1", "\u{661}0260131120000Z"]
        {
            assert_eq!(moment(wrong).unwrap_err().cause, Cause::Entry, "{wrong}");
        }
    }
}
