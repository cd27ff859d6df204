use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use deadpool::managed::{self, Pool, RecycleError};
use futures_util::{StreamExt, pin_mut};
use tokio::time::timeout;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Column, Config, RowStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::servers::Servers;
use super::super::{Cause, SourceError};
use super::row::{Field, Row, of_system_time};
use super::{IDLE_TIMEOUT, Prepared, STATEMENT_TIMEOUT, Statement};

/// A connection used within this time is reused without a test.
const FRESH: Duration = Duration::from_secs(5);

struct PostgresConnector {
    hosts: Vec<Config>,
    servers: Servers,
    tls: MakeRustlsConnect,
}

struct PostgresSession {
    client: Client,
    prepared: Vec<(String, tokio_postgres::Statement)>,
    /// Whether a statement is running or has failed. The connection is then not reused.
    is_spoilt: bool,
}

impl managed::Manager for PostgresConnector {
    type Type = PostgresSession;
    type Error = SourceError;

    async fn create(&self) -> Result<PostgresSession, SourceError> {
        let open = |host: usize| async move {
            self.hosts[host].connect(self.tls.clone()).await.map_err(|error| fault(&error))
        };
        let (client, connection) = self.servers.connect(open).await?;
        // The task ends when the client is dropped.
        tokio::spawn(async move { drop(connection.await) });
        Ok(PostgresSession { client, prepared: Vec::new(), is_spoilt: false })
    }

    async fn recycle(
        &self,
        session: &mut PostgresSession,
        used: &managed::Metrics,
    ) -> managed::RecycleResult<SourceError> {
        if session.is_spoilt || session.client.is_closed() || used.last_used() > IDLE_TIMEOUT {
            return Err(RecycleError::message("the connection is not used again"));
        }
        if used.last_used() > FRESH {
            session.client.check_connection().await.map_err(|error| fault(&error))?;
        }
        Ok(())
    }
}

fn fault(error: &tokio_postgres::Error) -> SourceError {
    if let Some(refused) = error.as_db_error() {
        let state = refused.code().code();
        // The error detail is left out, because it may quote the row.
        return SourceError::new(cause_of(state), format!("{} (SQLSTATE {state})", refused.message()));
    }
    let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    SourceError::new(Cause::Connect, format!("cannot connect to PostgreSQL: {reason}"))
}

fn cause_of(state: &str) -> Cause {
    match state {
        // The gate cannot distinguish a slow statement from a database that hangs, so the circuit counts both.
        state if state == SqlState::QUERY_CANCELED.code() => Cause::Timeout,
        state if super::is_of_values(state) => Cause::Entry,
        state if state.starts_with("28") => Cause::Credentials,
        state if state.starts_with("08") || state.starts_with("57P") => Cause::Connect,
        _ => Cause::Refused,
    }
}

/// Returns whether a parameter value is invalid for its column type, so no row can match. An error with a position
/// concerns the statement itself.
fn fits_no_column(error: &tokio_postgres::Error) -> bool {
    const UNFIT: [SqlState; 6] = [
        SqlState::INVALID_TEXT_REPRESENTATION,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        SqlState::INVALID_DATETIME_FORMAT,
        SqlState::DATETIME_FIELD_OVERFLOW,
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        SqlState::UNTRANSLATABLE_CHARACTER,
    ];
    error.as_db_error().is_some_and(|refused| refused.position().is_none() && UNFIT.contains(refused.code()))
}

/// A parameter in text form. `Debug` hides the value, because the driver logs parameters.
struct Text(Option<String>);

rotogate_core::debug_with!(Text);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match &self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

pub(super) struct Postgres {
    pool: Pool<PostgresConnector>,
    /// Whether each connection keeps its prepared statements. A transaction pooler does not support kept statements.
    caches: bool,
}

rotogate_core::debug_with!(Postgres);

/// Returns one configuration for each host. The driver's timeout does not cover the server's response, so the gate's
/// own timeout must apply to each host.
pub(super) fn configs(url: &str, caches: bool) -> Result<Vec<Config>, String> {
    let all = config(url, caches)?;
    let begin = url.find('@').or_else(|| url.find("//").map(|at| at + 1)).map_or(0, |at| at + 1);
    let (user, rest) = url.split_at(begin);
    let (hosts, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let is_in_url = hosts.split(',').count() == all.get_hosts().len() && all.get_hostaddrs().is_empty();
    if !is_in_url || all.get_load_balance_hosts() == LoadBalanceHosts::Random {
        return Ok(vec![all]);
    }
    let one = |host: &str| {
        let mut one = config(&format!("{user}{host}{rest}"), caches)?;
        one.ssl_mode(all.get_ssl_mode());
        Ok(one)
    };
    hosts.split(',').map(one).collect()
}

/// Requires TLS with a verified certificate, unless the server is on this machine.
pub(super) fn config(url: &str, caches: bool) -> Result<Config, String> {
    // rustls always verifies the certificate and the host name, so these modes are equal.
    let url = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    // The parser's message may quote the URL and its password.
    let parsed: Result<Config, _> = url.parse();
    let mut config = parsed.map_err(|error| {
        let reason = error.source().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("is not a PostgreSQL URL{reason}; expected postgres://user:password@host/database")
    })?;
    let is_local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    if config.get_hosts().is_empty() {
        return Err("does not name a host; expected postgres://user:password@host/database".to_owned());
    }
    if !config.get_hosts().iter().all(is_local) {
        if config.get_ssl_mode() == SslMode::Disable {
            let message = "has `sslmode=disable`, but its host is not this machine, so passwords would cross the \
                           network unencrypted; remove `sslmode=disable`";
            return Err(message.to_owned());
        }
        config.ssl_mode(SslMode::Require);
    }
    config.application_name("rotogate");
    if caches {
        // Poolers reject options.
        config.options(format!("-c statement_timeout={}", STATEMENT_TIMEOUT.as_millis()));
    }
    Ok(config)
}

impl Postgres {
    pub(super) fn new(
        mut hosts: Vec<Config>,
        tls: rustls::ClientConfig,
        caches: bool,
        pool: usize,
        timeout: Duration,
    ) -> Result<Self, String> {
        let servers = Servers::new(hosts.len(), timeout);
        for config in &mut hosts {
            let parts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
            config.connect_timeout(servers.patience / parts);
        }
        let pool = super::pool(PostgresConnector { hosts, servers, tls: MakeRustlsConnect::new(tls) }, pool)?;
        Ok(Self { pool, caches })
    }

    pub(super) fn close_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Returns `None` if a value does not fit its column type.
    async fn run<T>(
        &self,
        statement: &Statement,
        values: Vec<Option<String>>,
        read: impl AsyncFn(RowStream) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<T>, SourceError> {
        let mut session = super::session(&self.pool).await?;
        session.is_spoilt = true;
        let running = async {
            match session.start(&statement.text, values, self.caches).await {
                Err(error) if fits_no_column(&error) => Ok(None),
                rows => read(rows?).await.map(Some),
            }
        };
        let done = timeout(STATEMENT_TIMEOUT, running).await;
        let done = done.map_err(|_| SourceError::new(Cause::Timeout, "the statement took too long"))?;
        let done = done.map_err(|error| fault(&error))?;
        session.is_spoilt = done.is_none();
        Ok(done)
    }

    pub(super) async fn query(
        &self,
        statement: &Arc<Statement>,
        values: Vec<Option<String>>,
    ) -> Result<Vec<Row>, SourceError> {
        let first_two = async |rows: RowStream| {
            pin_mut!(rows);
            let mut found = Vec::new();
            while let Some(row) = rows.next().await {
                let row = row?;
                if found.len() < 2 {
                    found.push(row);
                }
            }
            Ok(found)
        };
        let found = self.run(statement, values, first_two).await?.unwrap_or_default();
        found.iter().map(row).collect()
    }

    pub(super) async fn execute(
        &self,
        statement: &Arc<Statement>,
        values: Vec<Option<String>>,
    ) -> Result<u64, SourceError> {
        let count = async |rows: RowStream| {
            pin_mut!(rows);
            while let Some(row) = rows.next().await {
                row?;
            }
            Ok(rows.rows_affected().unwrap_or_default())
        };
        Ok(self.run(statement, values, count).await?.unwrap_or_default())
    }

    pub(super) async fn prepare(&self, statement: &Arc<Statement>) -> Result<Prepared, SourceError> {
        let session = super::session(&self.pool).await?;
        let prepared = session.client.prepare(&statement.text).await.map_err(|error| fault(&error))?;
        let column = |column: &Column| (column.name().to_owned(), Some(column.type_().to_string()));
        Ok(Prepared {
            parameters: prepared.params().iter().map(ToString::to_string).collect(),
            columns: prepared.columns().iter().map(column).collect(),
        })
    }
}

impl PostgresSession {
    /// Returns after the server has accepted the values, and before any row is read.
    async fn start(
        &mut self,
        text: &str,
        values: Vec<Option<String>>,
        caches: bool,
    ) -> Result<RowStream, tokio_postgres::Error> {
        if !caches {
            let values = values.into_iter().map(|value| (Text(value), Type::UNKNOWN));
            return self.client.query_typed_raw(text, values).await;
        }
        let values: Vec<Text> = values.into_iter().map(Text).collect();
        let prepared = self.prepared(text).await?;
        match self.client.query_raw(&prepared, &values).await {
            // The table was altered after the statement was prepared.
            Err(error) if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
                self.prepared.clear();
                let prepared = self.prepared(text).await?;
                self.client.query_raw(&prepared, &values).await
            }
            rows => rows,
        }
    }

    async fn prepared(&mut self, text: &str) -> Result<tokio_postgres::Statement, tokio_postgres::Error> {
        if let Some((_, there)) = self.prepared.iter().find(|(of, _)| of == text) {
            return Ok(there.clone());
        }
        let statement = self.client.prepare(text).await?;
        self.prepared.push((text.to_owned(), statement.clone()));
        Ok(statement)
    }
}

fn row(row: &tokio_postgres::Row) -> Result<Row, SourceError> {
    let field = |(index, column): (usize, &Column)| Ok((column.name().to_owned(), field(row, index, column)?));
    row.columns().iter().enumerate().map(field).collect::<Result<_, _>>().map(Row)
}

fn field(row: &tokio_postgres::Row, index: usize, column: &Column) -> Result<Field, SourceError> {
    fn get<'a, T: FromSql<'a>>(
        row: &'a tokio_postgres::Row,
        index: usize,
        make: impl FnOnce(T) -> Field,
    ) -> Result<Field, SourceError> {
        match row.try_get::<_, Option<T>>(index) {
            Ok(value) => Ok(value.map_or(Field::Null, make)),
            Err(error) => Err(SourceError::new(Cause::Entry, error.to_string())),
        }
    }
    let kind = column.type_();
    match *kind {
        Type::BOOL => get(row, index, Field::Bool),
        Type::INT2 => get(row, index, |number: i16| Field::Integer(number.into())),
        Type::INT4 => get(row, index, |number: i32| Field::Integer(number.into())),
        Type::INT8 => get(row, index, Field::Integer),
        Type::UUID => get(row, index, |id: uuid::Uuid| Field::Text(id.to_string())),
        Type::JSON | Type::JSONB => get(row, index, Field::Json),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            get(row, index, |time: SystemTime| of_system_time(time).map_or(Field::Null, Field::Time))
        }
        _ if <String as FromSql<'_>>::accepts(kind) => get(row, index, Field::Text),
        _ if matches!(kind.kind(), Kind::Array(_)) && <Vec<String> as FromSql<'_>>::accepts(kind) => {
            get(row, index, Field::List)
        }
        _ => {
            let message = format!("column {}: type {kind} is not supported; cast it to text", column.name());
            Err(SourceError::new(Cause::Entry, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i46_what_the_server_says_of_the_values_of_one_user_is_no_fault_of_the_server() {
        for (state, expected) in [
            ("21000", Cause::Entry),
            ("22012", Cause::Entry),
            ("23505", Cause::Entry),
            // Errors that PL/pgSQL functions raise.
            ("P0001", Cause::Entry),
            ("P0002", Cause::Entry),
            ("P0003", Cause::Entry),
            ("42P01", Cause::Refused),
            ("40001", Cause::Refused),
            ("57014", Cause::Timeout),
            ("28P01", Cause::Credentials),
            ("57P01", Cause::Connect),
            ("08006", Cause::Connect),
        ] {
            assert_eq!(cause_of(state), expected, "{state}");
        }
    }

    #[test]
    fn i54_every_spelling_of_this_machine_is_this_machine_and_no_other_is() {
        let mode = |host: &str, more: &str| {
            config(&format!("postgres://gate:x@{host}/app{more}"), true).map(|config| config.get_ssl_mode())
        };
        for host in ["localhost", "127.0.0.1", "127.8.0.1", "[::1]", "[0:0:0:0:0:0:0:1]", "%2Frun%2Fpostgresql"] {
            assert_eq!(mode(host, "?sslmode=disable"), Ok(SslMode::Disable), "{host}");
            assert_eq!(mode(host, "?sslmode=require"), Ok(SslMode::Require), "{host}");
        }
        for host in ["10.0.0.7", "[2001:db8::1]", "127.0.0.1.example.com", "localhost.example.com", "db", "[::1],db"] {
            assert_eq!(mode(host, ""), Ok(SslMode::Require), "{host}");
            assert!(mode(host, "?sslmode=disable").is_err(), "{host}");
        }
    }

    #[test]
    fn i22_i54_each_host_of_a_url_has_its_part_of_the_time_and_all_have_the_same_tls() {
        let read = |url: &str| {
            let all = configs(&format!("postgres://{url}"), true).unwrap();
            let shown = all.iter().map(|one| (one.get_hosts().to_vec(), one.get_ports().to_vec(), one.get_ssl_mode()));
            assert!(all.iter().all(|one| one.get_dbname() == Some("app")), "{url}");
            shown.collect::<Vec<_>>()
        };
        let tcp = |name: &str| Host::Tcp(name.to_owned());
        let of = |name: &str, port| (vec![tcp(name)], vec![port], SslMode::Require);
        for user in ["", "gate@", "gate:p%2Fw%3F,x@"] {
            assert_eq!(read(&format!("{user}[::1]:1,db/app")), [of("::1", 1), of("db", 5432)], "{user}");
        }
        assert_eq!(read("gate@db:1/app?connect_timeout=9"), [of("db", 1)]);
        for whole in ["db,eu/app?load_balance_hosts=random", "db/app?host=eu", "db,eu/app?hostaddr=10.0.0.1,10.0.0.2"] {
            let [(hosts, ..)] = &read(whole)[..] else { panic!("{whole}") };
            assert_eq!(hosts, &[tcp("db"), tcp("eu")], "{whole}");
        }
    }
}
