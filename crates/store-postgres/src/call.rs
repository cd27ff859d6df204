//! Calls of the store's SQL functions: one statement and one round trip each.

use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};
use uuid::Uuid;
use zeroize::Zeroizing;

use rotogate_core::store::{StoreError, WriteOutcome};

pub(super) struct Call {
    pub(super) function: &'static str,
    pub(super) args: Vec<Arg>,
}

/// An argument of an SQL function. No `Debug`, because the driver logs arguments and some contain session secrets.
pub(super) enum Arg {
    Bool(bool),
    Int(i32),
    Big(i64),
    Bytes(Zeroizing<Vec<u8>>),
    ByteList(Vec<Option<Zeroizing<Vec<u8>>>>),
    Id(Uuid),
    Ids(Vec<Uuid>),
    Bigs(Vec<i64>),
    Null(Type),
}

impl Call {
    pub(super) fn text(&self, schema: &str) -> String {
        let places: Vec<String> = (1..=self.args.len()).map(|place| format!("${place}")).collect();
        format!("select * from \"{schema}\".{}({})", self.function, places.join(", "))
    }
}

impl Arg {
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(Zeroizing::new(bytes.to_vec()))
    }

    pub(super) fn byte_list(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::ByteList(values.into_iter().map(|value| Some(Zeroizing::new(value))).collect())
    }

    pub(super) fn bytes_or_null(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(Self::Null(Type::BYTEA), Self::bytes)
    }

    pub(super) fn big_or_null(number: Option<i64>) -> Self {
        number.map_or(Self::Null(Type::INT8), Self::Big)
    }

    pub(super) fn millis(time: Duration) -> Self {
        Self::Big(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
    }

    pub(super) fn limit(rows: usize) -> Self {
        Self::Int(i32::try_from(rows).unwrap_or(i32::MAX))
    }

    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Bool(_) => Type::BOOL,
            Self::Int(_) => Type::INT4,
            Self::Big(_) => Type::INT8,
            Self::Bytes(_) => Type::BYTEA,
            Self::ByteList(_) => Type::BYTEA_ARRAY,
            Self::Id(_) => Type::UUID,
            Self::Ids(_) => Type::UUID_ARRAY,
            Self::Bigs(_) => Type::INT8_ARRAY,
            Self::Null(kind) => kind.clone(),
        }
    }
}

rotogate_core::debug_with!(Arg);

type Encoded = Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl ToSql for Arg {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Encoded {
        match self {
            Self::Bool(value) => value.to_sql_checked(kind, out),
            Self::Int(value) => value.to_sql_checked(kind, out),
            Self::Big(value) => value.to_sql_checked(kind, out),
            Self::Bytes(value) => value.as_slice().to_sql_checked(kind, out),
            Self::ByteList(values) => {
                let values: Vec<_> = values.iter().map(|value| value.as_ref().map(|value| value.as_slice())).collect();
                values.to_sql_checked(kind, out)
            }
            Self::Id(value) => value.to_sql_checked(kind, out),
            Self::Ids(value) => value.to_sql_checked(kind, out),
            Self::Bigs(value) => value.to_sql_checked(kind, out),
            Self::Null(_) => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        // The contained value's `to_sql_checked` checks the type.
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Encoded {
        self.to_sql(kind, out)
    }
}

pub(super) struct ResultRow(pub(super) Row);

impl ResultRow {
    pub(super) fn get<'a, T: FromSql<'a>>(&'a self, name: &str) -> Result<T, StoreError> {
        self.0.try_get(name).map_err(|_| unexpected(&format!("no {name}")))
    }

    pub(super) fn count(&self, name: &str) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.get::<i64>(name)?).unwrap_or_default())
    }

    pub(super) fn status(&self) -> Result<&str, StoreError> {
        self.get("o_status")
    }

    /// Returns the row if its status is `word`.
    pub(super) fn with_status(self, word: &str) -> Result<Self, StoreError> {
        if self.status()? == word { Ok(self) } else { Err(self.unknown()) }
    }

    pub(super) fn unknown(&self) -> StoreError {
        unexpected(&format!("the word {:?}", self.status().unwrap_or_default()))
    }
}

pub(super) fn unexpected(what: &str) -> StoreError {
    StoreError::new(format!("PostgreSQL sent a reply that rotogate does not understand: it contains {what}"))
        .with_outcome(WriteOutcome::InDoubt)
}
