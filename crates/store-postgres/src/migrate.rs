//! Migrations of the store's schema. Only one node at a time applies them.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::connect::ConnectionPool;
use super::fault;
use super::options::PostgresOptions;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::fields::new_op;
use rotogate_core::store::kit::network::refused;

/// Each migration is one transaction. A released migration never changes.
const MIGRATIONS: [&[&str]; 1] = [&[
    include_str!("migrations/1/tables.sql"),
    include_str!("migrations/1/operation.sql"),
    include_str!("migrations/1/session.sql"),
    include_str!("migrations/1/commit.sql"),
    include_str!("migrations/1/revocation.sql"),
    include_str!("migrations/1/log.sql"),
    include_str!("migrations/1/sweep.sql"),
    include_str!("migrations/1/loss.sql"),
    include_str!("migrations/1/counter.sql"),
    include_str!("migrations/1/node.sql"),
    include_str!("migrations/1/copy.sql"),
    include_str!("migrations/1/rows.sql"),
]];
/// How long to wait while another node applies migrations.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn first(rows: Vec<SimpleQueryMessage>) -> Option<String> {
    rows.into_iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

pub(super) async fn migrate(pool: &ConnectionPool) -> Result<(), StoreError> {
    let options = &pool.options;
    let connection = pool.connection().await.map_err(|failed| failed.error)?;
    let migrating = async {
        let known = version(&connection.client, &options.schema).await?;
        if known >= MIGRATIONS.len() {
            return Ok(known);
        }
        connection
            .client
            .batch_execute("begin; set local statement_timeout = 60000; set local synchronous_commit = on")
            .await?;
        apply(&connection.client, options).await
    };
    // An error drops the connection, which ends its transaction.
    let known = match timeout(PATIENCE, migrating).await {
        Ok(Ok(known)) => known,
        Ok(Err(error)) => return Err(fault::judge(options, &error).error),
        Err(_) => {
            return Err(StoreError::new(format!(
                "PostgreSQL at {} does not respond, or another node has been creating the tables for over a minute",
                options.address()
            )));
        }
    };
    check_version(options, known)?;
    pool.give_back(connection);
    Ok(())
}

pub(super) fn check_version(options: &PostgresOptions, known: usize) -> Result<(), StoreError> {
    if known <= MIGRATIONS.len() {
        return Ok(());
    }
    let (schema, address) = (&options.schema, options.address());
    Err(refused(format!(
        "the store {schema:?} in PostgreSQL at {address} has schema version {known}, but this program knows only {}: use \
         the version that made it",
        MIGRATIONS.len()
    )))
}

pub(super) async fn version(client: &Client, schema: &str) -> Result<usize, Error> {
    let there = format!("select 1 from pg_tables where schemaname = '{schema}' and tablename = 'migration'");
    if first(client.simple_query(&there).await?).is_none() {
        return Ok(0);
    }
    let applied = format!("select coalesce(max(number), 0) from \"{schema}\".migration");
    Ok(first(client.simple_query(&applied).await?).and_then(|number| number.parse().ok()).unwrap_or_default())
}

async fn apply(client: &Client, options: &PostgresOptions) -> Result<usize, Error> {
    let schema = &options.schema;
    client.simple_query(&format!("select pg_advisory_xact_lock(hashtext('\"{schema}\"'), 2)")).await?;
    let there = format!("select 1 from pg_namespace where nspname = '{schema}'");
    if first(client.simple_query(&there).await?).is_none() {
        client.batch_execute(&format!("create schema \"{schema}\"")).await?;
    }
    // Another node may have migrated meanwhile.
    let known = version(client, schema).await?;
    if known == 0 {
        client
            .batch_execute(&format!(
                "create table \"{schema}\".migration (number integer primary key, applied timestamptz not null default now())"
            ))
            .await?;
    }
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(known) {
        let migration = migration.concat().replace("{s}", &format!("\"{schema}\""));
        client.batch_execute(&migration).await?;
        if number == 0 {
            client.batch_execute(&head(options)).await?;
        }
        client.batch_execute(&format!("insert into \"{schema}\".migration values ({})", number + 1)).await?;
    }
    client.batch_execute("commit").await?;
    Ok(known.max(MIGRATIONS.len()))
}

fn head(options: &PostgresOptions) -> String {
    let schema = &options.schema;
    let hex = |op: [u8; 8]| op.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // If no random bytes are available, the id is empty, and the gate refuses the store at startup.
    let [store, history] = [new_op(), new_op()].map(|op| op.map_or_else(|_| String::new(), hex));
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let (issuer, keyring) = (quoted(&options.network.issuer), options.network.keyring);
    let copying = options.network.copying.as_deref().map_or_else(|| "null".to_owned(), quoted);
    format!(
        "insert into \"{schema}\".head (store, history, issuer, keyring, copying) \
         values ('\\x{store}', '\\x{history}', {issuer}, '{keyring}', {copying}); \
         insert into \"{schema}\".stamp (last) values (0)"
    )
}
