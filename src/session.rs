//! A **session** is one login of one client: what RFC 9700 calls a token family. Every token issued since that login
//! carries its id, and a **generation** that rises by one with each pair of tokens.
//!
//! [`rotation`] decides the effect of a presented refresh credential, without I/O, clock or randomness; the gate's
//! engine executes the decision.
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
    pub use rotogate_core::session::profile::{
        OnOtherClient, OnReuse, OnTooMany, Profile, ProfileError, ProfileOverride,
    };
}

pub mod rotation {
    //! Decides the effect of a presented refresh credential: a pure function of the session, the credential, the facts
    //! about the user, the time and the profile. The first row that fits decides:
    //!
    //! | session | presented | decision |
    //! |---|---|---|
    //! | revoked by its record or by the list; user inactive; begun before `sessions_valid_from` | any | [`Revoked`](Decision::Revoked) |
    //! | past `session_ttl`, or idle past `idle_ttl` | any | [`Expired`](Decision::Expired) |
    //! | live | > current, or `minimum_known` > current | [`Ahead`](Decision::Ahead) |
    //! | live | = current | [`Rotate`](Decision::Rotate) |
    //! | live | = previous, within `grace` of `issued_at` | [`Replay`](Decision::Replay) |
    //! | live | = previous, later, current unconfirmed, within `lost_response_window` of `rotated_at` | [`Reissue`](Decision::Reissue) |
    //! | live | anything else | [`Reuse`](Decision::Reuse) |
    //!
    //! A window of `d` is open while less than `d` has passed, so zero means never.
    //!
    //! ```
    //! # tokio::runtime::Runtime::new().unwrap().block_on(async {
    //! # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    //! # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    //! # let gate = gate.client(Client::public("web")).build().await?;
    //! let sessions = gate.sessions();
    //! let first = sessions.start(NewSession::new("ada", "web")).await?.refresh_token.ok_or("a login has one")?;
    //! let second = sessions.refresh(first.expose()).await?;
    //! // The reply was lost, and the client repeats the request within `grace`: the same tokens again.
    //! let again = sessions.refresh(first.expose()).await?;
    //! assert_eq!(second.access_token.expose(), again.access_token.expose());
    //! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    //! ```

    #[doc(inline)]
    pub use rotogate_core::session::rotation::{Decision, Lifetime, Reuse, SessionEnd};
}

#[doc(inline)]
pub use rotogate_core::session::{
    BrowserBinding, DeviceBinding, DeviceKey, Generation, InvalidScope, LastPair, RevokedBecause, Scope, Seal, Session,
    SessionId, SessionSecret, Status, VouchedBy,
};
