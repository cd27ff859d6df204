//! The audit trail: what happened to whom, as `tracing` events of target `rotogate::audit`. No event holds a token, a
//! password or a key; what came from outside is written escaped.

use tracing::{info, warn};

use crate::revocation::{Effect, Revocation, Target};
use crate::session::engine::{How, Origin};
use crate::session::profile::OnReuse;
use crate::session::rotation::Reuse;
use crate::session::{Generation, RevokedBecause, Session};

const TARGET: &str = "rotogate::audit";

pub(crate) fn login(session: &Session, origin: &Origin) {
    info!(
        target: TARGET,
        event = "login",
        session = %session.id,
        subject = ?session.subject,
        account = ?session.account,
        client = ?session.client,
        dialect = %session.dialect,
        scope = ?session.scope.as_str(),
        address = ?origin.address,
    );
}

pub(crate) fn login_refused(account: Option<&str>, username: &str, client: &str, origin: &Origin) {
    warn!(target: TARGET, event = "login_refused", ?account, ?username, ?client, address = ?origin.address);
}

pub(crate) fn client_token(client: &str, jti: &str, origin: &Origin) {
    info!(target: TARGET, event = "client_token", ?client, jti, address = ?origin.address);
}

/// A plain rotation or replay is daily life; what lies beyond grace is worth a line.
pub(crate) fn refreshed(session: &Session, how: How, origin: &Origin) {
    match how {
        How::Reissued | How::FastForwarded => warn!(
            target: TARGET,
            event = "reissue",
            ?how,
            session = %session.id,
            subject = ?session.subject,
            generation = session.current,
            address = ?origin.address,
        ),
        How::Login | How::ClientCredentials | How::Rotated | How::Replayed => {
            tracing::debug!(target: TARGET, event = "rotation", session = %session.id, generation = session.current);
        }
    }
}

pub(crate) fn reuse(session: &Session, reuse: Reuse, action: OnReuse, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "reuse",
        session = %session.id,
        subject = ?session.subject,
        client = ?session.client,
        generations_old = reuse.generations_old,
        superseded_for = ?reuse.superseded_for,
        same_address_as_login = ?same(session.address.as_ref(), origin.address.as_ref()),
        same_user_agent_as_login = ?same(session.user_agent.as_ref(), origin.user_agent.as_ref()),
        address = ?origin.address,
        ?action,
    );
}

/// Unknown where either side was not kept.
fn same<T: PartialEq>(login: Option<&T>, now: Option<&T>) -> Option<bool> {
    Some(login? == now?)
}

pub(crate) fn ahead(session: &Session, presented: Generation, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "ahead_of_store",
        session = %session.id,
        subject = ?session.subject,
        presented,
        current = session.current,
        address = ?origin.address,
    );
}

pub(crate) fn other_client(session: &Session, presented_by: &str, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "other_client",
        session = %session.id,
        subject = ?session.subject,
        client = ?session.client,
        ?presented_by,
        address = ?origin.address,
    );
}

pub(crate) fn logout(session: &Session, origin: &Origin) {
    info!(target: TARGET, event = "logout", session = %session.id, subject = ?session.subject, address = ?origin.address);
}

pub(crate) fn revoked(entry: &Revocation, because: RevokedBecause) {
    let effect = match entry.effect {
        Effect::Minimum { .. } | Effect::Gone => "gone",
        Effect::NotBefore(_) => "not_before",
    };
    match &entry.target {
        Target::Session(session) => {
            warn!(target: TARGET, event = "revocation", kind = "session", %session, effect, ?because);
        }
        Target::Subject { issuer, subject } => {
            warn!(target: TARGET, event = "revocation", kind = "subject", ?issuer, ?subject, effect, ?because);
        }
        Target::Client { issuer, client } => {
            warn!(target: TARGET, event = "revocation", kind = "client", ?issuer, ?client, effect, ?because);
        }
        Target::Global => warn!(target: TARGET, event = "revocation", kind = "global", effect, ?because),
        Target::Token { issuer, jti } => {
            warn!(target: TARGET, event = "revocation", kind = "token", ?issuer, ?jti, effect, ?because);
        }
    }
}
