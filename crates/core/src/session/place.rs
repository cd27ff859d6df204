//! The place of a session in a Token Status List.

use serde::{Deserialize, Serialize};

/// The bit of a session in one of our Token Status Lists: by this bit other verifiers learn that the session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StatusPlace {
    /// The number of the list.
    pub list: u32,
    /// The number of the bit.
    pub index: u32,
}

impl StatusPlace {
    /// The URL of the list. `base` is the common prefix of all lists' URLs.
    pub fn url(self, base: &str) -> String {
        format!("{base}/{}", self.list)
    }
}
