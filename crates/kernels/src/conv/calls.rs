//! The calls of a prepared convolution, which check their arguments.

use super::copy::PackImage;
use super::direct::pack::Order;
use super::finish::{Activation, Finish};
use super::kernel::dispatch;
use super::plan::Conv;
use super::run::Maps;
use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::{BLOCK, GUARD_PIXELS, Map, View};
use crate::team::share::Shared;
use crate::team::threads::Team;

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

impl Conv {
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
