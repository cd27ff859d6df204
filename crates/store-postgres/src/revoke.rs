//! Revocations as they are written, and the sweep.

use tokio_postgres::types::Type;

use super::PostgresInner;
use super::call::{Arg, ResultRow};
use super::record::{entry, key, millis, target, uuid};
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{RevokedBecause, SessionId};
use rotogate_core::store::kit::fields::{encode_effect, reason_number};
use rotogate_core::store::rules::{MAX_SWEPT, ends_session, fits};
use rotogate_core::store::{StoreError, Swept};

/// How many writes there were.
pub(super) fn writes(answer: &ResultRow) -> Result<u64, StoreError> {
    answer.get::<i64>("o_writes").map(|writes| u64::try_from(writes).unwrap_or_default())
}

/// Which sessions an entry is about.
pub(super) enum RevocationScope<'a> {
    Session(SessionId),
    Subject(&'a str),
    All,
    Nothing,
}

impl PostgresInner {
    pub(super) async fn revoke(&self, given: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        fits(&given)?;
        let reach = match &given.target {
            Target::Session(id) => RevocationScope::Session(*id),
            Target::Subject { issuer, subject } if *issuer == self.issuer => RevocationScope::Subject(subject),
            Target::Client { issuer, .. } if *issuer == self.issuer => RevocationScope::All,
            Target::Global => RevocationScope::All,
            // No session of ours, so no session's end: the caller knows how long the tokens live.
            Target::Subject { .. } | Target::Client { .. } | Target::Token { .. } => RevocationScope::Nothing,
        };
        self.revoke_as_far(&given, because, reach).await
    }

    pub(super) async fn revoke_as_far(
        &self,
        given: &Revocation,
        because: RevokedBecause,
        reach: RevocationScope<'_>,
    ) -> Result<Revocation, StoreError> {
        let (no_id, no_subject) = (Arg::Null(Type::UUID), Arg::Null(Type::BYTEA));
        let (reach, id, subject) = match reach {
            RevocationScope::Session(id) => ("session", Arg::Id(uuid(id)), no_subject),
            RevocationScope::Subject(name) => ("subject", no_id, Arg::bytes(&key(name.as_bytes()))),
            RevocationScope::All => ("all", no_id, no_subject),
            RevocationScope::Nothing => ("none", no_id, no_subject),
        };
        let of = target(&given.target)?;
        let args = vec![
            Arg::bytes(&key(&of)),
            Arg::bytes(&of),
            Arg::bytes(&encode_effect(given.effect)),
            Arg::Big(millis(given.until)),
            self.leeway(),
            Arg::Text(reach),
            id,
            subject,
            Arg::Small(reason_number(because).into()),
            Arg::Bool(ends_session(given.effect)),
        ];
        let answer = self.one_by(&self.revocations, "rg_revoke", args).await?;
        if answer.status()? != "merged" {
            return Err(answer.unknown());
        }
        if answer.get("o_changed")? {
            self.written.notify_one();
        }
        if answer.get::<Option<i16>>("o_version")?.is_some() {
            tracing::error!(target = %given.target, "session revoked, but its record cannot be read");
        }
        entry(&of, answer.get("o_effect")?, answer.get("o_until")?)
    }

    /// Of several nodes that sweep at once, one does it.
    pub(super) async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let limit = Arg::Int(i32::try_from(MAX_SWEPT).unwrap_or(i32::MAX));
            let answer = self.one("rg_sweep", vec![limit]).await?;
            if answer.status()? != "swept" {
                return Err(answer.unknown());
            }
            let writes = writes(&answer)?;
            swept.sessions += u64::try_from(answer.get::<i64>("o_sessions")?).unwrap_or_default();
            swept.revocations += u64::try_from(answer.get::<i64>("o_revocations")?).unwrap_or_default();
            if !answer.get::<bool>("o_more")? {
                self.mark.raise(writes).await;
                return Ok(swept);
            }
        }
    }
}
