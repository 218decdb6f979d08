//! Channels of a batch of maps in device memory.

use crate::memory::Region;

/// The number format of values in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// Its upper half.
    Bf16,
}

impl Format {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::Bf16 => 2,
        }
    }
}

/// Channels `first..first + channels` of the maps `[n][h][w][stride]` in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Where the maps lie, from the first channel of the first pixel on.
    pub region: Region,
    /// The format of their values.
    pub format: Format,
    /// Images.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels of a pixel in memory: those of a concatenation, of which this map is a part.
    pub stride: usize,
    /// The first channel that is meant.
    pub first: usize,
    /// Channels that are meant.
    pub channels: usize,
}

impl Map {
    /// Pixels of all images.
    pub fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    /// Values that are meant.
    pub fn len(&self) -> usize {
        self.pixels() * self.channels
    }

    /// Whether no value is meant.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that all channels of the maps take in memory.
    pub fn bytes(&self) -> usize {
        self.pixels() * self.stride * self.format.size()
    }

    /// Channels `first..first + channels` of those that are meant.
    pub fn part(&self, first: usize, channels: usize) -> Map {
        Map { first: self.first + first, channels, ..*self }
    }

    /// Panics unless its sizes fit together and its region holds them.
    pub(crate) fn check(&self, what: &str) {
        assert!(
            self.first + self.channels <= self.stride && self.bytes() <= self.region.bytes(),
            "{what}: {self:?} does not fit its region"
        );
    }
}
