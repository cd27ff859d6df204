//! Delays all writes to a file until the store has passed its checks. A refused file stays unchanged, even if redb has
//! begun to repair it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

const BLOCK_BYTES: usize = 4096;

/// The storage backend for redb. A clone releases the writes.
#[derive(Clone, Debug)]
pub(super) struct StagedFile(Arc<StagedInner>);

#[derive(Debug)]
struct StagedInner {
    file: FileBackend,
    holding: AtomicBool,
    held: Mutex<StagedWrites>,
    #[cfg(test)]
    failing: AtomicBool,
}

/// The delayed writes: `steps` in order, and `blocks` for reads.
#[derive(Debug, Default)]
struct StagedWrites {
    steps: Vec<FileOperation>,
    blocks: BTreeMap<u64, Vec<u8>>,
    length: u64,
    /// The smallest length so far, even if the file has grown again.
    cut: u64,
}

#[derive(Debug)]
enum FileOperation {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

impl StagedFile {
    pub(super) fn through(file: File) -> Result<Self, DatabaseError> {
        Self::new(file, false)
    }

    /// Wraps a file whose writes wait for [`release`](Self::release).
    pub(super) fn holding(file: File) -> Result<Self, DatabaseError> {
        Self::new(file, true)
    }

    fn new(file: File, holding: bool) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(file)?;
        let length = file.len()?;
        Ok(Self(Arc::new(StagedInner {
            file,
            holding: AtomicBool::new(holding),
            held: Mutex::new(StagedWrites { length, cut: length, ..StagedWrites::default() }),
            #[cfg(test)]
            failing: AtomicBool::new(false),
        })))
    }

    /// Writes the delayed steps in order, so a crash has the same effect as without the delay. Nothing else may use the
    /// file during this call.
    pub(super) fn release(&self) -> io::Result<()> {
        let held = std::mem::take(&mut *self.held()?);
        for step in held.steps {
            match step {
                FileOperation::Write(offset, bytes) => self.0.file.write(offset, &bytes)?,
                FileOperation::Length(length) => self.0.file.set_len(length)?,
                FileOperation::Sync => self.0.file.sync_data()?,
            }
        }
        self.0.holding.store(false, Ordering::Release);
        Ok(())
    }

    fn held(&self) -> io::Result<MutexGuard<'_, StagedWrites>> {
        self.0.held.lock().map_err(|_| io::Error::other("a thread panicked while the store was being opened"))
    }

    fn is_holding(&self) -> bool {
        self.0.holding.load(Ordering::Acquire)
    }

    /// Returns a block from the delayed writes or from the file. Missing bytes are zeros.
    fn block(&self, held: &StagedWrites, number: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = held.blocks.get(&number) {
            return Ok(block.clone());
        }
        let start = number.saturating_mul(BLOCK_BYTES as u64);
        let mut block = vec![0; BLOCK_BYTES];
        let there = usize::try_from(held.cut.saturating_sub(start)).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        if let Some(part) = block.get_mut(..there).filter(|part| !part.is_empty()) {
            self.0.file.read(start, part)?;
        }
        Ok(block)
    }

    /// Splits a range at block boundaries. Returns `(block, offset in the block, offset in the range, length)` tuples.
    fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let within = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
            let size = (BLOCK_BYTES - within).min(length - done);
            let part = (at / BLOCK_BYTES as u64, within, done, size);
            done += size;
            (size > 0).then_some(part)
        })
    }
}

fn past_the_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "read past the end of the file")
}

impl StorageBackend for StagedFile {
    fn len(&self) -> io::Result<u64> {
        if self.is_holding() { Ok(self.held()?.length) } else { self.0.file.len() }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.is_holding() {
            return self.0.file.read(offset, out);
        }
        let held = self.held()?;
        let Some(end) = offset.checked_add(out.len() as u64).filter(|end| *end <= held.length) else {
            return Err(past_the_end());
        };
        let first = offset / BLOCK_BYTES as u64;
        let last = (end.saturating_sub(1) / BLOCK_BYTES as u64).max(first);
        // Fast path for most reads of an intact file.
        if end <= held.cut && held.blocks.range(first..=last).next().is_none() {
            return self.0.file.read(offset, out);
        }
        for (number, within, done, size) in Self::parts(offset, out.len()) {
            let block = self.block(&held, number)?;
            let (Some(from), Some(to)) = (block.get(within..within + size), out.get_mut(done..done + size)) else {
                return Err(past_the_end());
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if !self.is_holding() {
            return self.0.file.set_len(length);
        }
        let mut held = self.held()?;
        held.steps.push(FileOperation::Length(length));
        if length < held.length {
            // Truncated bytes must read as zeros if the file grows again.
            held.blocks.retain(|number, _| number.saturating_mul(BLOCK_BYTES as u64) < length);
            let tail = usize::try_from(length % BLOCK_BYTES as u64).unwrap_or(0);
            if let Some(rest) =
                held.blocks.get_mut(&(length / BLOCK_BYTES as u64)).and_then(|block| block.get_mut(tail..))
            {
                rest.fill(0);
            }
            held.cut = held.cut.min(length);
        }
        held.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_holding() {
            self.held()?.steps.push(FileOperation::Sync);
            return Ok(());
        }
        #[cfg(feature = "failpoints")]
        rotogate_core::failpoint::before_sync();
        self.0.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if self.0.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("a disk that fails, for a test"));
        }
        if !self.is_holding() {
            return self.0.file.write(offset, data);
        }
        let mut held = self.held()?;
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > held.length) {
            return Err(past_the_end());
        }
        for (number, within, done, size) in Self::parts(offset, data.len()) {
            let mut block = self.block(&held, number)?;
            let (Some(to), Some(from)) = (block.get_mut(within..within + size), data.get(done..done + size)) else {
                return Err(past_the_end());
            };
            to.copy_from_slice(from);
            held.blocks.insert(number, block);
        }
        held.steps.push(FileOperation::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl StagedFile {
        /// Makes every further write fail, like a broken disk.
        pub(crate) fn fail(&self) {
            self.0.failing.store(true, Ordering::SeqCst);
        }

        pub(crate) fn steps(&self) -> usize {
            self.held().unwrap().steps.len()
        }

        /// Applies the first `steps` operations to `image`, and then simulates a crash. An unsynced write takes effect
        /// if `survives` returns true.
        pub(crate) fn crash(&self, mut image: Vec<u8>, steps: usize, mut survives: impl FnMut() -> bool) -> Vec<u8> {
            let held = self.held().unwrap();
            let taken = &held.steps[..steps];
            let synced = taken.iter().rposition(|step| matches!(step, FileOperation::Sync)).unwrap_or(0);
            for (n, step) in taken.iter().enumerate() {
                match step {
                    FileOperation::Write(offset, bytes) if n < synced || survives() => {
                        let start = usize::try_from(*offset).unwrap();
                        image[start..start + bytes.len()].copy_from_slice(bytes);
                    }
                    FileOperation::Length(length) => image.resize(usize::try_from(*length).unwrap(), 0),
                    FileOperation::Write(..) | FileOperation::Sync => {}
                }
            }
            image
        }
    }

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, StagedFile) {
        let temporary = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(temporary.path(), content).unwrap();
        let opened = File::options().read(true).write(true).open(temporary.path()).unwrap();
        (temporary, StagedFile::holding(opened).unwrap())
    }

    fn read(staged: &StagedFile, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0xee; length];
        staged.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_held_back_is_read_back_and_reaches_the_file_only_when_released() {
        let before: Vec<u8> = (0..10_000_u32).map(|i| i as u8).collect();
        let (temporary, staged) = file(&before);
        let mut wanted = before.clone();
        staged.write(4090, &[7; 5000]).unwrap();
        wanted[4090..9090].fill(7);
        staged.set_len(4100).unwrap();
        wanted.truncate(4100);
        staged.set_len(12_000).unwrap();
        wanted.resize(12_000, 0);
        staged.write(11_990, &[9; 10]).unwrap();
        wanted[11_990..].fill(9);
        staged.sync_data().unwrap();
        assert_eq!(staged.len().unwrap(), 12_000);
        assert_eq!(read(&staged, 0, 12_000), wanted);
        assert_eq!(read(&staged, 4095, 10), wanted[4095..4105]);
        assert!(staged.read(11_999, &mut [0; 2]).is_err());
        assert!(staged.write(11_999, &[0; 2]).is_err());
        assert_eq!(std::fs::read(temporary.path()).unwrap(), before);

        staged.release().unwrap();
        assert_eq!(std::fs::read(temporary.path()).unwrap(), wanted);
        staged.write(0, &[1]).unwrap();
        assert_eq!(std::fs::read(temporary.path()).unwrap()[0], 1);
    }
}
