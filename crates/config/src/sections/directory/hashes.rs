//! The keys about imported password hashes.

use std::path::{Path, PathBuf};

use toml::Value as Toml;

use super::super::super::declare::section;
use super::super::super::print::{Print, Words};
use super::super::super::value;
use super::super::path_in;
use rotogate_core::password::{Accepted, Cost, CostClass, FirebaseParameters, Legacy, Spring};
use rotogate_core::private_file::read_private;
use rotogate_directories::ExpectedHash;
use rotogate_kit::config::Value;
use secrecy::SecretString;

section! {
    /// Imported password hashes: which are accepted besides those that always are, and what some of them need.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct HashesConfig, read by pub(super) read_keys(section, dir: &Path) {
        /// Schemes of password hashes that a later import brings (`["bcrypt:10"]`). A login of an unknown user
        /// takes as long as the slowest (docs/users.md).
        restart hashes as some: Vec<ExpectedHash> = list_or_empty(expected),
        /// Weak schemes that the gate accepts until a login replaces the hash: phpass, sha256-crypt, sha512-crypt.
        restart allow_legacy as some: Vec<Legacy> = list_or_empty(value::word_of),
        /// File with the password hash parameters of the Firebase project of imported users.
        restart firebase: Option<PathBuf> = get(path_in(dir)),
        /// Iterations of Spring's `{pbkdf2}`, whose hashes do not state them; at most 5000000. Set it if the application
        /// that made the hashes set others than Spring's default.
        restart spring_iterations as "spring_pbkdf2_iterations": Option<u32> = get(value::count(1, 5_000_000)),
        /// File with the secret of Spring's `{pbkdf2}`. Set it if the application that made the hashes had one.
        restart spring_secret_file as "spring_pbkdf2_secret_file": Option<PathBuf> = get(path_in(dir)),
    }
    with {
        /// Source of users: `"file"`; another system: `"http"`, `"ldap"` or `"sql"`; `"none"`: the gate has no
        /// users.
        reload kind: text,
        /// Users file; created at the first start with one user, whose password is printed once.
        restart path: text,
        /// Name in logs and metrics. Default: the kind.
        reload name: text,
        /// Accounts of an entry of `[[directories]]`. Unset: all accounts that no other entry has, and users
        /// without an account.
        reload accounts: list,
    }
}

impl Words for Legacy {
    const WORDS: &'static [(&'static str, Self)] = &Self::NAMES;
}

/// A scheme that `hashes` may list.
struct Scheme {
    name: &'static str,
    /// The cost that software with this scheme uses at present.
    usual: u32,
    /// The costs that may follow the name. The maximum is the bound of a stored hash.
    costs: std::ops::RangeInclusive<u32>,
    class: fn(u32) -> CostClass,
}

const SCHEMES: [Scheme; 6] = [
    // All costs of argon2 form one class with different amounts of work, counted in passes over 19 MiB.
    Scheme {
        name: "argon2",
        usual: 2,
        costs: 1..=20,
        class: |passes| CostClass::Argon2(Cost { passes, ..Cost::default() }),
    },
    Scheme { name: "bcrypt", usual: 12, costs: 4..=15, class: |cost| CostClass::Bcrypt { cost } },
    Scheme { name: "pbkdf2-sha1", usual: 1_300_000, costs: ITERATIONS, class: |n| pbkdf2(160, n) },
    Scheme { name: "pbkdf2-sha256", usual: 600_000, costs: ITERATIONS, class: |n| pbkdf2(256, n) },
    Scheme { name: "pbkdf2-sha512", usual: 210_000, costs: ITERATIONS, class: |n| pbkdf2(512, n) },
    Scheme { name: "scrypt", usual: 16, costs: 10..=16, class: scrypt },
];

const ITERATIONS: std::ops::RangeInclusive<u32> = 1..=5_000_000;

const fn pbkdf2(bits: u16, iterations: u32) -> CostClass {
    CostClass::Pbkdf2 { bits, iterations }
}

/// The class with the block size that all implementations use.
fn scrypt(log_n: u32) -> CostClass {
    CostClass::Scrypt { log_n: u8::try_from(log_n).unwrap_or(u8::MAX), r: 8, p: 1 }
}

/// Reads `"bcrypt"`, or `"bcrypt:10"` with a cost.
pub(super) fn expected(value: &Value) -> Result<ExpectedHash, String> {
    let text = value::text(value)?;
    let (name, cost) = text.split_once(':').map_or((text.as_str(), None), |(name, cost)| (name, Some(cost)));
    let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.name == name) else {
        let names: Vec<_> = SCHEMES.iter().map(|scheme| scheme.name).collect();
        let names = names.join(", ");
        return Err(format!("{} is no known scheme; expected one of {names}", value.describe()));
    };
    let cost = match cost.map(str::parse) {
        None => scheme.usual,
        Some(Ok(cost)) if scheme.costs.contains(&cost) => cost,
        Some(_) => {
            let (least, most) = (scheme.costs.start(), scheme.costs.end());
            return Err(format!(
                "{} has no cost that is accepted; expected \"{name}:{}\", with a whole number from {least} to {most}",
                value.describe(),
                scheme.usual
            ));
        }
    };
    let class = (scheme.class)(cost);
    Ok(ExpectedHash { text, class })
}

impl Print for ExpectedHash {
    fn print(&self) -> Toml {
        self.text.as_str().into()
    }
}

impl HashesConfig {
    /// The classes of the hashes that users may have.
    pub fn classes(&self) -> impl Iterator<Item = CostClass> {
        self.hashes.iter().map(|hash| hash.class)
    }

    /// Reads the files. `table` is the name of the table.
    ///
    /// # Errors
    /// A text that names the key, the file and the problem.
    pub fn accepted(&self, table: &str) -> Result<Accepted, String> {
        let Self { hashes: _, allow_legacy, firebase, spring_iterations, spring_secret_file } = self;
        let parameters = |path: &PathBuf| {
            let parameters = FirebaseParameters::from_json(&read_private(path)?);
            parameters.map_err(|error| format!("{}: {error}", path.display()))
        };
        let secret = |path: &PathBuf| {
            read_private(path).map(|text| SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
        };
        let of = |key: &str, error: String| format!("{table}.{key}: {error}");
        Ok(Accepted {
            legacy: allow_legacy.clone(),
            firebase: firebase.as_ref().map(parameters).transpose().map_err(|error| of("firebase", error))?,
            spring: Spring {
                iterations: *spring_iterations,
                secret: spring_secret_file
                    .as_ref()
                    .map(secret)
                    .transpose()
                    .map_err(|error| of("spring_pbkdf2_secret_file", error))?,
            },
        })
    }
}
