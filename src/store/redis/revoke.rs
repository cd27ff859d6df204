//! Revocations as they are written, and their sweep.

use super::super::rules::{ends_session, fits};
use super::super::{StoreError, Swept};
use super::Inner;
use super::record::{Op, decode_merged, encode_effect, millis, reason_number, target};
use super::script::{REVOKE, SWEEP};
use crate::revocation::{Revocation, Target};
use crate::session::RevokedBecause;

/// How many revocations one script removes: other writers wait meanwhile.
const SWEPT_AT_ONCE: u64 = 128;
/// A node that has not been heard of for so long is forgotten.
const NODE_FORGOTTEN_MS: u64 = 3_600_000;

impl Inner {
    pub(super) async fn revoke(
        &self,
        op: Op,
        entry: Revocation,
        because: RevokedBecause,
    ) -> Result<Revocation, StoreError> {
        fits(&entry)?;
        let (reaches, keys, id) = match &entry.target {
            Target::Session(id) => ("session", vec![self.keys.session(*id)], id.as_bytes().to_vec()),
            Target::Subject { issuer, subject } if *issuer == self.issuer => {
                ("subject", vec![self.keys.subject(subject)], Vec::new())
            }
            Target::Client { issuer, .. } if *issuer == self.issuer => ("all", Vec::new(), Vec::new()),
            Target::Global => ("all", Vec::new(), Vec::new()),
            // No session of ours, so no session's end: the caller knows how long the tokens live.
            Target::Subject { .. } | Target::Client { .. } | Target::Token { .. } => ("none", Vec::new(), Vec::new()),
        };
        let field = target(&entry.target)?;
        let args = vec![
            field.clone(),
            encode_effect(entry.effect),
            millis(entry.until).into(),
            self.leeway(),
            reaches.into(),
            reason_number(because).to_string().into(),
            vec![if ends_session(entry.effect) { b'1' } else { b'0' }],
            self.keys.of("sub:"),
            id,
        ];
        let mut answer = self.run_as(&self.commands, op, &REVOKE, keys, args).await?;
        if answer.status != "merged" {
            return Err(answer.unknown());
        }
        let (effect, until) = (answer.bytes()?, answer.bytes()?);
        if answer.number()? != 0 {
            tracing::error!(target = ?entry.target, "session revoked, but another version wrote its record");
        }
        decode_merged(&field, &effect, &until)
    }

    /// Sessions expire by themselves. Of several nodes that sweep at once, each removes what the others have not.
    pub(super) async fn sweep(&self) -> Result<Swept, StoreError> {
        self.mark.raise(self.seq.load(std::sync::atomic::Ordering::Acquire)).await;
        let mut swept = Swept::default();
        loop {
            let args = vec![SWEPT_AT_ONCE.to_string().into(), NODE_FORGOTTEN_MS.to_string().into()];
            let mut answer = self.run(&SWEEP, vec![self.keys.of("n")], args).await?;
            if answer.status != "swept" {
                return Err(answer.unknown());
            }
            let removed = answer.number()?;
            swept.revocations += removed;
            if removed < SWEPT_AT_ONCE {
                return Ok(swept);
            }
        }
    }
}
