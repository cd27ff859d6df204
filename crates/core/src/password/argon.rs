//! argon2, for the gate's own hashes and those of Django, passlib, Spring and PHP.

pub(super) use argon2::Block;
use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::{BadHash, Cost};
use crate::invalid::InvalidValue;
use crate::random::{are_equal, random};

const MAX_OUTPUT: usize = 64;

pub(super) struct Argon2Bounds {
    cost: Cost,
    only_argon2id: bool,
    too_dear: &'static str,
}

pub(super) const OURS: Argon2Bounds = Argon2Bounds {
    cost: Cost { memory_kib: 64 * 1024, passes: 10, lanes: 4 },
    only_argon2id: true,
    too_dear: "too costly to check: m must be at most 65536 (64 MiB), t at most 10 and p at most 4",
};

#[cfg(feature = "imported-hashes")]
pub(super) const IMPORTED: Argon2Bounds = Argon2Bounds {
    cost: Cost { memory_kib: 256 * 1024, passes: 20, lanes: 8 },
    only_argon2id: false,
    too_dear: "too costly to check: m must be at most 262144 (256 MiB), t at most 20 and p at most 8",
};

pub(super) struct Argon2Hash {
    algorithm: Algorithm,
    params: Params,
    salt: Salt,
    output: Output,
}

impl Argon2Hash {
    pub(super) fn parse(phc: &str, bounds: &Argon2Bounds) -> Result<Self, BadHash> {
        let hash = PasswordHash::new(phc)
            .map_err(|_| BadHash("not a PHC string; expected $argon2id$v=19$m=…,t=…,p=…$salt$hash"))?;
        let algorithm = match hash.algorithm.as_str() {
            "argon2id" => Algorithm::Argon2id,
            "argon2i" if !bounds.only_argon2id => Algorithm::Argon2i,
            _ if bounds.only_argon2id => {
                return Err(BadHash("of an algorithm other than argon2id; only argon2id is accepted"));
            }
            _ => return Err(BadHash("of an algorithm other than argon2id and argon2i")),
        };
        if hash.version != Some(19) {
            return Err(BadHash("of a version other than v=19; only argon2id v=19 is accepted"));
        }
        let params =
            Params::try_from(&hash).map_err(|_| BadHash("malformed: m, t and p are not valid argon2id parameters"))?;
        let caps = &bounds.cost;
        if params.m_cost() > caps.memory_kib || params.t_cost() > caps.passes || params.p_cost() > caps.lanes {
            return Err(BadHash(bounds.too_dear));
        }
        if !params.keyid().is_empty() || !params.data().is_empty() {
            return Err(BadHash("not supported, because it has a `keyid` or `data` parameter"));
        }
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
            return Err(BadHash("incomplete: the salt or the hash is missing"));
        };
        if !(16..=MAX_OUTPUT).contains(&output.len()) {
            return Err(BadHash("malformed: the hash is shorter than 16 bytes or longer than 64"));
        }
        Ok(Self { algorithm, params, salt, output })
    }

    pub(super) fn dummy(cost: Cost) -> Result<Self, BadHash> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None);
        match (params, Salt::new(&[0; 16]), Output::new(&[0; 32])) {
            (Ok(params), Ok(salt), Ok(output)) => Ok(Self { algorithm: Algorithm::Argon2id, params, salt, output }),
            _ => Err(BadHash("the configured cost of a password check is invalid")),
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.algorithm == Algorithm::Argon2id && self.cost() == Cost::default()
    }

    pub(super) fn name(&self) -> &'static str {
        if self.algorithm == Algorithm::Argon2id { "argon2id" } else { "argon2i" }
    }

    pub(super) fn cost(&self) -> Cost {
        Cost { memory_kib: self.params.m_cost(), passes: self.params.t_cost(), lanes: self.params.p_cost() }
    }

    pub(super) fn matches(&self, password: &[u8], memory: &mut Vec<Block>) -> bool {
        let mut out = Zeroizing::new([0; MAX_OUTPUT]);
        let Some(out) = out.get_mut(..self.output.len()) else { return false };
        let argon2 = Argon2::new(self.algorithm, Version::V0x13, self.params.clone());
        if memory.len() < self.params.block_count() {
            memory.resize(self.params.block_count(), Block::new());
        }
        let run = argon2.hash_password_into_with_memory(password, &self.salt, out, memory.as_mut_slice());
        run.is_ok() && are_equal(self.output.as_bytes(), out)
    }
}

/// Returns a PHC string with a random salt.
pub(super) fn hash(password: &[u8], cost: Cost) -> Result<String, InvalidValue> {
    let salt = random::<16>()
        .map_err(|_| InvalidValue::new("the password could not be hashed: the system returned no random bytes"))?;
    let failed = |_| InvalidValue::new("argon2 could not hash the password");
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).map_err(failed)?;
    let mut out = Zeroizing::new([0; Params::DEFAULT_OUTPUT_LEN]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt.as_slice(), out.as_mut_slice())
        .map_err(failed)?;
    let text = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, bytes);
    let Cost { memory_kib, passes, lanes } = cost;
    Ok(format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}", text(salt.as_slice()), text(out.as_slice())))
}
