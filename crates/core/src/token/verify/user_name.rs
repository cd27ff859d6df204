//! User names other than `sub` in notices, which only the directory can resolve.

/// Another issuer's name for a user (RFC 9493 §3.2).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserName {
    /// An e-mail address.
    Email(Box<str>),
    /// An id assigned by the application, such as a provisioning id.
    Opaque(Box<str>),
}

/// The form of a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserNameForm {
    /// An e-mail address.
    Email,
    /// An id assigned by the application.
    Opaque,
}

impl UserNameForm {
    /// All forms.
    pub const ALL: [Self; 2] = [Self::Email, Self::Opaque];

    /// The name of the form in subject identifiers and in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Opaque => "opaque",
        }
    }
}

impl UserName {
    /// Reads the name from a subject identifier (RFC 9493 §3.2).
    pub(super) fn read<'a>(format: &str, member: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        match format {
            "email" => member("email").map(|email| Self::Email(email.into())),
            "opaque" => member("id").map(|id| Self::Opaque(id.into())),
            _ => None,
        }
    }

    /// The form of the name.
    pub const fn form(&self) -> UserNameForm {
        match self {
            Self::Email(_) => UserNameForm::Email,
            Self::Opaque(_) => UserNameForm::Opaque,
        }
    }

    /// The name itself.
    pub fn text(&self) -> &str {
        match self {
            Self::Email(text) | Self::Opaque(text) => text,
        }
    }
}

// A name is personal data, so `Debug` hides it.
crate::debug_with!(UserName, |it, f| f.write_str(match it {
    UserName::Email(_) => "Email(…)",
    UserName::Opaque(_) => "Opaque(…)",
}));
