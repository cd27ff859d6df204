//! The flaws of a DPoP proof.

use super::Denial;

/// The reason why a DPoP proof is invalid (RFC 9449 §4.3). The reason appears only in the log. The response says
/// `invalid_dpop_proof` or `use_dpop_nonce`.
///
/// ```
/// use rotogate::denial::{Denial, ProofFlaw};
///
/// let denial = Denial::BadProof(ProofFlaw::Replayed);
/// assert_eq!(denial.reason(), "proof_replayed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
// Requirement N30.
pub enum ProofFlaw {
    /// A proof is required, but missing.
    Missing,
    /// The proof is not a single JWT of the right form.
    Malformed(&'static str),
    /// `typ` is not `dpop+jwt`.
    Type,
    /// `alg` is not accepted.
    Algorithm,
    /// `jwk` is missing, private, weak, or does not fit `alg`.
    Key,
    /// The signature is invalid.
    Signature,
    /// `htm` is not the method of the request.
    Method,
    /// `htu` is not the URL of the request.
    Url,
    /// `iat` is too far in the past or the future.
    Time,
    /// `iat` is before the start of the gate.
    BeforeStart,
    /// `nonce` is missing, expired, or was not issued by this gate.
    Nonce,
    /// `ath` is not the hash of the access token.
    Token,
    /// `jti` is missing, empty or too long.
    Id,
    /// The proof was used before.
    Replayed,
}

impl ProofFlaw {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "proof_missing",
            Self::Malformed(_) => "proof_malformed",
            Self::Type => "proof_wrong_type",
            Self::Algorithm => "proof_wrong_algorithm",
            Self::Key => "proof_bad_key",
            Self::Signature => "proof_bad_signature",
            Self::Method => "proof_wrong_method",
            Self::Url => "proof_wrong_url",
            Self::Time => "proof_wrong_time",
            Self::BeforeStart => "proof_before_start",
            Self::Nonce => "proof_wrong_nonce",
            Self::Token => "proof_wrong_token",
            Self::Id => "proof_bad_id",
            Self::Replayed => "proof_replayed",
        }
    }
}

impl From<ProofFlaw> for Denial {
    fn from(flaw: ProofFlaw) -> Self {
        Self::BadProof(flaw)
    }
}
