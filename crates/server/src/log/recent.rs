//! Recent lines of the audit trail, for the admin listener.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::sync::broadcast;

pub(crate) const KEPT_LINES: usize = 1000;
/// A follower that lags further behind misses lines.
const MAX_BEHIND: usize = 1000;

static RECENT: LazyLock<Recent> = LazyLock::new(|| Recent::new(KEPT_LINES));

/// The newest line is last.
struct Recent {
    lines: Mutex<VecDeque<Arc<str>>>,
    most: usize,
    followers: broadcast::Sender<Arc<str>>,
}

impl Recent {
    fn new(most: usize) -> Self {
        Self { lines: Mutex::default(), most, followers: broadcast::channel(MAX_BEHIND).0 }
    }

    fn keep(&self, line: &[u8]) {
        let text: Arc<str> = String::from_utf8_lossy(line.trim_ascii_end()).into();
        let mut lines = self.lines.lock();
        if lines.len() >= self.most {
            lines.pop_front();
        }
        lines.push_back(Arc::clone(&text));
        // The line is sent under the lock, so that a new follower receives every line.
        let _ = self.followers.send(text);
    }

    fn follow(&self) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let lines = self.lines.lock();
        (lines.iter().cloned().collect(), self.followers.subscribe())
    }
}

pub(super) fn keep(line: &[u8]) {
    RECENT.keep(line);
}

pub(crate) fn follow() -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
    RECENT.follow()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_give_way_and_a_follower_misses_none() {
        let recent = Recent::new(3);
        for number in 0..5 {
            recent.keep(format!("{{\"n\":{number}}}\n").as_bytes());
        }
        let (kept, mut coming) = recent.follow();
        let kept: Vec<_> = kept.iter().map(AsRef::as_ref).collect();
        assert_eq!(kept, ["{\"n\":2}", "{\"n\":3}", "{\"n\":4}"]);
        recent.keep(b"{\"n\":5}\n");
        assert_eq!(&*coming.try_recv().unwrap(), "{\"n\":5}");
        assert!(coming.try_recv().is_err());
    }
}
