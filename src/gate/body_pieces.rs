//! The pieces of a body that is read completely into memory.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Most bodies arrive in one piece, which is not copied.
#[derive(Debug, Default)]
pub(super) struct BodyPieces {
    first: Bytes,
    /// Empty if there is only one piece.
    all: BytesMut,
}

impl BodyPieces {
    pub(super) fn so_far(&self) -> &[u8] {
        if self.all.is_empty() { &self.first } else { &self.all }
    }

    pub(super) fn push(&mut self, mut data: impl Buf) {
        if self.so_far().is_empty() {
            self.first = data.copy_to_bytes(data.remaining());
            return;
        }
        if self.all.is_empty() {
            self.all.put(std::mem::take(&mut self.first));
        }
        self.all.put(data);
    }

    pub(super) fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
