//! The number of wrong passwords for a name before 429, which is the same for known and unknown users.

use http::StatusCode;
use support::{Gate, Place, with};

/// A configuration with a bound that a test reaches.
pub(super) fn config() -> String {
    with(support::CONFIG, "limits", "login_per_account = \"5/1h\"")
}

/// The wrong passwords of each name that are answered before 429.
pub(super) async fn guesses<const N: usize>(gate: &Gate, names: [&str; N]) -> [usize; N] {
    let mut counts = [0; N];
    for (name, count) in names.into_iter().zip(&mut counts) {
        loop {
            match gate.log_in(name, "wrong password").await.status {
                StatusCode::BAD_REQUEST => *count += 1,
                StatusCode::TOO_MANY_REQUESTS => break,
                other => panic!("{name}: {other}"),
            }
            assert!(*count < 100, "{name}: no end");
        }
    }
    counts
}

#[tokio::test]
async fn i48_a_user_of_a_file_takes_as_many_guesses_as_nobody() {
    let place = Place::new(&config());
    let gate = place.start();
    place.done(&["user", "add", "gone"], "a password of gone\n");
    place.done(&["user", "disable", "gone"], "");
    assert_eq!(guesses(&gate, ["demo", "gone", "nobody", "else"]).await, [5; 4]);
}
