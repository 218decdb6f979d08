//! The first directory of a TIFF file, which an EXIF block has too (TIFF 6.0, section 2; BigTIFF).

/// Tags and where their values are.
pub(crate) struct Ifd<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    fields: Vec<Field>,
}

struct Field {
    tag: u16,
    kind: u16,
    count: usize,
    /// Where the value is in the file.
    at: usize,
}

/// Bytes of a value by its kind; 0 for kinds that nobody defined.
const KIND_BYTES: [usize; 19] = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8];

impl<'a> Ifd<'a> {
    /// Reads the first directory; `None` if the header is none, or lies about where it is. A directory
    /// that is cut off has the tags that are there.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Ifd<'a>> {
        let is_big_endian = match bytes.get(..2)? {
            b"II" => false,
            b"MM" => true,
            _ => return None,
        };
        let mut ifd = Ifd { bytes, is_big_endian, fields: Vec::new() };
        // Some writers turn the version round (Pillow reads them too).
        let is_bigtiff = match ifd.integer(2, 2)? {
            42 | 0x2A00 => false,
            43 => true,
            _ => return None,
        };
        // Bytes of the number of entries, of one, and of a count or an offset.
        let (counter, length, word) = if is_bigtiff { (8, 20, 8) } else { (2, 12, 4) };
        let start = usize::try_from(ifd.integer(if is_bigtiff { 8 } else { 4 }, word)?).ok()?;
        let count = ifd.integer(start, counter)?;
        let entries = bytes.get(start + counter..)?.chunks_exact(length);
        for (index, _) in (0..count).zip(entries) {
            let at = start + counter + index as usize * length;
            ifd.fields.extend(ifd.field(at, word));
        }
        Some(ifd)
    }

    fn field(&self, at: usize, word: usize) -> Option<Field> {
        let kind = self.integer(at + 2, 2)? as u16;
        let count = usize::try_from(self.integer(at + 4, word)?).ok()?;
        let length = count.checked_mul(*KIND_BYTES.get(usize::from(kind))?)?;
        let field = at + 4 + word;
        let at_value = match length <= word {
            true => field,
            false => usize::try_from(self.integer(field, word)?).ok()?,
        };
        self.bytes.get(at_value..at_value.checked_add(length)?)?;
        Some(Field { tag: self.integer(at, 2)? as u16, kind, count, at: at_value })
    }

    /// The field of `tag`: the last one, as Pillow and the decoder take it.
    fn find(&self, tag: u16) -> Option<&Field> {
        self.fields.iter().rev().find(|field| field.tag == tag)
    }

    /// The value of `tag` if it is a single integer of 16 bits or more.
    pub(crate) fn number(&self, tag: u16) -> Option<u64> {
        self.numbers(tag).filter(|numbers| numbers.len() == 1).map(|numbers| numbers[0])
    }

    /// The values of `tag` if they are integers of 16 bits or more.
    pub(crate) fn numbers(&self, tag: u16) -> Option<Vec<u64>> {
        let Field { kind, count, at, .. } = self.find(tag)?;
        if !matches!(kind, 3 | 4 | 8 | 9 | 13 | 16 | 17 | 18) {
            return None;
        }
        let length = KIND_BYTES[usize::from(*kind)];
        (0..*count).map(|index| self.integer(at + index * length, length)).collect()
    }

    /// The values of `tag` if they are fractions of two integers.
    pub(crate) fn fractions(&self, tag: u16) -> Option<Vec<f64>> {
        let field = self.find(tag).filter(|field| field.kind == 5)?;
        let part = |at| self.integer(at, 4).map(|part| part as f64);
        let one = |index| Some(part(field.at + index * 8)? / part(field.at + index * 8 + 4)?);
        (0..field.count).map(one).collect()
    }

    /// The bytes of the value of `tag`.
    pub(crate) fn value(&self, tag: u16) -> Option<&'a [u8]> {
        let field = self.find(tag)?;
        let length = field.count * KIND_BYTES[usize::from(field.kind)];
        self.bytes.get(field.at..field.at + length)
    }

    /// Where `number`, in as many bytes as the file has for it, goes to become the value of `tag`; all
    /// places, if the tag is there more than once.
    pub(crate) fn changes(&self, tag: u16, number: u64) -> Vec<(usize, Vec<u8>)> {
        let fields = self.fields.iter().filter(|field| field.tag == tag && field.count > 0);
        let change = |field: &Field| {
            let length = KIND_BYTES[usize::from(field.kind)];
            let bytes = match self.is_big_endian {
                true => number.to_be_bytes()[8 - length..].to_vec(),
                false => number.to_le_bytes()[..length].to_vec(),
            };
            (field.at, bytes)
        };
        fields.map(change).collect()
    }

    /// The unsigned integer of `length` bytes, 8 at most, at `at`.
    fn integer(&self, at: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let join = |number, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.is_big_endian {
            true => bytes.iter().fold(0, join),
            false => bytes.iter().rev().fold(0, join),
        })
    }
}
