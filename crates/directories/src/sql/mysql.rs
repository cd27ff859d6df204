//! MySQL and MariaDB.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Pool, RecycleError};
use mysql_async::consts::ColumnType;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts, Value};
use tokio::time::timeout;

use super::super::servers::Servers;
use super::super::{Cause, SourceError};
use super::row::{Field, Row, of_system_time};
use super::{IDLE_TIMEOUT, Prepared, STATEMENT_TIMEOUT, Statement};
use rotogate_core::client_tls::system_authorities;

/// A connection that was used more recently is not tested before use.
const FRESH: Duration = Duration::from_secs(5);
/// The first statement of a connection: times in UTC, and a time limit for statements, which MariaDB and MySQL spell in
/// different ways. Each ignores the other's comment.
const SETUP: &str = "SET time_zone = '+00:00' /*M! , max_statement_time = 2 */ /*!50708 , max_execution_time = 2000 */";
/// The number of prepared statements of a connection.
const STATEMENT_CACHE: usize = 8;
/// Errors of the server (its manual, "Server Error Message Reference").
mod code {
    pub(super) const ACCESS_DENIED_DATABASE: u16 = 1044;
    pub(super) const ACCESS_DENIED: u16 = 1045;
    pub(super) const SHUTDOWN: u16 = 1053;
    pub(super) const KILLED: u16 = 1317;
    /// The errors of an exceeded time limit in MariaDB and in MySQL.
    pub(super) const TOO_LONG: [u16; 2] = [1969, 3024];
    pub(super) const LOCK_WAIT: u16 = 1205;
    /// `SIGNAL` with an own state: not found, and an exception.
    pub(super) const SIGNALLED: [u16; 2] = [1643, 1644];
}

struct MysqlConnector {
    options: Opts,
    servers: Servers,
}

/// A connection.
struct MysqlSession {
    connection: Conn,
    /// Whether a statement is running or has failed. Such a connection is not reused.
    is_spoilt: bool,
}

impl managed::Manager for MysqlConnector {
    type Type = MysqlSession;
    type Error = SourceError;

    async fn create(&self) -> Result<MysqlSession, SourceError> {
        let open = |_| async { Conn::new(self.options.clone()).await.map_err(|error| fault(&error)) };
        let connection = self.servers.connect(open).await?;
        Ok(MysqlSession { connection, is_spoilt: false })
    }

    async fn recycle(
        &self,
        session: &mut MysqlSession,
        used: &managed::Metrics,
    ) -> managed::RecycleResult<SourceError> {
        if session.is_spoilt || used.last_used() > IDLE_TIMEOUT {
            return Err(RecycleError::message("not used again"));
        }
        if used.last_used() > FRESH {
            session.connection.ping().await.map_err(|error| fault(&error))?;
        }
        Ok(())
    }
}

fn fault(error: &mysql_async::Error) -> SourceError {
    let mysql_async::Error::Server(refused) = error else {
        return SourceError::new(Cause::Connect, format!("cannot connect to MySQL: {error}"));
    };
    let cause = match refused.code {
        code::ACCESS_DENIED | code::ACCESS_DENIED_DATABASE => Cause::Credentials,
        code::SHUTDOWN | code::KILLED => Cause::Connect,
        code::LOCK_WAIT => Cause::Timeout,
        code if code::TOO_LONG.contains(&code) => Cause::Timeout,
        code if code::SIGNALLED.contains(&code) || super::is_of_values(&refused.state) => Cause::Entry,
        _ => Cause::Refused,
    };
    // Some messages quote values. Only messages about the statement or the account are shown.
    let is_of_statement = refused.state.starts_with("42") || refused.state.starts_with("28");
    let what = if is_of_statement { refused.message.as_str() } else { "the statement failed" };
    SourceError::new(cause, format!("{what} (error {}, SQLSTATE {})", refused.code, refused.state))
}

/// Reads a URL. For a server on another machine, TLS with a verified certificate is required.
pub(super) fn options(url: &str, caches: bool) -> Result<Opts, String> {
    let url = url.strip_prefix("mariadb:").map_or_else(|| url.to_owned(), |rest| format!("mysql:{rest}"));
    // The error does not show the parser's own text, because it may quote the URL.
    let parsed =
        Opts::from_url(&url).map_err(|_| "is no MySQL URL; expected mysql://user:password@host/database".to_owned())?;
    // For this scheme, the parser treats an IP address as a name, and keeps the brackets of IPv6.
    let host = parsed.ip_or_hostname();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let is_encrypted = !is_local || parsed.ssl_opts().is_some();
    let builder = OptsBuilder::from_opts(parsed)
        .ip_or_hostname(host)
        .setup(vec![SETUP])
        // Not used, because a socket that the server names may belong to another server.
        .prefer_socket(false)
        .stmt_cache_size(if caches { STATEMENT_CACHE } else { 0 })
        // Replaces the URL's options, which could disable the verification.
        .ssl_opts(is_encrypted.then(SslOpts::default));
    Ok(builder.into())
}

/// TLS settings that trust only these authorities for the server's certificate.
fn verified(ca: Option<&Path>) -> SslOpts {
    let roots = match ca {
        Some(path) => vec![path.to_owned().into()],
        None => system_authorities().into_iter().map(|certificate| certificate.to_vec().into()).collect(),
    };
    SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots)
}

/// A database.
pub(super) struct MySql {
    pool: Pool<MysqlConnector>,
}

rotogate_core::debug_with!(MySql);

impl MySql {
    pub(super) fn new(
        options: Opts,
        ca: Option<&Path>,
        pool: usize,
        timeout: Duration,
    ) -> Result<Self, (&'static str, String)> {
        let tls = options.ssl_opts().map(|_| verified(ca));
        let options = OptsBuilder::from_opts(options).ssl_opts(tls).into();
        let connector = MysqlConnector { options, servers: Servers::new(1, timeout) };
        let pool = super::pool(connector, pool).map_err(|error| ("pool", error))?;
        Ok(Self { pool })
    }

    pub(super) fn close_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Runs a statement: at most two rows, and the number of changed rows.
    async fn run(
        &self,
        statement: &Statement,
        values: Vec<Option<String>>,
    ) -> Result<(Vec<mysql_async::Row>, u64), SourceError> {
        let mut session = super::session(&self.pool).await?;
        session.is_spoilt = true;
        let values: Vec<Value> =
            values.into_iter().map(|value| value.map_or(Value::NULL, |text| Value::Bytes(text.into_bytes()))).collect();
        let running = async {
            let mut result = session.connection.exec_iter(statement.text.as_str(), values).await?;
            let mut found = Vec::new();
            while let Some(row) = result.next().await? {
                if found.len() < 2 {
                    found.push(row);
                }
            }
            let changed = result.affected_rows();
            result.drop_result().await?;
            Ok((found, changed))
        };
        match timeout(STATEMENT_TIMEOUT, running).await {
            Ok(Ok(done)) => {
                session.is_spoilt = false;
                Ok(done)
            }
            Ok(Err(error)) => Err(fault(&error)),
            Err(_) => Err(SourceError::new(Cause::Timeout, "the statement took too long")),
        }
    }

    /// Runs a query, and returns at most two rows.
    pub(super) async fn query(
        &self,
        statement: &Arc<Statement>,
        values: Vec<Option<String>>,
    ) -> Result<Vec<Row>, SourceError> {
        self.run(statement, values).await?.0.into_iter().map(row).collect()
    }

    /// Runs a statement, and returns the number of changed rows.
    pub(super) async fn execute(
        &self,
        statement: &Arc<Statement>,
        values: Vec<Option<String>>,
    ) -> Result<u64, SourceError> {
        Ok(self.run(statement, values).await?.1)
    }

    pub(super) async fn prepare(&self, statement: &Arc<Statement>) -> Result<Prepared, SourceError> {
        let mut session = super::session(&self.pool).await?;
        let prepared = session.connection.prep(statement.text.as_str()).await.map_err(|error| fault(&error))?;
        // The server does not report the types of parameters.
        let parameters = vec![String::new(); usize::from(prepared.num_params())];
        let columns = prepared.columns().iter().map(|column| (column.name_str().into_owned(), None)).collect();
        session.connection.close(prepared).await.map_err(|error| fault(&error))?;
        Ok(Prepared { parameters, columns })
    }
}

fn row(row: mysql_async::Row) -> Result<Row, SourceError> {
    let columns: Vec<_> =
        row.columns_ref().iter().map(|column| (column.name_str().into_owned(), column.column_type())).collect();
    let field = |((name, kind), value)| {
        let field = field(kind, value).ok_or_else(|| {
            SourceError::new(Cause::Entry, format!("column {name}: its type is not supported; convert it to text"))
        })?;
        Ok((name, field))
    };
    columns.into_iter().zip(row.unwrap()).map(field).collect::<Result<_, _>>().map(Row)
}

fn field(kind: ColumnType, value: Value) -> Option<Field> {
    Some(match value {
        Value::NULL => Field::Null,
        Value::Int(number) => Field::Integer(number),
        Value::UInt(number) => Field::Integer(i64::try_from(number).ok()?),
        Value::Bytes(bytes) => {
            let text = String::from_utf8(bytes).ok()?;
            match kind {
                ColumnType::MYSQL_TYPE_JSON => Field::Json(serde_json::from_str(&text).ok()?),
                _ => Field::Text(text),
            }
        }
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
            Field::Time(humantime::parse_rfc3339(&text).ok().and_then(of_system_time)?)
        }
        Value::Float(_) | Value::Double(_) | Value::Time(..) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i46_what_the_server_says_of_the_values_of_one_user_is_no_fault_of_the_server() {
        for (code, state, expected) in [
            (1242, "21000", Cause::Entry),
            (1644, "45000", Cause::Entry),
            (1644, "77777", Cause::Entry),
            (1643, "02000", Cause::Entry),
            (4025, "45001", Cause::Entry),
            (1146, "42S02", Cause::Refused),
            (1213, "40001", Cause::Refused),
            (1969, "70100", Cause::Timeout),
            (3024, "HY000", Cause::Timeout),
            (1205, "HY000", Cause::Timeout),
            (1045, "28000", Cause::Credentials),
            (1053, "08S01", Cause::Connect),
        ] {
            let refused = mysql_async::ServerError { code, message: "said".to_owned(), state: state.to_owned() };
            assert_eq!(fault(&mysql_async::Error::Server(refused)).cause, expected, "{code} {state}");
        }
    }

    #[test]
    fn i54_every_spelling_of_this_machine_is_this_machine_and_no_other_is() {
        for (host, name) in [
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.8.0.1", "127.8.0.1"),
            ("[::1]", "::1"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
        ] {
            for scheme in ["mysql", "mariadb"] {
                let options = options(&format!("{scheme}://gate:x@{host}:3307/app"), true).unwrap();
                assert_eq!((options.ip_or_hostname(), options.tcp_port()), (name, 3307), "{host}");
                assert!(options.ssl_opts().is_none(), "{host}: TLS is not asked for");
                let asked = super::options(&format!("{scheme}://gate:x@{host}/app?require_ssl=true"), true).unwrap();
                assert!(asked.ssl_opts().is_some(), "{host}");
            }
        }
        for host in ["10.0.0.7", "[2001:db8::1]", "127.0.0.1.example.com", "localhost.example.com", "db"] {
            assert!(options(&format!("mysql://gate:x@{host}/app"), true).unwrap().ssl_opts().is_some(), "{host}");
        }
    }
}
