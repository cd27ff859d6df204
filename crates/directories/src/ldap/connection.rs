//! LDAP connections and result codes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, RecycleError};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope as SearchScope};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

use super::super::servers::Servers;
use super::super::{Cause, SourceError};
use super::LdapSettings;
use rotogate_core::private_file::read_private;

pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Result codes (RFC 4511 appendix A).
pub(super) mod code {
    pub(in super::super) const SUCCESS: u32 = 0;
    pub(in super::super) const TIME_LIMIT_EXCEEDED: u32 = 3;
    pub(in super::super) const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub(in super::super) const STRONGER_AUTH_REQUIRED: u32 = 8;
    pub(in super::super) const REFERRAL: u32 = 10;
    pub(in super::super) const ADMIN_LIMIT_EXCEEDED: u32 = 11;
    pub(in super::super) const CONFIDENTIALITY_REQUIRED: u32 = 13;
    pub(in super::super) const CONSTRAINT_VIOLATION: u32 = 19;
    pub(in super::super) const INVALID_SYNTAX: u32 = 21;
    pub(in super::super) const NO_SUCH_OBJECT: u32 = 32;
    pub(in super::super) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub(in super::super) const INVALID_CREDENTIALS: u32 = 49;
    pub(in super::super) const BUSY: u32 = 51;
    pub(in super::super) const UNAVAILABLE: u32 = 52;
    pub(in super::super) const UNWILLING: u32 = 53;
}

pub(super) struct Connection {
    pub(super) ldap: Ldap,
    /// Whether an operation is running or has failed. The connection is then not reused.
    pub(super) is_spoilt: bool,
    /// The modification time of the password file when the connection was opened.
    password_of: Option<std::time::SystemTime>,
}

pub(super) struct LdapConnector {
    pub(super) settings: Arc<LdapSettings>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) servers: Arc<Servers>,
    pub(super) binds: bool,
}

impl LdapConnector {
    fn password_changed(&self) -> Option<std::time::SystemTime> {
        let (_, file) = self.settings.bind.as_ref().filter(|_| self.binds)?;
        file.metadata().ok()?.modified().ok()
    }

    async fn connect(&self, url: &str) -> Result<Ldap, SourceError> {
        let settings = LdapConnSettings::new().set_config(Arc::clone(&self.tls)).set_starttls(self.settings.starttls);
        let opened = LdapConnAsync::with_settings(settings, url).await;
        let (connection, ldap) = opened.map_err(|error| match error {
            LdapError::LdapResult { result } => {
                SourceError::new(Cause::Connect, format!("{url}: StartTLS refused: {}", describe(&result)))
            }
            other => SourceError::new(Cause::Connect, format!("{url}: {other}")),
        })?;
        // The task ends when all handles to the connection are dropped.
        tokio::spawn(async move { drop(connection.drive().await) });
        Ok(ldap)
    }

    async fn open(&self, url: &str) -> Result<Connection, SourceError> {
        // The modification time is read before the password file. Otherwise, a change between the two reads would go
        // unnoticed.
        let password_of = self.password_changed();
        let mut ldap = self.connect(url).await?;
        if let Some((dn, file)) = self.settings.bind.as_ref().filter(|_| self.binds) {
            // The file is read for each connection, so that a new password takes effect without a restart.
            let password = bind_password(file).map_err(|error| SourceError::new(Cause::Credentials, error))?;
            let bound = ldap.simple_bind(dn, password.expose_secret()).await.map_err(|error| lost(&error))?;
            if bound.rc != code::SUCCESS {
                let message = format!("{url}: the bind as bind_dn failed: {}", describe(&bound));
                return Err(SourceError::new(Cause::Credentials, message));
            }
        }
        Ok(Connection { ldap, is_spoilt: false, password_of })
    }
}

impl managed::Manager for LdapConnector {
    type Type = Connection;
    type Error = SourceError;

    async fn create(&self) -> Result<Connection, SourceError> {
        self.servers.connect(|server| self.open(&self.settings.urls[server])).await
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        used: &managed::Metrics,
    ) -> managed::RecycleResult<SourceError> {
        let is_old = used.last_used() > IDLE_TIMEOUT || connection.password_of != self.password_changed();
        if connection.is_spoilt || connection.ldap.is_closed() || is_old {
            return Err(RecycleError::message("the connection is not used again"));
        }
        Ok(())
    }
}

pub(super) fn bind_password(file: &Path) -> Result<SecretString, String> {
    let text = read_private(file)?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(format!("{}: is empty; expected the password of `bind_dn`", file.display()));
    }
    Ok(SecretString::from(password.to_owned()))
}

/// Describes a result without the server's message, which could quote the request.
pub(super) fn describe(result: &LdapResult) -> String {
    format!("result {}", result.rc)
}

pub(super) fn lost(error: &LdapError) -> SourceError {
    let cause = if matches!(error, LdapError::Timeout { .. }) { Cause::Timeout } else { Cause::Connect };
    SourceError::new(cause, error.to_string())
}

/// Returns the error for a failed search. A `base` search concerns only one user.
pub(super) fn refused(result: &LdapResult, scope: SearchScope) -> SourceError {
    let cause = match result.rc {
        code::TIME_LIMIT_EXCEEDED => Cause::Timeout,
        code::BUSY | code::UNAVAILABLE => Cause::Connect,
        code::STRONGER_AUTH_REQUIRED | code::INAPPROPRIATE_AUTHENTICATION | code::INVALID_CREDENTIALS => {
            Cause::Credentials
        }
        // The server rejected the value in the filter, so only this user is affected.
        code::ADMIN_LIMIT_EXCEEDED | code::INVALID_SYNTAX | code::UNWILLING => Cause::Entry,
        _ if scope == SearchScope::Base => Cause::Entry,
        _ => Cause::Refused,
    };
    let what = match result.rc {
        code::REFERRAL => "the search was referred to another server, and referrals are not followed".to_owned(),
        code::NO_SUCH_OBJECT => "the search failed: result 32, the entry named in `base` does not exist".to_owned(),
        _ => format!("the search failed: {}", describe(result)),
    };
    SourceError::new(cause, what)
}
