//! The rows of a relay: the record of each exchange, the replies that are kept longer, and the tokens in these replies.

use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::rows::{Row, RowVersion, Space};
use serde::{Deserialize, Serialize};

/// The largest sealed reply: 64 KiB, and the seal's overhead.
pub const MAX_SEALED: usize = (64 << 10) + 1024;

/// The records of exchanges. Most of them expire within a minute or two.
pub const EXCHANGES: Space = Space::of_work(1, "records of exchanged tokens", 4_000_000, MAX_SEALED + 256);
/// The replies that are kept until a client uses one of their tokens.
pub const KEPT_REPLIES: Space = Space::copied(2, "kept replies", 4_000_000, MAX_SEALED);
/// The tokens in kept replies. The first use of a token removes the reply, whose key is in the token's row.
pub const TOKEN_USES: Space = Space::copied(3, "tokens of kept replies", 8_000_000, 64);

/// The vaults of browser sessions, each kept as long as its session. A backup has none, because a provider treats an
/// older refresh token as reuse. Every build knows them, so that every gate removes them when they end.
pub const VAULTS: Space = Space::copied(4, "provider tokens of sessions", 8_000_000, MAX_SEALED);

/// The format of records.
const FORMAT: u8 = 1;

/// The state of a refresh token's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RelayState {
    /// The token is about to be sent or was sent, and no response is stored.
    Pending,
    /// The provider exchanged the token. The record contains the response.
    Done,
    /// The provider refused the token. The record contains the refusal.
    Dead,
    /// The token was sent, but no complete response arrived. The provider may have exchanged the token.
    Unknown,
}

/// The record of one exchanged refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The version of the row.
    #[serde(skip)]
    pub version: RowVersion,
    /// The expiry, from which the record counts as absent.
    #[serde(skip)]
    pub until: Timestamp,
    /// The state of the exchange.
    pub state: RelayState,
    /// The number of attempts to send the token since the record was created.
    pub attempt: u32,
    /// The id of the process that made the attempt.
    pub owner: [u8; 16],
    /// When the record got this state.
    pub since: Timestamp,
    /// The time until which a response to a pending attempt may still arrive.
    pub lease: Timestamp,
    /// A keyed digest of the parameters on which a response depends.
    pub params: [u8; 32],
    /// The response, sealed under the refresh token and the presenter's identity. If there is no response, an empty
    /// string is sealed.
    pub sealed: Vec<u8>,
}

impl RelayRecord {
    /// Reads a record from its row.
    ///
    /// # Errors
    /// Another program or release wrote the row.
    pub fn read(row: &Row) -> Result<Self, StoreError> {
        let record = row.bytes.split_first().filter(|(format, _)| **format == FORMAT);
        let record = record.and_then(|(_, bytes)| postcard::take_from_bytes::<Self>(bytes).ok());
        let record = record.and_then(|(record, rest)| rest.is_empty().then_some(record));
        let record = record.ok_or_else(|| {
            StoreError::new("the record of an exchanged token cannot be read: another program or release wrote it")
        })?;
        Ok(Self { version: row.version, until: row.until, ..record })
    }

    /// Returns the row of the record.
    ///
    /// # Errors
    /// The encoding never fails for a record that a relay made.
    pub fn row(&self) -> Result<Row, StoreError> {
        let bytes = postcard::to_extend(self, vec![FORMAT])
            .map_err(|error| StoreError::caused_by("the record of an exchanged token cannot be encoded", error))?;
        Ok(Row { version: self.version, until: self.until, bytes })
    }
}
