//! The output of `rotogate --version`.

use std::sync::LazyLock;

/// The revision, which a packager sets at build time because the sources do not contain it.
const REVISION: Option<&str> = option_env!("ROTOGATE_REVISION");

/// The target for which this build is optimised by a recorded load. packaging/build.sh sets it.
const PROFILE: Option<&str> = option_env!("ROTOGATE_PROFILED");

/// The optional parts of this build.
const FEATURES: [(&str, bool); 12] = [
    ("failpoints", cfg!(feature = "failpoints")),
    ("grpc", cfg!(feature = "grpc")),
    ("hook", cfg!(feature = "hook")),
    ("kuzzle", cfg!(feature = "kuzzle")),
    ("ldap", cfg!(feature = "ldap")),
    ("otel", cfg!(feature = "otel")),
    ("page", cfg!(feature = "page")),
    ("postgres", cfg!(feature = "postgres")),
    ("redis", cfg!(feature = "redis")),
    ("relay", cfg!(feature = "relay")),
    ("sql", cfg!(feature = "sql")),
    ("test-util", cfg!(feature = "test-util")),
];

/// Version, revision, recorded profile and features.
// Requirement O43.
pub(super) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let features: Vec<_> = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
        let features = if features.is_empty() { "none".to_owned() } else { features.join(" ") };
        let revision = REVISION.unwrap_or("unknown");
        let profile = PROFILE.unwrap_or("none");
        format!("{}\nrevision: {revision}\nprofile: {profile}\nfeatures: {features}", env!("CARGO_PKG_VERSION"))
    });
    &TEXT
}
