//! The output of `rotogate --version`.

use std::sync::LazyLock;

use crate::server::operate::metrics::process::{REVISION, features};

/// The target of the profile-guided optimization, set by packaging/build.sh.
const PROFILE: Option<&str> = option_env!("ROTOGATE_PROFILED");

// Requirement O43.
pub(super) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let features = features();
        let features = if features.is_empty() { "none".to_owned() } else { features.join(" ") };
        let profile = PROFILE.unwrap_or("none");
        format!("{}\nrevision: {REVISION}\nprofile: {profile}\nfeatures: {features}", env!("CARGO_PKG_VERSION"))
    });
    &TEXT
}
