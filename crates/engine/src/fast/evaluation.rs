//! The plan of evaluation for one batch size. Batch norm is folded into the convolutions, the
//! nonlinearity is part of them, and a map's memory is free again as soon as the map has been read. The
//! first stages, whose maps are large, run few images at a time.

use std::ops::Range;

use bninception_kernels::activation::Activation;
use bninception_kernels::conv::{Conv, ConvInput, ConvShape, Epilogue};
use bninception_kernels::dtype::Dtype;
use bninception_kernels::element::{Element, region_len};
use bninception_kernels::flatten::flatten;
use bninception_kernels::linear::Linear;
use bninception_kernels::lrn;
use bninception_kernels::map::Map;
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::pool::{average, global_average};
use bninception_kernels::run::Run;
use bninception_kernels::team::Team;
use bninception_model::Weights;
use bninception_model::batch::Images;

use super::folded::{Folded, Unfolded};
use super::plain::plain;
use super::plan::{Settings, pack_images};
use crate::lowering::lower::Lowered;
use crate::lowering::memory::{Buffer, Buffers, Places};
use crate::lowering::padded::Padded;
use crate::lowering::stage::{HeadStage, Member, Place, Stage};
use crate::profile::{Clock, Phase, Profile};

/// If a stage reads and writes maps of at least so many bytes an image, it and all stages before it run
/// few images at a time, so that a map is still in a cache when the next stage reads it. In the later
/// stages the weights are larger than the maps, and many images at a time are faster. At 224 px the
/// last such stage ends module 3c in f32 and is the second pool in bf16; on Zen 4, 32 images of f32
/// then took 7 % less time than all at once.
const LARGE: usize = 1 << 20;

/// Images at a time in these stages: the first of these numbers that divides the batch, or else the
/// whole batch.
const FEW: [usize; 4] = [4, 5, 6, 7];

/// How a batch goes through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    /// The first stages, which run one part of the batch after another.
    stages: usize,
    /// Images of a part.
    images: usize,
}

impl Parts {
    fn of(stages: &[Stage], batch: usize, map_dtype: Dtype) -> Parts {
        let is_large = |stage: &Stage| stage.row(map_dtype).bytes >= LARGE;
        let few = FEW.into_iter().find(|few| batch.is_multiple_of(*few));
        match (stages.iter().rposition(is_large), few) {
            (Some(last), Some(images)) => Parts { stages: last + 1, images },
            _ => Parts { stages: 0, images: batch },
        }
    }

    /// Images that a stage runs at a time.
    fn images_of(&self, stage: usize, batch: usize) -> usize {
        if stage < self.stages { self.images } else { batch }
    }
}

/// A map in memory.
struct Value {
    buffer: Buffer,
    /// Elements from one image to the next in a map of the whole batch; 0 in one that holds a part of
    /// it.
    image: usize,
}

impl Value {
    /// Where the images from `first` on lie in the map.
    fn from<'a, E: Element>(&self, map: &'a mut [f32], first: usize) -> &'a mut [E] {
        &mut E::of_region_mut(map)[first * self.image..]
    }
}

/// A planned evaluation with its weights.
pub(super) struct Evaluation {
    batch: usize,
    parts: Parts,
    settings: Settings,
    places: Places,
    values: Vec<Value>,
    workspace: Buffer,
    stages: Vec<EvalStage>,
    /// The map that is made last.
    last: Place,
    /// Makes logits of it, unless the stages are the frozen ones.
    head: Option<HeadStage>,
    features: Vec<f32>,
}

/// A stage with its memory and weights.
enum EvalStage {
    Conv(Box<FoldedConv>),
    Other(Stage),
}

struct FoldedConv {
    conv: Conv,
    input: Option<Place>,
    /// The packed image, for the convolution that reads it.
    image: Option<Buffer>,
    /// Its weights, once they are packed.
    folded: Option<Folded>,
    member: Member,
    /// Whether its tensors lie in the store of padded layers.
    is_stored: bool,
}

impl Evaluation {
    /// Plans evaluation of `batch` images at once with `weights`, which `padded` has taken.
    pub(super) fn new(
        lowered: &Lowered,
        batch: usize,
        settings: Settings,
        team: &Team,
    ) -> Evaluation {
        let head = lowered.heads.last().cloned();
        let Some(last) = head.as_ref().map(|head| head.input).or(lowered.frozen) else {
            unreachable!("stages lead to the head of the logits or to what training reads")
        };
        let parts = Parts::of(&lowered.stages, batch, settings.map_dtype);
        let mut whole = vec![false; lowered.maps.len()];
        for stage in &lowered.stages[parts.stages..] {
            stage.places().for_each(|place| whole[place.id] = true);
        }
        whole[last.id] = true;
        let mut buffers = Buffers::default();
        let mut value = |(map, whole): (&Map, bool)| match whole {
            true => Value { buffer: buffers.add(settings.map_len(map, batch)), image: map.image() },
            false => Value { buffer: buffers.add(settings.map_len(map, parts.images)), image: 0 },
        };
        let values: Vec<Value> =
            lowered.maps.iter().zip(whole.iter().copied()).map(&mut value).collect();
        let workspace = buffers.add(0);
        let mut stages = Vec::with_capacity(lowered.stages.len());
        for (moment, stage) in lowered.stages.iter().enumerate() {
            let batch = parts.images_of(moment, batch);
            let mut touch = |place: &Place| {
                buffers.touch(values[place.id].buffer, moment);
                if moment < parts.stages && whole[place.id] {
                    // It keeps the earlier parts while all of these stages run again.
                    buffers.touch(values[place.id].buffer, 0);
                }
            };
            stage.places().for_each(&mut touch);
            match stage {
                Stage::MaxPool { .. }
                | Stage::AveragePool { .. }
                | Stage::WindowAverage { .. }
                | Stage::Flatten { .. }
                | Stage::Lrn { .. } => stages.push(EvalStage::Other(stage.clone())),
                Stage::Conv(stage) => {
                    let shape = ConvShape { batch, ..stage.shape };
                    let conv = Conv::new(
                        shape,
                        settings.isa,
                        team.len(),
                        settings.winograd,
                        settings.dtype,
                    );
                    let image = stage.input.is_none().then(|| conv.image_len());
                    let image = image
                        .map(|len| buffers.scratch(region_len(settings.map_dtype, len), moment));
                    buffers.touch_len(workspace, conv.workspace_len(), moment);
                    // Evaluation lowers without merging, so there is one.
                    let member = &stage.members[0];
                    stages.push(EvalStage::Conv(Box::new(FoldedConv {
                        conv,
                        input: stage.input,
                        image,
                        folded: None,
                        member: member.clone(),
                        is_stored: stage.stored,
                    })));
                }
            }
        }
        buffers.touch(values[last.id].buffer, lowered.stages.len());
        let n_features = head.as_ref().map_or(0, HeadStage::features);
        let features = vec![0.0; batch * n_features];
        Evaluation {
            batch,
            parts,
            settings,
            places: buffers.place(),
            values,
            workspace,
            stages,
            last,
            head,
            features,
        }
    }

    /// Packs `weights`, which `padded` has loaded, with batch norm folded into them; what `other`, a plan
    /// for another batch size, has packed in the same order is shared.
    pub(super) fn pack(
        &mut self,
        other: Option<&Evaluation>,
        team: &Team,
        padded: &Padded,
        weights: &Weights,
    ) {
        let known = |stage: usize| match other.map(|other| &other.stages[stage]) {
            Some(EvalStage::Conv(work)) => work.folded.as_ref(),
            _ => None,
        };
        let convs = self.stages.iter().enumerate().filter_map(|(stage, work)| match work {
            EvalStage::Conv(work) => Some(Unfolded {
                conv: &work.conv,
                member: &work.member,
                is_stored: work.is_stored,
                known: known(stage),
            }),
            EvalStage::Other(_) => None,
        });
        let convs: Vec<Unfolded<'_>> = convs.collect();
        let folded = Folded::all(&convs, team, padded, weights, self.settings.epsilon);
        let convs = self.stages.iter_mut().filter_map(|work| match work {
            EvalStage::Conv(work) => Some(work),
            EvalStage::Other(_) => None,
        });
        convs.zip(folded).for_each(|(work, folded)| work.folded = Some(folded));
    }

    /// Images that are evaluated at once.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// Values of the packed filters.
    pub(super) fn packed_len(&self) -> usize {
        let packed = self.stages.iter().map(|work| match work {
            EvalStage::Conv(work) => work.conv.packed_len(),
            EvalStage::Other(_) => 0,
        });
        packed.sum()
    }

    /// Length of the arena that the plan needs.
    pub(super) fn arena_len(&self) -> usize {
        self.places.total
    }

    /// Fills `logits` for `images`, if there is a head. The sizes of all arguments have been checked.
    pub(super) fn run<E: Element>(
        &mut self,
        team: &Team,
        arena: &mut [f32],
        profile: &mut Profile,
        images: Images<'_>,
        weights: &Weights,
        logits: &mut [f32],
    ) {
        let mut clock = Clock::start(profile);
        let Parts { stages: first_stages, images: part } = self.parts;
        if first_stages > 0 {
            for first in (0..self.batch).step_by(part) {
                self.run_stages::<E>(
                    team,
                    arena,
                    &mut clock,
                    images,
                    0..first_stages,
                    first..first + part,
                );
            }
        }
        let rest = first_stages..self.stages.len();
        self.run_stages::<E>(team, arena, &mut clock, images, rest, 0..self.batch);

        let Some(head) = &self.head else { return };
        let batch = self.batch;
        let Settings { isa, dtype, .. } = self.settings;
        let [x] = self.places.get(arena, [self.values[head.input.id].buffer]);
        let x = head.input.of(E::of_region(x), batch);
        global_average(Run { team, isa, dtype }, x, &mut self.features);
        let w = &weights.trainable[head.weight.clone()];
        let b = &weights.trainable[head.bias.clone()];
        let linear = Linear { features: head.features(), classes: head.classes };
        linear.forward(team, isa, &self.features, w, b, logits);
        clock.lap(self.stages.len(), Phase::Forward);
    }

    /// The mean of each channel that the head read in the last [`Evaluation::run`], `[n][channels]`.
    pub(super) fn pooled(&self) -> &[f32] {
        &self.features
    }

    /// The maps that these are means of, `[n][channels][rows][columns]`.
    pub(super) fn averaged_maps<E: Element>(&self, arena: &mut [f32]) -> Vec<f32> {
        let map = E::of_region(self.output(arena));
        plain(self.last.of(map, self.batch), |_, value| value)
    }

    /// The map that [`Evaluation::run`] made last, as it lies in memory.
    pub(super) fn output<'a>(&self, arena: &'a mut [f32]) -> &'a [f32] {
        let [map] = self.places.get(arena, [self.values[self.last.id].buffer]);
        map
    }

    /// The maps at two places, of `batch` images from image `first` of the whole batch on.
    fn maps<'a, E: Element>(
        &self,
        arena: &'a mut [f32],
        [input, output]: [&Place; 2],
        first: usize,
        batch: usize,
    ) -> (Planes<'a, E>, PlanesMut<'a, E>) {
        let [a, b] = [input, output].map(|place| &self.values[place.id]);
        let [x, y] = self.places.get(arena, [a.buffer, b.buffer]);
        (input.of(a.from(x, first), batch), output.of_mut(b.from(y, first), batch))
    }

    /// Runs some stages on some images of the batch.
    fn run_stages<E: Element>(
        &self,
        team: &Team,
        arena: &mut [f32],
        clock: &mut Clock,
        images: Images<'_>,
        stages: Range<usize>,
        part: Range<usize>,
    ) {
        let Settings { isa, dtype, .. } = self.settings;
        let run = Run { team, isa, dtype };
        let (first, batch) = (part.start, part.len());
        let value = |place: &Place| &self.values[place.id];
        for row in stages {
            match &self.stages[row] {
                EvalStage::Conv(work) => {
                    let output = value(&work.member.output);
                    let image_len = images.len() / self.batch;
                    let input = match (&work.input, work.image) {
                        (Some(input), _) => value(input).buffer,
                        (None, Some(image)) => {
                            let images = images.slice(part.start * image_len..part.end * image_len);
                            let [x] = self.places.get(arena, [image]);
                            pack_images(&work.conv, team, images, E::of_region_mut(x));
                            clock.lap(row, Phase::Pack);
                            image
                        }
                        (None, None) => unreachable!("a convolution reads a map or an image"),
                    };
                    let buffers = [input, output.buffer, self.workspace];
                    let [x, y, workspace] = self.places.get(arena, buffers);
                    let x = match &work.input {
                        Some(input) => {
                            ConvInput::Maps(input.of(value(input).from::<E>(x, first), batch))
                        }
                        None => ConvInput::Image(E::of_region(x)),
                    };
                    let mut y = work.member.output.of_mut(output.from::<E>(y, first), batch);
                    y.zero_halo();
                    clock.lap(row, Phase::Pointwise);
                    let Some(folded) = &work.folded else {
                        unreachable!("weights are packed before a plan runs")
                    };
                    let epilogue = match work.member.activation {
                        Activation::Relu => Epilogue::BiasRelu(folded.bias()),
                        Activation::Sigmoid => Epilogue::BiasSigmoid(folded.bias()),
                    };
                    work.conv.forward(team, x, folded.packed(), y, epilogue, workspace);
                    clock.lap(row, Phase::Forward);
                    continue;
                }
                EvalStage::Other(Stage::MaxPool { pool, input, output, .. }) => {
                    let (x, y) = self.maps::<E>(arena, [input, output], first, batch);
                    pool.forward(run, x, y, None);
                }
                EvalStage::Other(Stage::AveragePool { input, output, .. }) => {
                    let (x, y) = self.maps::<E>(arena, [input, output], first, batch);
                    average(run, x, y);
                }
                EvalStage::Other(Stage::WindowAverage { pool, input, output, .. }) => {
                    let (x, y) = self.maps::<E>(arena, [input, output], first, batch);
                    pool.forward(run, x, y);
                }
                EvalStage::Other(Stage::Flatten { input, output, .. }) => {
                    let (x, y) = self.maps::<E>(arena, [input, output], first, batch);
                    flatten(team, x, y);
                }
                EvalStage::Other(Stage::Lrn { lrn, input, output, .. }) => {
                    let (x, y) = self.maps::<E>(arena, [input, output], first, batch);
                    lrn::forward(run, lrn, x, y);
                }
                EvalStage::Other(Stage::Conv(_)) => unreachable!("convolutions are planned above"),
            }
            clock.lap(row, Phase::Pointwise);
        }
    }
}

#[cfg(test)]
mod tests {
    use bninception_kernels::simd::isa::Isa;
    use bninception_model::{Network, NetworkOptions, ParameterTable};

    use super::*;
    use crate::lowering::lower::{Purpose, lower};

    #[test]
    fn plans_of_two_batch_sizes_share_their_filters() {
        let options = NetworkOptions { image_size: 64, classes: 3, ..NetworkOptions::default() };
        let network = Network::bn_inception(options).unwrap();
        let mut padded = Padded::new(&network);
        let weights =
            bninception_model::init::initial_weights(&network, &ParameterTable::new(&network), 1);
        padded.load(&weights);
        let lowered = lower(&network, &padded, Purpose::Evaluation, false).unwrap();
        let (isa, dtype, team) = (Isa::chosen(), Dtype::F32, Team::new(1));
        let settings = Settings { isa, dtype, map_dtype: dtype, winograd: true, epsilon: 1e-5 };
        let plan = |batch, other: Option<&Evaluation>| {
            let mut plan = Evaluation::new(&lowered, batch, settings, &team);
            plan.pack(other, &team, &padded, &weights);
            plan
        };
        let folded = |plan: &Evaluation| -> Vec<(*const f32, Vec<f32>)> {
            let folded = plan.stages.iter().filter_map(|work| match work {
                EvalStage::Conv(work) => work.folded.as_ref(),
                EvalStage::Other(_) => None,
            });
            folded.map(|folded| (folded.packed().as_ptr(), folded.packed().to_vec())).collect()
        };
        let whole = plan(32, None);
        let [whole, last, alone] = [&whole, &plan(2, Some(&whole)), &plan(2, None)].map(folded);
        // Two images have too few tiles for Winograd in the middle of the network.
        let shared = whole.iter().zip(&last).filter(|(a, b)| a.0 == b.0).count();
        assert!(shared > 40 && shared <= whole.len(), "{shared} of {}", whole.len());
        // What is shared is what it would have packed itself.
        assert!(last.iter().zip(&alone).all(|(a, b)| a.1 == b.1));
    }

    #[test]
    fn large_maps_take_few_images_at_a_time() {
        for (image_size, map_dtype, batch, last, images) in [
            (224, Dtype::F32, 32, Some("inception_3c_pool"), 4),
            (224, Dtype::Bf16, 32, Some("pool2_3x3_s2"), 4),
            (176, Dtype::Bf16, 12, Some("pool1_3x3_s2"), 4),
            (224, Dtype::F32, 30, Some("inception_3c_pool"), 5),
            (224, Dtype::F32, 31, None, 31),
            (128, Dtype::F32, 4, Some("conv2_3x3"), 4),
            (64, Dtype::F32, 32, None, 32),
        ] {
            let options = NetworkOptions { image_size, ..NetworkOptions::default() };
            let network = Network::bn_inception(options).unwrap();
            let lowered =
                lower(&network, &Padded::new(&network), Purpose::Evaluation, false).unwrap();
            let parts = Parts::of(&lowered.stages, batch, map_dtype);
            let names: Vec<_> = lowered.stages.iter().map(|s| s.row(map_dtype).name).collect();
            let found = parts.stages.checked_sub(1).map(|last| names[last].as_str());
            assert_eq!((found, parts.images), (last, images), "{batch} images of {image_size} px");
        }
    }
}
