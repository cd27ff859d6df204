//! Sessions: load, insert, swap, confirm, list.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::PostgresInner;
use super::call::{Arg, ResultRow, unexpected};
use super::connect::{ConnectionPool, not_done};
use super::record::{
    Columns, columns, decode, entry, exact, generation, key, millis, session_prefix, target, unknown_version, uuid,
};
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate_core::store::kit::fields::{Op, encode_effect, reason_number};
use rotogate_core::store::rules::{MAX_ENDED, Rules, end_of, page_size, time_in};
use rotogate_core::store::{Filter, Inserted, Page, StoreError, SubjectBound, Swap, WriteOutcome};

/// How many records one call confirms.
const CONFIRMED_AT_ONCE: usize = 256;

impl PostgresInner {
    pub(super) async fn load(&self, pool: &ConnectionPool, id: SessionId) -> Result<Option<Session>, StoreError> {
        let answer = self.one_by(pool, "rg_load", vec![Arg::Id(uuid(id))]).await?;
        match answer.status()? {
            "none" => Ok(None),
            "found" => decode(id, &answer).map(Some),
            _ => Err(answer.unknown()),
        }
    }

    /// The record, if a swap in doubt wrote it last, and its tokens were not seen since.
    pub(super) async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some(ops) = self.doubts.ops(id) else { return Ok(None) };
        let answer = self.one_by(&self.commands, "rg_load", vec![Arg::Id(uuid(id))]).await?;
        match answer.status()? {
            "none" => Ok(None),
            "found" => {
                let op: &[u8] = answer.get("o_op")?;
                let record = decode(id, &answer)?;
                Ok((ops.iter().any(|own| own == op) && !record.confirmed).then_some(record))
            }
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn insert(&self, op: Op, session: &Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        let Columns { revision, current, confirmed, revoked, record } = columns(session)?;
        let most = if bound == SubjectBound::NONE { Arg::Null(Type::INT8) } else { Arg::Big(bound.most.into()) };
        let answer = self
            .one(
                "rg_insert",
                vec![
                    Arg::bytes(&op),
                    Arg::Id(uuid(session.id)),
                    revision,
                    current,
                    confirmed,
                    revoked,
                    Arg::Big(millis(session.created())),
                    Arg::Big(millis(session.expires)),
                    Arg::Big(millis(session.latest_access_expires)),
                    Arg::Big(millis(session.issued_at)),
                    Arg::Big(millis(end_of(session))),
                    Arg::bytes(&key(session.subject.as_bytes())),
                    self.client(session)?,
                    record,
                    self.not_befores(session)?,
                    most,
                    Arg::Big(i64::try_from(bound.idle_ttl.as_millis()).unwrap_or(i64::MAX)),
                    Arg::Big(millis(time_in(session))),
                    Arg::Bool(bound.on_too_many == rotogate_core::session::profile::OnTooMany::Refuse),
                    self.leeway(),
                    Arg::Small(reason_number(RevokedBecause::TooMany).into()),
                    Arg::bytes(&session_prefix()?),
                    Arg::Int(i32::try_from(MAX_ENDED).unwrap_or(i32::MAX)),
                ],
            )
            .await?;
        match answer.status()? {
            "inserted" => {
                let ended = gave_way(&answer)?;
                if !ended.is_empty() {
                    self.written.notify_one();
                }
                Ok(Inserted::Inserted(ended))
            }
            "exists" => Err(StoreError::new(format!("there is a session {} already", session.id))
                .with_outcome(WriteOutcome::Refused)),
            "old" => Err(not_done(format!("session {} took more than an hour to begin", session.id))),
            "late" => {
                let moment: &[u8] = answer.get("o_moment")?;
                let moment = moment.try_into().map_err(|_| unexpected("no time"))?;
                Ok(Inserted::NoLongerValid(rotogate_core::clock::Timestamp::from_millis(u64::from_be_bytes(moment))))
            }
            "many" => Ok(Inserted::TooMany),
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn swap(
        &self,
        op: Op,
        expected: u64,
        record: &Session,
        revocation: Option<&Revocation>,
    ) -> Result<Swap, StoreError> {
        Rules::may_swap(expected, record, revocation)?;
        let id = record.id;
        let own = columns(record)?;
        let mut args = vec![
            Arg::bytes(&op),
            Arg::Id(uuid(id)),
            // No row has a revision that a column cannot hold.
            Arg::Big(exact(expected).unwrap_or(-1)),
            own.revision,
            own.current,
            own.confirmed,
            own.revoked,
            Arg::Big(millis(record.expires)),
            Arg::Big(millis(record.latest_access_expires)),
            Arg::Big(millis(record.issued_at)),
            Arg::Big(millis(end_of(record))),
            Arg::bytes(&key(record.subject.as_bytes())),
            self.client(record)?,
            own.record,
            self.not_befores(record)?,
        ];
        args.extend(match revocation {
            Some(entry) => {
                let target = target(&entry.target)?;
                let effect = encode_effect(entry.effect);
                [Arg::bytes(&key(&target)), Arg::bytes(&target), Arg::bytes(&effect), Arg::Big(millis(entry.until))]
            }
            None => [Arg::Null(Type::BYTEA), Arg::Null(Type::BYTEA), Arg::Null(Type::BYTEA), Arg::Null(Type::INT8)],
        });
        let answer = self.one("rg_swap", args).await?;
        match answer.status()? {
            "swapped" => {
                if answer.get("o_logged")? {
                    self.written.notify_one();
                }
                Ok(Swap::Swapped)
            }
            "none" => Ok(Swap::Changed(None)),
            "changed" => Ok(Swap::Changed(Some(Box::new(decode(id, &answer)?)))),
            "late" => Ok(Swap::NoLongerValid),
            "moved" => Err(StoreError::new(format!("the subject and the client of session {id} never change"))
                .with_outcome(WriteOutcome::Refused)),
            "version" => Err(unknown_version(format_args!("session {id}"), answer.get("o_version")?).of_one_record()),
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn confirm(&self, seen: &[(SessionId, Generation)]) -> Result<Vec<SessionId>, StoreError> {
        let mut marked = Vec::new();
        for seen in seen.chunks(CONFIRMED_AT_ONCE) {
            let ids = Arg::Ids(seen.iter().map(|(id, _)| uuid(*id)).collect());
            let generations = Arg::Bigs(seen.iter().map(|(_, of)| generation(*of)).collect());
            let answer = self.one("rg_confirm", vec![ids, generations]).await?;
            if answer.status()? != "confirmed" {
                return Err(answer.unknown());
            }
            // The others count all the same: unconfirmed is the safe side.
            for id in answer.get::<Vec<Uuid>>("o_unreadable")? {
                tracing::error!(session = %id, "session not confirmed: another version wrote its record");
            }
            marked.extend(
                answer.get::<Vec<Uuid>>("o_marked")?.into_iter().map(|id| SessionId::from_bytes(*id.as_bytes())),
            );
        }
        Ok(marked)
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = page_size(limit);
        let mut page = Page { sessions: Vec::new(), next: None };
        let mut at = after;
        loop {
            let subject = match filter {
                Filter::All => Arg::Null(Type::BYTEA),
                Filter::Subject(name) => Arg::bytes(&key(name.as_bytes())),
            };
            let from = at.map_or(Arg::Null(Type::UUID), |id| Arg::Id(uuid(id)));
            // One more than the page has shows whether there is a next one.
            let asked = limit + 1;
            let args = vec![subject, from, Arg::Int(i32::try_from(asked).unwrap_or(i32::MAX))];
            let rows = self.all_by(&self.commands, "rg_list", self.known.history(), args).await?;
            let is_last = rows.len() < asked;
            for row in &rows {
                let id = SessionId::from_bytes(*row.get::<Uuid>("o_id")?.as_bytes());
                at = Some(id);
                let session = match decode(id, row) {
                    Ok(session) => session,
                    Err(error) => {
                        tracing::error!(session = %id, %error, "session not listed");
                        continue;
                    }
                };
                if page.sessions.len() == limit {
                    page.next = page.sessions.last().map(|last| last.id);
                    return Ok(page);
                }
                page.sessions.push(session);
            }
            if is_last {
                return Ok(page);
            }
        }
    }
}

/// The entries of the sessions that made room.
fn gave_way(answer: &ResultRow) -> Result<Vec<Revocation>, StoreError> {
    let ids: Vec<Uuid> = answer.get("o_ids")?;
    let effects = answer.get::<Option<Vec<Option<&[u8]>>>>("o_effects")?.unwrap_or_default();
    let untils = answer.get::<Option<Vec<Option<i64>>>>("o_untils")?.unwrap_or_default();
    let mut ended = Vec::with_capacity(ids.len());
    for ((id, effect), until) in ids.iter().zip(effects).zip(untils) {
        // Swept since: then so is everything that it could match.
        if let (Some(effect), Some(until)) = (effect, until) {
            let of = target(&Target::Session(SessionId::from_bytes(*id.as_bytes())))?;
            ended.push(entry(&of, effect, until)?);
        }
    }
    Ok(ended)
}
