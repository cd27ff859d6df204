//! bcrypt and two variants. Django and passlib hash the password first, because bcrypt ignores everything after 72
//! bytes.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD};
use zeroize::Zeroizing;

use super::BadHash;
use crate::random::are_equal;

/// At a higher cost, a check takes more than two seconds.
const MAX_COST: u32 = 15;
/// A 16-byte salt in base64 has 132 bits, and some implementations set the four surplus bits.
const TEXT: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

enum Before {
    Nothing,
    /// Django passes bcrypt the hexadecimal SHA-256 digest of the password.
    HexSha256,
    /// passlib passes bcrypt the base64 HMAC-SHA-256 of the password. The key is the salt.
    Hmac(Box<str>),
}

pub(super) struct Bcrypt {
    cost: u32,
    salt: [u8; 16],
    output: [u8; 23],
    before: Before,
}

pub(super) fn parse(text: &str) -> Result<Bcrypt, BadHash> {
    let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|version| text.strip_prefix(version));
    let rest = rest.ok_or(BadHash("not bcrypt of version 2a, 2b or 2y"))?;
    match rest.split_once('$').map(|(cost, rest)| (cost, rest.split_at_checked(22))) {
        Some((cost, Some((salt, output)))) if cost.len() == 2 => new(cost, salt, output, Before::Nothing),
        _ => Err(BROKEN),
    }
}

pub(super) fn parse_django_sha256(rest: &str) -> Result<Bcrypt, BadHash> {
    Ok(Bcrypt { before: Before::HexSha256, ..parse(rest)? })
}

/// The whole format is `$bcrypt-sha256$v=2,t=2b,r=12$salt$hash`.
pub(super) fn parse_passlib_sha256(rest: &str) -> Result<Bcrypt, BadHash> {
    let mut fields = rest.split('$');
    match (fields.next().and_then(|p| p.strip_prefix("v=2,t=2b,r=")), fields.next(), fields.next(), fields.next()) {
        (Some(cost), Some(salt), Some(output), None) => new(cost, salt, output, Before::Hmac(salt.into())),
        _ => Err(BadHash("not a bcrypt-sha256 hash of passlib; expected $bcrypt-sha256$v=2,t=2b,r=…$salt$hash")),
    }
}

const BROKEN: BadHash = BadHash("damaged; a bcrypt hash has 60 characters, $2b$12$ and 53 more");

fn new(cost: &str, salt: &str, output: &str, before: Before) -> Result<Bcrypt, BadHash> {
    let cost = cost.parse().ok().filter(|_| cost.bytes().all(|c| c.is_ascii_digit())).ok_or(BROKEN)?;
    match cost {
        4..=MAX_COST => {}
        0..4 => return Err(BROKEN),
        _ => return Err(BadHash("too costly to check: the cost of a bcrypt hash must be at most 15")),
    }
    let decode = |text: &str| TEXT.decode(text).ok();
    let salt = decode(salt).and_then(|salt| salt.try_into().ok()).ok_or(BROKEN)?;
    let output = decode(output).and_then(|output| output.try_into().ok()).ok_or(BROKEN)?;
    Ok(Bcrypt { cost, salt, output, before })
}

impl Bcrypt {
    pub(super) fn dummy(cost: u32) -> Self {
        Self { cost, salt: [0; 16], output: [0; 23], before: Before::Nothing }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.before {
            Before::Nothing => "bcrypt",
            Before::HexSha256 | Before::Hmac(_) => "bcrypt-sha256",
        }
    }

    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        // bcrypt reads at most 72 bytes. A shorter password is terminated with a zero byte.
        let mut input = Zeroizing::new([0; 72]);
        let used = {
            let prepared;
            let bytes = match &self.before {
                Before::Nothing => password,
                Before::HexSha256 => {
                    let digest = digest::digest(&digest::SHA256, password);
                    prepared =
                        Zeroizing::new(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
                    prepared.as_bytes()
                }
                Before::Hmac(salt) => {
                    let key = hmac::Key::new(hmac::HMAC_SHA256, salt.as_bytes());
                    prepared = Zeroizing::new(STANDARD.encode(hmac::sign(&key, password)));
                    prepared.as_bytes()
                }
            };
            input.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            (bytes.len() + 1).min(input.len())
        };
        let output = bcrypt::bcrypt(self.cost, self.salt, input.get(..used).unwrap_or_default());
        output.get(..23).is_some_and(|output| are_equal(&self.output, output))
    }
}
