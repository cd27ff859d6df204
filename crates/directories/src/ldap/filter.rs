//! LDAP search filters with placeholders. Inserted values are escaped (RFC 4515 §3, requirement I26).

use ldap3::{ldap_escape, parse_filter};

/// The placeholder in a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placeholder {
    /// `{username}`: the name from the login.
    #[default]
    Username,
    /// `{dn}`: the distinguished name of the user.
    Dn,
    /// `{now}`: the current time as a FILETIME, for comparison with `accountExpires`.
    Now,
}

impl Placeholder {
    const fn text(self) -> &'static str {
        match self {
            Self::Username => "{username}",
            Self::Dn => "{dn}",
            Self::Now => "{now}",
        }
    }
}

/// A search filter as configured.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Filter {
    source: String,
    placeholder: Placeholder,
}

rotogate_core::debug_with!(Filter { source });

impl Filter {
    /// Parses a filter that may contain one placeholder.
    ///
    /// # Errors
    /// Describes the problem and shows a valid filter.
    pub fn parse(source: &str, placeholder: Placeholder, is_needed: bool) -> Result<Self, String> {
        let mark = placeholder.text();
        let bare = source.replace(mark, "");
        if bare.contains(['{', '}']) {
            return Err(format!(
                "a brace beside {mark} must be written as \\7b or \\7d, because {mark} is the only placeholder"
            ));
        }
        if is_needed && bare == source {
            return Err(format!("{mark} is missing"));
        }
        let filter = Self { source: source.to_owned(), placeholder };
        // The placeholder may also be replaced by `*`, which matches any name.
        let values: &[&str] = match placeholder {
            Placeholder::Username => &["x", "*"],
            Placeholder::Dn | Placeholder::Now => &["0"],
        };
        if values.iter().any(|value| parse_filter(filter.source.replace(mark, value)).is_err()) {
            return Err("is not an LDAP filter (RFC 4515), such as \"(&(objectClass=person)(uid=…))\"".to_owned());
        }
        Ok(filter)
    }

    /// The filter as configured.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn for_value(&self, value: &str) -> String {
        self.source.replace(self.placeholder.text(), &ldap_escape(value))
    }

    pub(super) fn for_any(&self) -> String {
        self.source.replace(self.placeholder.text(), "*")
    }
}

pub(super) fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i26_values_are_escaped() {
        let filter =
            Filter::parse("(&(objectClass=person)(|(uid={username})(mail={username})))", Placeholder::Username, true);
        let filter = filter.unwrap();
        let found = filter.for_value("a*)(uid=*\\\0 {username}å");
        let value = "a\\2a\\29\\28uid=\\2a\\5c\\00 {username}å";
        assert_eq!(found, format!("(&(objectClass=person)(|(uid={value})(mail={value})))"));
        assert_eq!(filter.for_any(), "(&(objectClass=person)(|(uid=*)(mail=*)))");
    }

    #[test]
    fn i26_i45_what_is_no_filter_is_refused() {
        for (source, said) in [
            ("(uid={user})", "a brace beside {username}"),
            ("(uid={username}", "is not an LDAP filter"),
            ("(uid=ada)", "{username} is missing"),
            ("uid={username})(x=y", "is not an LDAP filter"),
            ("(uid={username}})", "a brace beside {username}"),
        ] {
            let found = Filter::parse(source, Placeholder::Username, true).unwrap_err();
            assert!(found.contains(said), "{source}: {found}");
        }
        Filter::parse("(!(pwdAccountLockedTime=*))", Placeholder::Now, false).unwrap();
    }
}
