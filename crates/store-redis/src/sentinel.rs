//! Queries the Sentinels for the present primary.
//!
//! Each Sentinel is queried every second, and after each fault of a connection. The reply with the highest
//! configuration epoch counts, because a cut-off Sentinel may report a former primary. On each new connection, the gate
//! also uses `ROLE` to check that the server is a primary.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value, cmd, pipe};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::drop_mut;
use super::fault::describe;
use super::options::{Address, RedisOptions, host_of};
use super::script::{bytes, unexpected};
use rotogate_core::random::jittered;
use rotogate_core::store::kit::network::{LONGEST_PAUSE, not_done};
use rotogate_core::store::{StoreError, WriteOutcome};

const EVERY: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// A primary, and its configuration epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) address: Address,
    pub(super) epoch: u64,
}

/// The tasks that query the Sentinels. Dropping this value ends the tasks.
pub(super) struct Sentinels {
    said: Arc<Said>,
    ask: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

/// The last reply of each Sentinel, even if the Sentinel no longer responds.
struct Said {
    each: Mutex<Vec<Word>>,
    best: watch::Sender<Option<Primary>>,
}

#[derive(Clone, Default)]
struct Word {
    primary: Option<Primary>,
    fault: Option<String>,
}

impl Sentinels {
    pub(super) fn new(options: &Arc<RedisOptions>) -> Self {
        let each = Mutex::new(vec![Word::default(); options.urls.len()]);
        let said = Arc::new(Said { each, best: watch::Sender::new(None) });
        let (ask, asked) = watch::channel(());
        let mut tasks = JoinSet::new();
        for (at, url) in options.urls.iter().enumerate() {
            tasks.spawn(follow(Arc::clone(options), at, url.clone(), Arc::clone(&said), asked.clone()));
        }
        Self { said, ask, _tasks: tasks }
    }

    pub(super) fn primary(&self) -> watch::Receiver<Option<Primary>> {
        self.said.best.subscribe()
    }

    /// Queries the Sentinels at once, because a fault may mean a new primary.
    pub(super) fn ask(&self) {
        self.ask.send_replace(());
    }

    pub(super) fn fault(&self) -> Option<String> {
        let each = self.said.each.lock();
        each.iter().find_map(|word| word.fault.clone())
    }
}

impl Said {
    fn hear(&self, at: usize, answer: Result<Primary, StoreError>) {
        let mut each = self.each.lock();
        if let Some(word) = each.get_mut(at) {
            match answer {
                Ok(primary) => *word = Word { primary: Some(primary), fault: None },
                Err(error) => word.fault = Some(error.to_string()),
            }
        }
        self.best.send_if_modified(|known| {
            let best = best(&each, known.as_ref());
            let changed = best != *known;
            if let (true, Some(primary)) = (changed, &best) {
                tracing::info!(
                    address = %primary.address,
                    epoch = primary.epoch,
                    "the Sentinels reported the primary of Redis",
                );
            }
            *known = best;
            changed
        });
    }
}

/// Returns the primary with the highest epoch. Ties are decided by the number of votes, and then in favor of the
/// primary in use.
fn best(each: &[Word], known: Option<&Primary>) -> Option<Primary> {
    let said = || each.iter().filter_map(|word| word.primary.as_ref());
    let weight = |one: &Primary| {
        let votes = said().filter(|other| *other == one).count();
        (one.epoch, votes, known == Some(one))
    };
    said().max_by_key(|one| weight(one)).cloned()
}

async fn follow(options: Arc<RedisOptions>, at: usize, url: String, said: Arc<Said>, mut asked: watch::Receiver<()>) {
    let limit = options.network.connect_timeout.saturating_add(options.reply_timeout());
    let (mut connection, mut failures) = (None, 0u32);
    loop {
        asked.mark_unchanged();
        let answer = timeout(limit, question(&options, &url, &mut connection))
            .await
            .unwrap_or_else(|_| Err(not_done(format!("the Sentinel at {} does not respond", host_of(&url)))));
        let pause = if answer.is_ok() {
            failures = 0;
            EVERY
        } else {
            connection = None;
            failures = failures.saturating_add(1);
            jittered(SHORTEST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE))
        };
        said.hear(at, answer);
        sleep(SHORTEST_PAUSE).await;
        tokio::select! {
            () = sleep(pause.saturating_sub(SHORTEST_PAUSE)) => {}
            // `changed` cannot fail, because the sender outlives this task.
            Ok(()) = asked.changed() => {}
        }
    }
}

async fn question(
    options: &RedisOptions,
    url: &str,
    connection: &mut Option<MultiplexedConnection>,
) -> Result<Primary, StoreError> {
    let address = host_of(url);
    let name = options.sentinel.as_ref().map_or("", |sentinel| sentinel.name.as_str());
    let failed = |error: &redis::RedisError| not_done(format!("the Sentinel: {}", describe(address, error)));
    let open = match connection {
        Some(open) => open,
        None => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.network.connect_timeout))
                .set_response_timeout(Some(options.reply_timeout()));
            let client = options.sentinel_client(url)?;
            let made = client.get_multiplexed_async_connection_with_config(&config).await;
            connection.insert(made.map_err(|error| failed(&error))?)
        }
    };
    // During a failover, `GET-MASTER-ADDR-BY-NAME` returns the next primary earlier than `SENTINEL MASTER`.
    let mut question = pipe();
    drop_mut(question.add_command(cmd("SENTINEL")).arg("GET-MASTER-ADDR-BY-NAME").arg(name));
    drop_mut(question.add_command(cmd("SENTINEL")).arg("MASTER").arg(name));
    let replies = open.send_packed_commands(&question, 0, 2).await.map_err(|error| failed(&error))?;
    let mut replies = replies.into_iter();
    let place = match replies.next() {
        Some(Value::Array(place)) => place,
        Some(Value::Nil) => {
            let text = format!("the Sentinel at {address} knows no primary {name:?}: correct its name");
            return Err(StoreError::new(text).with_outcome(WriteOutcome::Refused));
        }
        Some(other) => {
            return Err(other.extract_error().map_or_else(|error| failed(&error), |_| unexpected("no address")));
        }
        None => return Err(unexpected("no address")),
    };
    let mut place = place.into_iter().map(|part| bytes(part).and_then(|part| String::from_utf8(part).ok()));
    let (Some(Some(host)), Some(Some(port))) = (place.next(), place.next()) else {
        return Err(unexpected("no address"));
    };
    let port = port.parse().map_err(|_| unexpected("no port"))?;
    let about = replies.next().unwrap_or(Value::Nil).extract_error().map_err(|error| failed(&error))?;
    let epoch = field(about, b"config-epoch").ok_or_else(|| unexpected("no config-epoch"))?;
    Ok(Primary { address: Address { host, port }, epoch })
}

fn field(reply: Value, name: &[u8]) -> Option<u64> {
    let Value::Array(parts) = reply else { return None };
    let mut parts = parts.into_iter().map(bytes);
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        if key.as_deref() == Some(name) {
            return String::from_utf8(value?).ok()?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(port: u16, epoch: u64) -> Word {
        let address = Address { host: "r".to_owned(), port };
        Word { primary: Some(Primary { address, epoch }), fault: None }
    }

    #[test]
    fn the_latest_failover_counts_whatever_most_sentinels_say() {
        let chosen = |each: &[Word], known: Option<&Word>| {
            best(each, known.and_then(|word| word.primary.as_ref())).map(|primary| primary.address.port)
        };
        assert_eq!(chosen(&[Word::default(), Word::default()], None), None);
        assert_eq!(chosen(&[word(1, 3), word(1, 3), word(2, 4)], Some(&word(1, 3))), Some(2));
        assert_eq!(chosen(&[word(1, 3), word(2, 3), word(2, 3)], Some(&word(1, 3))), Some(2));
        assert_eq!(chosen(&[word(1, 3), word(2, 3)], Some(&word(1, 3))), Some(1), "no change without need");
        assert_eq!(chosen(&[word(1, 3), word(2, 3)], Some(&word(2, 3))), Some(2));
    }
}
