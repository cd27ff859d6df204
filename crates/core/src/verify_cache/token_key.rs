//! A token as a cache key, with the hash of its string.
//!
//! A token has about 700 bytes. The token is hashed once for all look-ups of a check. The hash is stored, so that a
//! cache can grow or evict entries without reading old tokens.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use moka::Equivalent;

/// A keyed hash function, so that a token's hash reveals nothing about the token.
pub(super) type TextHasher = foldhash::quality::RandomState;

/// A token to look up.
#[derive(Clone, Copy)]
pub(super) struct TokenRef<'a> {
    hash: u64,
    pub(super) text: &'a str,
}

/// A token as the key of a cache entry. Only hashes from the same [`TextHasher`] are comparable.
#[derive(Clone)]
pub(super) struct TokenKey {
    hash: u64,
    text: Arc<str>,
}

impl<'a> TokenRef<'a> {
    pub(super) fn new(hasher: &TextHasher, text: &'a str) -> Self {
        Self { hash: hasher.hash_one(text), text }
    }

    /// Makes an owned key.
    pub(super) fn owned(self) -> TokenKey {
        TokenKey { hash: self.hash, text: self.text.into() }
    }
}

impl TokenKey {
    pub(super) fn new(hasher: &TextHasher, text: Arc<str>) -> Self {
        Self { hash: hasher.hash_one(&*text), text }
    }

    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }
}

impl Hash for TokenRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<TokenKey> for TokenRef<'_> {
    fn equivalent(&self, key: &TokenKey) -> bool {
        self.hash == key.hash && *self.text == *key.text
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        // On eviction, a cache compares a stored key with itself, so the pointers are equal.
        self.hash == other.hash && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for TokenKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j14_a_token_is_found_by_all_of_its_text_alone() {
        let (hasher, other) = (TextHasher::default(), TextHasher::default());
        let key = TokenKey::new(&hasher, "a.b.c".into());
        assert!(TokenRef::new(&hasher, "a.b.c").equivalent(&key));
        assert!(key == TokenRef::new(&hasher, "a.b.c").owned() && key == key.clone());
        let same_hash = TokenKey { hash: key.hash, text: "a.b.d".into() };
        assert!(key != same_hash && !TokenRef::new(&hasher, "a.b.c").equivalent(&same_hash));
        assert!(!TokenRef { hash: key.hash, text: "a.b.d" }.equivalent(&key));
        assert_ne!(TokenKey::new(&other, "a.b.c".into()).hash, key.hash, "keyed");
    }
}
