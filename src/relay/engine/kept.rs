//! Keeps a reply longer than the grace period, until one of its tokens is used.
//!
//! If the client did not receive the reply, it presents the old token again. The gate then exchanges the reply's
//! refresh token, and the client gets that new pair. If any gate sees one of the reply's tokens, the client has
//! received the reply. The reply is then removed, and the old token goes to the provider again, which detects reuse.
//!
//! The store has one row for the reply, and one row for each of its two tokens. A token's row names the reply's row.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::flight::{End, Presentation};
use super::look::Known;
use super::{Core, Presented, RelayAnswer, RelaySettings};
use crate::relay::provider::{ProviderReply, Renewal};
use crate::relay::record::{KEPT_REPLIES, RelayRecord, RelayState, TOKEN_USES};
use crate::relay::seal::{NotSealed, Presenter, RelayKeys};
use rotogate_core::bounds::MAX_KEPT_REPLY;
use rotogate_core::clock::Timestamp;
use rotogate_core::fault::{Chain, Fault, StoreError};
use rotogate_core::session::confirm::{TokenDigest, token_digest};
use rotogate_core::store::rows::{Row, RowInserted, RowKey, RowSwapped, RowVersion};

/// The maximum number of replies that a process keeps for one endpoint. docs/relay.md states it.
pub(super) const MAX_KEPT: usize = 100_000;
/// The maximum total size of these replies in the store, in bytes.
pub(super) const MAX_KEPT_BYTES: usize = 256 << 20;

/// The number of kept replies that a request looks up if there is no room for its own.
const COUNTED_AGAIN: usize = 32;

/// A reply that is kept for a presented token.
pub(super) struct Kept {
    /// The index of the key that decrypted the reply, among the keys of the presented token.
    place: usize,
    pub(super) version: RowVersion,
    /// When the reply was kept.
    pub(super) since: Timestamp,
    pub(super) reply: ProviderReply,
    claims: Vec<u8>,
}

/// The result of an attempt to keep a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    Kept,
    NotKept,
    /// The gate cannot read the access token without its issuer.
    Unreadable,
    /// In the meantime, the reply that this one replaces was removed.
    Overtaken,
}

/// A refresh with the token that a kept reply contains.
pub(super) struct Renewed {
    /// The presented token.
    pub(super) of: Arc<Presentation>,
    kept: Kept,
}

/// The plaintext of a kept reply's row.
#[derive(Serialize, Deserialize)]
struct KeptContent<'a> {
    since: Timestamp,
    #[serde(borrow)]
    reply: &'a [u8],
    #[serde(borrow)]
    claims: &'a [u8],
}

/// The kept replies that this process has stored, with their ends and sizes.
#[derive(Default)]
pub(super) struct KeptRows {
    rows: Mutex<CountedRows>,
    /// How often a reply was not kept because of a bound.
    pub(super) dropped: AtomicU64,
}

#[derive(Default)]
pub(super) struct CountedRows {
    ends: HashMap<RowKey, (Timestamp, usize)>,
    by_end: BTreeSet<(Timestamp, RowKey)>,
    bytes: usize,
    /// The row that was looked up last, in this order.
    looked_up: Option<(Timestamp, RowKey)>,
}

impl CountedRows {
    pub(super) fn remove(&mut self, id: RowKey) {
        if let Some((until, bytes)) = self.ends.remove(&id) {
            self.by_end.remove(&(until, id));
            self.bytes -= bytes;
        }
    }

    /// Adds a row if there is room, and returns whether the row was added.
    pub(super) fn add(&mut self, id: RowKey, until: Timestamp, bytes: usize, now: Timestamp) -> bool {
        while let Some(&(until, ended)) = self.by_end.first() {
            if until > now {
                break;
            }
            self.remove(ended);
        }
        self.remove(id);
        if self.ends.len() >= MAX_KEPT || self.bytes + bytes > MAX_KEPT_BYTES {
            return false;
        }
        self.ends.insert(id, (until, bytes));
        self.by_end.insert((until, id));
        self.bytes += bytes;
        true
    }

    /// Returns the next rows to look up, in turn.
    pub(super) fn next(&mut self, number: usize) -> Vec<RowKey> {
        let after = self.looked_up.map_or(Bound::Unbounded, Bound::Excluded);
        let rows: Vec<_> = self.by_end.range((after, Bound::Unbounded)).take(number).copied().collect();
        // After the last row, the next call begins again.
        self.looked_up = rows.last().copied().filter(|_| rows.len() == number);
        rows.into_iter().map(|(_, id)| id).collect()
    }
}

impl KeptRows {
    pub(super) fn len(&self) -> usize {
        self.rows.lock().ends.len()
    }

    pub(super) fn is_full(&self) -> bool {
        let rows = self.rows.lock();
        rows.ends.len() >= MAX_KEPT || rows.bytes + MAX_KEPT_REPLY > MAX_KEPT_BYTES
    }
}

impl Core {
    /// Returns the reply that is kept for this token and this presenter.
    pub(super) async fn kept(&self, presentation: &Presentation) -> Result<Option<Kept>, StoreError> {
        if presentation.settings.rules.lost_response_window.is_zero() {
            return Ok(None);
        }
        for (place, keys) in presentation.keys.iter().enumerate() {
            let Some(row) = self.store.load_row(KEPT_REPLIES, keys.kept_id()).await? else { continue };
            if row.until <= self.clock.now() {
                continue;
            }
            // A reply that is kept for another presenter cannot be decrypted.
            let Some(content) = keys.open_row((KEPT_REPLIES, keys.kept_id()), &row) else { continue };
            let Ok(KeptContent { since, reply, claims }) = postcard::from_bytes(&content) else { continue };
            let Some(reply) = ProviderReply::decode(reply) else { continue };
            return Ok(Some(Kept { place, version: row.version, since, reply, claims: claims.to_vec() }));
        }
        Ok(None)
    }

    /// Keeps a reply until one of its tokens is used, or until the window ends.
    pub(super) async fn keep_until_used(
        &self,
        presentation: &Presentation,
        keys: &RelayKeys,
        reply: &ProviderReply,
        replaced: Option<RowVersion>,
    ) -> Keeping {
        let RelaySettings { rules, provider, sealer: _ } = &*presentation.settings;
        let window = rules.lost_response_window;
        let is_wanted = window > rules.grace && presentation.presented.keep_until.is_none();
        if !is_wanted || reply.body.len() > MAX_KEPT_REPLY {
            return Keeping::NotKept;
        }
        let claims = provider.access_token(reply).and_then(|access| self.end_tokens.claims(&access));
        let Some(claims) = claims else { return Keeping::Unreadable };
        let Some(uses) = uses(presentation, reply) else { return Keeping::NotKept };
        let now = self.clock.now();
        let sealed = reply.encode().and_then(|reply| {
            let content = KeptContent { since: now, reply: &reply, claims: &claims };
            let content = zeroize::Zeroizing::new(postcard::to_stdvec(&content).ok()?);
            keys.seal_row((KEPT_REPLIES, keys.kept_id()), now.plus(window), &content).ok()
        });
        let Some(row) = sealed else { return Keeping::NotKept };
        let mut has_room = self.kept.rows.lock().add(keys.kept_id(), row.until, row.bytes.len(), now);
        if !has_room && !self.is_alone && self.count_again(COUNTED_AGAIN).await.is_ok() {
            has_room = self.kept.rows.lock().add(keys.kept_id(), row.until, row.bytes.len(), now);
        }
        if !has_room {
            self.kept.dropped.fetch_add(1, Ordering::Relaxed);
            return Keeping::NotKept;
        }
        let keeping = self.store_kept(keys.kept_id(), (row, now), uses, replaced).await.unwrap_or_else(|error| {
            if let Some(others) = self.is_due("not_kept") {
                tracing::error!(
                    endpoint = self.endpoint,
                    error = ?Chain(&error),
                    others,
                    "relay: the store failed, so a reply is kept only for the grace period"
                );
            }
            Keeping::NotKept
        });
        if keeping != Keeping::Kept {
            self.kept.rows.lock().remove(keys.kept_id());
        }
        keeping
    }

    /// Stores the rows of a reply's tokens, and then the reply. Without these rows, a use of a token would not remove
    /// the reply.
    async fn store_kept(
        &self,
        id: RowKey,
        (reply, now): (Row, Timestamp),
        [access, refresh]: [RowKey; 2],
        replaced: Option<RowVersion>,
    ) -> Result<Keeping, StoreError> {
        let insert = |token: RowKey, other: RowKey| {
            // The rows of a reply's tokens have its version.
            let row = Row { bytes: [id.0, other.0].concat(), ..reply };
            self.store.insert_row(TOKEN_USES, token, row, now)
        };
        let inserted = if access == refresh {
            // In Kuzzle's protocol, the access token is also the refresh token.
            insert(access, refresh).await? == RowInserted::Inserted
        } else {
            let inserted = tokio::try_join!(insert(access, refresh), insert(refresh, access))?;
            inserted == (RowInserted::Inserted, RowInserted::Inserted)
        };
        if !inserted {
            // The provider issued one of these tokens before, so its use does not show that this reply arrived.
            return Ok(Keeping::NotKept);
        }
        let swapped = match replaced {
            Some(version) => self.store.swap_row(KEPT_REPLIES, id, version, reply, now).await?,
            None => match self.store.insert_row(KEPT_REPLIES, id, reply.clone(), now).await? {
                RowInserted::Inserted => RowSwapped::Swapped,
                // An earlier reply to the same token is present, for example after the provider undid a rotation.
                RowInserted::Present(old) => self.store.swap_row(KEPT_REPLIES, id, old.version, reply, now).await?,
            },
        };
        Ok(if swapped == RowSwapped::Swapped { Keeping::Kept } else { Keeping::Overtaken })
    }

    /// Removes the kept reply that contains this token. The token was used, so the reply has arrived.
    pub(super) async fn used(&self, settings: &RelaySettings, token: &TokenDigest) -> Result<(), StoreError> {
        if settings.rules.lost_response_window.is_zero() {
            return Ok(());
        }
        let ids = settings.sealer.use_ids(token);
        let ids = ids.map_err(|error| StoreError::caused_by("the row of a token could not be found", error))?;
        for id in ids {
            let Some(row) = self.store.load_row(TOKEN_USES, id).await? else { continue };
            let keys = row.bytes.split_first_chunk().and_then(|(reply, other)| Some((*reply, other.try_into().ok()?)));
            let Some((reply, other)) = keys.map(|(reply, other)| (RowKey(reply), RowKey(other))) else { continue };
            self.store.remove_row(KEPT_REPLIES, reply, Some(row.version)).await?;
            self.kept.rows.lock().remove(reply);
            for id in [id, other] {
                self.store.remove_row(TOKEN_USES, id, Some(row.version)).await?;
            }
        }
        Ok(())
    }

    /// Removes the replies that are kept for this token, and ends their access tokens.
    pub(super) async fn forget_kept(&self, presentation: &Presentation) -> Result<(), StoreError> {
        while let Some(kept) = self.kept(presentation).await? {
            if let Some(token) = presentation.settings.provider.access_token(&kept.reply) {
                self.end_tokens.end(&token, false).await?;
            }
            self.remove_kept(presentation, &kept).await?;
        }
        // This presenter cannot decrypt a reply to another one.
        for keys in &presentation.keys {
            self.store.remove_row(KEPT_REPLIES, keys.kept_id(), None).await?;
            self.kept.rows.lock().remove(keys.kept_id());
        }
        Ok(())
    }

    /// Removes the reply that was just kept under these keys, because a revocation of the token came first.
    pub(super) async fn unkeep(&self, presentation: &Presentation, keys: &RelayKeys, reply: &ProviderReply) {
        self.kept.rows.lock().remove(keys.kept_id());
        let uses = uses(presentation, reply).into_iter().flatten().map(|id| (TOKEN_USES, id));
        for (space, id) in uses.chain([(KEPT_REPLIES, keys.kept_id())]) {
            if let Err(error) = self.store.remove_row(space, id, None).await {
                self.not_stored(&error);
            }
        }
    }

    /// Looks up some of the replies that this process has stored. Those that other gates have removed no longer count.
    pub(super) async fn count_again(&self, number: usize) -> Result<(), StoreError> {
        let next = self.kept.rows.lock().next(number);
        for id in next {
            if self.store.load_row(KEPT_REPLIES, id).await?.is_none() {
                self.kept.rows.lock().remove(id);
            }
        }
        Ok(())
    }

    async fn remove_kept(&self, presentation: &Presentation, kept: &Kept) -> Result<(), StoreError> {
        if let Some(keys) = presentation.keys.get(kept.place) {
            self.store.remove_row(KEPT_REPLIES, keys.kept_id(), Some(kept.version)).await?;
            self.kept.rows.lock().remove(keys.kept_id());
        }
        self.remove_uses(presentation, kept).await
    }

    async fn remove_uses(&self, presentation: &Presentation, kept: &Kept) -> Result<(), StoreError> {
        for id in uses(presentation, &kept.reply).into_iter().flatten() {
            self.store.remove_row(TOKEN_USES, id, Some(kept.version)).await?;
        }
        Ok(())
    }

    /// Exchanges the refresh token of a kept reply. The new tokens go to the presenter of the earlier token.
    pub(super) async fn renew(&self, of: &Arc<Presentation>, kept: Kept) -> Result<End, NotSealed> {
        match self.renewed(of, kept).await {
            Ok(end) => end,
            Err(error) => Ok(self.store_end(error)),
        }
    }

    async fn renewed(&self, of: &Arc<Presentation>, kept: Kept) -> Result<Result<End, NotSealed>, StoreError> {
        let settings = &of.settings;
        let renewal = settings.provider.renewal(&of.presented.request, &kept.reply);
        let renewal = renewal.filter(|_| !self.has_ended(&kept));
        let Some(Renewal { token, credential, request }) = renewal else {
            self.remove_kept(of, &kept).await?;
            return Ok(Ok(End::Again));
        };
        let credential = credential.or_else(|| of.presented.presenter.credential.clone());
        let presenter = Presenter { credential, ..of.presented.presenter.clone() };
        let keys = match settings.sealer.keys(&token, &presenter) {
            Ok(keys) => keys,
            Err(error) => return Ok(Err(error)),
        };
        let params = of.presented.params.clone();
        let address = of.presented.address;
        let presented = Presented { token, presenter, params, request, address, ..Presented::default() };
        let renews = Some(Renewed { of: Arc::clone(of), kept });
        let inner = Presentation { presented, settings: Arc::clone(settings), keys, renews };
        let before = match self.recorded(&inner).await? {
            None => None,
            Some(Known::Ask(before)) => before,
            Some(Known::Pending(left)) => return Ok(Ok(End::Unavailable(left, "relay_pending"))),
            Some(Known::Answer(RelayAnswer::Unavailable { retry_after, reason })) => {
                return Ok(Ok(End::Unavailable(retry_after, reason)));
            }
            Some(Known::Answer(RelayAnswer::InvalidGrant(why))) => return Ok(Ok(End::InvalidGrant(why))),
            // The client that received the reply has presented its refresh token.
            Some(Known::Answer(_) | Known::Renew(_)) => {
                if let Some(Renewed { of, kept }) = &inner.renews {
                    self.remove_kept(of, kept).await?;
                }
                return Ok(Ok(End::Again));
            }
        };
        Ok(self.send_once(&inner, before).await)
    }

    /// Returns whether the access token of a kept reply was revoked.
    pub(super) fn has_ended(&self, kept: &Kept) -> bool {
        self.end_tokens.is_ended(&kept.claims)
    }

    /// Returns whether the reply that is renewed is still kept, and no later reply is stored for the presented token.
    /// In the meantime, the reply's tokens may have been used, or another gate may have renewed it.
    pub(super) async fn is_still_kept(&self, renewed: &Renewed) -> Result<bool, StoreError> {
        let Renewed { of, kept } = renewed;
        for keys in &of.keys {
            let (record, now) = (self.record(keys.id()).await?, self.clock.now());
            if record.is_some_and(|record| record.until > now && !self.is_undecided(&record, now)) {
                return Ok(false);
            }
        }
        let Some(keys) = of.keys.get(kept.place) else { return Ok(false) };
        let row = self.store.load_row(KEPT_REPLIES, keys.kept_id()).await?;
        Ok(row.is_some_and(|row| row.version == kept.version))
    }

    /// Stores the provider's reply to the refresh token of a kept reply. The new reply is stored for the token that the
    /// client presented: first for the grace period, then until it is used.
    pub(super) async fn keep_renewed(
        &self,
        renewed: &Renewed,
        state: RelayState,
        reply: &ProviderReply,
        rotates: bool,
        grace: Duration,
    ) {
        let Renewed { of, kept } = renewed;
        let Some(keys) = of.keys.get(kept.place) else { return };
        let now = self.clock.now();
        let record = RelayRecord {
            state,
            attempt: 1,
            owner: self.owner,
            since: now,
            lease: now,
            until: now.plus(grace),
            params: keys.params(&of.presented.params),
            sealed: Vec::new(),
            version: RowVersion::default(),
        };
        let sealed = reply.encode().and_then(|bytes| keys.seal(record, &bytes).ok());
        let version = sealed.as_ref().map(|record| record.version);
        if let Some(record) = sealed.filter(|_| !grace.is_zero())
            && let Err(error) = self.insert_record(keys.id(), &record).await
        {
            self.not_stored(&error);
        }
        if state == RelayState::Done && rotates && !self.is_readable(of, reply) {
            self.learn(of, reply).await;
        }
        let removed = match (state, rotates) {
            (RelayState::Done, true) => match self.keep_until_used(of, keys, reply, Some(kept.version)).await {
                Keeping::Kept => self.remove_uses(of, kept).await,
                Keeping::NotKept | Keeping::Unreadable => self.remove_kept(of, kept).await,
                // If a revocation removed the earlier reply, the new one must not be repeated.
                Keeping::Overtaken if version.is_some() => self.remove_record(keys.id(), version).await.map(drop),
                Keeping::Overtaken => Ok(()),
            },
            // The refresh token of the earlier reply stays valid.
            (RelayState::Done, false) => Ok(()),
            _ => self.remove_kept(of, kept).await,
        };
        if let Err(error) = removed {
            self.not_stored(&error);
        }
    }

    /// Removes what [`keep_renewed`](Self::keep_renewed) has stored, because a revocation came first.
    pub(super) async fn forget_renewed(&self, Renewed { of, kept }: &Renewed, reply: &ProviderReply) {
        let Some(keys) = of.keys.get(kept.place) else { return };
        if let Err(error) = self.remove_record(keys.id(), None).await {
            self.not_stored(&error);
        }
        self.unkeep(of, keys, reply).await;
    }

    pub(super) fn store_end(&self, error: StoreError) -> End {
        if let Some(others) = self.is_due("store_failed") {
            tracing::error!(endpoint = self.endpoint, error = ?Chain(&error), others, "relay: the store failed");
        }
        let fault = Fault::Store(error);
        End::Unavailable(fault.retry_after(), fault.reason())
    }
}

/// Returns the ids of the rows for the tokens of a reply, first that of the access token.
fn uses(presentation: &Presentation, reply: &ProviderReply) -> Option<[RowKey; 2]> {
    let RelaySettings { rules: _, provider, sealer } = &*presentation.settings;
    let refresh = provider.renewal(&presentation.presented.request, reply)?.token;
    let access = provider.access_token(reply)?;
    let id = |token: &str| sealer.use_ids(&token_digest(token)).ok()?.first().copied();
    Some([id(&access)?, id(refresh.expose_secret())?])
}
