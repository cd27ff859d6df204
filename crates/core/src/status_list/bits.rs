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
}

/// The bits of all lists. A list is as long as its highest bit needs.
#[derive(Debug, Default)]
pub(super) struct StatusBits(BTreeMap<u32, ListBits>);

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
            let known = old.get(&list.number);
            if let Some(known) =
                known.filter(|known| (known.made_at, known.changes) == (iat, changes) && *known.kid == *key.kid())
            {
                lists.insert(list.number, Arc::clone(known));
                continue;
            }
            bytes.resize((1_usize << list.size) / 8, 0);
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
                Arc::new(PublishedList { text, etag, made_at: iat, kid: key.kid().into(), changes }),
            );
            self.builds.fetch_add(1, Ordering::Relaxed);
        }
        self.published.store(Arc::new(lists));
        Ok(())
    }
}
