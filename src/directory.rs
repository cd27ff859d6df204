//! The source of users. The gate queries a [`Directory`] at each login and refresh.
//!
//! ```
//! use rotogate::SecretString;
//! use rotogate::directory::{Directory, DirectoryError, User};
//!
//! #[derive(Debug)]
//! struct Legacy;
//!
//! #[async_trait::async_trait]
//! impl Directory for Legacy {
//!     async fn authenticate(
//!         &self,
//!         account: Option<&str>,
//!         username: &str,
//!         password: &SecretString,
//!     ) -> Result<Option<User>, DirectoryError> {
//!         // Query the login service here. Return `None` for an unknown user and for a wrong password alike.
//!         # let _ = (account, password);
//!         Ok((username == "ada").then(|| User::new("u-17")))
//!     }
//!
//!     async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
//!         Ok((subject == "u-17").then(|| User::new("u-17")))
//!     }
//! }
//! ```

#[doc(inline)]
pub use rotogate_core::directory::{Directory, DirectoryError, LoginRequest, PasswordMark, User};

/// Password hashing with argon2id for your own directory. The hashes are computed in separate threads, and their
/// concurrency is bounded. A login takes equally long whether or not the user exists.
///
/// ```
/// use rotogate::SecretString;
/// use rotogate::directory::DirectoryError;
/// use rotogate::directory::password::{Cost, Passwords};
///
/// /// What `Directory::authenticate` does with the hash of a user, or without a user.
/// async fn is_right(all: &Passwords, hash: Option<&str>, given: &SecretString) -> Result<bool, DirectoryError> {
///     match hash {
///         Some(hash) => all.verify(given, hash).await,
///         None => all.verify_dummy(given, Cost::default()).await.map(|()| false),
///     }
/// }
/// # let _ = is_right;
/// ```
///
/// One hash takes tens of milliseconds in a release build, and more than a second without optimisation. In a
/// development build, optimise dependencies: `[profile.dev.package."*"]` with `opt-level = 1` in your `Cargo.toml`.
#[cfg(feature = "passwords")]
pub mod password {
    #[doc(inline)]
    pub use rotogate_core::password::{Cost, Passwords, hash};
}
