//! A file for revocations that the store did not accept, so that they survive a restart. Space is reserved in advance,
//! because the disk may become full (requirement R24).
//!
//! Each revocation is a line of JSON, followed by zeros. [`OwedFile::keep`] returns only after its line is on the disk,
//! so a truncated line was never acknowledged. When the store has accepted all revocations, zeros overwrite the lines.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::private_file::{self, Unpublished};
use crate::revocation::Revocation;
use crate::session::RevokedBecause;

/// About five thousand revocations fit into this many bytes.
const LEN: usize = 1 << 20;

/// A revocation that the store did not accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owed {
    /// The reason for the revocation.
    pub because: RevokedBecause,
    /// The revocation itself.
    pub entry: Revocation,
}

/// The file of revocations that the store did not accept.
#[derive(Debug)]
pub struct OwedFile {
    path: PathBuf,
    len: usize,
    state: Mutex<OwedFileState>,
}

#[derive(Debug, Default)]
struct OwedFileState {
    /// `None` means that no space could be reserved.
    file: Option<File>,
    used: usize,
    /// The file contains only zeros after this position.
    written: usize,
    lines: u64,
    /// An earlier process left these revocations in the file.
    found: Vec<Owed>,
}

impl OwedFile {
    /// Opens or creates the file for the store at this path.
    ///
    /// A lack of space is logged, and each [`keep`](Self::keep) tries again.
    ///
    /// # Errors
    /// The file exists, but cannot be read or is damaged.
    pub fn beside(store: &Path) -> Result<Self, StoreError> {
        let mut name = store.as_os_str().to_owned();
        name.push(".owed");
        Self::open(PathBuf::from(name), LEN)
    }

    /// Opens the file, or creates a file of `len` bytes.
    ///
    /// # Errors
    /// The file is damaged, or the disk has no room for it.
    pub fn open(path: PathBuf, len: usize) -> Result<Self, StoreError> {
        let state = match std::fs::symlink_metadata(&path) {
            Ok(_) => existing(&path, len)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = make(&path, len).inspect_err(|error| {
                    tracing::error!(
                        %error,
                        file = %path.display(),
                        "no disk space could be reserved for revocations. While the store fails, revocations do not \
                         survive a restart"
                    );
                });
                OwedFileState { file: made.ok(), ..OwedFileState::default() }
            }
            Err(error) => return Err(unusable(&path, error)),
        };
        Ok(Self { path, len, state: Mutex::new(state) })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the revocations that an earlier process left. A second call returns an empty list.
    pub fn take_found(&self) -> Vec<Owed> {
        std::mem::take(&mut self.state.lock().found)
    }

    /// The number of lines that this process has written.
    pub fn lines(&self) -> u64 {
        self.state.lock().lines
    }

    /// Returns whether the file contains no revocations.
    pub fn is_empty(&self) -> bool {
        self.state.lock().written == 0
    }

    /// Adds a revocation, and returns once it is on the disk. Blocks the thread.
    ///
    /// # Errors
    /// The file is full, or cannot be written.
    pub fn keep(&self, owed: &Owed) -> io::Result<()> {
        let mut line = serde_json::to_vec(owed)?;
        line.push(b'\n');
        let mut state = self.state.lock();
        if state.file.is_none() {
            state.file = Some(make(&self.path, self.len)?);
        }
        let end = state.used + line.len();
        if end > self.len {
            return Err(io::Error::new(ErrorKind::StorageFull, format!("{} is full", self.path.display())));
        }
        // The zeros overwrite the remains of a failed attempt.
        line.resize(line.len().max(state.written.saturating_sub(state.used)), 0);
        state.written = state.written.max(end);
        let place = state.used;
        write_at(state.file.as_mut(), place, &line)?;
        (state.used, state.written) = (end, end);
        state.lines += 1;
        Ok(())
    }

    /// Removes all revocations, unless the number of written [`lines`](Self::lines) has changed. Blocks the thread.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clear(&self, lines: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.lines != lines || state.written == 0 {
            return Ok(());
        }
        let zeros = vec![0; state.written];
        write_at(state.file.as_mut(), 0, &zeros)?;
        (state.used, state.written) = (0, 0);
        Ok(())
    }

    /// Checks that the file is empty. `why` is a part of the error message.
    ///
    /// # Errors
    /// The file has revocations. The error tells how to proceed.
    pub fn none_beside<S: Store + ?Sized>(store: &S, why: &str) -> Result<(), StoreError> {
        if store.owed_file().is_none_or(|file| file.is_empty()) {
            return Ok(());
        }
        Err(StoreError::new(format!(
            "the file beside the store has revocations that are not yet in the store, and {why}. Start a gate with \
             this store, stop the gate once it has written the revocations, and try again"
        )))
    }
}

fn write_at(file: Option<&mut File>, place: usize, bytes: &[u8]) -> io::Result<()> {
    let file = file.ok_or_else(|| io::Error::other("no disk space could be reserved"))?;
    file.seek(SeekFrom::Start(place as u64))?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn make(path: &Path, len: usize) -> io::Result<File> {
    let (unpublished, mut file) = Unpublished::beside(path)?;
    set_aside(&mut file, 0, len)?;
    unpublished.publish_new(path)?;
    Ok(file)
}

/// A block that was written once never needs more space, even for metadata.
fn set_aside(file: &mut File, from: usize, len: usize) -> io::Result<()> {
    match rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, len as u64) {
        // Without `fallocate`, the write below allocates the space.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    file.seek(SeekFrom::Start(from as u64))?;
    file.write_all(&vec![0; len - from])?;
    file.sync_all()
}

fn existing(path: &Path, len: usize) -> Result<OwedFileState, StoreError> {
    let failed = |error| unusable(path, error);
    let mut file = private_file::open_private(path, true).map_err(StoreError::new)?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(len as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > len {
        return Err(damaged(path, "it is too long"));
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let used = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if used < end {
        tracing::warn!(
            file = %path.display(),
            "the last revocation in the file beside the store is incomplete and is ignored. It was never acknowledged"
        );
    }
    let mut found = Vec::new();
    for line in bytes[..used].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        found.push(serde_json::from_slice(line).map_err(|error| damaged(path, error))?);
    }
    if bytes.len() < len || bytes[used..].iter().any(|byte| *byte != 0) {
        set_aside(&mut file, used, len).map_err(failed)?;
    }
    if !found.is_empty() {
        tracing::warn!(
            file = %path.display(),
            revocations = found.len(),
            "revocations that an earlier process could not write to the store are in force again. They are written to \
             the store as soon as it accepts writes"
        );
    }
    Ok(OwedFileState { file: Some(file), used, written: used, found, ..OwedFileState::default() })
}

fn unusable(path: &Path, error: io::Error) -> StoreError {
    let shown = path.display();
    StoreError::caused_by(
        format!("the file {shown}, which has revocations that are not yet in the store, cannot be opened: {error}"),
        error,
    )
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> StoreError {
    StoreError::new(format!(
        "{0} has revocations that are not yet in the store, and is damaged: {why}. To start without them, move {0} \
         away. Then repeat each revocation that the audit log lists with `owed` and does not list again without \
         `owed`",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::revocation::{Effect, Target};
    use crate::session::SessionId;

    fn owed(n: u8) -> Owed {
        let target = match n % 3 {
            0 => Target::Session(SessionId::new(Timestamp::from_secs(1_700_000_000), [n; 10])),
            1 => Target::Subject { issuer: "https://gate.test".into(), subject: format!("ada\n{n}").into() },
            _ => Target::Token { issuer: "https://gate.test".into(), jti: n.to_string().into() },
        };
        let effect = match n % 3 {
            0 => Effect::SESSION_REVOKED,
            1 => Effect::NotBefore(Timestamp::from_secs(n.into())),
            _ => Effect::Gone,
        };
        Owed { because: RevokedBecause::Logout, entry: Revocation { target, effect, until: Timestamp::from_secs(9) } }
    }

    fn reopened(path: &Path) -> (OwedFile, Vec<Owed>) {
        let file = OwedFile::open(path.to_owned(), 4096).unwrap();
        let found = file.take_found();
        (file, found)
    }

    #[test]
    fn r24_what_is_kept_is_found_by_the_next_process_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.owed");
        let (file, found) = reopened(&path);
        assert!(found.is_empty());
        (0..6).for_each(|n| file.keep(&owed(n)).unwrap());
        let (file, found) = reopened(&path);
        assert_eq!(found, Vec::from_iter((0..6).map(owed)));
        assert!(file.take_found().is_empty(), "once");
        let lines = file.lines();
        file.keep(&owed(6)).unwrap();
        file.clear(lines).unwrap();
        assert_eq!(reopened(&path).1.len(), 7, "one was added since");
        file.clear(file.lines()).unwrap();
        let (file, found) = reopened(&path);
        assert!(found.is_empty());
        file.keep(&owed(7)).unwrap();
        assert_eq!(reopened(&path).1, [owed(7)]);
    }

    #[test]
    fn r24_its_space_is_its_own_from_the_start_and_a_full_one_takes_no_more() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.owed");
        let (file, _) = reopened(&path);
        let meta = std::fs::metadata(&path).unwrap();
        assert!(meta.blocks() * 512 >= 4096 && meta.len() == 4096, "{meta:?}");
        assert_eq!(meta.mode() & 0o777, 0o600);
        let kept = (0..100).take_while(|n| file.keep(&owed(*n)).is_ok()).count();
        assert!((10..100).contains(&kept), "{kept}");
        assert_eq!(file.keep(&owed(1)).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(reopened(&path).1.len(), kept);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096);
    }

    #[test]
    fn r24_a_line_that_was_cut_short_counts_for_nothing_and_a_damaged_one_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.owed");
        let (file, _) = reopened(&path);
        (0..3).for_each(|n| file.keep(&owed(n)).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        for cut in 1..20 {
            let mut torn = bytes.clone();
            torn[end - cut..end].fill(0);
            torn[4000..4010].fill(b'x');
            std::fs::write(&path, torn).unwrap();
            let (file, found) = reopened(&path);
            assert_eq!(found, [owed(0), owed(1)], "{cut}");
            file.keep(&owed(4)).unwrap();
            assert_eq!(reopened(&path).1, [owed(0), owed(1), owed(4)]);
        }
        bytes[5] = b'!';
        std::fs::write(&path, &bytes).unwrap();
        let error = OwedFile::open(path, 4096).unwrap_err().to_string();
        assert!(error.contains("store.owed") && error.contains("damaged") && error.contains("move"), "{error}");
    }
}
