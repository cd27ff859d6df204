//! Two settings of a route: whether a tab without a session is led to the login, and what happens to a connection when
//! its token expires.

/// `on_expiry`.
///
/// ```
/// use rotogate::route::{OnExpiry, Route, RoutePolicy};
///
/// // A live feed whose clients do not refresh while it runs. A revocation ends it all the same.
/// let policy = RoutePolicy { upgrade: true, on_expiry: OnExpiry::Keep, ..RoutePolicy::default() };
/// let builder = rotogate::Gate::builder().route(Route::new("/feed", policy));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnExpiry {
    /// The connection ends, unless the token was exchanged before.
    #[default]
    Close,
    /// The connection continues until its session is revoked.
    Keep,
}

impl OnExpiry {
    /// The value's word in `gateway.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Keep => "keep",
        }
    }
}

/// `login`.
///
/// ```
/// use rotogate::route::{LoginLead, RoutePolicy};
///
/// // An API: its callers are scripts, also where a request looks like that of a page.
/// let api = RoutePolicy { login: LoginLead::Never, ..RoutePolicy::default() };
/// # let _ = api;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginLead {
    /// Navigations of a tab are led to the login, all other requests get 401.
    #[default]
    Auto,
    /// 401.
    Never,
}

impl LoginLead {
    /// The value's word in `gateway.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
        }
    }
}
