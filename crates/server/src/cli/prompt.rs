//! Interactive input. Passwords are never arguments, because other users can see them.

use std::io::{BufRead, IsTerminal, Read};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::Failure;

/// The maximum length of the input. Every allowed password is shorter.
const MAX_SECRET_CHARS: u64 = 4096;

/// The minimum length of a password (NIST SP 800-63B §3.1.1.2).
const MIN_PASSWORD_CHARS: usize = 8;

/// Asks the user to type `word`. Without a terminal, `--yes` is needed.
pub(super) fn confirm(what: &str, word: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let mut typed = String::new();
    if std::io::stdin().is_terminal() {
        eprintln!("{what}.\nType {word} to continue:");
        std::io::stdin().lock().take(MAX_SECRET_CHARS).read_line(&mut typed).map_err(Failure::failed)?;
    }
    if typed.trim() == word {
        Ok(())
    } else {
        Err(Failure::Failed(format!("{what}. Nothing was changed; to confirm, repeat the command with --yes")))
    }
}

/// Reads a new password, typed twice or from the first line of standard input.
pub(super) fn new_password(username: &str, stdin: bool) -> Result<SecretString, Failure> {
    let password = if stdin || !std::io::stdin().is_terminal() { piped("the password")? } else { typed(username)? };
    match password.expose_secret().chars().count() {
        ..MIN_PASSWORD_CHARS => Err(Failure::Failed(format!(
            "the password is too short: it must have at least {MIN_PASSWORD_CHARS} characters; nothing was changed"
        ))),
        _ => Ok(password),
    }
}

fn typed(username: &str) -> Result<SecretString, Failure> {
    let first = SecretString::from(
        rpassword::prompt_password(format!("New password for {username}: ")).map_err(Failure::failed)?,
    );
    let second = SecretString::from(rpassword::prompt_password("Once more: ").map_err(Failure::failed)?);
    if first.expose_secret() != second.expose_secret() {
        return Err(Failure::Failed("the two passwords differ; nothing was changed".into()));
    }
    not_empty(first, "the password")
}

/// Asks for `yes` at a terminal. Without a terminal, the command continues.
///
/// # Errors
/// The user did not type `yes`.
// Requirement O41.
pub(super) fn confirm_at_terminal(what: &str, yes: bool) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() { confirm(what, "yes", yes) } else { Ok(()) }
}

pub(super) fn piped(what: &str) -> Result<SecretString, Failure> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(MAX_SECRET_CHARS * 4).read_to_string(&mut text).map_err(Failure::failed)?;
    not_empty(SecretString::from(text.lines().next().unwrap_or_default()), what)
}

fn not_empty(secret: SecretString, what: &str) -> Result<SecretString, Failure> {
    if secret.expose_secret().is_empty() {
        Err(Failure::Failed(format!("{what} is empty; nothing was changed")))
    } else {
        Ok(secret)
    }
}
