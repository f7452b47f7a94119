//! Blobs and strings: chunks of 4,096 bytes in trees of 16 (CAD003 `0x30`, `0x31`). A string's children are blobs.

use bytes::{Bytes, BytesMut};

use super::{Reader, TreeError, Writer};
use crate::check;
use crate::shape;
use crate::value::{Blob, BlobNode, Cell};

impl Reader<'_> {
    /// The whole of a blob or string, if it has at most `max` bytes. One cell's bytes are shared, not copied.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] above `max`, before anything is fetched; [`TreeError::Missing`] and [`TreeError::Malformed`].
    pub fn blob_bytes(&self, blob: &Blob, max: usize) -> Result<Bytes, TreeError> {
        if blob.len() > max as u64 {
            return Err(TreeError::TooLarge { size: blob.len(), max: max as u64 });
        }
        if let Some(bytes) = blob.bytes() {
            return Ok(bytes.clone());
        }
        // Grows with the chunks that are really there: the length is only claimed.
        let mut out = BytesMut::new();
        self.append_blob(blob, &mut out)?;
        Ok(out.freeze())
    }

    fn append_blob(&self, blob: &Blob, out: &mut BytesMut) -> Result<(), TreeError> {
        match &blob.0 {
            BlobNode::Leaf(bytes) => out.extend_from_slice(bytes),
            BlobNode::Tree { len, children } => {
                let size = shape::blob_child(*len);
                for (i, child) in children.iter().enumerate() {
                    let part = shape::child_len(*len, size, i);
                    if let Cell::Blob(child) = &*self.resolve_checked(child, |cell| check::blob_child(cell, part))? {
                        self.append_blob(child, out)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// A blob of these bytes; the chunks share them.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`], which no profile of this crate meets.
    pub fn blob(&mut self, bytes: Bytes) -> Result<Cell, TreeError> {
        Ok(Cell::Blob(self.blob_node(bytes)?))
    }

    /// A string of these bytes, UTF-8 by convention.
    ///
    /// # Errors
    /// As [`Writer::blob`].
    pub fn string(&mut self, text: Bytes) -> Result<Cell, TreeError> {
        Ok(Cell::String(self.blob_node(text)?))
    }

    fn blob_node(&mut self, bytes: Bytes) -> Result<Blob, TreeError> {
        let len = bytes.len() as u64;
        if bytes.len() <= Blob::CHUNK {
            return Ok(Blob(BlobNode::Leaf(bytes)));
        }
        let size = shape::blob_child(len) as usize;
        let mut children = Vec::with_capacity(16);
        for start in (0..bytes.len()).step_by(size) {
            let part = bytes.slice(start..bytes.len().min(start + size));
            let child = self.blob(part)?;
            children.push(self.link(child)?);
        }
        Ok(Blob(BlobNode::Tree { len, children }))
    }
}
