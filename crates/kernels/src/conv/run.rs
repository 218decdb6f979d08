//! How the checked calls of [`Conv`] reach the kernels.

use super::bf16::division::Division;
use super::bf16::gradients::{Bf16Gradients, GradientDivision};
use super::bf16::multiply::Multiplier;
use super::bf16::outputs::Bf16Outputs;
use super::bf16::pack::Bf16Pack;
use super::copy::with_border;
use super::direct::gradients::DirectGradients;
use super::direct::outputs::DirectOutputs;
use super::direct::pack::{DirectPack, Order};
use super::finish::Finish;
use super::geometry::{Layout, Passes};
use super::kernel::dispatch;
use super::operands::{ConvInput, Source, Target};
use super::plan::{Conv, Direction, MapWay};
use super::winograd::Winograd;
use super::winograd::gradients::{GradientStep, WinogradGradients};
use super::winograd::outputs::WinogradOutputs;
use super::winograd::pack::{WinogradPack, WinogradUnpack};
use super::{bf16, direct};
use crate::dtype::Dtype;
use crate::element::Element;
use crate::planes::{Planes, PlanesMut};
use crate::simd::isa::Isa;
use crate::team::share::Shared;
use crate::team::threads::Team;
use crate::team::units::{Member, Units};

/// Why [`Algorithm::Direct`](super::Algorithm::Direct) refuses maps.
const DIRECT_READS_F32: &str = "the direct algorithm reads and writes f32 maps";

/// What a direction that makes a map reads and writes.
pub(super) struct Operands<'a, E> {
    pub source: ConvInput<'a, E>,
    /// As the way packs them.
    pub weights: &'a [f32],
    pub target: PlanesMut<'a, E>,
    pub finish: Finish<'a>,
    pub workspace: &'a mut [f32],
}

impl Conv {
    /// Runs `work` on every member of the team.
    pub(super) fn run(&self, team: &Team, work: impl Fn(Member) + Sync) {
        assert_eq!(team.len(), self.threads, "threads of the team, and those prepared for");
        team.run(&|index| work(Member { index, of: self.threads }));
    }

    /// Runs `work(thread, units)` on the team, whose threads take `total` units.
    fn run_units(&self, team: &Team, total: usize, work: impl Fn(usize, Units) + Sync) {
        assert_eq!(team.len(), self.threads, "threads of the team, and those prepared for");
        team.run_units(total, &work);
    }

    /// The set whose registers go through maps of `E`: the instruction that rounds to bf16 is for maps of
    /// it, and f32 evaluation takes 3 % more time where it only might be used.
    pub(super) fn vectors<E: Element>(&self) -> Isa {
        match E::DTYPE {
            Dtype::F32 => self.isa.min(Isa::Avx512),
            Dtype::Bf16 => self.isa,
        }
    }

    /// The source that the kernels read which know [`Layout`]s: what the caller has, or a copy of it at
    /// the start of `copied`.
    fn source<'a, E: Element>(
        &self,
        team: &Team,
        layout: &Layout,
        input: ConvInput<'a, E>,
        copied: &'a mut [f32],
    ) -> Source<'a, E> {
        let (plane, batch) = (layout.plane, self.shape.batch);
        match (input, layout.copied_blocks) {
            (ConvInput::Image(values), _) => {
                Source { values, image: plane, plane, blocks: 1, batch }
            }
            (ConvInput::Maps(maps), None) => Source::of(maps),
            (ConvInput::Maps(maps), Some(blocks)) => {
                let copied = E::of_region_mut(copied);
                let copy = Shared::new(&mut *copied);
                self.run(team, |member| with_border(maps, layout, copy, member));
                Source { values: copied, image: blocks * plane, plane, blocks, batch }
            }
        }
    }

    /// Packs weights for `direction`, whose order is given, in its own way.
    pub(super) fn pack_direction(
        &self,
        team: &Team,
        direction: &Direction,
        order: Order,
        weights: &[&[f32]],
        packed: &mut [f32],
    ) {
        let (shape, passes) = (&self.shape, &direction.passes);
        let packed = Shared::new(packed);
        let (tile, dtype) = (self.tile, self.dtype);
        match &direction.way {
            MapWay::Direct { .. } => {
                let pack = DirectPack { shape, passes, tile, order, dtype, weights, packed };
                self.run(team, |member| pack.run(member));
            }
            MapWay::Winograd(sizes) => self.run(team, |member| {
                let pack =
                    WinogradPack { shape, sizes, tile, order, dtype, weights, packed, member };
                // SAFETY: the machine has `isa`, and the lengths were checked.
                unsafe { dispatch(self.isa, &pack) }
            }),
            MapWay::Bf16(_) => self.run(team, |member| {
                let pack = Bf16Pack { shape, passes, order, weights, packed, member };
                // SAFETY: the machine has `isa`, and the lengths were checked.
                unsafe { dispatch(self.isa, &pack) }
            }),
        }
    }

    /// A direction that makes a map, in its own way.
    pub(super) fn run_direction<E: Element>(
        &self,
        team: &Team,
        direction: &Direction,
        operands: Operands<'_, E>,
    ) {
        let passes = &direction.passes;
        match &direction.way {
            MapWay::Direct { chunk_tiles } => {
                self.direct_outputs(team, passes, *chunk_tiles, operands);
            }
            MapWay::Winograd(sizes) => self.winograd_outputs(team, sizes, operands),
            MapWay::Bf16(division) => self.bf16_outputs(team, passes, division, operands),
        }
    }

    fn direct_outputs<E: Element>(
        &self,
        team: &Team,
        passes: &Passes,
        chunk_tiles: usize,
        operands: Operands<'_, E>,
    ) {
        let Operands { source, weights, target, finish, workspace } = operands;
        let source = self.source(team, &passes.layout, source, workspace);
        let (Some(source), Some(target)) = (source.as_f32(), Target::of_f32(target)) else {
            panic!("{DIRECT_READS_F32}")
        };
        let tile = self.tile;
        let units = direct::outputs::units(passes, tile, chunk_tiles, target.batch, target.blocks);
        self.run_units(team, units, |_, units| {
            let outputs =
                DirectOutputs { passes, tile, chunk_tiles, source, weights, target, finish, units };
            // SAFETY: the machine has `isa`, and source and target are maps or images of the shape, and
            // their lengths have been checked.
            unsafe { dispatch(self.vectors::<E>(), &outputs) }
        });
    }

    fn bf16_outputs<E: Element>(
        &self,
        team: &Team,
        passes: &Passes,
        division: &Division,
        operands: Operands<'_, E>,
    ) {
        let Operands { source, weights, target, finish, workspace } = operands;
        let (copied, scratch) = workspace.split_at_mut(self.copy_len(&passes.layout));
        let source = self.source(team, &passes.layout, source, copied);
        let (target, workspace) = (Target::of(target), Shared::new(scratch));
        let batch = self.shape.batch;
        let units = (0..passes.passes.len()).map(|pass| division.units(passes, pass, batch)).sum();
        let multiplier = Multiplier::of(self.isa);
        self.run_units(team, units, |thread, units| {
            let outputs = Bf16Outputs {
                passes,
                division,
                multiplier,
                source,
                weights,
                target,
                finish,
                workspace,
                thread,
                units,
            };
            // SAFETY: the machine has `isa`; source and target are maps or images of the shape, and
            // their lengths and that of the workspace have been checked.
            unsafe { dispatch(self.vectors::<E>(), &outputs) }
        });
    }

    fn winograd_outputs<E: Element>(
        &self,
        team: &Team,
        sizes: &Winograd,
        operands: Operands<'_, E>,
    ) {
        let Operands { source, weights, target, finish, workspace } = operands;
        let source = Source::of(maps_of(source));
        let (target, workspace) = (Target::of(target), Shared::new(workspace));
        let (tile, threads) = (self.tile, self.threads);
        self.run_units(team, sizes.blocks(threads), |thread, units| {
            let member = Member { index: thread, of: threads };
            let outputs = WinogradOutputs {
                sizes,
                tile,
                source,
                weights,
                target,
                finish,
                workspace,
                member,
                units,
            };
            // SAFETY: the machine has `isa`; source and target are maps of the shape, and their lengths
            // and that of the workspace have been checked.
            unsafe { dispatch(self.vectors::<E>(), &outputs) }
        });
    }

    /// The gradient of the weights by the direct algorithm.
    pub(super) fn direct_gradients<E: Element>(
        &self,
        team: &Team,
        sum_copies: usize,
        x: ConvInput<'_, E>,
        dy: Planes<'_, E>,
        targets: &[Shared],
        ws: &mut [f32],
    ) {
        let (shape, passes, tile) = (&self.shape, &self.forward.passes, self.tile);
        let (copied, sums) = ws.split_at_mut(self.copy_len(&passes.layout));
        let source = self.source(team, &passes.layout, x, copied);
        let (Some(source), Some(gradient)) = (source.as_f32(), Source::of(dy).as_f32()) else {
            panic!("{DIRECT_READS_F32}")
        };
        let shared = Shared::new(&mut *sums);
        self.run(team, |member| {
            let gradients = DirectGradients {
                passes,
                tile,
                source,
                gradient,
                sums: shared,
                sum_copies,
                member,
            };
            // SAFETY: the machine has `isa`; source and gradient are maps or images of the shape, and
            // their lengths and that of the sums have been checked.
            unsafe { dispatch(self.vectors::<E>(), &gradients) }
        });
        let sums = &*sums;
        self.run(team, |member| {
            direct::pack::unpack(shape, passes, tile, sums, sum_copies, targets, member);
        });
    }

    /// The gradient of the weights by products of bf16 numbers.
    pub(super) fn bf16_gradients<E: Element>(
        &self,
        team: &Team,
        division: &GradientDivision,
        x: ConvInput<'_, E>,
        dy: Planes<'_, E>,
        targets: &[Shared],
        ws: &mut [f32],
    ) {
        let (shape, passes) = (&self.shape, &self.forward.passes);
        let sum_copies = division.sum_copies;
        let (copied, rest) = ws.split_at_mut(self.copy_len(&passes.layout));
        let source = self.source(team, &passes.layout, x, copied);
        let gradient = Source::of(dy);
        let sums_len = sum_copies * bf16::pack::sums_len(passes, gradient.blocks);
        let (sums, scratch) = rest.split_at_mut(sums_len);
        let (shared, workspace) = (Shared::new(&mut *sums), Shared::new(scratch));
        let multiplier = Multiplier::of(self.isa);
        self.run_units(team, division.units(), |thread, units| {
            let gradients = Bf16Gradients {
                passes,
                division,
                multiplier,
                source,
                gradient,
                sums: shared,
                workspace,
                thread,
                units,
            };
            // SAFETY: the machine has `isa`; source and gradient are maps or images of the shape, and
            // their lengths and that of the workspace have been checked.
            unsafe { dispatch(self.vectors::<E>(), &gradients) }
        });
        let sums = &*sums;
        self.run(team, |member| {
            bf16::pack::unpack(shape, passes, sums, sum_copies, targets, member);
        });
    }

    /// The gradient of the weights by Winograd's algorithm.
    pub(super) fn winograd_gradients<E: Element>(
        &self,
        team: &Team,
        sizes: &Winograd,
        x: ConvInput<'_, E>,
        dy: Planes<'_, E>,
        targets: &[Shared],
        ws: &mut [f32],
    ) {
        let (shape, tile) = (&self.shape, self.tile);
        let (source, gradient) = (Source::of(maps_of(x)), Source::of(dy));
        let (transformed, rest) = ws.split_at_mut(sizes.sum_copies * sizes.transformed_len());
        let sums = &mut rest[..sizes.sum_copies * sizes.weights_len()];
        let transformed = Shared::new(transformed);
        let shared = Shared::new(&mut *sums);
        let run = |work: GradientStep| {
            self.run(team, |member| {
                let gradients = WinogradGradients {
                    sizes,
                    tile,
                    work,
                    source,
                    gradient,
                    transformed,
                    sums: shared,
                    member,
                };
                // SAFETY: the machine has `isa`; source and gradient are maps of the shape, their lengths
                // have been checked, and a block is summed when all threads have
                // transformed their part of it.
                unsafe { dispatch(self.vectors::<E>(), &gradients) }
            });
        };
        if sizes.sum_copies > 1 {
            run(GradientStep::SumCopies);
        } else {
            for first in (0..sizes.tiles).step_by(sizes.capacity) {
                run(GradientStep::Transform { first });
                run(GradientStep::Sum { first });
            }
        }
        let gradient = &*sums;
        self.run(team, |member| {
            let unpack = WinogradUnpack { shape, sizes, tile, gradient, targets, member };
            // SAFETY: the machine has `isa`, and the lengths were checked.
            unsafe { dispatch(self.isa, &unpack) }
        });
    }
}

/// The maps that Winograd's algorithm reads.
fn maps_of<E>(input: ConvInput<'_, E>) -> Planes<'_, E> {
    match input {
        ConvInput::Maps(maps) => maps,
        ConvInput::Image(_) => unreachable!("Winograd's algorithm supports no images"),
    }
}
