//! Stored hashes of all schemes.
//!
//! [`PasswordHash::parse`] checks the cost before anything is hashed.
//!
//! The feature `imported-hashes` accepts hashes from other systems, which the next login replaces. Unsalted hashes and
//! plain-text passwords are never accepted.

use super::argon::{Argon2Hash, Block};
use super::{BadHash, Cost};

#[cfg(feature = "imported-hashes")]
use super::{bcrypt, firebase, legacy, pbkdf2, scrypt};

#[cfg(test)]
#[cfg(feature = "imported-hashes")]
mod tests;

/// A weak scheme, which is accepted only if the operator lists it. A login replaces the hash with a stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legacy {
    /// `$P$` and `$H$`: repeated MD5 (WordPress before 6.8, phpBB).
    Phpass,
    /// `$5$` of crypt(3).
    Sha256Crypt,
    /// `$6$` of crypt(3).
    Sha512Crypt,
}

impl Legacy {
    /// The weak schemes, with their configuration names.
    pub const NAMES: [(&'static str, Self); 3] =
        [("phpass", Self::Phpass), ("sha256-crypt", Self::Sha256Crypt), ("sha512-crypt", Self::Sha512Crypt)];
}

/// The accepted additional schemes and their parameters.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// The accepted weak schemes.
    pub legacy: Vec<Legacy>,
    /// The Firebase project's parameters, for `$firebase-scrypt$`.
    #[cfg(feature = "imported-hashes")]
    pub firebase: Option<firebase::Parameters>,
    /// The settings of Spring's `{pbkdf2}`.
    #[cfg(feature = "imported-hashes")]
    pub spring: pbkdf2::Spring,
}

/// A stored hash whose cost is within its limit.
pub struct PasswordHash(pub(super) HashScheme);

crate::debug_with!(PasswordHash { scheme() });

pub(super) enum HashScheme {
    Argon2(Argon2Hash),
    #[cfg(feature = "imported-hashes")]
    Bcrypt(bcrypt::Bcrypt),
    #[cfg(feature = "imported-hashes")]
    Pbkdf2(pbkdf2::Pbkdf2),
    #[cfg(feature = "imported-hashes")]
    Scrypt(scrypt::Scrypt),
    #[cfg(feature = "imported-hashes")]
    Firebase(firebase::Firebase),
    #[cfg(feature = "imported-hashes")]
    Phpass(legacy::Phpass),
    #[cfg(feature = "imported-hashes")]
    ShaCrypt(legacy::ShaCrypt),
}

/// The cost of a check. Two checks of the same class take the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CostClass {
    /// argon2id or argon2i.
    Argon2(Cost),
    /// bcrypt with 2^cost rounds.
    Bcrypt {
        /// The binary logarithm of the rounds.
        cost: u32,
    },
    /// PBKDF2 with HMAC.
    Pbkdf2 {
        /// The bits of the hash: 160 for SHA-1, 256 or 512 for SHA-2.
        bits: u16,
        /// The total number of iterations for all output blocks.
        iterations: u32,
    },
    /// scrypt.
    Scrypt {
        /// The binary logarithm of N.
        log_n: u8,
        /// The block size.
        r: u32,
        /// The parallelism.
        p: u32,
    },
    /// phpass.
    Phpass {
        /// The number of MD5 rounds.
        rounds: u32,
    },
    /// SHA-256 or SHA-512 of crypt(3).
    ShaCrypt {
        /// The bits of the hash: 256 or 512.
        bits: u16,
        /// The rounds of the hash.
        rounds: u32,
    },
}

impl Default for CostClass {
    fn default() -> Self {
        Self::Argon2(Cost::default())
    }
}

impl CostClass {
    /// The memory that a check uses, in KiB, or 0 if this is negligible.
    pub fn memory_kib(self) -> u32 {
        match self {
            Self::Argon2(cost) => cost.memory_kib,
            Self::Scrypt { log_n, r, .. } => {
                (r / 8).saturating_mul(1_u32.checked_shl(log_n.into()).unwrap_or(u32::MAX))
            }
            Self::Bcrypt { .. } | Self::Pbkdf2 { .. } | Self::Phpass { .. } | Self::ShaCrypt { .. } => 0,
        }
    }

    pub(super) fn work(self) -> ((u8, u32), u64) {
        match self {
            Self::Argon2(cost) => ((0, 0), cost.work()),
            Self::Bcrypt { cost } => ((1, 0), cost.into()),
            Self::Pbkdf2 { bits, iterations } => ((2, bits.into()), iterations.into()),
            Self::Scrypt { log_n, r, p } => {
                ((3, 0), (u64::from(r) * u64::from(p)).checked_shl(log_n.into()).unwrap_or(u64::MAX))
            }
            Self::Phpass { rounds } => ((4, 0), rounds.into()),
            Self::ShaCrypt { bits, rounds } => ((5, bits.into()), rounds.into()),
        }
    }

    /// A dummy hash does not match any password.
    pub(super) fn dummy(self) -> Result<PasswordHash, BadHash> {
        Ok(PasswordHash(match self {
            Self::Argon2(cost) => HashScheme::Argon2(Argon2Hash::dummy(cost)?),
            #[cfg(feature = "imported-hashes")]
            Self::Bcrypt { cost } => HashScheme::Bcrypt(bcrypt::Bcrypt::dummy(cost)),
            #[cfg(feature = "imported-hashes")]
            Self::Pbkdf2 { bits, iterations } => HashScheme::Pbkdf2(pbkdf2::Pbkdf2::dummy(bits, iterations)?),
            #[cfg(feature = "imported-hashes")]
            Self::Scrypt { log_n, r, p } => HashScheme::Scrypt(scrypt::Scrypt::dummy(log_n, r, p)?),
            #[cfg(feature = "imported-hashes")]
            Self::Phpass { rounds } => HashScheme::Phpass(legacy::Phpass::dummy(rounds)),
            #[cfg(feature = "imported-hashes")]
            Self::ShaCrypt { bits, rounds } => HashScheme::ShaCrypt(legacy::ShaCrypt::dummy(bits, rounds)?),
            #[cfg(not(feature = "imported-hashes"))]
            _ => {
                return Err(BadHash(
                    "an imported hash, which this program cannot check, because it was built without the feature \
                     `imported-hashes`",
                ));
            }
        }))
    }

    /// Returns classes whose checks together take the fraction `share` of this class's time.
    pub(super) fn share(self, share: f64) -> Vec<Self> {
        let of = |whole: u32| {
            let part = f64::from(whole) * share.clamp(0.0, 1.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a u32")]
            let part = part.round() as u32;
            part
        };
        // Splits the share into powers of two, down to about 1 % of the whole.
        let powers = |log: u32, least: u32| {
            let mut left = of(1 << 16);
            let mut parts = Vec::new();
            for part in (log.saturating_sub(7).max(least)..log).rev() {
                let weight = 1_u32 << (16 - (log - part));
                if left >= weight {
                    left -= weight;
                    parts.push(part);
                }
            }
            parts
        };
        match self {
            Self::Argon2(cost) => cost.part(of(1 << 16), 1 << 16).map(Self::Argon2).into_iter().collect(),
            Self::Bcrypt { cost } => powers(cost, 4).into_iter().map(|cost| Self::Bcrypt { cost }).collect(),
            Self::Pbkdf2 { bits, iterations } => match of(iterations) {
                0 => Vec::new(),
                iterations => vec![Self::Pbkdf2 { bits, iterations }],
            },
            Self::Scrypt { log_n, r, p } => powers(log_n.into(), 1)
                .into_iter()
                .filter_map(|log_n| Some(Self::Scrypt { log_n: u8::try_from(log_n).ok()?, r, p }))
                .collect(),
            Self::Phpass { rounds } => match of(rounds) {
                0 => Vec::new(),
                rounds => vec![Self::Phpass { rounds }],
            },
            Self::ShaCrypt { bits, rounds } => match of(rounds) {
                // SHA-crypt is not defined for fewer rounds.
                0..1000 => Vec::new(),
                rounds => vec![Self::ShaCrypt { bits, rounds }],
            },
        }
    }
}

impl PasswordHash {
    /// Parses a stored hash.
    ///
    /// # Errors
    /// The scheme is not accepted, or the hash is damaged or too expensive.
    pub fn parse(text: &str, accepted: &Accepted) -> Result<Self, BadHash> {
        #[cfg(feature = "imported-hashes")]
        {
            parse(text, accepted).map(Self)
        }
        #[cfg(not(feature = "imported-hashes"))]
        {
            let _ = accepted;
            Argon2Hash::parse(text, &super::argon::OURS).map(HashScheme::Argon2).map(Self)
        }
    }

    /// The name of the scheme.
    pub fn scheme(&self) -> &'static str {
        match &self.0 {
            HashScheme::Argon2(hash) => hash.name(),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Bcrypt(hash) => hash.name(),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Pbkdf2(hash) => hash.name(),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Scrypt(_) => "scrypt",
            #[cfg(feature = "imported-hashes")]
            HashScheme::Firebase(_) => "firebase-scrypt",
            #[cfg(feature = "imported-hashes")]
            HashScheme::Phpass(_) => "phpass",
            #[cfg(feature = "imported-hashes")]
            HashScheme::ShaCrypt(hash) => hash.name(),
        }
    }

    /// The cost of a check of this hash.
    pub fn class(&self) -> CostClass {
        match &self.0 {
            HashScheme::Argon2(hash) => CostClass::Argon2(hash.cost()),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Bcrypt(hash) => CostClass::Bcrypt { cost: hash.cost() },
            #[cfg(feature = "imported-hashes")]
            HashScheme::Pbkdf2(hash) => hash.class(),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Scrypt(hash) => hash.class(),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Firebase(hash) => hash.class(),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Phpass(hash) => CostClass::Phpass { rounds: hash.rounds() },
            #[cfg(feature = "imported-hashes")]
            HashScheme::ShaCrypt(hash) => hash.class(),
        }
    }

    /// Whether the hash has the default parameters. The next login replaces a hash with other parameters.
    pub fn is_ours(&self) -> bool {
        matches!(&self.0, HashScheme::Argon2(hash) if hash.is_ours())
    }

    pub(super) fn matches(&self, password: &[u8], memory: &mut Vec<Block>) -> bool {
        match &self.0 {
            HashScheme::Argon2(hash) => hash.matches(password, memory),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Bcrypt(hash) => hash.matches(password),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Pbkdf2(hash) => hash.matches(password),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Scrypt(hash) => hash.matches(password),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Firebase(hash) => hash.matches(password),
            #[cfg(feature = "imported-hashes")]
            HashScheme::Phpass(hash) => hash.matches(password),
            #[cfg(feature = "imported-hashes")]
            HashScheme::ShaCrypt(hash) => hash.matches(password),
        }
    }
}

/// The maximum length of a stored hash. The hashes of supported systems have at most a quarter of this length.
#[cfg(feature = "imported-hashes")]
const MAX_TEXT: usize = 1024;

#[cfg(feature = "imported-hashes")]
fn parse(text: &str, accepted: &Accepted) -> Result<HashScheme, BadHash> {
    const UNKNOWN: BadHash = BadHash(
        "not a hash of an accepted scheme; expected $argon2id$v=19$m=…,t=…,p=…$salt$hash, or a salted hash that \
         docs/users.md lists",
    );
    if text.len() > MAX_TEXT {
        return Err(BadHash("longer than any accepted hash"));
    }
    if let Some((encoder, rest)) = text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        return match encoder.split_once('@').map_or(encoder, |(name, _)| name) {
            "bcrypt" => bcrypt::parse(rest).map(HashScheme::Bcrypt),
            "argon2" => Argon2Hash::parse(rest, &super::argon::IMPORTED).map(HashScheme::Argon2),
            "pbkdf2" => pbkdf2::parse_spring(encoder, rest, &accepted.spring).map(HashScheme::Pbkdf2),
            "scrypt" => scrypt::parse_spring(rest).map(HashScheme::Scrypt),
            _ => Err(BadHash(
                "a Spring encoder that is not accepted, because it does not hash passwords or does not use a salt",
            )),
        };
    }
    // Django's format does not begin with a dollar sign.
    if let Some((hasher, rest)) = text.split_once('$').filter(|(hasher, _)| !hasher.is_empty()) {
        return match hasher {
            "bcrypt" => bcrypt::parse(rest).map(HashScheme::Bcrypt),
            "bcrypt_sha256" => bcrypt::parse_django_sha256(rest).map(HashScheme::Bcrypt),
            "argon2" => Argon2Hash::parse(text.strip_prefix("argon2").unwrap_or_default(), &super::argon::IMPORTED)
                .map(HashScheme::Argon2),
            "pbkdf2_sha256" => pbkdf2::parse_django(256, rest).map(HashScheme::Pbkdf2),
            "pbkdf2_sha1" => pbkdf2::parse_django(160, rest).map(HashScheme::Pbkdf2),
            "scrypt" => scrypt::parse_django(rest).map(HashScheme::Scrypt),
            _ => Err(UNKNOWN),
        };
    }
    let Some((id, rest)) = text.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
        return pbkdf2::parse_asp_net(text).map(HashScheme::Pbkdf2).map_err(|error| error.unwrap_or(UNKNOWN));
    };
    match id {
        "argon2id" | "argon2i" => Argon2Hash::parse(text, &super::argon::IMPORTED).map(HashScheme::Argon2),
        "2a" | "2b" | "2y" => bcrypt::parse(text).map(HashScheme::Bcrypt),
        "2x" => Err(BadHash("bcrypt 2x, which is not accepted, because a faulty implementation made such hashes")),
        "bcrypt-sha256" => bcrypt::parse_passlib_sha256(rest).map(HashScheme::Bcrypt),
        "pbkdf2" => pbkdf2::parse_passlib(160, rest).map(HashScheme::Pbkdf2),
        "pbkdf2-sha256" => pbkdf2::parse_passlib(256, rest).map(HashScheme::Pbkdf2),
        "pbkdf2-sha512" => pbkdf2::parse_passlib(512, rest).map(HashScheme::Pbkdf2),
        "scrypt" => scrypt::parse_passlib(rest).map(HashScheme::Scrypt),
        "7" => scrypt::parse_crypt(rest).map(HashScheme::Scrypt),
        "firebase-scrypt" => firebase::parse(rest, accepted.firebase.as_ref()).map(HashScheme::Firebase),
        "P" | "H" => listed(Legacy::Phpass, accepted).and_then(|()| legacy::parse_phpass(rest).map(HashScheme::Phpass)),
        "5" => listed(Legacy::Sha256Crypt, accepted)
            .and_then(|()| legacy::parse_sha_crypt(256, text, rest).map(HashScheme::ShaCrypt)),
        "6" => listed(Legacy::Sha512Crypt, accepted)
            .and_then(|()| legacy::parse_sha_crypt(512, text, rest).map(HashScheme::ShaCrypt)),
        _ => Err(UNKNOWN),
    }
}

#[cfg(feature = "imported-hashes")]
fn listed(scheme: Legacy, accepted: &Accepted) -> Result<(), BadHash> {
    if accepted.legacy.contains(&scheme) {
        return Ok(());
    }
    Err(BadHash(match scheme {
        Legacy::Phpass => "phpass, which is weak; accepted only with hashes = [\"phpass\"] in [directory]",
        Legacy::Sha256Crypt => {
            "sha256-crypt, which is weak; accepted only with hashes = [\"sha256-crypt\"] in [directory]"
        }
        Legacy::Sha512Crypt => {
            "sha512-crypt, which is weak; accepted only with hashes = [\"sha512-crypt\"] in [directory]"
        }
    }))
}
