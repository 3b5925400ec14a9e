//! Is a GGUF header sound? Lengths are checked against the file's size before anything of that length is allocated.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use super::super::ModelsError;

/// Fails unless `path` is a GGUF file whose header is consistent.
pub(super) fn check(path: &Path) -> Result<(), ModelsError> {
    let file = File::open(path).map_err(ModelsError::io("read", path))?;
    let left = file.metadata().map_err(ModelsError::io("read", path))?.len();
    let mut header = Header { reader: BufReader::new(file), left };
    header.walk().map_err(|problem| match problem {
        Problem::Io(error) => ModelsError::io("read", path)(error),
        Problem::Unsound(problem) => ModelsError::damaged(path, format!("{problem}; fetch it again")),
    })
}

enum Problem {
    Io(io::Error),
    Unsound(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<&str> for Problem {
    fn from(problem: &str) -> Self {
        Self::Unsound(problem.to_owned())
    }
}

struct Header {
    reader: BufReader<File>,
    /// Bytes of the file that were not read yet.
    left: u64,
}

/// Deeper than any file nests arrays, shallower than the stack.
const MAX_DEPTH: u32 = 4;
/// The most dimensions a tensor of the format has.
const MAX_DIMENSIONS: u32 = 4;

impl Header {
    fn walk(&mut self) -> Result<(), Problem> {
        if &self.bytes::<4>()? != b"GGUF" {
            return Err("it is no GGUF file".into());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(Problem::Unsound(format!("GGUF version {version} is not known (2 and 3 are)")));
        }
        let (tensors, values) = (self.u64()?, self.u64()?);
        for _ in 0..values {
            let key = self.string()?;
            let kind = self.u32()?;
            if key == b"general.alignment" {
                if kind != 4 || !self.u32()?.is_power_of_two() {
                    return Err("its alignment is no power of two".into());
                }
            } else {
                self.value(kind, 0)?;
            }
        }
        for _ in 0..tensors {
            self.string()?;
            let dimensions = self.u32()?;
            if dimensions > MAX_DIMENSIONS {
                return Err("a tensor has too many dimensions".into());
            }
            let mut elements: u64 = 1;
            for _ in 0..dimensions {
                let dimension = self.u64()?;
                elements = elements
                    .checked_mul(dimension)
                    .filter(|&n| n < 1 << 48)
                    .ok_or("a tensor is too large")?;
            }
            self.skip(4 + 8)?;
        }
        Ok(())
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<(), Problem> {
        match (kind, fixed_size(kind)) {
            (_, Some(size)) => self.skip(size),
            (8, _) => self.string().map(drop),
            (9, _) if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                match fixed_size(kind) {
                    Some(size) => self.skip(count.checked_mul(size).ok_or("an array is too long")?),
                    // Every element takes at least the 8 bytes of its own length.
                    None if count > self.left / 8 => Err("an array is longer than the file".into()),
                    None => (0..count).try_for_each(|_| self.value(kind, depth + 1)),
                }
            }
            _ => Err(Problem::Unsound(format!("a value has the unknown type {kind}"))),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, Problem> {
        let length = self.u64()?;
        self.need(length)?;
        let mut text = Vec::new();
        (&mut self.reader).take(length).read_to_end(&mut text)?;
        Ok(text)
    }

    fn skip(&mut self, count: u64) -> Result<(), Problem> {
        self.need(count)?;
        Ok(self.reader.seek_relative(count.cast_signed())?)
    }

    fn need(&mut self, count: u64) -> Result<(), Problem> {
        self.left = self.left.checked_sub(count).ok_or("it ends inside its header")?;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        self.need(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.bytes().map(u64::from_le_bytes)
    }
}

/// Bytes of a value of this type, for the types that have one size.
fn fixed_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
