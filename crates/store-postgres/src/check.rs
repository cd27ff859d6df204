//! Checks whether a PostgreSQL server is suitable for a store.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::connect::{Connection, ConnectionPool, PostgresFailure};
use super::loss::{KnownHistory, ServerPosition};
use super::migrate::{self, migrate};
use super::options::PostgresOptions;
use super::record::time;
use super::{PostgresInner, fault, notify};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::store::kit::fields::{Op, new_op};
use rotogate_core::store::kit::mark::{self, Marker};
use rotogate_core::store::kit::network::{compare_clocks, not_done, refused};
use rotogate_core::store::{InspectedServer, StoreError, round_trip};
use rotogate_core::task::TaskGuard;

const OLDEST: u32 = 130_000;
const FOR_REVOCATIONS: usize = 2;

const SETTINGS: &str = "select current_setting('server_version_num') as version, \
    current_setting('server_version') as version_text, current_setting('synchronous_commit') as commits, \
    current_setting('fsync') as fsync, current_setting('full_page_writes') as pages, \
    current_setting('transaction_read_only') as read_only, pg_is_in_recovery() as standby, \
    (select setting from pg_settings where name = 'statement_timeout') as timeout, \
    current_setting('synchronous_standby_names') as standbys, (select count(*) from pg_stat_replication) as followers, \
    floor(extract(epoch from clock_timestamp()) * 1000)::bigint as now";

/// Checks the server, and that the gate's user may read the schema.
async fn fitness(options: &PostgresOptions, connection: &Connection) -> Result<Settings, StoreError> {
    let clock = SystemTime::new();
    let before = clock.wall();
    let settings = Settings(ask(options, connection, SETTINGS).await?.pop());
    let after = clock.wall();
    check_server(options, &settings)?;
    let server = format!("PostgreSQL at {}", options.address());
    compare_clocks(&options.network, server, before, time(settings.number("now")), after)?;
    check_schema(options, connection).await?;
    Ok(settings)
}

pub(super) async fn open(options: PostgresOptions) -> Result<PostgresInner, StoreError> {
    options.check()?;
    let options = Arc::new(options);
    let commands = Arc::new(ConnectionPool::new(Arc::clone(&options), options.connections));
    let connection = first_connection(&commands).await?;
    fitness(&options, &connection).await?;
    // Compare before any write. Otherwise, refused starts could raise an older store's write count to the mark.
    let is_accepted = compare_with_mark(&options, &connection).await?;
    commands.give_back(connection);
    migrate(&commands).await?;
    let connection = first_connection(&commands).await?;
    check_rights(&options, &connection).await?;
    let [history, store] = check_head(&options, &connection).await?;
    commands.give_back(connection);
    let written = Arc::new(Notify::new());
    let inner = PostgresInner {
        issuer: options.network.issuer.as_str().into(),
        known: KnownHistory::new(history),
        store,
        node: new_op()?,
        revocations: ConnectionPool::new(Arc::clone(&options), FOR_REVOCATIONS),
        _notifier: TaskGuard::spawn(notify(Arc::clone(&commands), Arc::clone(&written))),
        mark: Marker::new(options.network.high_water.as_deref(), store),
        written,
        commands,
        doubts: Default::default(),
        inserts: Default::default(),
        hints: Default::default(),
        options,
    };
    // Checks that the store accepts writes.
    let answer = inner.one("rg_check", Vec::new()).await?;
    inner.known.adopt(history, ServerPosition::in_answer(&answer)?);
    inner.mark.begin(answer.count("o_writes")?, is_accepted).await?;
    Ok(inner)
}

/// Runs the startup checks without changing data.
pub async fn inspect(options: PostgresOptions) -> Result<InspectedServer, StoreError> {
    options.check()?;
    let options = Arc::new(options);
    let connection = first_connection(&ConnectionPool::new(Arc::clone(&options), 1)).await?;
    let settings = fitness(&options, &connection).await?;
    let (address, version) = (options.address(), settings.get("version_text"));
    if !settings.get("standbys").is_empty() && settings.number("followers") == 0 {
        return Err(refused(format!(
            "PostgreSQL at {address} waits for synchronous standbys, but no standby is connected: start a standby, \
             or empty `synchronous_standby_names`"
        )));
    }
    compare_with_mark(&options, &connection).await?;
    let state = match made(&options, &connection).await? {
        0 => {
            check_may_make(&options, &connection).await?;
            "there is no store yet"
        }
        made => {
            migrate::check_version(&options, made)?;
            check_rights(&options, &connection).await?;
            check_head(&options, &connection).await?;
            "the store is this gate's"
        }
    };
    let ask = || async {
        connection.client.simple_query("select 1").await.map_err(|error| fault::judge(&options, &error).error)
    };
    let round_trip = round_trip(ask).await?;
    Ok(InspectedServer { found: format!("PostgreSQL at {address} has version {version}; {state}"), round_trip })
}

/// Returns the number of applied migrations, or 0 without a store.
async fn made(options: &PostgresOptions, connection: &Connection) -> Result<usize, StoreError> {
    let made = migrate::version(&connection.client, &options.schema).await;
    made.map_err(|error| fault::judge(options, &error).error)
}

/// Compares the store with the mark. Returns whether the operator has accepted a store that differs from the mark.
async fn compare_with_mark(options: &PostgresOptions, connection: &Connection) -> Result<bool, StoreError> {
    let (file, schema) = (options.network.high_water.as_deref(), &options.schema);
    if file.is_none() {
        return Ok(false);
    }
    let mut there = None;
    let place = place(options);
    if made(options, connection).await? > 0 {
        let statement = format!(
            "select encode(h.store, 'hex') as store, w.last_value as writes from \"{schema}\".head h, \"{schema}\".writes w"
        );
        if let Some(head) = ask(options, connection, &statement).await?.pop() {
            let head = Settings(Some(head));
            there = Some((head.name("store", &place)?, u64::try_from(head.number("writes")).unwrap_or_default()));
        }
    }
    mark::compare(file, options.network.accept_restored, there, &place)
}

/// Opens the first connection. Retries after temporary faults.
async fn first_connection(pool: &ConnectionPool) -> Result<Connection, StoreError> {
    let mut last = None;
    let trying = async {
        loop {
            match pool.connection().await {
                Ok(connection) => return Ok(connection),
                Err(PostgresFailure { error, again: false, .. }) => return Err(error),
                Err(PostgresFailure { error, .. }) => last = Some(error),
            }
        }
    };
    match timeout(pool.options.network.operation_timeout, trying).await {
        Ok(done) => done,
        Err(_) => {
            Err(last.unwrap_or_else(|| not_done(format!("PostgreSQL at {} does not respond", pool.options.address()))))
        }
    }
}

async fn ask(
    options: &PostgresOptions,
    connection: &Connection,
    statement: &str,
) -> Result<Vec<SimpleQueryRow>, StoreError> {
    let replies = match timeout(options.network.operation_timeout, connection.client.simple_query(statement)).await {
        Ok(Ok(replies)) => replies,
        Ok(Err(error)) => return Err(fault::judge(options, &error).error),
        Err(_) => return Err(not_done(format!("PostgreSQL at {} does not respond", options.address()))),
    };
    let rows = replies.into_iter().filter_map(|reply| match reply {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

struct Settings(Option<SimpleQueryRow>);

impl Settings {
    fn get(&self, name: &str) -> &str {
        self.0.as_ref().and_then(|row| row.try_get(name).ok().flatten()).unwrap_or_default()
    }

    fn number(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap_or_default()
    }

    fn name(&self, of: &str, place: &str) -> Result<Op, StoreError> {
        let name = u64::from_str_radix(self.get(of), 16).ok().filter(|_| self.get(of).len() == 16);
        name.map(u64::to_be_bytes).ok_or_else(|| refused(format!("{place} has no {of}: restore a complete back-up")))
    }
}

fn check_server(options: &PostgresOptions, settings: &Settings) -> Result<(), StoreError> {
    let address = options.address();
    if settings.number("version") < OLDEST.into() {
        let version = settings.get("version_text");
        let oldest = OLDEST / 10_000;
        return Err(refused(format!("PostgreSQL at {address} has version {version}: {oldest} or later is needed")));
    }
    if settings.get("standby") == "t" || settings.get("read_only") == "on" {
        return Err(refused(format!(
            "PostgreSQL at {address} is a standby or read-only and does not accept writes: give the address of the primary, and \
             set default_transaction_read_only off for the gate's user"
        )));
    }
    let commits = settings.get("commits");
    if !["on", "remote_apply"].contains(&commits) {
        return Err(refused(format!(
            "PostgreSQL at {address} has synchronous_commit {commits} for the gate's user or its database, so it \
             acknowledges writes that a crash or a failover loses: set it to on"
        )));
    }
    if options.named
        && settings.number("timeout") != i64::try_from(options.statement_timeout().as_millis()).unwrap_or(-1)
    {
        return Err(refused(format!(
            "PostgreSQL at {address} does not have the gate's `statement_timeout`, because a connection pooler is in \
             between: set `statements = \"unnamed\"`"
        )));
    }
    if settings.get("fsync") != "on" || settings.get("pages") != "on" {
        tracing::warn!(
            %address,
            "PostgreSQL has fsync or full_page_writes off, so a crash of its machine loses sessions and \
             revocations; set both on"
        );
    }
    Ok(())
}

fn lacking(options: &PostgresOptions, what: &str) -> StoreError {
    let address = options.address();
    refused(format!("PostgreSQL at {address} does not allow the gate's user {what} (see docs/postgres.md)"))
}

async fn check_schema(options: &PostgresOptions, connection: &Connection) -> Result<(), StoreError> {
    let schema = &options.schema;
    let closed =
        format!("select 1 from pg_namespace where nspname = '{schema}' and not has_schema_privilege(oid, 'usage')");
    match ask(options, connection, &closed).await?.first() {
        Some(_) => Err(lacking(options, &format!("to use the schema {schema}: grant usage on schema {schema}"))),
        None => Ok(()),
    }
}

async fn check_may_make(options: &PostgresOptions, connection: &Connection) -> Result<(), StoreError> {
    let schema = &options.schema;
    let may = format!(
        "select 1 from pg_database where datname = current_database() and case \
         when exists (select 1 from pg_namespace where nspname = '{schema}') then has_schema_privilege('{schema}', 'create') \
         else has_database_privilege(oid, 'create') end"
    );
    match ask(options, connection, &may).await?.first() {
        Some(_) => Ok(()),
        None => Err(lacking(options, "to make the tables: make the user the owner of the database")),
    }
}

async fn check_rights(options: &PostgresOptions, connection: &Connection) -> Result<(), StoreError> {
    let schema = &options.schema;
    let tables = format!(
        "select p || ' on table ' || t from unnest(array['head','stamp','session','revocation','revocation_log','node','part_row','part_row_count','change','counter','remembered']) t, \
         unnest(array['select','insert','update','delete']) p where not has_table_privilege('\"{schema}\".' || t, p) \
         union all select p || ' on sequence ' || q from unnest(array['log_id','writes']) q, unnest(array['usage','select']) p \
         where not has_sequence_privilege('\"{schema}\".' || q, p) \
         union all select 'execute on function ' || f.oid::regprocedure from pg_proc f \
         join pg_namespace n on n.oid = f.pronamespace \
         where (n.nspname = '{schema}' or (n.nspname = 'pg_catalog' and f.proname in \
         ('pg_control_system', 'pg_walfile_name', 'pg_current_wal_lsn', 'pg_current_wal_flush_lsn', 'pg_logical_emit_message'))) \
         and not has_function_privilege(f.oid, 'execute') limit 1"
    );
    match ask(options, connection, &tables).await?.first().and_then(|row| row.get(0)) {
        Some(what) => Err(lacking(options, &format!("a required operation: grant {what}"))),
        None => Ok(()),
    }
}

fn place(options: &PostgresOptions) -> String {
    format!("the store {:?} in PostgreSQL at {}", options.schema, options.address())
}

/// Checks that the store belongs to this gate. Returns the store's history and name.
async fn check_head(options: &PostgresOptions, connection: &Connection) -> Result<[Op; 2], StoreError> {
    let schema = &options.schema;
    let place = place(options);
    let statement = format!(
        "select h.issuer, h.keyring, encode(h.history, 'hex') as history, encode(h.store, 'hex') as store, h.copying, (last = 0)::text as unused from \"{schema}\".head h, \"{schema}\".stamp"
    );
    let Some(head) = ask(options, connection, &statement).await?.pop() else {
        return Err(refused(format!(
            "{place} lost its main record: restore a complete back-up, or use another schema"
        )));
    };
    // This check comes first, so that a copy into a store with data fails with a clear error.
    match (head.try_get("copying").ok().flatten(), &options.network.copying) {
        (None, None) => {}
        (Some(copied), Some(from)) if copied == from => {}
        (Some(_), None) => {
            return Err(refused(format!(
                "{place} is an unfinished copy: run `rotogate store copy` again, or use another schema"
            )));
        }
        (None, Some(_)) => {
            return Err(refused(format!("{place} already has data: copy into an empty store, or use another schema")));
        }
        (Some(_), Some(_)) => {
            return Err(refused(format!("{place} is an unfinished copy of another store: use another schema")));
        }
    }
    let head = Settings(Some(head));
    let (issuer, keyring) = (head.get("issuer"), head.get("keyring"));
    if issuer != options.network.issuer {
        return Err(refused(format!("{place} belongs to the issuer {issuer:?}: use another schema, or that issuer")));
    }
    if keyring != options.network.keyring.to_string() {
        // A stamp of 0 means that the store has never contained a session.
        let delete = || format!("drop its schema (drop schema \"{schema}\" cascade)");
        let lost = (head.get("unused") == "true").then(|| options.network.to_begin_anew(delete()));
        let what = format!("{place} belongs to another keyring, {keyring}: use that keyring, or another schema");
        return Err(refused(what).of_another_keyring(lost));
    }
    Ok([head.name("history", &place)?, head.name("store", &place)?])
}
