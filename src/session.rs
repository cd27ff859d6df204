//! A **session** is one login of one client (a token family in RFC 9700). Every token has the session's id and a
//! **generation**, which rises by one with each pair of tokens.
//!
//! A pure function decides what a refresh token does. The gate's engine executes the decision.
//!
//! ```
//! use rotogate::session::Scope;
//!
//! let scope = Scope::parse("read write").unwrap();
//! assert_eq!(scope.iter().collect::<Vec<_>>(), ["read", "write"]);
//! assert!(Scope::parse("quote\"").is_err());
//! ```

pub mod profile {
    //! The session rules of an endpoint or a client.
    //!
    //! ```
    //! use std::time::Duration;
    //! use rotogate::session::profile::Profile;
    //!
    //! let profile = Profile { grace: Duration::from_secs(10), ..Profile::default() };
    //! assert!(profile.problems().is_empty());
    //! let builder = rotogate::Gate::builder().profile(profile);
    //! # let _ = builder;
    //! ```

    #[doc(inline)]
    pub use rotogate_core::session::profile::{OnReuse, Profile, ProfileOverride};
}

#[doc(inline)]
pub use rotogate_core::session::rotation::SessionEnd;
#[doc(inline)]
pub use rotogate_core::session::{Binding, Generation, RevokedBecause, Scope, Session, SessionId, Status, VouchedBy};
