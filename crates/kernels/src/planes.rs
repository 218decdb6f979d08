//! The maps of a batch in a buffer, as kernels read and write them.
//!
//! Both types are a slice of the buffer `[n][view.blocks][h + 2][w + 1][16]` (see [`crate::map`]) together
//! with the channel blocks of it that are meant. Its length is checked once, where one is made; what is
//! done with it later, in unsafe code too, relies on that.

use crate::element::Element;
use crate::map::{BLOCK, GUARD_PIXELS, Map, View};

/// Maps that are read: `[n][c_block][h][w][16]`, the channel blocks of a view.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a, E> {
    values: &'a [E],
    map: Map,
    view: View,
    batch: usize,
}

/// As [`Planes`], to write.
#[derive(Debug)]
pub struct PlanesMut<'a, E> {
    values: &'a mut [E],
    map: Map,
    view: View,
    batch: usize,
}

impl<'a, E: Element> Planes<'a, E> {
    /// `batch` images of `map`, which lie in `view` of the buffer `values`.
    ///
    /// # Panics
    /// If the buffer is shorter than its images and the guard, or the view wider than its maps.
    pub fn new(values: &'a [E], map: &Map, view: View, batch: usize) -> Planes<'a, E> {
        check(values.len(), map, view, batch);
        Planes { values, map: *map, view, batch }
    }

    /// `batch` images of `map`, which fill the buffer `values`.
    ///
    /// # Panics
    /// As [`Planes::new`].
    pub fn whole(values: &'a [E], map: &Map, batch: usize) -> Planes<'a, E> {
        Planes::new(values, map, View::whole(map), batch)
    }

    /// The sizes of an image.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The channel blocks of the buffer's maps that are meant.
    pub fn view(&self) -> View {
        self.view
    }

    /// Images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Plane `n * blocks + b`: channel block `b` of image `n`, `[h + 2][w + 1][16]`.
    pub fn plane(&self, index: usize) -> &'a [E] {
        let (image, block) = (index / self.map.blocks(), index % self.map.blocks());
        let start = (image * self.view.blocks + self.view.first + block) * self.map.plane();
        &self.values[start..][..self.map.plane()]
    }

    /// `count` channel blocks from block `first` on.
    pub(crate) fn blocks(self, first: usize, count: usize) -> Planes<'a, E> {
        let (map, view) = narrow(&self.map, self.view, first, count);
        Planes { map, view, ..self }
    }

    /// The buffer from the first plane on.
    pub(crate) fn values(&self) -> &'a [E] {
        &self.values[self.view.first * self.map.plane()..]
    }

    /// Elements from one image to the next.
    pub(crate) fn image(&self) -> usize {
        self.view.blocks * self.map.plane()
    }

    /// Panics unless these are `batch` images of `map`, for whoever prepared for them; `what` names them.
    pub(crate) fn expect(&self, what: &str, map: &Map, batch: usize) {
        expect(what, (&self.map, self.batch), (map, batch));
    }
}

impl<'a, E: Element> PlanesMut<'a, E> {
    /// As [`Planes::new`].
    ///
    /// # Panics
    /// As [`Planes::new`].
    pub fn new(values: &'a mut [E], map: &Map, view: View, batch: usize) -> PlanesMut<'a, E> {
        check(values.len(), map, view, batch);
        PlanesMut { values, map: *map, view, batch }
    }

    /// As [`Planes::whole`].
    ///
    /// # Panics
    /// As [`Planes::new`].
    pub fn whole(values: &'a mut [E], map: &Map, batch: usize) -> PlanesMut<'a, E> {
        PlanesMut::new(values, map, View::whole(map), batch)
    }

    /// The sizes of an image.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// The channel blocks of the buffer's maps that are meant.
    pub fn view(&self) -> View {
        self.view
    }

    /// Images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The same, to read.
    pub fn as_planes(&self) -> Planes<'_, E> {
        Planes { values: self.values, map: self.map, view: self.view, batch: self.batch }
    }

    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> PlanesMut<'_, E> {
        PlanesMut { values: self.values, map: self.map, view: self.view, batch: self.batch }
    }

    /// Zeroes the halo of the planes, the first halo pixel of the plane that follows them, which the last
    /// of them shares as its lower right corner, and the guard behind the buffer's last plane.
    pub fn zero_halo(&mut self) {
        let (map, view, plane, zero) = (self.map, self.view, self.map.plane(), E::default());
        self.zero_guard();
        for n in 0..self.batch {
            for block in view.first..view.first + map.blocks() {
                map.zero_halo(&mut self.values[(n * view.blocks + block) * plane..][..plane]);
            }
            let next = (n * view.blocks + view.first + map.blocks()) * plane;
            self.values[next..next + BLOCK].fill(zero);
        }
    }

    /// Zeroes the guard behind the buffer's last plane.
    pub(crate) fn zero_guard(&mut self) {
        let end = self.batch * self.image();
        self.values[end..end + GUARD_PIXELS * BLOCK].fill(E::default());
    }

    /// `count` channel blocks from block `first` on.
    pub(crate) fn blocks(self, first: usize, count: usize) -> PlanesMut<'a, E> {
        let (map, view) = narrow(&self.map, self.view, first, count);
        PlanesMut { map, view, ..self }
    }

    /// The buffer from the first plane on.
    pub(crate) fn into_values(self) -> &'a mut [E] {
        &mut self.values[self.view.first * self.map.plane()..]
    }

    /// Elements from one image to the next.
    pub(crate) fn image(&self) -> usize {
        self.view.blocks * self.map.plane()
    }

    /// As [`Planes::expect`].
    pub(crate) fn expect(&self, what: &str, map: &Map, batch: usize) {
        expect(what, (&self.map, self.batch), (map, batch));
    }
}

fn check(len: usize, map: &Map, view: View, batch: usize) {
    assert!(
        view.first + map.blocks() <= view.blocks,
        "a view of {} blocks from {} of a map of {}",
        map.blocks(),
        view.first,
        view.blocks
    );
    let needed = batch * view.blocks * map.plane() + GUARD_PIXELS * BLOCK;
    assert!(
        len >= needed,
        "{batch} images of {} blocks of {}x{} take {needed} values, the buffer has {len}",
        view.blocks,
        map.height,
        map.width,
    );
}

fn expect(what: &str, (map, batch): (&Map, usize), wanted: (&Map, usize)) {
    assert!(
        (map, batch) == wanted,
        "{what} is {batch} images of {map:?} and should be {} of {:?}",
        wanted.1,
        wanted.0
    );
}

fn narrow(map: &Map, view: View, first: usize, count: usize) -> (Map, View) {
    assert!(first + count <= map.blocks(), "{count} blocks from {first} of {}", map.blocks());
    (Map { channels: count * BLOCK, ..*map }, View { first: view.first + first, ..view })
}
