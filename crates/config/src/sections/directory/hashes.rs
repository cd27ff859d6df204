//! The configuration keys for imported password hashes.

use std::path::{Path, PathBuf};

use toml::Value as Toml;

use super::super::super::declare::section;
use super::super::super::print::Print;
use super::super::super::value;
use super::super::path_in;
use rotogate_core::password::{Accepted, Cost, CostClass, FirebaseParameters, Legacy, Spring};
use rotogate_core::private_file::read_private;
use rotogate_directories::ExpectedHash;
use rotogate_kit::config::Value;

section! {
    /// Settings for imported password hashes: which schemes are accepted in addition to the usual ones, and the
    /// parameters that some schemes need.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct HashesConfig, read by pub(super) read_keys(section, dir: &Path) {
        /// Hash schemes that you will import later (`["bcrypt:10"]`), and weak schemes to accept until the user's next
        /// login replaces the hash: phpass, sha256-crypt, sha512-crypt. A login with an unknown username takes as long
        /// as a check with the slowest scheme (docs/users.md).
        restart hashes as some: Vec<AcceptedHash> = list_or_empty(accepted),
        /// File (0600) with parameters that imported hashes do not contain: the password hash parameters of a Firebase
        /// project, or the iterations and the secret of Spring's `{pbkdf2}` if they differ from Spring's defaults
        /// (docs/users.md).
        restart hash_parameters: Option<PathBuf> = get(path_in(dir)),
    }
    with {
        /// Where the users are: `"file"`; in another system: `"http"`, `"ldap"` or `"sql"`; `"none"`: the gate has no
        /// users of its own.
        reload kind: text,
        /// Users file. At the first start the gate creates it with one user, and prints that user's password once.
        restart path: text,
        /// Name of the directory in logs and metrics. Required if two directories have the same `kind`. Default: the
        /// `kind`.
        reload name: text,
        /// Accounts whose users are in this directory, for an entry of `[[directories]]`. Unset: all accounts that no
        /// other entry lists, and users without an account. Set it if tenants have directories of their own.
        reload accounts: list,
    }
}

/// An entry of `hashes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptedHash {
    /// A scheme that is always accepted.
    Usual(ExpectedHash),
    /// A weak scheme.
    Weak(Legacy),
}

fn accepted(value: &Value) -> Result<AcceptedHash, String> {
    let weak = Legacy::NAMES.iter().find(|(name, _)| value.as_text() == Some(name));
    match weak {
        Some((_, weak)) => Ok(AcceptedHash::Weak(*weak)),
        None => expected(value).map(AcceptedHash::Usual),
    }
}

impl Print for AcceptedHash {
    fn print(&self) -> Toml {
        match self {
            Self::Usual(hash) => hash.print(),
            Self::Weak(weak) => {
                Legacy::NAMES.iter().find(|(_, known)| known == weak).map_or("", |(name, _)| name).into()
            }
        }
    }
}

/// Parses the content of the file `hash_parameters`. Error messages do not repeat values, because they may be secret.
fn hash_parameters(text: &str) -> Result<(Option<FirebaseParameters>, Spring), String> {
    const SPRING: &str = "spring_pbkdf2";
    let read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|error| {
        let place = format!("{}:{}", error.line(), error.column());
        format!("{place}: expected JSON with Firebase's parameters or {{ \"{SPRING}\": {{ \"iterations\": 310000 }} }}")
    })?;
    let Some(spring) = read.get(SPRING) else {
        return Ok((Some(FirebaseParameters::from_json(text)?), Spring::default()));
    };
    let expected = || {
        let most = ITERATIONS.end();
        format!("{SPRING}: expected \"iterations\" (a number from 1 to {most}), \"secret\" (a string), or both")
    };
    let mut found = Spring::default();
    for (key, value) in spring.as_object().filter(|own| !own.is_empty()).ok_or_else(expected)? {
        match &**key {
            "iterations" => {
                let iterations = value.as_u64().and_then(|number| u32::try_from(number).ok());
                found.iterations = Some(iterations.filter(|number| ITERATIONS.contains(number)).ok_or_else(expected)?);
            }
            "secret" => found.secret = Some(value.as_str().ok_or_else(expected)?.to_owned().into()),
            _ => return Err(expected()),
        }
    }
    let firebase = read.contains_key("base64_signer_key").then(|| FirebaseParameters::from_json(text)).transpose()?;
    Ok((firebase, found))
}

/// A scheme that `hashes` may list.
struct Scheme {
    name: &'static str,
    /// The usual cost of this scheme.
    usual: u32,
    /// The permitted costs. The maximum also applies to stored hashes.
    costs: std::ops::RangeInclusive<u32>,
    class: fn(u32) -> CostClass,
}

const SCHEMES: [Scheme; 6] = [
    // The cost of argon2 is the number of passes over 19 MiB.
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
        return Err(format!("{} is not a known hash scheme; expected one of {names}", value.describe()));
    };
    let cost = match cost.map(str::parse) {
        None => scheme.usual,
        Some(Ok(cost)) if scheme.costs.contains(&cost) => cost,
        Some(_) => {
            let (least, most) = (scheme.costs.start(), scheme.costs.end());
            return Err(format!(
                "{} has an invalid cost; expected \"{name}:{}\", with a whole number from {least} to {most}",
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
    /// The cost classes of the accepted strong hashes.
    pub fn classes(&self) -> impl Iterator<Item = CostClass> {
        self.hashes.iter().filter_map(|hash| match hash {
            AcceptedHash::Usual(hash) => Some(hash.class),
            AcceptedHash::Weak(_) => None,
        })
    }

    /// Reads the file with the parameters. `table` is the name of the directory's table.
    ///
    /// # Errors
    /// A message that names the key, the file and the problem.
    pub fn accepted(&self, table: &str) -> Result<Accepted, String> {
        let read = |path: &PathBuf| {
            let parameters = hash_parameters(&read_private(path)?);
            parameters.map_err(|error| format!("{}: {error}", path.display()))
        };
        let parameters = self.hash_parameters.as_ref().map(read).transpose();
        let (firebase, spring) =
            parameters.map_err(|error| format!("{table}.hash_parameters: {error}"))?.unwrap_or_default();
        let weak = |hash: &AcceptedHash| match hash {
            AcceptedHash::Usual(_) => None,
            AcceptedHash::Weak(weak) => Some(*weak),
        };
        Ok(Accepted { legacy: self.hashes.iter().filter_map(weak).collect(), firebase, spring })
    }
}
