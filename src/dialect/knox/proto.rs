//! The messages of `proto/user_api/v1/user_api.proto`, generated at build time.

use std::fmt;

#[expect(missing_docs, reason = "generated; what it means is said in the .proto")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/user_api.v1.rs"));
}

pub use generated::*;

/// The file's descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/user_api.v1.bin"));

impl fmt::Debug for AuthnWithPasswordRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthnWithPasswordRequest(…)")
    }
}

impl fmt::Debug for RefreshAccessTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshAccessTokenRequest(…)")
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(…)")
    }
}
