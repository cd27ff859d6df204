//! The output of `rotogate --version`.

use std::sync::LazyLock;

use crate::server::operate::metrics::process::{REVISION, features};

/// The target whose recorded load guided the optimization of this build. packaging/build.sh sets it.
const PROFILE: Option<&str> = option_env!("ROTOGATE_PROFILED");

/// Returns the version, revision, optimization profile and features.
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
