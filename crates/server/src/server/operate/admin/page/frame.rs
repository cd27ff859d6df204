//! What surrounds every view: the state of the gate, the list of views, and the operator.

use crate::server::operate::admin::state::GateState;
use rotogate_config::AdminRole;

pub(super) struct Frame {
    pub(super) version: &'static str,
    pub(super) state: GateState,
    pub(super) at: &'static str,
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) may_operate: bool,
    /// Whether the operator may see new secrets, and change users and keys.
    pub(super) may_mint: bool,
    pub(super) csrf: String,
    pub(super) notice: Option<String>,
}

/// A view in the list.
pub(super) struct ViewEntry {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    role: AdminRole,
    /// The path of the icon, in a box of 16 by 16.
    pub(super) icon: &'static str,
}

const fn entry(path: &'static str, name: &'static str, role: AdminRole, icon: &'static str) -> ViewEntry {
    ViewEntry { path, name, role, icon }
}

const OVERVIEW: &str = "M1.5 8.5h3l2-5.5 3 10 2-4.5h3";
const REFUSED: &str = "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12M3.8 3.8l8.4 8.4";
const SESSIONS: &str = "M6 8a2.6 2.6 0 1 0 0-5.2A2.6 2.6 0 0 0 6 8M1.5 13.5c.4-2.3 2-3.6 4.5-3.6s4.1 1.3 4.5 3.6M11 3a2.6 2.6 0 0 1 \
                        0 4.8M12.3 10.2c1.3.5 2 1.7 2.2 3.3";
const USERS: &str = "M8 7.5a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6M2.5 14c.5-2.8 2.6-4.4 5.5-4.4s5 1.6 5.5 4.4";
const EXPLAIN: &str =
    "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10M10.6 10.6l3.9 3.9M5.5 5.8a1.5 1.5 0 1 1 2.1 1.4q-.6.3-.6 1M7 9.8v.1";
const EVENTS: &str = "M5.5 4h9M5.5 8h9M5.5 12h9M2 4h.1M2 8h.1M2 12h.1";
const ROUTES: &str = "M2.5 3v3.5A3.5 3.5 0 0 0 6 10h7.5M2.5 13V6M10.5 7l3 3-3 3";
const API_KEYS: &str = "M5.5 14a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7M8 8l6-6M11 5l2.5 2.5";
const KEYS: &str = "M8 1.5l5.5 2v4c0 3.3-2.3 5.6-5.5 7-3.2-1.4-5.5-3.7-5.5-7v-4zM5.7 7.8l1.7 1.7 3-3.2";
const CONFIG: &str = "M1.5 4.5h7M12.5 4.5h2M1.5 11.5h2M7.5 11.5h7M10.5 2.5v4M5.5 9.5v4";

/// What happens, who has access, and how the gate is set up. page.css has a gap before each group.
const VIEWS: &[ViewEntry] = &[
    entry("/ui/", "Overview", AdminRole::Viewer, OVERVIEW),
    entry("/ui/refused", "Refused", AdminRole::Viewer, REFUSED),
    entry("/ui/explain", "Explain", AdminRole::Operator, EXPLAIN),
    entry("/ui/events", "Events", AdminRole::Viewer, EVENTS),
    entry("/ui/sessions", "Sessions", AdminRole::Viewer, SESSIONS),
    entry("/ui/users", "Users", AdminRole::Viewer, USERS),
    entry("/ui/api-keys", "API keys", AdminRole::Viewer, API_KEYS),
    entry("/ui/routes", "Routes", AdminRole::Viewer, ROUTES),
    entry("/ui/keys", "Keys", AdminRole::Viewer, KEYS),
    entry("/ui/config", "Configuration", AdminRole::Viewer, CONFIG),
];

impl Frame {
    pub(super) fn views(&self) -> impl Iterator<Item = &'static ViewEntry> {
        let may_operate = self.may_operate;
        VIEWS.iter().filter(move |entry| may_operate || entry.role == AdminRole::Viewer)
    }
}
