//! Reading the binary form of values.

/// A cursor over big-endian bytes of a value of the type `name`.
pub struct Cursor<'a> {
    name: &'a str,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(name: &'a str, bytes: &'a [u8]) -> Self {
        Cursor { name, rest: bytes }
    }

    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes) else {
            return Err(format!("{}: {} bytes are left where {bytes} are expected", self.name, self.rest.len()));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(format!("{}: {} bytes are left where {N} are expected", self.name, self.rest.len()));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    pub fn i16(&mut self) -> Result<i16, String> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_be_bytes)
    }

    /// Bytes that follow their length; None is NULL, whose length is -1.
    #[inline]
    pub fn counted(&mut self) -> Result<Option<&'a [u8]>, String> {
        match self.i32()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length).map(Some),
                Err(_) => Err(format!("{}: {length} given as a length, -1 or more expected", self.name)),
            },
        }
    }

    /// How many parts follow, each of which takes at least so many bytes.
    pub fn count(&mut self, part_bytes_min: usize) -> Result<u32, String> {
        let count = self.i32()?;
        let parts_max = self.rest.len() / part_bytes_min;
        match u32::try_from(count) {
            Ok(parts) if parts as usize <= parts_max => Ok(parts),
            _ => Err(format!("{}: {count} parts given in {} bytes", self.name, self.rest.len())),
        }
    }

    pub fn end(&self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(format!("{}: {more} bytes follow the value", self.name)),
        }
    }
}
