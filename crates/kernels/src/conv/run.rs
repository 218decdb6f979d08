//! How the checked calls of [`Conv`] reach the kernels.

use super::bf16::division::Division;
use super::bf16::gradients::{self, Gradients as PairGradients};
use super::bf16::multiply::Multiplier;
use super::bf16::outputs::Outputs;
use super::bf16::pack::Pack as PairPack;
use super::copy;
use super::direct::gradients::DirectWeights;
use super::direct::outputs::Direct;
use super::direct::pack::Order;
use super::finish::Finish;
use super::geometry::{Layout, Passes};
use super::kernel::dispatch;
use super::plan::Conv;
use super::winograd::Winograd;
use super::winograd::gradients::{Gradients, Work};
use super::winograd::outputs::Products;
use super::winograd::pack::{Pack, Unpack};
use super::{bf16, direct};
use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::{BLOCK, Map, View};
use crate::simd::isa::Isa;
use crate::team::share::Shared;
use crate::team::threads::Team;
use crate::team::units::Units;

/// Why [`Algorithm::Direct`](super::Algorithm::Direct) refuses maps.
const DIRECT_READS_F32: &str = "the direct algorithm reads and writes f32 maps";

/// What a direction reads and writes.
pub(super) struct Maps<'a, E> {
    pub source: &'a [E],
    pub source_view: View,
    pub target: &'a mut [E],
    pub target_view: View,
}

impl Conv {
    /// Runs `work(thread, threads)` on the team.
    pub(super) fn run(&self, team: &Team, work: impl Fn(usize, usize) + Sync) {
        assert_eq!(team.len(), self.threads, "threads of the team, and those prepared for");
        team.run(&|thread| work(thread, self.threads));
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

    /// The source that the direct kernels read, from the view's first block on, and the distance
    /// between its images: `map` seen through `view`, or a copy of it at the start of `ws`.
    fn source<'a, E: Element>(
        &self,
        team: &Team,
        layout: &Layout,
        map: &Map,
        (source, view): (&'a [E], View),
        copied: &'a mut [f32],
    ) -> (&'a [E], usize) {
        let Some(blocks) = layout.copied_blocks else {
            return (&source[view.first * map.plane()..], view.blocks * map.plane());
        };
        if layout.pixel != BLOCK {
            return (source, layout.plane);
        }
        let copied = E::of_region_mut(copied);
        let shared = Shared::new(&mut *copied);
        let batch = self.shape.batch;
        self.run(team, |thread, threads| {
            copy::widen(map, view, batch, layout, source, shared, thread, threads);
        });
        (copied, blocks * layout.plane)
    }

    /// Packs weights for the direction of `order` with its algorithm.
    pub(super) fn pack_order(
        &self,
        team: &Team,
        order: Order,
        weights: &[&[f32]],
        packed: &mut [f32],
    ) {
        let shape = &self.shape;
        let (winograd, passes, division) = match order {
            Order::Forward => (&self.winograd.forward, Some(&self.forward), &self.pairs.forward),
            Order::BackwardInput => (
                &self.winograd.backward_input,
                self.backward_input.as_ref(),
                &self.pairs.backward_input,
            ),
        };
        let packed = Shared::new(packed);
        let (tile, dtype) = (self.tile, self.dtype);
        if let Some(sizes) = winograd {
            self.run(team, |thread, threads| {
                let pack =
                    Pack { shape, sizes, tile, order, dtype, weights, packed, thread, threads };
                // SAFETY: the machine has `isa`, and the lengths were checked.
                unsafe { dispatch(self.isa, &pack) }
            });
        } else if let (Some(passes), Some(_)) = (passes, division) {
            self.run(team, |thread, threads| {
                let pack = PairPack { shape, passes, order, weights, packed, thread, threads };
                // SAFETY: the machine has `isa`, and the lengths were checked.
                unsafe { dispatch(self.isa, &pack) }
            });
        } else if let Some(passes) = passes {
            self.run(team, |thread, threads| {
                direct::pack::pack(
                    shape, passes, tile, order, dtype, weights, packed, thread, threads,
                );
            });
        }
    }

    /// A direction by a direct algorithm: that of bf16 pairs if there is a division for it, else that
    /// of f32 with so many tiles a chunk. `map_pair` holds the source's and the target's map.
    pub(super) fn direct<E: Element>(
        &self,
        team: &Team,
        (passes, chunk_tiles, division): (&Passes, usize, Option<&Division>),
        map_pair: (Map, Map),
        maps: Maps<E>,
        weights: &[f32],
        finish: Finish,
        sums: Option<Shared>,
        ws: &mut [f32],
    ) {
        let (from, map) = map_pair;
        let source = (maps.source, maps.source_view);
        let (copied, scratch) = ws.split_at_mut(self.copy_len(&passes.layout));
        let (source, source_image) = self.source(team, &passes.layout, &from, source, copied);
        let target = &mut maps.target[maps.target_view.first * map.plane()..];
        if let Some(division) = division {
            let (target, workspace) = (Shared::new(target), Shared::new(scratch));
            let batch = self.shape.batch;
            let passes_of = 0..passes.passes.len();
            let units = passes_of.map(|pass| division.units(passes, pass, batch)).sum();
            return self.run_units(team, units, |thread, units| {
                let outputs = Outputs {
                    passes,
                    division,
                    multiplier: Multiplier::of(self.isa),
                    batch,
                    out_blocks: map.blocks(),
                    source,
                    source_image,
                    weights,
                    target,
                    target_image: maps.target_view.blocks * map.plane(),
                    target_plane: map.plane(),
                    finish,
                    sums,
                    workspace,
                    thread,
                    units,
                };
                // SAFETY: the machine has `isa`, and the buffers were checked to hold their views
                // and the workspace.
                unsafe { dispatch(self.vectors::<E>(), &outputs) }
            });
        }
        let (Some(source), Some(target)) = (E::as_f32(source), E::as_f32_mut(target)) else {
            panic!("{DIRECT_READS_F32}")
        };
        let target = Shared::new(target);
        let (tile, batch, out_blocks) = (self.tile, self.shape.batch, map.blocks());
        let units = direct::outputs::units(passes, tile, chunk_tiles, batch, out_blocks);
        self.run_units(team, units, |_, units| {
            let direct = Direct {
                passes,
                tile,
                chunk_tiles,
                batch,
                out_blocks,
                source,
                source_image,
                weights,
                target,
                target_image: maps.target_view.blocks * map.plane(),
                target_plane: map.plane(),
                finish,
                sums,
                units,
            };
            // SAFETY: the machine has `isa`, and the buffers were checked to hold their views.
            unsafe { dispatch(self.vectors::<E>(), &direct) }
        });
    }

    /// A direction by Winograd's algorithm.
    pub(super) fn products<E: Element>(
        &self,
        team: &Team,
        sizes: &Winograd,
        maps: Maps<E>,
        weights: &[f32],
        finish: Finish,
        sums: Option<Shared>,
        ws: &mut [f32],
    ) {
        // Source and target differ in channels only, and kernels go through them by block.
        let map = Map { channels: BLOCK, ..self.shape.in_map() };
        let source = &maps.source[maps.source_view.first * map.plane()..];
        let target = Shared::new(&mut maps.target[maps.target_view.first * map.plane()..]);
        let workspace = Shared::new(ws);
        let threads = self.threads;
        self.run_units(team, sizes.blocks(threads), |thread, units| {
            let products = Products {
                sizes,
                tile: self.tile,
                map,
                source,
                source_image: maps.source_view.blocks * map.plane(),
                weights,
                target,
                target_image: maps.target_view.blocks * map.plane(),
                finish,
                sums,
                workspace,
                thread,
                threads,
                units,
            };
            // SAFETY: the machine has `isa`, and the buffers were checked to hold their views.
            unsafe { dispatch(self.vectors::<E>(), &products) }
        });
    }

    /// The gradient of the weights by the direct algorithm.
    pub(super) fn direct_weights<E: Element>(
        &self,
        team: &Team,
        x: (&[E], View),
        (dy, dyv): (&[E], View),
        targets: &[Shared],
        ws: &mut [f32],
    ) {
        let shape = &self.shape;
        let layout = &self.forward.layout;
        let (copied, sums) = ws.split_at_mut(self.copy_len(layout));
        let (source, source_image) = self.source(team, layout, &shape.in_map(), x, copied);
        let map = shape.out_map();
        let (Some(source), Some(dy)) = (E::as_f32(source), E::as_f32(dy)) else {
            panic!("{DIRECT_READS_F32}")
        };
        let shared = Shared::new(sums);
        self.run(team, |thread, threads| {
            let direct = DirectWeights {
                passes: &self.forward,
                tile: self.tile,
                batch: shape.batch,
                out_blocks: map.blocks(),
                source,
                source_image,
                gradient: &dy[dyv.first * map.plane()..],
                gradient_image: dyv.blocks * map.plane(),
                gradient_plane: map.plane(),
                sums: shared,
                parts: self.parts,
                thread,
                threads,
            };
            // SAFETY: the machine has `isa`, and the buffers were checked to hold their views.
            unsafe { dispatch(self.vectors::<E>(), &direct) }
        });
        let (passes, tile, parts) = (&self.forward, self.tile, self.parts);
        self.run(team, |thread, threads| {
            direct::pack::unpack(shape, passes, tile, sums, parts, targets, thread, threads);
        });
    }

    /// The gradient of the weights by pairs of bf16 numbers.
    pub(super) fn pair_gradients<E: Element>(
        &self,
        team: &Team,
        division: &gradients::Division,
        x: (&[E], View),
        (dy, dyv): (&[E], View),
        targets: &[Shared],
        ws: &mut [f32],
    ) {
        let (shape, passes, parts) = (&self.shape, &self.forward, division.shares);
        let map = shape.out_map();
        let (copied, rest) = ws.split_at_mut(self.copy_len(&passes.layout));
        let (source, source_image) = self.source(team, &passes.layout, &shape.in_map(), x, copied);
        let sums_len = parts * bf16::pack::sums_len(passes, map.blocks());
        let (sums, scratch) = rest.split_at_mut(sums_len);
        let (shared, workspace) = (Shared::new(&mut *sums), Shared::new(scratch));
        self.run_units(team, division.units(), |thread, units| {
            let gradients = PairGradients {
                passes,
                division,
                multiplier: Multiplier::of(self.isa),
                batch: shape.batch,
                out_blocks: map.blocks(),
                source,
                source_image,
                gradient: &dy[dyv.first * map.plane()..],
                gradient_image: dyv.blocks * map.plane(),
                gradient_plane: map.plane(),
                sums: shared,
                workspace,
                thread,
                units,
            };
            // SAFETY: the machine has `isa`, and the buffers were checked to hold their views and the
            // workspace.
            unsafe { dispatch(self.vectors::<E>(), &gradients) }
        });
        let sums = &*sums;
        self.run(team, |thread, threads| {
            bf16::pack::unpack(shape, passes, sums, parts, targets, thread, threads);
        });
    }

    /// The gradient of the weights by Winograd's algorithm.
    pub(super) fn gradients<E: Element>(
        &self,
        team: &Team,
        sizes: &Winograd,
        (x, xv): (&[E], View),
        (dy, dyv): (&[E], View),
        targets: &[Shared],
        ws: &mut [f32],
    ) {
        let (shape, tile) = (&self.shape, self.tile);
        let map = Map { channels: BLOCK, ..shape.in_map() };
        let (transformed, rest) = ws.split_at_mut(sizes.shares * sizes.transformed_len());
        let sums = &mut rest[..sizes.shares * sizes.weights_len()];
        let transformed = Shared::new(transformed);
        let shared = Shared::new(&mut *sums);
        let run = |work: Work| {
            self.run(team, |thread, threads| {
                let gradients = Gradients {
                    sizes,
                    tile,
                    work,
                    map,
                    source: &x[xv.first * map.plane()..],
                    source_image: xv.blocks * map.plane(),
                    gradient: &dy[dyv.first * map.plane()..],
                    gradient_image: dyv.blocks * map.plane(),
                    transformed,
                    sums: shared,
                    thread,
                    threads,
                };
                // SAFETY: the machine has `isa`, the buffers were checked to hold their views, and a
                // block is summed when all threads have transformed their part of it.
                unsafe { dispatch(self.vectors::<E>(), &gradients) }
            });
        };
        if sizes.shares > 1 {
            run(Work::Shares);
        } else {
            for first in (0..sizes.tiles).step_by(sizes.capacity) {
                run(Work::Transform { first });
                run(Work::Sum { first });
            }
        }
        self.run(team, |thread, threads| {
            let unpack = Unpack { shape, sizes, tile, gradient: sums, targets, thread, threads };
            // SAFETY: the machine has `isa`, and the lengths were checked.
            unsafe { dispatch(self.isa, &unpack) }
        });
    }
}
