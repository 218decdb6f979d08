//! The Huffman codes of a JPEG, read bit by bit (ITU-T T.81, annexes C and F).

/// Why data cannot be walked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has no more bits.
    Ended,
    /// Its next bits are no code, or one that cannot stand there.
    NoCode,
}

/// A table of codes.
pub(crate) struct Table {
    /// The value and the length of the code that begins with these 8 bits; length 0 for longer ones.
    short: [(u8, u8); 256],
    /// For each length: one more than the largest code, in 16 bits, and what to add to a code to get
    /// the position of its value.
    longer: [(u32, i32); 17],
    values: Vec<u8>,
}

impl Table {
    /// Makes the codes of a table by how many there are of each length, 1 to 16 (C.2); `None` if there
    /// are more than fit.
    pub(crate) fn new(counts: &[u8; 16], values: &[u8]) -> Option<Table> {
        let mut table =
            Table { short: [(0, 0); 256], longer: [(0, 0); 17], values: values.to_vec() };
        let (mut code, mut position) = (0_u32, 0);
        for (length, &count) in (1_usize..).zip(counts) {
            let end = code + u32::from(count);
            if end > 1 << length {
                return None;
            }
            table.longer[length] = (end << (16 - length), position as i32 - code as i32);
            if length <= 8 {
                for code in code..end {
                    let value = *values.get(position + (code + u32::from(count) - end) as usize)?;
                    let first = (code << (8 - length)) as usize;
                    table.short[first..first + (1 << (8 - length))].fill((value, length as u8));
                }
            }
            position += usize::from(count);
            code = end << 1;
        }
        Some(table)
    }
}

/// The bits of data between two markers, the highest of a byte first.
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits that were taken from the bytes; the next one is the highest.
    held: u64,
    n_held: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(mut bytes: &'a [u8]) -> Bits<'a> {
        // In data a zero follows 0xFF: at the end it fills up.
        while let [rest @ .., 0xFF] = bytes {
            bytes = rest;
        }
        Bits { bytes, held: 0, n_held: 0 }
    }

    /// Bytes that were not read.
    pub(crate) fn n_left(&self) -> usize {
        self.bytes.len() + self.n_held as usize / 8
    }

    fn fill(&mut self) {
        while self.n_held <= 56
            && let Some((&byte, rest)) = self.bytes.split_first()
        {
            // The zero behind 0xFF is none of the data (B.1.1.5).
            self.bytes = if byte == 0xFF { rest.get(1..).unwrap_or_default() } else { rest };
            self.held |= u64::from(byte) << (56 - self.n_held);
            self.n_held += 8;
        }
    }

    /// Passes over `count` bits, 64 at most.
    pub(crate) fn skip(&mut self, count: u32) -> Result<(), Fault> {
        if self.n_held < count {
            self.fill();
        }
        if count > 32 {
            self.skip(32)?;
            return self.skip(count - 32);
        }
        self.n_held = self.n_held.checked_sub(count).ok_or(Fault::Ended)?;
        self.held <<= count;
        Ok(())
    }

    /// The number of the next `count` bits, 16 at most.
    pub(crate) fn take(&mut self, count: u32) -> Result<u32, Fault> {
        if self.n_held < count {
            self.fill();
        }
        let number = if count == 0 { 0 } else { (self.held >> (64 - count)) as u32 };
        self.skip(count)?;
        Ok(number)
    }

    /// The value of the next code (F.2.2.3).
    pub(crate) fn code(&mut self, table: &Table) -> Result<u8, Fault> {
        if self.n_held < 16 {
            self.fill();
        }
        let (value, length) = table.short[(self.held >> 56) as usize];
        if length > 0 {
            self.skip(length.into())?;
            return Ok(value);
        }
        let next = (self.held >> 48) as u32;
        for length in 9..=16 {
            let (end, offset) = table.longer[length];
            if next < end {
                self.skip(length as u32)?;
                let position = (next >> (16 - length)) as i32 + offset;
                return table.values.get(position as usize).copied().ok_or(Fault::NoCode);
            }
        }
        // Behind the end of the data the bits are zeros, which may be no code.
        Err(if self.n_held < 16 { Fault::Ended } else { Fault::NoCode })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_all_lengths_are_read() {
        // Codes 0, 10, 110 and, of ten bits, 1110000000 and 1110000001.
        let mut counts = [0; 16];
        counts[..3].copy_from_slice(&[1, 1, 1]);
        counts[9] = 2;
        let table = Table::new(&counts, &[5, 6, 7, 8, 9]).unwrap();
        // 0 10 110 1110000000 1110000001 01 and filled up.
        let bytes = [0b0101_1011, 0b1000_0000, 0b1110_0000, 0b0101_1111];
        let mut bits = Bits::new(&bytes);
        let read: Vec<u8> = (0..5).map(|_| bits.code(&table).unwrap()).collect();
        assert_eq!(read, [5, 6, 7, 8, 9]);
        assert_eq!(bits.take(2), Ok(0b01));
        assert_eq!(bits.n_left(), 0);
        assert_eq!(bits.code(&table), Err(Fault::Ended));
        assert_eq!(Bits::new(&[0b1111_1111, 0, 0b1111_1111, 0]).code(&table), Err(Fault::NoCode));
        // The zero behind 0xFF is passed over.
        let mut bits = Bits::new(&[0xFF, 0, 0xA5]);
        assert_eq!((bits.take(8), bits.take(8)), (Ok(0xFF), Ok(0xA5)));
        assert_eq!(bits.skip(1), Err(Fault::Ended));
        assert!(Table::new(&[3; 16], &[0; 48]).is_none(), "too many codes");
    }
}
