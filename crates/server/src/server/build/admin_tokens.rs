//! Admin tokens, each in a private file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use rotogate_config::{AdminConfig, AdminRole, AdminTokenConfig};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::context::Actor;
use rotogate_core::private_file;
use rotogate_core::random::{are_equal, random};
use rotogate_kit::file_stamp::{CHECK_INTERVAL, ChangeDetector};

const MIN_CHARS: usize = 32;

/// An admin token. `Debug` hides it.
pub struct AdminToken(SecretString);

rotogate_core::debug_with!(AdminToken);

impl AdminToken {
    /// Reads the token, or creates the file with 256 random bits and mode 0600.
    ///
    /// # Errors
    /// The file cannot be read or created, is accessible to others, or is shorter than 32 characters.
    pub fn load_or_create(path: &Path) -> Result<Self, String> {
        if !path.exists() {
            let random = random::<32>().map_err(|error| error.to_string())?;
            let text = Zeroizing::new(format!("{}\n", URL_SAFE_NO_PAD.encode(random.as_slice())));
            let failed = |error| format!("the admin token {} cannot be created: {error}", path.display());
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                private_file::create_private_dir(folder).map_err(failed)?;
            }
            private_file::create_private_new(path, text.as_bytes()).map_err(failed)?;
        }
        Self::load(path)
    }

    /// Reads the token.
    ///
    /// # Errors
    /// The errors of [`Self::load_or_create`].
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = private_file::read_private(path)?;
        let token = text.trim();
        if token.len() < MIN_CHARS {
            return Err(format!(
                "the admin token in {} has fewer than {MIN_CHARS} characters. Write a longer token to the file (mode \
                 0600), or delete the file, and the next start creates a new token",
                path.display()
            ));
        }
        Ok(Self(SecretString::from(token)))
    }

    /// Compares in constant time.
    pub(crate) fn is(&self, presented: &str) -> bool {
        are_equal(self.0.expose_secret().as_bytes(), presented.as_bytes())
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) actor: Actor,
    pub(crate) role: AdminRole,
}

#[derive(Debug)]
pub(crate) struct AdminTokens(Vec<TokenFile>);

#[derive(Debug)]
struct TokenFile {
    holder: Holder,
    path: PathBuf,
    token: ArcSwap<AdminToken>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    detector: ChangeDetector,
    problem: Option<String>,
}

impl AdminTokens {
    /// Reads all tokens and creates missing files.
    ///
    /// # Errors
    /// The errors of [`AdminToken::load_or_create`].
    pub(crate) fn load_or_create(config: &AdminConfig) -> Result<Self, String> {
        let open = |(_, AdminTokenConfig { name, role, file })| {
            let detector = ChangeDetector::new([PathBuf::clone(&file)], SystemTime::new().wall());
            let watched = Mutex::new(Watched { detector, problem: None });
            let token = ArcSwap::from_pointee(AdminToken::load_or_create(&file)?);
            let actor = Actor { name: name.into(), role: AdminRole::word(role), via: "api" };
            Ok(TokenFile { holder: Holder { actor, role }, path: file, token, watched })
        };
        config.all_tokens().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Compares with every token, in constant time.
    pub(crate) fn holder(&self, presented: &str) -> Option<&Holder> {
        self.entry(presented).map(|(holder, _)| holder)
    }

    pub(crate) fn entry(&self, presented: &str) -> Option<(&Holder, Arc<AdminToken>)> {
        let own = self.0.iter().map(|one| (one.token.load_full(), one)).filter(|(token, _)| token.is(presented));
        own.map(|(token, one)| (&one.holder, token)).fold(None, |first, entry| first.or(Some(entry)))
    }

    pub(crate) fn has(&self, token: &Weak<AdminToken>) -> bool {
        self.0.iter().any(|one| std::ptr::eq(Arc::as_ptr(&one.token.load()), token.as_ptr()))
    }

    /// Reads changed files again.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            self.0.iter().for_each(TokenFile::poll);
        }
    }
}

impl TokenFile {
    fn poll(&self) {
        let (now, name) = (SystemTime::new().wall(), &*self.holder.actor.name);
        let mut watched = self.watched.lock();
        if !watched.detector.poll_changed([self.path.clone()], now) {
            return;
        }
        match AdminToken::load(&self.path) {
            Ok(token) => {
                watched.problem = None;
                if !self.token.load().is(token.expose()) {
                    self.token.store(Arc::new(token));
                    tracing::info!(name, file = %self.path.display(), "admin token reloaded");
                }
            }
            Err(error) if watched.problem.as_ref() != Some(&error) => {
                tracing::error!(name, error, "admin token changed but cannot be used; the old one stays in force");
                watched.problem = Some(error);
            }
            Err(_) => {}
        }
    }
}
