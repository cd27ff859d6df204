//! Passwords, hashed with argon2id. Hashing runs on its own threads, with bounded parallelism (requirement A3).
//!
//! A check deliberately costs much memory and time. A fixed number of checks run at once, a fixed number wait, and
//! further checks get 503 with `Retry-After`.
//!
//! Every check takes the same time, so that its duration reveals nothing (requirement A2). A cheaper check is followed
//! by checks of a dummy hash.
//!
//! The feature `imported-hashes` also accepts hashes from other systems, up to a maximum cost (requirement I30).

use parking_lot::Mutex;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use zeroize::{Zeroize, Zeroizing};

pub use crate::bounds::MAX_PASSWORD;
use crate::clock::{SystemTime, TimeSource, thread_cpu_time};
use crate::counters::{COARSE_SECONDS, CountedDurations, Durations};
use crate::fault::DirectoryError;
#[cfg(feature = "passwords")]
use crate::invalid::InvalidValue;

#[cfg(feature = "passwords")]
mod argon;
#[cfg(not(feature = "passwords"))]
#[path = "password/no_argon.rs"]
mod argon;
#[cfg(feature = "imported-hashes")]
mod bcrypt;
mod cost;
#[cfg(feature = "imported-hashes")]
mod firebase;
#[cfg(feature = "imported-hashes")]
mod legacy;
#[cfg(feature = "imported-hashes")]
mod pbkdf2;
mod scheme;
#[cfg(feature = "imported-hashes")]
mod scrypt;
mod secret_hash;

use argon::{Argon2Hash, Block};
pub use cost::Cost;
use cost::SHARE_KIB;
#[cfg(feature = "imported-hashes")]
pub use firebase::Parameters as FirebaseParameters;
#[cfg(feature = "imported-hashes")]
pub use pbkdf2::{KuzzlePassword, Spring};
pub use scheme::{Accepted, CostClass, Legacy, PasswordHash};
pub use secret_hash::{SecretHash, unmatched_secret_hash};

/// The size of the largest buffer that is kept for reuse, in blocks.
const KEPT_BLOCKS: usize = 64 * 1024;

/// A stored hash that is of an unknown kind, damaged, or too expensive. The limit for argon2id is 64 MiB, 10 passes
/// and 4 lanes.
///
/// ```
/// use rotogate_core::password;
///
/// assert!(password::cost_of("$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHQ$AAAA").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadHash(&'static str);

fn parse(phc: &str) -> Result<PasswordHash, DirectoryError> {
    let hash = Argon2Hash::parse(phc, &argon::OURS).map_err(unusable)?;
    Ok(PasswordHash(scheme::HashScheme::Argon2(hash)))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unusable(error: BadHash) -> DirectoryError {
    DirectoryError::Unavailable(format!("a stored password hash is {error}"))
}

/// The cost of checking a password against this hash.
///
/// ```
/// use rotogate_core::password::{self, Cost};
///
/// let hash = password::hash(&"correct horse".into())?;
/// assert_eq!(password::cost_of(&hash).ok(), Some(Cost::default()));
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
///
/// # Errors
/// [`Passwords::verify`] does not accept the hash.
pub fn cost_of(phc: &str) -> Result<Cost, BadHash> {
    Ok(Argon2Hash::parse(phc, &argon::OURS)?.cost())
}

/// Converts the password to NFC (RFC 8265 section 4.2.2). Returns `None` if the password already is in NFC.
#[cfg(feature = "passwords")]
fn composed(password: &str) -> Option<Zeroizing<String>> {
    use unicode_normalization::{UnicodeNormalization, is_nfc};
    // Reserve the whole capacity, because a reallocation would leave parts of the password in memory.
    (!is_nfc(password)).then(|| {
        let mut composed = Zeroizing::new(String::with_capacity(3 * password.len()));
        composed.extend(password.nfc());
        composed
    })
}

#[cfg(not(feature = "passwords"))]
const fn composed(_: &str) -> Option<Zeroizing<String>> {
    None
}

/// Hashes a password with the default [`Cost`] and a random salt, and returns a PHC string. The password is first
/// converted to NFC.
///
/// It blocks, so do not call it while serving a request.
///
/// ```
/// let hash = rotogate::directory::password::hash(&"correct horse".into())?;
/// assert!(hash.starts_with("$argon2id$"));
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
///
/// # Errors
/// The password is empty or longer than 1024 bytes.
#[cfg(feature = "passwords")]
pub fn hash(password: &SecretString) -> Result<String, InvalidValue> {
    hash_with(password, Cost::default())
}

/// Hashes a password like [`hash`], at the given cost.
///
/// ```
/// use rotogate_core::password::{self, Cost};
///
/// let hash = password::hash_with(&"correct horse".into(), Cost { passes: 3, ..Cost::default() })?;
/// assert!(hash.contains("t=3"));
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
///
/// # Errors
/// The errors of [`hash`].
#[cfg(feature = "passwords")]
pub fn hash_with(password: &SecretString, cost: Cost) -> Result<String, InvalidValue> {
    let composed = composed(password.expose_secret());
    let bytes = composed.as_ref().map_or(password.expose_secret().as_bytes(), |composed| composed.as_bytes());
    if bytes.is_empty() {
        return Err(InvalidValue::new("the password is empty"));
    }
    if bytes.len() > MAX_PASSWORD {
        return Err(InvalidValue::new("the password is longer than 1024 bytes"));
    }
    argon::hash(bytes, cost)
}

/// Checks passwords. A bounded number of checks run at once, and a bounded number wait. A check that needs much
/// memory counts as several checks.
///
/// ```
/// use rotogate::directory::password::{self, Passwords};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let passwords = Passwords::new(2, 64);
/// let hash = password::hash(&"correct horse".into())?;
/// assert!(passwords.verify(&"correct horse".into(), &hash).await?);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Passwords {
    /// Each permit stands for one KiB of memory.
    running: Arc<Semaphore>,
    capacity: u32,
    admitted: Arc<Semaphore>,
    places: usize,
    runs: Arc<AtomicU64>,
    work: Arc<AtomicU64>,
    memory: Memory,
    times: CheckTimes,
    durations: Arc<Durations<{ COARSE_SECONDS.len() + 1 }>>,
}

#[derive(Clone, Default)]
struct CheckTimes(Arc<Mutex<HashMap<CostClass, Duration>>>);

impl CheckTimes {
    const MAX: usize = 1024;

    /// The first call for a class blocks while it runs several checks.
    fn time_of(&self, class: CostClass, memory: &mut Vec<Block>) -> Duration {
        if let Some(time) = self.0.lock().get(&class) {
            return *time;
        }
        let Ok(dummy) = class.dummy() else { return Duration::ZERO };
        // Take the shortest run, because interruptions only make a run longer.
        let mut least = Duration::MAX;
        for _ in 0..5 {
            let start = thread_cpu_time();
            std::hint::black_box(dummy.matches(b"correct horse battery", memory));
            least = least.min(thread_cpu_time().saturating_sub(start));
            if least > Duration::from_millis(250) {
                break;
            }
        }
        let mut times = self.0.lock();
        if times.len() >= Self::MAX {
            times.clear();
        }
        times.insert(class, least);
        least
    }

    /// Returns the dummy checks that pad a check of `own` to the duration of `dearest`.
    fn missing(&self, own: CostClass, dearest: CostClass, memory: &mut Vec<Block>) -> Vec<CostClass> {
        if own == dearest {
            return Vec::new();
        }
        if let (CostClass::Argon2(own), CostClass::Argon2(dearest)) = (own, dearest) {
            return own.up_to(dearest).map(CostClass::Argon2).into_iter().collect();
        }
        let (own, whole) = (self.time_of(own, memory), self.time_of(dearest, memory));
        let share = whole.saturating_sub(own).as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
        dearest.share(share)
    }
}

/// Reuses buffers, because the allocator would otherwise retain a buffer for each thread.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Vec<Block>>>>);

impl Memory {
    fn take(&self) -> Vec<Block> {
        self.0.lock().pop().unwrap_or_default()
    }

    fn keep(&self, mut memory: Vec<Block>) {
        // The memory still contains traces of the password.
        memory.iter_mut().for_each(Zeroize::zeroize);
        if memory.len() > KEPT_BLOCKS {
            return;
        }
        self.0.lock().push(memory);
    }
}

crate::debug_with!(Passwords { runs() });

/// By default, one check runs for each core, and 64 checks wait.
impl Default for Passwords {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get), 64)
    }
}

impl Passwords {
    /// Runs at most `max_parallel` checks (at least one) at once, and lets `queue` more checks wait.
    pub fn new(max_parallel: usize, queue: usize) -> Self {
        let parallel = max_parallel.clamp(1, 1024);
        let places = parallel + queue.min(1 << 20);
        let capacity = u32::try_from(parallel).unwrap_or(1024).saturating_mul(SHARE_KIB);
        Self {
            running: Arc::new(Semaphore::new(usize::try_from(capacity).unwrap_or(Semaphore::MAX_PERMITS))),
            capacity,
            admitted: Arc::new(Semaphore::new(places)),
            places,
            runs: Arc::default(),
            work: Arc::default(),
            memory: Memory::default(),
            times: CheckTimes::default(),
            durations: Arc::new(Durations::new(&COARSE_SECONDS)),
        }
    }

    /// The number of checks that may run or wait.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Returns whether the password matches the PHC string `phc`. A password longer than 1024 bytes never matches.
    ///
    /// # Errors
    /// [`DirectoryError::Busy`] if too many checks are waiting, or [`DirectoryError::Unavailable`] if the stored hash
    /// cannot be used.
    pub async fn verify(&self, password: &SecretString, phc: &str) -> Result<bool, DirectoryError> {
        let hash = parse(phc)?;
        let class = hash.class();
        self.run(password, hash, class).await
    }

    /// Checks a password against a dummy hash. Use it for unknown users, so that the response time does not reveal
    /// them.
    ///
    /// # Errors
    /// The errors of [`Passwords::verify`].
    pub async fn verify_dummy(&self, password: &SecretString, cost: Cost) -> Result<(), DirectoryError> {
        self.check(password, None, CostClass::Argon2(cost)).await.map(|_| ())
    }

    /// The number of checks so far.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// The sum of [`Cost::work`] over all argon2 checks.
    pub fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    async fn permits(&self, class: CostClass) -> Result<[tokio::sync::OwnedSemaphorePermit; 2], DirectoryError> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| DirectoryError::Busy)?;
        let share = class.memory_kib().clamp(SHARE_KIB, self.capacity);
        let running = Arc::clone(&self.running).acquire_many_owned(share).await.map_err(|_| DirectoryError::Busy)?;
        Ok([admitted, running])
    }

    async fn run(
        &self,
        password: &SecretString,
        hash: PasswordHash,
        dearest: CostClass,
    ) -> Result<bool, DirectoryError> {
        if password.expose_secret().len() > MAX_PASSWORD {
            return Ok(false);
        }
        let own = hash.class();
        let permits = self.permits(if own.memory_kib() > dearest.memory_kib() { own } else { dearest }).await?;
        let password = password.clone();
        let (runs, work) = (Arc::clone(&self.runs), Arc::clone(&self.work));
        let (kept, times) = (self.memory.clone(), self.times.clone());
        let (durations, clock) = (Arc::clone(&self.durations), SystemTime::new());
        let checked = tokio::task::spawn_blocking(move || {
            // If the caller disconnects, the check continues, so the task must own the permits.
            let _permits = permits;
            let begun = clock.monotonic();
            let typed = password.expose_secret();
            let mut memory = kept.take();
            let run = |hash: &PasswordHash, bytes: &[u8], memory: &mut Vec<Block>| {
                runs.fetch_add(1, Ordering::Relaxed);
                if let CostClass::Argon2(cost) = hash.class() {
                    work.fetch_add(cost.work(), Ordering::Relaxed);
                }
                hash.matches(bytes, memory)
            };
            // Imported hashes need the password as typed. The NFC form is also tried, because keyboards differ.
            let mut spellings = std::iter::once(Zeroizing::new(typed.to_owned())).chain(composed(typed));
            let matches = spellings.any(|spelling| {
                let matches = run(&hash, spelling.as_bytes(), &mut memory);
                for class in times.missing(own, dearest, &mut memory) {
                    if let Ok(dummy) = class.dummy() {
                        run(&dummy, spelling.as_bytes(), &mut memory);
                    }
                }
                matches
            });
            kept.keep(memory);
            durations.add(clock.monotonic().saturating_sub(begun));
            matches
        });
        checked.await.map_err(|_| DirectoryError::Unavailable("a password check did not finish".to_owned()))
    }
}

/// Only our own crates use these functions.
#[doc(hidden)]
impl Passwords {
    /// The durations of checks, without waiting time.
    pub fn durations(&self) -> CountedDurations {
        self.durations.counted()
    }

    /// The number of checks that currently run or wait.
    pub fn waiting(&self) -> usize {
        self.places.saturating_sub(self.admitted.available_permits())
    }

    /// Returns whether the password matches the hash. A check always takes as long as a check of the class `dearest`
    /// (requirement I32).
    ///
    /// # Errors
    /// The errors of [`Passwords::verify`].
    pub async fn check(
        &self,
        password: &SecretString,
        hash: Option<PasswordHash>,
        dearest: CostClass,
    ) -> Result<bool, DirectoryError> {
        let is_dummy = hash.is_none();
        let hash = hash.map_or_else(|| dearest.dummy(), Ok).map_err(unusable)?;
        Ok(self.run(password, hash, dearest).await? && !is_dummy)
    }

    /// Returns the class with the longest check. If `classes` is empty, returns the class of the gate's own hashes. It
    /// blocks while it measures new classes, unless all are argon2.
    pub fn dearest(&self, classes: impl IntoIterator<Item = CostClass>) -> CostClass {
        let mut most: BTreeMap<(u8, u32), (u64, CostClass)> = BTreeMap::new();
        for class in classes {
            let (kind, work) = class.work();
            let one = most.entry(kind).or_insert((work, class));
            if work > one.0 {
                *one = (work, class);
            }
        }
        if most.len() < 2 {
            return most.into_values().next().map(|(_, class)| class).unwrap_or_default();
        }
        let mut memory = self.memory.take();
        let timed = most.into_values().map(|(_, class)| (self.times.time_of(class, &mut memory), class));
        let dearest = timed.max().map(|(_, class)| class).unwrap_or_default();
        self.memory.keep(memory);
        dearest
    }

    /// How long a check of this class takes. Blocks while it measures a new class.
    pub fn time_of(&self, class: CostClass) -> Duration {
        let mut memory = self.memory.take();
        let time = self.times.time_of(class, &mut memory);
        self.memory.keep(memory);
        time
    }

    /// Hashes a password like the function [`hash`]. The limit on parallel checks applies.
    ///
    /// # Errors
    /// The errors of [`Passwords::verify`], or the password cannot be hashed.
    #[cfg(feature = "passwords")]
    pub async fn hash(&self, password: &SecretString) -> Result<String, DirectoryError> {
        let permits = self.permits(CostClass::default()).await?;
        let password = password.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let _permits = permits;
            hash(&password)
        });
        match hashed.await {
            Ok(hashed) => hashed.map_err(|error| DirectoryError::Unavailable(error.to_string())),
            Err(_) => Err(DirectoryError::Unavailable("a password hash did not finish".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
