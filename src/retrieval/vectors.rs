//! Where are the sentence vectors of a segment's passages?

use half::f16;
use tantivy::SegmentReader;

use super::RetrievalError;
use super::schema::DIMENSIONS;

/// A passage without vector.
const NONE: u32 = u32::MAX;

/// Sentence vectors of one segment in memory. A segment never changes, so they are read once.
pub(super) struct Vectors {
    /// Row of each document of the segment.
    rows: Vec<u32>,
    /// `(rows, DIMENSIONS)`, each row of length 1.
    data: Vec<f32>,
}

impl Vectors {
    pub(super) fn read(segment: &SegmentReader) -> Result<Self, RetrievalError> {
        let mut rows = vec![NONE; segment.max_doc() as usize];
        let mut data = Vec::new();
        let Some(column) = segment.fast_fields().bytes("vector")? else {
            return Ok(Self { rows, data });
        };
        // Row n is the n-th value of the column's dictionary, in its order.
        let mut stream = column.dictionary().stream().map_err(tantivy::TantivyError::from)?;
        while stream.advance() {
            data.extend(decode(stream.key()));
        }
        for (document, row) in (0_u32..).zip(rows.iter_mut()) {
            if let Some(ordinal) = column.ords().first(document) {
                *row = u32::try_from(ordinal).unwrap_or(NONE);
            }
        }
        Ok(Self { rows, data })
    }

    /// The vector of a document of the segment.
    pub(super) fn get(&self, document: u32) -> Option<&[f32]> {
        let row = *self.rows.get(document as usize)?;
        let start = (row != NONE).then_some(row as usize * DIMENSIONS)?;
        self.data.get(start..start + DIMENSIONS)
    }
}

/// A vector as the index keeps it: half precision changes a cosine by less than 0.001.
pub(super) fn encode(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
}

/// The inner product of two vectors of equal length, summed in eight lanes so that it vectorises.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum()
}
