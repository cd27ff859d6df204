//! The bits of the status lists, and the signed tokens that contain the bits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::HeaderValue;

use super::StatusLists;
use crate::clock::Timestamp;
use crate::fault::Fault;
use crate::session::StatusPlace;
use crate::token::keyring::Keyring;
use crate::token::status_token::{CompressedList, StatusListClaims, made_at, sign};

/// The published lists by their numbers.
pub(super) type PublishedLists = BTreeMap<u32, Arc<PublishedList>>;

/// A signed list.
#[derive(Debug, PartialEq, Eq)]
pub struct PublishedList {
    /// The text.
    pub text: Bytes,
    /// The entity tag of the list.
    pub etag: HeaderValue,
    /// `iat`.
    made_at: u64,
    /// The `kid` of the key that signed the list.
    kid: Box<str>,
    /// The number of changes of the bits that the signed list includes.
    changes: u64,
    /// The scan of live sessions that the signed list includes.
    scan: u64,
}

/// The bits of all lists. A list is as long as its highest bit needs.
#[derive(Debug, Default)]
pub(super) struct StatusBits(BTreeMap<u32, ListBits>);

/// The places of live sessions, in the lists whose records the store may have lost.
#[derive(Debug, Default)]
pub(crate) struct LivePlaces {
    bits: StatusBits,
    /// The number of the scan that found them.
    scan: u64,
}

impl LivePlaces {
    /// Notes the place of a live session, if its list is one of these.
    pub(crate) fn note(&mut self, place: StatusPlace) {
        if self.bits.0.contains_key(&place.list) {
            self.bits.set(place);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct ListBits {
    bytes: Vec<u8>,
    changes: u64,
}

impl StatusBits {
    pub(super) fn set(&mut self, StatusPlace { list, index }: StatusPlace) {
        let bits = self.0.entry(list).or_default();
        let (at, bit) = ((index / 8) as usize, 1 << (index % 8));
        if bits.bytes.len() <= at {
            bits.bytes.resize(at + 1, 0);
        }
        if let Some(byte) = bits.bytes.get_mut(at)
            && *byte & bit == 0
        {
            *byte |= bit;
            bits.changes += 1;
        }
    }
}

impl StatusLists {
    fn lost(&self) -> Vec<u32> {
        self.registered.load().iter().filter(|list| list.lost).map(|list| list.number).collect()
    }

    /// Begins to collect the live sessions of the lists whose records the store may have lost.
    pub(crate) fn begin_scan(&self) -> LivePlaces {
        let lists = self.lost().into_iter().map(|number| (number, ListBits::default())).collect();
        LivePlaces { bits: StatusBits(lists), scan: 0 }
    }

    /// Takes the live sessions that a scan of all sessions found.
    pub(crate) fn end_scan(&self, mut found: LivePlaces) {
        let mut live = self.live.lock();
        found.scan = live.scan + 1;
        *live = found;
    }

    /// Whether the live sessions of a list must be found before the list can be built.
    pub(crate) fn needs_scan(&self) -> bool {
        let live = self.live.lock();
        self.lost().iter().any(|number| !live.bits.0.contains_key(number))
    }

    /// Builds the lists that have changed or whose validity ends. Each takes some milliseconds.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(crate) fn build(&self, issuer: &str, keyring: &Keyring, now: Timestamp) -> Result<(), Fault> {
        let (ttl, key) = (self.settings.ttl.as_secs(), keyring.signer());
        let (iat, old) = (made_at(now, ttl), self.published.load());
        let mut lists = PublishedLists::new();
        for list in self.registered.load().iter() {
            let ListBits { mut bytes, changes } = self.bits.lock().0.get(&list.number).cloned().unwrap_or_default();
            let (live, scan) = {
                let live = self.live.lock();
                (live.bits.0.get(&list.number).filter(|_| list.lost).map(|live| live.bytes.clone()), live.scan)
            };
            let known = old.get(&list.number);
            let is_same = |known: &&Arc<PublishedList>| {
                (known.made_at, known.changes, known.scan) == (iat, changes, scan) && *known.kid == *key.kid()
            };
            if let Some(known) = known.filter(is_same) {
                lists.insert(list.number, Arc::clone(known));
                continue;
            }
            bytes.resize((1_usize << list.size) / 8, 0);
            if list.lost {
                // A session whose record is gone may have ended, so it is not valid. No other place is in use.
                let mut live = live.unwrap_or_default();
                live.resize(bytes.len(), 0);
                bytes.iter_mut().zip(live).for_each(|(ended, live)| *ended |= !live);
            }
            let url = StatusPlace { list: list.number, index: 0 }.url(&self.base);
            let claims = StatusListClaims {
                exp: iat + self.settings.expires.as_secs(),
                iat,
                iss: issuer,
                status_list: CompressedList::new(&bytes).map_err(|_| Fault::Signing("a status list"))?,
                sub: &url,
                ttl,
            };
            let text = sign(key, &claims)?;
            let name = URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()).as_ref().get(..16).unwrap_or_default());
            let etag = HeaderValue::try_from(format!("\"{name}\"")).map_err(|_| Fault::Signing("an entity tag"))?;
            let text = Bytes::copy_from_slice(text.as_bytes());
            lists.insert(
                list.number,
                Arc::new(PublishedList { text, etag, made_at: iat, kid: key.kid().into(), changes, scan }),
            );
            self.builds.fetch_add(1, Ordering::Relaxed);
        }
        self.published.store(Arc::new(lists));
        Ok(())
    }
}
