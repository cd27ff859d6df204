//! scrypt, as in Django, passlib, Spring, and `$7$` of crypt(3).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use base64ct::{Base64ShaCrypt, Encoding};
use scrypt::Params;
use zeroize::Zeroizing;

use super::BadHash;
use super::pbkdf2::number;
use super::scheme::CostClass;
use crate::random::are_equal;

const BROKEN: BadHash = BadHash("damaged: its parts do not form an scrypt hash");
/// scrypt needs N · r · 128 bytes of memory.
const MAX_MEMORY: u64 = 64 << 20;
/// Django has used 5 since version 5.1.
const MAX_PARALLELISM: u32 = 8;

pub(super) struct Scrypt {
    pub(super) cost: ScryptCost,
    salt: Box<[u8]>,
    output: Box<[u8]>,
}

#[derive(Clone, Copy)]
pub(super) struct ScryptCost {
    log_n: u8,
    r: u32,
    p: u32,
    params: Params,
}

impl ScryptCost {
    pub(super) fn new(log_n: u32, r: u32, p: u32) -> Result<Self, BadHash> {
        const TOO_DEAR: BadHash = BadHash("too costly to check: N · r · 128 must be at most 64 MiB, and p at most 8");
        let memory = 1_u64.checked_shl(log_n).and_then(|n| n.checked_mul(u64::from(r))?.checked_mul(128));
        if memory.is_none_or(|memory| memory > MAX_MEMORY) || log_n > 63 || p > MAX_PARALLELISM {
            return Err(TOO_DEAR);
        }
        let log_n = u8::try_from(log_n).ok().filter(|log_n| *log_n > 0).ok_or(BROKEN)?;
        let params = Params::new(log_n, r, p).map_err(|_| BROKEN)?;
        Ok(Self { log_n, r, p, params })
    }

    pub(super) fn class(self) -> CostClass {
        CostClass::Scrypt { log_n: self.log_n, r: self.r, p: self.p }
    }

    pub(super) fn run(self, password: &[u8], salt: &[u8], output: &mut [u8]) -> bool {
        scrypt::scrypt(password, salt, &self.params, output).is_ok()
    }
}

impl Scrypt {
    fn new(cost: ScryptCost, salt: &[u8], output: &[u8]) -> Result<Self, BadHash> {
        if !(16..=64).contains(&output.len()) || salt.is_empty() {
            return Err(BadHash("damaged: the salt is missing, or the scrypt hash does not have 16 to 64 bytes"));
        }
        Ok(Self { cost, salt: salt.into(), output: output.into() })
    }

    pub(super) fn dummy(log_n: u8, r: u32, p: u32) -> Result<Self, BadHash> {
        Self::new(ScryptCost::new(log_n.into(), r, p)?, &[0; 16], &[0; 32])
    }

    pub(super) fn class(&self) -> CostClass {
        self.cost.class()
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut output = Zeroizing::new([0; 64]);
        let Some(output) = output.get_mut(..self.output.len()) else { return false };
        self.cost.run(password, &self.salt, output) && are_equal(&self.output, output)
    }
}

/// The format is `scrypt$N$salt$r$p$hash`. The salt is text, and the hash is base64.
pub(super) fn parse_django(rest: &str) -> Result<Scrypt, BadHash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [n, salt, r, p, output] = *fields else { return Err(BROKEN) };
    let n = number(n)?;
    if !n.is_power_of_two() {
        return Err(BadHash("malformed: its N is not a power of two, or is too high"));
    }
    let cost = ScryptCost::new(n.trailing_zeros(), number(r)?, number(p)?)?;
    Scrypt::new(cost, salt.as_bytes(), &STANDARD.decode(output).map_err(|_| BROKEN)?)
}

/// The format is `$scrypt$ln=…,r=…,p=…$salt$hash`, in base64 without padding.
pub(super) fn parse_passlib(rest: &str) -> Result<Scrypt, BadHash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [params, salt, output] = *fields else { return Err(BROKEN) };
    let mut params = params.split(',');
    let mut param = |name: &str| params.next().and_then(|p| p.strip_prefix(name)).ok_or(BROKEN).and_then(number);
    let (log_n, r, p) = (param("ln=")?, param("r=")?, param("p=")?);
    if params.next().is_some() {
        return Err(BROKEN);
    }
    let decode = |text| STANDARD_NO_PAD.decode(text).map_err(|_| BROKEN);
    Scrypt::new(ScryptCost::new(log_n, r, p)?, &decode(salt)?, &decode(output)?)
}

/// The text starts with a digit for the logarithm of N, five for r, five for p, and the salt.
pub(super) fn parse_crypt(rest: &str) -> Result<Scrypt, BadHash> {
    let (head, output) = rest.split_once('$').ok_or(BROKEN)?;
    let digit = |c: u8| "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".bytes().position(|d| d == c);
    let value = |text: &str| {
        text.bytes().rev().try_fold(0_u32, |sum, c| Some(sum << 6 | u32::try_from(digit(c)?).ok()?)).ok_or(BROKEN)
    };
    let part = |from: usize, to: usize| head.get(from..to).ok_or(BROKEN);
    let cost = ScryptCost::new(value(part(0, 1)?)?, value(part(1, 6)?)?, value(part(6, 11)?)?)?;
    let salt = head.get(11..).ok_or(BROKEN)?;
    Scrypt::new(cost, salt.as_bytes(), &Base64ShaCrypt::decode_vec(output).map_err(|_| BROKEN)?)
}

/// The format is `{scrypt}$params$salt$hash`. `params` is a hexadecimal number that contains log2(N), r and p.
pub(super) fn parse_spring(rest: &str) -> Result<Scrypt, BadHash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let ["", params, salt, output] = *fields else { return Err(BROKEN) };
    let is_hex = !params.starts_with('+');
    let params = u32::from_str_radix(params, 16).ok().filter(|_| is_hex).ok_or(BROKEN)?;
    let cost = ScryptCost::new(params >> 16, params >> 8 & 0xff, params & 0xff)?;
    let decode = |text| STANDARD.decode(text).map_err(|_| BROKEN);
    Scrypt::new(cost, &decode(salt)?, &decode(output)?)
}
