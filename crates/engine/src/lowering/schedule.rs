//! The moments at which a step of training uses its maps, from which their places follow.
//!
//! Stage `i` of `n` runs forward at moment `i`, all heads run at `n`, and stage `i` runs backward at `2n - i`.
//! The first reader of a map that runs backward writes the map's gradient, and the other readers add to it. So
//! no map is ever cleared.

use bninception_kernels::map::Map;

use super::lower::Lowered;
use super::memory::{Buffer, Buffers, Places};
use super::stage::Place;

/// Where the maps' activations and their gradients lie, and all other buffers.
pub(crate) struct Slots {
    /// Places of all buffers.
    pub places: Places,
    pub values: Vec<Buffer>,
    pub gradients: Vec<Buffer>,
}

impl Slots {
    /// The buffer of the map that `place` is part of.
    pub(crate) fn value(&self, place: &Place) -> Buffer {
        self.values[place.id]
    }

    /// The buffer of that map's gradient.
    pub(crate) fn gradient(&self, place: &Place) -> Buffer {
        self.gradients[place.id]
    }
}

/// Collects the buffers of a plan, and the moments of their use.
pub(crate) struct Schedule {
    pub buffers: Buffers,
    /// Stages of the network.
    n: usize,
    values: Vec<Buffer>,
    gradients: Vec<Buffer>,
    /// Whether each map's gradient has been written by a reader that runs backward earlier.
    written: Vec<bool>,
    /// The map that frozen layers made, which gets no gradient.
    frozen: Option<usize>,
}

impl Schedule {
    /// For the maps of `lowered`, of which each takes as many values as `len` says.
    pub(crate) fn new(lowered: &Lowered, len: impl Fn(&Map) -> usize) -> Schedule {
        let mut buffers = Buffers::default();
        let mut add = || lowered.maps.iter().map(|map| buffers.add(len(map))).collect();
        let (values, gradients) = (add(), add());
        let mut schedule = Schedule {
            buffers,
            n: lowered.stages.len(),
            values,
            gradients,
            written: vec![false; lowered.maps.len()],
            frozen: lowered.frozen.map(|place| place.id),
        };
        if let Some(frozen) = &lowered.frozen {
            schedule.touch_value(frozen, 0);
        }
        schedule
    }

    /// Moment at which the heads run.
    pub(crate) fn head_moment(&self) -> usize {
        self.n
    }

    /// Moment at which stage `row` runs backward.
    pub(crate) fn backward_moment(&self, row: usize) -> usize {
        2 * self.n - row
    }

    /// Notes a use of the activation of `place`.
    pub(crate) fn touch_value(&mut self, place: &Place, moment: usize) {
        self.buffers.touch(self.values[place.id], moment);
    }

    /// Notes a use of the gradient of `place`.
    pub(crate) fn touch_gradient(&mut self, place: &Place, moment: usize) {
        self.buffers.touch(self.gradients[place.id], moment);
    }

    /// Notes the uses of a stage whose gradient needs no activation. Gives as [`Schedule::accumulate`].
    pub(crate) fn linear(&mut self, input: &Place, output: &Place, row: usize) -> Option<bool> {
        let back = self.backward_moment(row);
        self.touch_value(input, row);
        self.touch_value(output, row);
        self.touch_gradient(output, back);
        self.accumulate(input, back)
    }

    /// Notes that the whole gradient of the map of `place` is written at `moment`, and says whether
    /// it must be added to what is there; `None` if the map gets no gradient. Stages ask in the order in
    /// which they run backward.
    pub(crate) fn accumulate(&mut self, place: &Place, moment: usize) -> Option<bool> {
        if self.frozen == Some(place.id) {
            return None;
        }
        self.touch_gradient(place, moment);
        Some(std::mem::replace(&mut self.written[place.id], true))
    }

    /// Gives every buffer its place.
    pub(crate) fn place(self) -> Slots {
        let Schedule { buffers, values, gradients, .. } = self;
        Slots { places: buffers.place(), values, gradients }
    }
}
