//! Convolutions over blocked maps, in the three directions that training needs.
//!
//! A [`Conv`] is prepared once for a shape, an instruction set and a team size; it owns tables and
//! no buffers. Weights are packed before use, outputs go straight into a channel slice of a wider
//! map ([`View`]), and what follows a convolution at once is done while the outputs are still in
//! registers ([`Epilogue`]).
//!
//! Buffers are maps in the layout of [`crate::map`]. The halo of every source must be zero; of a
//! target only the pixels of the view are written and its halo is left alone, so a reused buffer
//! is cleared once with [`zero_halo`]. Buffers that start on a cache line (64 bytes) are fastest.
//!
//! Results do not depend on timing. Outputs and input gradients are the same bits for any number
//! of threads; sums for batch norm and weight gradients are the same bits for the same number.

mod copy;
mod direct;
mod direct_weights;
mod finish;
mod geometry;
mod halo;
mod pack;
mod pairs;
pub mod reference;
mod run;
mod shape;
mod share;
mod stack;
pub(crate) mod vector;
mod winograd;

pub use halo::zero_halo;
pub use shape::{Algorithm, Algorithms, BLOCK, ConvShape, View};

use crate::dtype::Dtype;
use crate::element::Element;
use crate::isa::Isa;
use crate::map::{GUARD_PIXELS, Map};
use crate::threads::Team;
use copy::PackImage;
use finish::Finish;
use geometry::Passes;
use pack::Order;
use pairs::division::Division;
use pairs::gradients;
use pairs::product::Multiplier;
use run::Maps;
use share::Shared;
use vector::{Tile, dispatch};
use winograd::Winograd;

/// What happens to the outputs of [`Conv::forward`] on their way to memory.
#[derive(Debug)]
pub enum Epilogue<'a> {
    /// Nothing. A map of bf16 rounds whatever is written to it, here and below.
    None,
    /// Adds a bias, one per output channel.
    Bias(&'a [f32]),
    /// Adds a bias, then takes max(0, y).
    BiasRelu(&'a [f32]),
    /// Adds a bias, then takes 1 / (1 + exp(-y)).
    BiasSigmoid(&'a [f32]),
    /// Leaves y as it is and sums it, as rounded by the map, over the batch for batch norm: K sums, then K
    /// sums of squares; overwritten. Runs of at most a few hundred outputs are summed in f32, and those in f64.
    Sums(&'a mut [f64]),
}

/// The function that [`Epilogue`] applies after the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation {
    Identity,
    Relu,
    Sigmoid,
}

/// A convolution prepared for one shape, instruction set and team size.
#[derive(Debug)]
pub struct Conv {
    shape: ConvShape,
    isa: Isa,
    tile: Tile,
    threads: usize,
    dtype: Dtype,
    algorithms: Algorithms,
    forward: Passes,
    /// `None` for convolutions that read images, which need no gradient.
    backward_input: Option<Passes>,
    /// Register tiles of a unit of work, forward and for the gradient of the input.
    forward_chunk: usize,
    backward_chunk: usize,
    /// Shares of the pixels for the gradient of the weights.
    parts: usize,
    /// Sizes of the directions that use Winograd.
    winograd: WinogradSizes,
    /// Of the directions that multiply pairs of bf16 numbers.
    pairs: PairSizes,
}

/// Sizes of each direction that multiplies pairs of bf16 numbers.
#[derive(Debug)]
struct PairSizes {
    forward: Option<Division>,
    backward_input: Option<Division>,
    backward_weights: Option<gradients::Division>,
}

/// Sizes of each direction that uses Winograd.
#[derive(Debug)]
struct WinogradSizes {
    forward: Option<Winograd>,
    backward_input: Option<Winograd>,
    backward_weights: Option<Winograd>,
}

impl Conv {
    /// Prepares `shape` for factors of `dtype` with the faster algorithm for each direction, which is
    /// never Winograd unless `winograd` allows it.
    ///
    /// # Panics
    /// If the shape is impossible or the machine lacks `isa`.
    pub fn new(shape: ConvShape, isa: Isa, threads: usize, winograd: bool, dtype: Dtype) -> Conv {
        let algorithms = Algorithms::choose(&shape, isa, winograd, dtype);
        Conv::with_algorithms(shape, isa, threads, algorithms).with_dtype(dtype)
    }

    /// Prepares `shape` with the algorithms given.
    ///
    /// # Panics
    /// If the shape is impossible, an algorithm does not support it, or the machine lacks `isa`.
    pub fn with_algorithms(
        shape: ConvShape,
        isa: Isa,
        threads: usize,
        algorithms: Algorithms,
    ) -> Conv {
        let s = &shape;
        assert!(threads > 0, "a convolution needs at least one thread");
        assert!(Isa::available().contains(&isa), "this machine has no {}", isa.name());
        assert!(s.batch > 0 && s.stride > 0 && s.kernel > 0, "empty convolution: {s:?}");
        assert!(s.pad < s.kernel, "padding must be less than the filter: {s:?}");
        assert!(
            s.in_height + 2 * s.pad >= s.kernel && s.in_width + 2 * s.pad >= s.kernel,
            "the filter is larger than the padded input: {s:?}"
        );
        assert!(
            s.out_channels > 0 && s.out_channels.is_multiple_of(BLOCK),
            "output channels must be a multiple of {BLOCK}: {s:?}"
        );
        assert!(
            s.in_channels > 0 && (s.in_channels < BLOCK || !s.reads_image()),
            "input channels must be a multiple of {BLOCK}, or fewer for images: {s:?}"
        );
        for algorithm in
            [algorithms.forward, algorithms.backward_input, algorithms.backward_weights]
        {
            assert!(algorithm.supports(s), "{algorithm:?} cannot compute {s:?}");
        }
        let tile = Tile::of(isa);
        let groups = |channels: usize| channels.div_ceil(BLOCK * tile.group_blocks);
        let out_pixels = s.batch * s.out_height() * s.out_width();
        let in_pixels = s.batch * s.in_height * s.in_width;
        let forward_chunk = direct::chunk_tiles(
            s.in_channels,
            s.stride,
            out_pixels,
            tile,
            groups(s.out_channels),
            threads,
        );
        let backward_chunk = direct::chunk_tiles(
            s.out_channels,
            1,
            in_pixels / (s.stride * s.stride),
            tile,
            groups(s.in_channels),
            threads,
        );
        let uses = |algorithm| algorithm == Algorithm::Winograd;
        let winograd = WinogradSizes {
            forward: uses(algorithms.forward).then(|| Winograd::products(s, false, tile, threads)),
            backward_input: uses(algorithms.backward_input)
                .then(|| Winograd::products(s, true, tile, threads)),
            backward_weights: uses(algorithms.backward_weights)
                .then(|| Winograd::gradients(s, threads)),
        };
        let aligned = Multiplier::of(isa).reads_tiles();
        let forward = Passes { aligned, ..Passes::forward(s) };
        let backward_input =
            (!s.reads_image()).then(|| Passes { aligned, ..Passes::backward_input(s) });
        let in_pairs = |algorithm| algorithm == Algorithm::Bf16;
        let divide = |passes: &Passes, size, channels: usize| {
            Division::new(passes, size, s.batch, channels / BLOCK, threads)
        };
        let (in_size, out_size) = ((s.in_height, s.in_width), (s.out_height(), s.out_width()));
        let pairs = PairSizes {
            forward: in_pairs(algorithms.forward)
                .then(|| divide(&forward, in_size, s.out_channels)),
            backward_input: backward_input
                .as_ref()
                .filter(|_| in_pairs(algorithms.backward_input))
                .map(|passes| divide(passes, out_size, s.in_channels)),
            backward_weights: in_pairs(algorithms.backward_weights)
                .then(|| gradients::Division::new(s, &forward, threads)),
        };
        Conv {
            shape,
            winograd,
            pairs,
            isa,
            tile,
            threads,
            dtype: Dtype::F32,
            algorithms,
            forward,
            backward_input,
            forward_chunk,
            backward_chunk,
            parts: direct_weights::parts(s, threads),
        }
    }

    /// Sets the format of the factors: [`Conv::pack`], [`Conv::pack_backward`] and
    /// [`Conv::pack_image`] round to it, and [`Conv::forward`] rounds outputs that an epilogue with
    /// a bias completes, which are the next convolution's factors. Sources are taken as they are.
    /// [`Algorithm::Bf16`] packs weights as bf16 in any case, and cuts off what is no bf16 number of
    /// sources.
    pub fn with_dtype(self, dtype: Dtype) -> Conv {
        Conv { dtype, ..self }
    }

    /// The sizes.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The algorithm of each direction.
    pub fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    /// Elements of the weights as [`Conv::pack`] leaves them.
    pub fn packed_len(&self) -> usize {
        if self.pairs.forward.is_some() {
            return pairs::pack::packed_len(&self.forward, self.shape.out_channels / BLOCK);
        }
        self.winograd.forward.as_ref().map_or_else(|| self.direct_len(), Winograd::weights_len)
    }

    /// Elements of the weights as [`Conv::pack_backward`] leaves them; 0 for images.
    pub fn packed_backward_len(&self) -> usize {
        let blocks = self.shape.in_channels / BLOCK;
        match (&self.winograd.backward_input, &self.backward_input) {
            (Some(winograd), _) => winograd.weights_len(),
            (None, Some(passes)) if self.pairs.backward_input.is_some() => {
                pairs::pack::packed_len(passes, blocks)
            }
            (None, Some(passes)) => pack::packed_len(passes, blocks),
            (None, None) => 0,
        }
    }

    /// Elements of the workspace that any call needs; its contents carry nothing between calls.
    pub fn workspace_len(&self) -> usize {
        let products = |winograd: &Winograd| self.threads * winograd.products_len(self.tile);
        let scratch = |division: &Option<Division>| {
            division.as_ref().map_or(0, |division| self.threads * division.scratch_len())
        };
        let forward = match &self.winograd.forward {
            Some(winograd) => products(winograd),
            None => self.copy_len(&self.forward.layout) + scratch(&self.pairs.forward),
        };
        let backward_input = match (&self.winograd.backward_input, &self.backward_input) {
            (Some(winograd), _) => products(winograd),
            (None, Some(passes)) => {
                self.copy_len(&passes.layout) + scratch(&self.pairs.backward_input)
            }
            (None, None) => 0,
        };
        let out_blocks = self.shape.out_channels / BLOCK;
        let backward_weights = match &self.winograd.backward_weights {
            Some(winograd) => {
                winograd.shares * (winograd.transformed_len() + winograd.weights_len())
            }
            None => {
                let sums = match &self.pairs.backward_weights {
                    Some(division) => {
                        division.shares * pairs::pack::sums_len(&self.forward, out_blocks)
                            + self.threads * division.reading.scratch_len(out_blocks)
                    }
                    None => self.parts * self.direct_len(),
                };
                self.copy_len(&self.forward.layout) + sums
            }
        };
        (forward + self.sums_len()).max(backward_input).max(backward_weights)
    }

    /// Elements of the images as [`Conv::pack_image`] leaves them, and of what is read in whole blocks
    /// behind the last; 0 for maps.
    pub fn image_len(&self) -> usize {
        let images = self.shape.batch * self.forward.layout.plane;
        if self.shape.reads_image() { images + 2 * BLOCK } else { 0 }
    }

    /// Brings NCHW images into the padded order `[H + 2 pad][W + 2 pad][C]` that the convolution
    /// reads as `x`; the view of `x` is then ignored.
    ///
    /// # Panics
    /// If the convolution reads maps, or a slice has the wrong length.
    pub fn pack_image<E: Element>(&self, team: &Team, images: &[f32], x: &mut [E]) {
        let s = &self.shape;
        assert!(s.reads_image(), "this convolution reads maps, not images: {s:?}");
        let expected = s.batch * s.in_channels * s.in_height * s.in_width;
        assert_eq!(images.len(), expected, "elements of the images");
        check_len("x", x.len(), self.image_len());
        let x = Shared::new(x);
        let (layout, dtype) = (&self.forward.layout, self.dtype);
        self.run(team, |thread, threads| {
            let pack = PackImage { shape: s, layout, dtype, images, packed: x, thread, threads };
            // SAFETY: the machine has `isa`.
            unsafe { dispatch(self.vectors::<E>(), &pack) }
        });
    }

    /// Packs weights for [`Conv::forward`]. `weights` are OIHW slices that follow one another along
    /// the output channels: siblings that one merged convolution computes, or just one. Each holds
    /// a multiple of 16 output channels.
    ///
    /// # Panics
    /// If a slice has the wrong length or `packed` is too short.
    pub fn pack(&self, team: &Team, weights: &[&[f32]], packed: &mut [f32]) {
        self.check_weights(weights.iter().map(|w| w.len()));
        check_len("packed weights", packed.len(), self.packed_len());
        self.pack_order(team, Order::Forward, weights, packed);
    }

    /// Packs weights for [`Conv::backward_input`]; `weights` as for [`Conv::pack`].
    ///
    /// # Panics
    /// If the convolution reads images, a slice has the wrong length, or `packed` is too short.
    pub fn pack_backward(&self, team: &Team, weights: &[&[f32]], packed: &mut [f32]) {
        self.check_weights(weights.iter().map(|w| w.len()));
        check_len("packed weights", packed.len(), self.packed_backward_len());
        assert!(self.backward_input.is_some(), "{NO_INPUT_GRADIENT}");
        self.pack_order(team, Order::BackwardInput, weights, packed);
    }

    /// y = conv(x, weights), finished by `epilogue`. `x` is read through `xv` and `y` written
    /// through `yv`.
    ///
    /// # Panics
    /// If a buffer is shorter than its view, the team has not the size prepared for, or a direct algorithm
    /// meets maps of bf16.
    pub fn forward<E: Element>(
        &self,
        team: &Team,
        x: &[E],
        xv: View,
        packed: &[f32],
        y: &mut [E],
        yv: View,
        epilogue: Epilogue,
        ws: &mut [f32],
    ) {
        let s = &self.shape;
        check_len("packed weights", packed.len(), self.packed_len());
        check_len("workspace", ws.len(), self.workspace_len());
        self.check_source(x, xv);
        check_map("y", &s.out_map(), s.batch, y.len(), yv);
        let (bias, activation, totals) = match epilogue {
            Epilogue::None => (None, Activation::Identity, None),
            Epilogue::Bias(bias) => (Some(bias), Activation::Identity, None),
            Epilogue::BiasRelu(bias) => (Some(bias), Activation::Relu, None),
            Epilogue::BiasSigmoid(bias) => (Some(bias), Activation::Sigmoid, None),
            Epilogue::Sums(sums) => (None, Activation::Identity, Some(sums)),
        };
        assert!(bias.is_none_or(|b| b.len() == s.out_channels), "one bias per output channel");
        let (partial, ws) = ws.split_at_mut(self.sums_len());
        let sums = totals.is_some().then(|| Shared::new(partial));
        let dtype = if bias.is_some() { self.dtype } else { Dtype::F32 };
        let finish = Finish { bias, activation, dtype, accumulate: false, sums: sums.is_some() };
        let maps = Maps { source: x, source_view: xv, target: y, target_view: yv };
        match &self.winograd.forward {
            Some(sizes) => self.products(team, sizes, maps, packed, finish, sums, ws),
            None => {
                let direction = (&self.forward, self.forward_chunk, self.pairs.forward.as_ref());
                let channels = (s.in_map(), s.out_map());
                self.direct(team, direction, channels, maps, packed, finish, sums, ws);
            }
        }
        if let Some(totals) = totals {
            assert_eq!(totals.len(), 2 * s.out_channels, "K sums and K sums of squares");
            totals.fill(0.0);
            for chunk in partial.chunks_exact(2 * s.out_channels) {
                for (total, value) in totals.iter_mut().zip(chunk) {
                    *total += f64::from(*value);
                }
            }
        }
    }

    /// dx = the gradient of the input for the output's gradient `dy`; added to `dx` with
    /// `accumulate`.
    ///
    /// # Panics
    /// If the convolution reads images, a buffer is shorter than its view, the team has not the size
    /// prepared for, or a direct algorithm meets maps of bf16.
    pub fn backward_input<E: Element>(
        &self,
        team: &Team,
        dy: &[E],
        dyv: View,
        packed: &[f32],
        dx: &mut [E],
        dxv: View,
        accumulate: bool,
        ws: &mut [f32],
    ) {
        let s = &self.shape;
        let passes = self.backward_input.as_ref().expect(NO_INPUT_GRADIENT);
        check_len("packed weights", packed.len(), self.packed_backward_len());
        check_len("workspace", ws.len(), self.workspace_len());
        check_map("dy", &s.out_map(), s.batch, dy.len(), dyv);
        check_map("dx", &s.in_map(), s.batch, dx.len(), dxv);
        let (activation, dtype) = (Activation::Identity, Dtype::F32);
        let finish = Finish { bias: None, activation, dtype, accumulate, sums: false };
        let maps = Maps { source: dy, source_view: dyv, target: dx, target_view: dxv };
        match &self.winograd.backward_input {
            Some(sizes) => self.products(team, sizes, maps, packed, finish, None, ws),
            None => {
                let channels = (s.out_map(), s.in_map());
                let division = self.pairs.backward_input.as_ref();
                let direction = (passes, self.backward_chunk, division);
                self.direct(team, direction, channels, maps, packed, finish, None, ws);
            }
        }
    }

    /// dw = the gradient of the weights for the output's gradient `dy`, written to slices laid out
    /// as for [`Conv::pack`].
    ///
    /// # Panics
    /// If a buffer is shorter than its view, a slice of `dw` has the wrong length, the team has not the
    /// size prepared for, or a direct algorithm meets maps of bf16.
    pub fn backward_weights<E: Element>(
        &self,
        team: &Team,
        x: &[E],
        xv: View,
        dy: &[E],
        dyv: View,
        dw: &mut [&mut [f32]],
        ws: &mut [f32],
    ) {
        let s = &self.shape;
        self.check_weights(dw.iter().map(|w| w.len()));
        check_len("workspace", ws.len(), self.workspace_len());
        self.check_source(x, xv);
        check_map("dy", &s.out_map(), s.batch, dy.len(), dyv);
        // An array, because a training step must not allocate.
        let siblings = dw.len();
        assert!(siblings <= MAX_SIBLINGS, "at most {MAX_SIBLINGS} slices of dw, not {siblings}");
        let mut targets = [Shared::new(&mut []); MAX_SIBLINGS];
        for (target, slice) in targets.iter_mut().zip(dw.iter_mut()) {
            *target = Shared::new(slice);
        }
        let targets = &targets[..siblings];
        match (&self.winograd.backward_weights, &self.pairs.backward_weights) {
            (Some(sizes), _) => self.gradients(team, sizes, (x, xv), (dy, dyv), targets, ws),
            (None, Some(division)) => {
                self.pair_gradients(team, division, (x, xv), (dy, dyv), targets, ws);
            }
            (None, None) => self.direct_weights(team, (x, xv), (dy, dyv), targets, ws),
        }
    }

    fn check_weights(&self, lens: impl Iterator<Item = usize>) {
        let row = self.shape.in_channels * self.shape.taps();
        let mut total = 0;
        for len in lens {
            assert!(
                len.is_multiple_of(BLOCK * row),
                "weights must hold a multiple of {BLOCK} output channels of {row} elements, not {len}"
            );
            total += len;
        }
        assert_eq!(total, self.shape.weights(), "elements of all weights");
    }

    fn check_source<E>(&self, x: &[E], view: View) {
        if self.shape.reads_image() {
            check_len("x", x.len(), self.image_len());
        } else {
            check_map("x", &self.shape.in_map(), self.shape.batch, x.len(), view);
        }
    }
}

/// Most convolutions that can be merged into one; an Inception module has three.
const MAX_SIBLINGS: usize = 8;

/// Why [`Conv::backward_input`] is refused.
const NO_INPUT_GRADIENT: &str = "a convolution that reads images has no input gradient";

/// Panics unless a buffer has the elements that are needed.
fn check_len(what: &str, found: usize, needed: usize) {
    assert!(found >= needed, "{what} needs {needed} elements and has {found}");
}

/// Panics unless a buffer holds `map` at `view`, guard included, and offsets fit the tables.
fn check_map(what: &str, map: &Map, batch: usize, found: usize, view: View) {
    assert!(
        view.first + map.blocks() <= view.blocks,
        "{what}: {} blocks from {} on do not fit {} blocks",
        map.blocks(),
        view.first,
        view.blocks
    );
    check_len(what, found, batch * view.blocks * map.plane() + GUARD_PIXELS * BLOCK);
}
