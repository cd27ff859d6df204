//! Limits the time of each request to a directory. Otherwise a directory that never responds would block logins
//! forever.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Directory, DirectoryError, LoginRequest, NamedUsers, User, UserName};

const MAX_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct BoundedDirectory(pub(crate) Arc<dyn Directory>);

async fn bounded<T>(asked: impl Future<Output = Result<T, DirectoryError>> + Send) -> Result<T, DirectoryError> {
    tokio::time::timeout(MAX_WAIT, asked).await.unwrap_or_else(|_| {
        Err(DirectoryError::Unavailable(format!("the directory has not responded for {} s", MAX_WAIT.as_secs())))
    })
}

#[async_trait]
impl Directory for BoundedDirectory {
    async fn authenticate(
        &self,
        account: Option<&str>,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        bounded(self.0.authenticate(account, username, password)).await
    }

    async fn log_in(&self, login: &LoginRequest<'_>) -> Result<Option<User>, DirectoryError> {
        bounded(self.0.log_in(login)).await
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        bounded(self.0.lookup(subject)).await
    }

    async fn lookup_in(&self, account: Option<&str>, subject: &str) -> Result<Option<User>, DirectoryError> {
        bounded(self.0.lookup_in(account, subject)).await
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    async fn lookup_of_issuer(&self, issuer: &str, subject: &str) -> Result<Option<User>, DirectoryError> {
        bounded(self.0.lookup_of_issuer(issuer, subject)).await
    }

    async fn lookup_named(&self, issuer: &str, name: &UserName) -> Result<NamedUsers, DirectoryError> {
        bounded(self.0.lookup_named(issuer, name)).await
    }

    fn limit_key<'a>(&self, account: Option<&str>, username: &'a str) -> Cow<'a, str> {
        self.0.limit_key(account, username)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct LostQuestions;

    #[async_trait]
    impl Directory for LostQuestions {
        async fn authenticate(
            &self,
            _account: Option<&str>,
            _username: &str,
            _password: &SecretString,
        ) -> Result<Option<User>, DirectoryError> {
            std::future::pending().await
        }

        async fn lookup(&self, _subject: &str) -> Result<Option<User>, DirectoryError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_never_answers_is_unavailable() {
        let directory = BoundedDirectory(Arc::new(LostQuestions));
        let password = SecretString::from("x");
        let login = LoginRequest::new(None, "ada", &password);
        let late = |error: DirectoryError| assert!(error.to_string().contains("for 30 s"), "{error}");
        late(directory.log_in(&login).await.unwrap_err());
        late(directory.authenticate(None, "ada", &password).await.unwrap_err());
        late(directory.lookup("ada").await.unwrap_err());
        late(directory.lookup_in(None, "ada").await.unwrap_err());
        assert!(directory.lookup_of_issuer("https://idp", "ada").await.unwrap().is_none(), "the default");
    }
}
