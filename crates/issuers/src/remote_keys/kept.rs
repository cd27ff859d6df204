//! Stores key sets, so that the gate can restart while an issuer is unavailable.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use rotogate_core::clock::{MAX_JUMP, Timestamp};
use rotogate_core::private_file::{create_private_dir, read_private_bytes, write_private_atomic};

/// The maximum length of a stored set, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// The maximum length of a file name without its extension, in bytes.
const MAX_NAME: usize = 200;
/// The maximum number of concurrent file accesses. Each access needs a thread.
const MAX_AT_ONCE: usize = 8;
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptKeySet {
    /// The issuer's URL.
    pub issuer: String,
    /// The source of the keys. A stored key set from another source is ignored.
    pub source: String,
    /// When the issuer last confirmed the keys.
    pub fetched_at: Timestamp,
    /// The JWK set.
    pub jwks: String,
}

impl KeptKeySet {
    pub(super) fn usable_for(
        &self,
        now: Timestamp,
        stale_for: std::time::Duration,
    ) -> Result<std::time::Duration, String> {
        if self.fetched_at > now.plus(MAX_JUMP) {
            return Err("the key set was stored at a time in the future".to_owned());
        }
        let rest = stale_for.saturating_sub(now.since(self.fetched_at));
        if rest.is_zero() { Err("the key set is older than `stale_for`".to_owned()) } else { Ok(rest) }
    }
}

/// A folder with a file `<name>.jwks.json` for each issuer. The files must be private, because the gate trusts their
/// keys.
#[derive(Clone, Debug)]
pub(super) struct KeySetFolder {
    folder: PathBuf,
}

impl KeySetFolder {
    /// The folder is created when the first set is saved.
    pub(super) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        let mut file = utf8_percent_encode(name, ESCAPED).to_string().replace("%2E", ".");
        if file.starts_with('.') || file.len() > MAX_NAME {
            file = digest(&SHA256, name.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        }
        self.folder.join(file + ".jwks.json")
    }

    pub(super) async fn load(&self, name: &str) -> io::Result<Option<KeptKeySet>> {
        let file = self.file(name);
        blocking(move || {
            if !file.try_exists()? {
                return Ok(None);
            }
            let bytes = read_private_bytes(&file, MAX_BYTES).map_err(io::Error::other)?;
            serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&file))
        })
        .await
    }

    pub(super) async fn save(&self, name: &str, set: &KeptKeySet) -> io::Result<()> {
        let (folder, file) = (self.folder.clone(), self.file(name));
        let bytes = serde_json::to_vec(set)?;
        blocking(move || {
            create_private_dir(&folder)?;
            write_private_atomic(&file, &bytes)
        })
        .await
    }

    pub(super) async fn remove(&self, name: &str) -> io::Result<()> {
        let file = self.file(name);
        blocking(move || match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io::Error::new(error.kind(), format!("{}: {error}", file.display())))
            }
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }
}

fn damaged(file: &Path) -> io::Error {
    let message = format!(
        "{}: is not a stored key set; remove the file, and the gate writes it \
                           again",
        file.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, message)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    static AT_ONCE: Semaphore = Semaphore::const_new(MAX_AT_ONCE);
    // The semaphore is never closed.
    let _place = AT_ONCE.acquire().await;
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic fails the test")]

    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn kept(fetched_at: u64) -> KeptKeySet {
        KeptKeySet {
            issuer: "https://id.example.com".into(),
            source: "discovery".into(),
            fetched_at: Timestamp::from_secs(fetched_at),
            jwks: "{}".into(),
        }
    }

    #[tokio::test]
    async fn i12_a_kept_set_is_a_private_file_that_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = KeySetFolder::new(folder.path().join("issuers"));
        assert_eq!(store.load("kc").await.unwrap(), None);
        for time in [1000, 2000] {
            store.save("kc", &kept(time)).await.unwrap();
            assert_eq!(store.load("kc").await.unwrap(), Some(kept(time)));
        }
        let file = store.file("kc");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
        // A damaged or world-readable file must be an error, not an empty set.
        let whole = std::fs::read(&file).unwrap();
        for bytes in [&whole[..whole.len() - 1], b"", b"{}", b"null", b"\xff"] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(store.load("kc").await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        std::fs::write(&file, &whole).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(store.load("kc").await.unwrap_err().to_string().contains("chmod 600"));
        store.remove("kc").await.unwrap();
        store.remove("kc").await.unwrap();
        assert_eq!(store.load("kc").await.unwrap(), None);
    }

    #[test]
    fn i12_no_name_of_an_issuer_leaves_the_folder() {
        let store = KeySetFolder::new("/data/issuers");
        let long = "a".repeat(256);
        for name in ["../keys/x", "..", "/etc/passwd", ".hidden", "[::1]", "a%2fb", "a\u{0}b", &long] {
            let file = store.file(name);
            assert_eq!(file.parent(), Some(Path::new("/data/issuers")), "{name}");
            let file = file.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(!file.starts_with('.') && file.len() <= 255, "{file}");
        }
        assert_ne!(store.file("a/b"), store.file("a%2Fb"));
        assert_eq!(store.file("id.example.com"), Path::new("/data/issuers/id.example.com.jwks.json"));
    }

    #[test]
    fn i12_a_kept_set_counts_until_stale_for_after_its_own_time() {
        let day = Duration::from_secs(86_400);
        let usable = |now| kept(1_000_000).usable_for(Timestamp::from_secs(now), day).ok();
        assert_eq!(usable(1_000_000), Some(day));
        assert_eq!(usable(1_000_000 + 86_399), Some(Duration::from_secs(1)));
        assert_eq!(usable(1_000_000 + 86_400), None);
        assert_eq!(usable(999_000), Some(day));
        assert_eq!(usable(900_000), None, "a time in the future would make it count for ever");
    }
}
