//! The calls of a prepared convolution, which check their arguments.

use super::copy::PackImage;
use super::direct::pack::Order;
use super::finish::Finish;
use super::kernel::dispatch;
use super::operands::ConvInput;
use super::plan::{Conv, WeightsWay};
use super::run::Operands;
use crate::activation::Activation;
use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::BLOCK;
use crate::planes::{Planes, PlanesMut};
use crate::team::share::Shared;
use crate::team::threads::Team;

/// What happens to the outputs of [`Conv::forward`] on their way to memory.
#[derive(Debug)]
pub enum Epilogue<'a> {
    /// Nothing. A map of bf16 rounds whatever is written to it, here and below.
    None,
    /// Adds a bias, `[k]`.
    Bias(&'a [f32]),
    /// Adds a bias, then takes max(0, y).
    BiasRelu(&'a [f32]),
    /// Adds a bias, then takes 1 / (1 + exp(-y)).
    BiasSigmoid(&'a [f32]),
    /// Leaves y as it is and sums it, as rounded by the map, over the batch for batch norm: `[2][k]`, sums and
    /// then sums of squares; overwritten. Runs of at most a few hundred outputs are summed in f32, and those in f64.
    Sums(&'a mut [f64]),
}

impl Conv {
    /// Brings `images` (`[n][c][h][w]`) into the padded order `[n][h + 2 pad][w + 2 pad][c]` that the
    /// convolution reads as [`ConvInput::Image`].
    ///
    /// # Panics
    /// If the convolution reads maps, or a slice has the wrong length.
    pub fn pack_image<E: Element>(&self, team: &Team, images: &[f32], x: &mut [E]) {
        let s = &self.shape;
        assert!(s.reads_image(), "this convolution reads maps, not images: {s:?}");
        let expected = s.batch * s.in_channels * s.in_height * s.in_width;
        assert_eq!(images.len(), expected, "elements of the images");
        check_len("x", x.len(), self.image_len());
        let packed = Shared::new(x);
        let (layout, dtype) = (&self.forward.passes.layout, self.dtype);
        self.run(team, |member| {
            let pack = PackImage { shape: s, layout, dtype, images, packed, member };
            // SAFETY: the machine has `isa`.
            unsafe { dispatch(self.vectors::<E>(), &pack) }
        });
    }

    /// Packs weights for [`Conv::forward`]. `weights` are slices `[k][c][r][s]` that follow one another
    /// along the output channels: siblings that one merged convolution computes, or just one. Each holds
    /// a multiple of 16 output channels. The order of `packed` is the algorithm's own.
    ///
    /// # Panics
    /// If a slice has the wrong length or `packed` is too short.
    pub fn pack(&self, team: &Team, weights: &[&[f32]], packed: &mut [f32]) {
        self.check_weights(weights.iter().map(|w| w.len()));
        check_len("packed weights", packed.len(), self.packed_len());
        self.pack_direction(team, &self.forward, Order::Forward, weights, packed);
    }

    /// Packs weights for [`Conv::backward_input`]; `weights` as for [`Conv::pack`].
    ///
    /// # Panics
    /// If the convolution reads images, a slice has the wrong length, or `packed` is too short.
    pub fn pack_backward(&self, team: &Team, weights: &[&[f32]], packed: &mut [f32]) {
        self.check_weights(weights.iter().map(|w| w.len()));
        check_len("packed weights", packed.len(), self.packed_backward_len());
        let direction = self.backward_input.as_ref().expect(NO_INPUT_GRADIENT);
        self.pack_direction(team, direction, Order::BackwardInput, weights, packed);
    }

    /// y = conv(x, weights), finished by `epilogue`: `x` is `[n][c_block][h][w][16]` or packed images, `y`
    /// is `[n][k_block][out_h][out_w][16]`, of which pixels are written and the halo is left alone, and
    /// `packed` is what [`Conv::pack`] leaves.
    ///
    /// # Panics
    /// If maps or images are not those of the shape, a buffer is too short, the team has not the size
    /// prepared for, or a direct algorithm meets maps of bf16.
    pub fn forward<E: Element>(
        &self,
        team: &Team,
        x: ConvInput<'_, E>,
        packed: &[f32],
        y: PlanesMut<'_, E>,
        epilogue: Epilogue<'_>,
        ws: &mut [f32],
    ) {
        let s = &self.shape;
        check_len("packed weights", packed.len(), self.packed_len());
        check_len("workspace", ws.len(), self.workspace_len());
        self.check_source(x);
        y.expect("y", &s.out_map(), s.batch);
        let (bias, activation, totals) = match epilogue {
            Epilogue::None => (None, None, None),
            Epilogue::Bias(bias) => (Some(bias), None, None),
            Epilogue::BiasRelu(bias) => (Some(bias), Some(Activation::Relu), None),
            Epilogue::BiasSigmoid(bias) => (Some(bias), Some(Activation::Sigmoid), None),
            Epilogue::Sums(sums) => (None, None, Some(sums)),
        };
        assert!(bias.is_none_or(|b| b.len() == s.out_channels), "one bias per output channel");
        let (partial, workspace) = ws.split_at_mut(self.sums_len());
        let sums = totals.is_some().then(|| Shared::new(&mut *partial));
        let dtype = if bias.is_some() { self.dtype } else { Dtype::F32 };
        let finish = Finish { bias, activation, dtype, accumulate: false, sums };
        let operands = Operands { source: x, weights: packed, target: y, finish, workspace };
        self.run_direction(team, &self.forward, operands);
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

    /// dx = the gradient of the input for the output's gradient `dy`; added to `dx` with `accumulate`.
    /// Maps are laid out as `x` and `y` of [`Conv::forward`], and `packed` is what
    /// [`Conv::pack_backward`] leaves.
    ///
    /// # Panics
    /// If the convolution reads images, maps are not those of the shape, a buffer is too short, the team
    /// has not the size prepared for, or a direct algorithm meets maps of bf16.
    pub fn backward_input<E: Element>(
        &self,
        team: &Team,
        dy: Planes<'_, E>,
        packed: &[f32],
        dx: PlanesMut<'_, E>,
        accumulate: bool,
        ws: &mut [f32],
    ) {
        let s = &self.shape;
        let direction = self.backward_input.as_ref().expect(NO_INPUT_GRADIENT);
        check_len("packed weights", packed.len(), self.packed_backward_len());
        check_len("workspace", ws.len(), self.workspace_len());
        dy.expect("dy", &s.out_map(), s.batch);
        dx.expect("dx", &s.in_map(), s.batch);
        let dtype = Dtype::F32;
        let finish = Finish { bias: None, activation: None, dtype, accumulate, sums: None };
        let source = ConvInput::Maps(dy);
        let operands = Operands { source, weights: packed, target: dx, finish, workspace: ws };
        self.run_direction(team, direction, operands);
    }

    /// dw = the gradient of the weights for the output's gradient `dy`, written to slices laid out
    /// as for [`Conv::pack`]; `x` and `dy` are laid out as `x` and `y` of [`Conv::forward`].
    ///
    /// # Panics
    /// If maps or images are not those of the shape, a slice of `dw` has the wrong length, the team has
    /// not the size prepared for, or a direct algorithm meets maps of bf16.
    pub fn backward_weights<E: Element>(
        &self,
        team: &Team,
        x: ConvInput<'_, E>,
        dy: Planes<'_, E>,
        dw: &mut [&mut [f32]],
        ws: &mut [f32],
    ) {
        let s = &self.shape;
        self.check_weights(dw.iter().map(|w| w.len()));
        check_len("workspace", ws.len(), self.workspace_len());
        self.check_source(x);
        dy.expect("dy", &s.out_map(), s.batch);
        // An array, because a training step must not allocate.
        let siblings = dw.len();
        assert!(siblings <= MAX_SIBLINGS, "at most {MAX_SIBLINGS} slices of dw, not {siblings}");
        let mut targets = [Shared::new(&mut []); MAX_SIBLINGS];
        for (target, slice) in targets.iter_mut().zip(dw.iter_mut()) {
            *target = Shared::new(slice);
        }
        let targets = &targets[..siblings];
        match &self.backward_weights {
            WeightsWay::Direct { sum_copies } => {
                self.direct_gradients(team, *sum_copies, x, dy, targets, ws);
            }
            WeightsWay::Winograd(sizes) => {
                self.winograd_gradients(team, sizes, x, dy, targets, ws);
            }
            WeightsWay::Bf16(division) => {
                self.bf16_gradients(team, division, x, dy, targets, ws);
            }
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

    fn check_source<E: Element>(&self, x: ConvInput<'_, E>) {
        match x {
            ConvInput::Maps(maps) => {
                let reads_image = self.shape.reads_image();
                assert!(!reads_image, "this convolution reads images, not maps: {:?}", self.shape);
                maps.expect("x", &self.shape.in_map(), self.shape.batch);
            }
            ConvInput::Image(values) => {
                let reads_image = self.shape.reads_image();
                assert!(reads_image, "this convolution reads maps, not images: {:?}", self.shape);
                check_len("x", values.len(), self.image_len());
            }
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
