//! The gate's own credential for an upstream (`authorization_file`).

use std::path::Path;

use http::HeaderValue;

use rotogate_core::private_file::{read_private, trusted};

/// Reads the value of `Authorization` from a private file.
///
/// # Errors
/// Describes the file, the problem and the remedy.
pub fn load(path: &Path) -> Result<HeaderValue, String> {
    let shown = path.display();
    let text = trusted::check_folders(path).and_then(|()| read_private(path))?;
    let value = HeaderValue::from_str(text.trim()).ok().filter(|value| !value.is_empty() && is_complete(value));
    let mut value = value.ok_or_else(|| {
        format!("{shown}: expected the whole value of Authorization on one line, such as \"Bearer …\" or \"Basic …\"")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Requires a scheme and a credential (RFC 9110 §11.4).
fn is_complete(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| {
        text.split_once(' ').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.trim().is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_scheme_and_a_credential_on_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.authorization");
        let read = |text: &str| {
            let _ = std::fs::remove_file(&path);
            rotogate_core::private_file::create_private_new(&path, text.as_bytes()).unwrap();
            load(&path)
        };
        let value = read("Bearer kapikey-1234\n").unwrap();
        assert_eq!(value, "Bearer kapikey-1234");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("kapikey"));
        for bad in ["", "\n", "kapikey-1234", "Bearer ", "Bearer a\nBearer b", "Bearer \u{e4}"] {
            let message = read(bad).unwrap_err();
            assert!(message.contains("app.authorization") && !message.contains("1234"), "{bad:?}: {message}");
        }
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(load(&path).is_err(), "everyone may read it");
    }
}
