//! The built-in dialects, by their names in `gateway.toml`.

use std::any::Any;

#[cfg(feature = "grpc")]
use super::knox;
use super::{Dialect, Protocol, browser, envelope, events, kuzzle, my_keys, my_sessions, oauth2};

/// The name of [`oauth2`].
pub const OAUTH2: &str = oauth2::NAME;
/// The name of [`envelope`].
pub const ENVELOPE: &str = envelope::NAME;
/// The name of [`kuzzle`].
pub const KUZZLE: &str = kuzzle::NAME;
/// The name of [`my_keys`].
pub const MY_KEYS: &str = my_keys::NAME;
/// The name of [`my_sessions`].
pub const MY_SESSIONS: &str = my_sessions::NAME;
#[cfg(feature = "grpc")]
const KNOX: &str = knox::NAME;

/// The options of dialects in `gateway.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The options of [`envelope`].
    pub envelope: envelope::Envelope,
    /// The options of [`kuzzle`].
    pub kuzzle: kuzzle::Kuzzle,
    /// The options of [`my_keys`].
    pub my_keys: my_keys::MyKeys,
    /// The options of [`my_sessions`].
    pub my_sessions: my_sessions::MySessions,
}

/// Returns the built-in dialect with this name.
pub fn by_name(name: &str, options: &Options) -> Option<Box<dyn Dialect>> {
    match name {
        OAUTH2 => Some(Box::new(oauth2::OAuth2)),
        ENVELOPE => Some(Box::new(options.envelope)),
        #[cfg(feature = "grpc")]
        KNOX => Some(Box::<knox::Knox>::default()),
        KUZZLE => Some(Box::new(options.kuzzle)),
        MY_KEYS => Some(Box::new(options.my_keys)),
        MY_SESSIONS => Some(Box::new(options.my_sessions)),
        // The gate uses only the paths and defaults of this dialect. `GateBuilder::browser` makes the real endpoint.
        browser::NAME => Some(Box::<browser::BrowserDialect>::default()),
        _ => None,
    }
}

/// Returns the [`Protocol`] that a built-in dialect implements.
pub fn protocol(dialect: &dyn Dialect) -> Option<&dyn Protocol> {
    fn is<P: Protocol>(dialect: &dyn Any) -> Option<&dyn Protocol> {
        dialect.downcast_ref::<P>().map(|protocol| protocol as _)
    }
    let found = is::<oauth2::OAuth2>(dialect)
        .or_else(|| is::<kuzzle::Kuzzle>(dialect))
        .or_else(|| is::<my_sessions::MySessions>(dialect))
        .or_else(|| is::<events::Events>(dialect));
    #[cfg(feature = "grpc")]
    let found = found.or_else(|| is::<knox::Knox>(dialect));
    found.or_else(|| is::<my_keys::MyKeys>(dialect)).or_else(|| is::<super::relay::RelayDialect>(dialect))
}

impl dyn Dialect {
    /// Returns the protocol, if the dialect is built in.
    pub(crate) fn protocol(&self) -> Option<&dyn Protocol> {
        protocol(self)
    }
}

/// The built-in dialects that start sessions.
pub const NAMES: &[&str] = &[
    OAUTH2,
    ENVELOPE,
    KUZZLE,
    #[cfg(feature = "grpc")]
    KNOX,
];
