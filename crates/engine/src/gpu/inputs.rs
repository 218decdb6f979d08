//! What a step reads besides the state: images, labels, and numbers that change from step to step. A captured
//! step reads them at fixed places in device memory, to which they are copied before it starts.

use std::ops::Range;

use bninception_cuda::ops::head::Targets;
use bninception_cuda::ops::image;
use bninception_cuda::{Device, Event, Map, Pinned, Region, Stream, transfer};
use bninception_model::ParameterTable;
use bninception_model::batch::{Images, Normaliser};
use bninception_model::dropout::dropout_mask;

use super::plan::UNIT;
use crate::error::EngineError;
use crate::executor::{TrainBatch, Update};
use crate::lowering::stage::HeadStage;

/// Copies of a step's inputs on the host: one is copied to the device while the next is filled.
pub(super) const SLOTS: usize = 2;

/// The rate of a tensor that stays as it is, its velocity too ([`bninception_cuda::ops::update::Sgd`]).
const STAYS: f64 = -1.0;

/// Parts of a block begin at a multiple of so many bytes.
const ALIGNMENT: usize = 256;

/// Where the parts of a block lie.
#[derive(Clone, Debug, Default)]
struct Block {
    bytes: usize,
}

impl Block {
    /// The place of a part of `bytes`.
    fn part(&mut self, bytes: usize) -> Range<usize> {
        let start = self.bytes.next_multiple_of(ALIGNMENT);
        self.bytes = start + bytes;
        start..self.bytes
    }
}

/// A head's dropout: its layer, probability, and the values of an image that it may drop.
#[derive(Clone, Copy, Debug)]
struct Dropout {
    layer: usize,
    probability: f64,
    features: usize,
}

/// Parts of what a batch brings besides its images.
#[derive(Clone, Debug)]
struct BatchParts {
    /// Smoothing and own share, f64.
    shares: Range<usize>,
    /// Weight of the batch in the running statistics, f32.
    bn_momentum: Range<usize>,
    /// Factors of classes, f64.
    class_weights: Range<usize>,
    /// u32.
    labels: Range<usize>,
    /// Factors of dropout of each head that has it, f32.
    masks: Vec<Option<Range<usize>>>,
    block: Block,
}

impl BatchParts {
    fn new(dropouts: &[Option<Dropout>], classes: usize, images: usize) -> BatchParts {
        let mut block = Block::default();
        let (shares, bn_momentum) = (block.part(2 * size_of::<f64>()), block.part(UNIT));
        let class_weights = block.part(classes * size_of::<f64>());
        let labels = block.part(images * size_of::<u32>());
        let mask = |dropout: &Dropout| images * dropout.features * UNIT;
        let masks = dropouts.iter();
        let masks = masks.map(|dropout| dropout.as_ref().map(|d| block.part(mask(d)))).collect();
        BatchParts { shares, bn_momentum, class_weights, labels, masks, block }
    }
}

/// Parts of what an update brings.
#[derive(Clone, Debug)]
struct UpdateParts {
    /// Clipping factor, which the device overwrites, and momentum, f32.
    constants: Range<usize>,
    /// Share of the weights in their moving average, f32.
    share: Range<usize>,
    /// Largest norm of the gradient, f64.
    limit: Range<usize>,
    /// Rate and decay of each tensor, f32.
    rates: Range<usize>,
    block: Block,
}

/// One copy of the inputs.
struct Slot {
    images: Pinned,
    staging: Region,
    batch: Pinned,
    update: Pinned,
    /// When the staged images have been read.
    consumed: Option<Event>,
}

/// Images in device memory, as they came from the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    slot: usize,
    region: Region,
    is_levels: bool,
}

/// The inputs, and their places.
pub(super) struct Inputs {
    dropouts: Vec<Option<Dropout>>,
    classes: usize,
    slots: Vec<Slot>,
    next: usize,
    /// For so many images there is room.
    room: usize,
    batch: Region,
    update: Region,
    parts: UpdateParts,
    table: Region,
    normaliser: Option<Normaliser>,
}

/// What an update multiplies the rates of a tensor with, and whether it decays.
pub(super) struct Rates<'a> {
    pub table: &'a ParameterTable,
    /// The last layer that stays as it is.
    pub frozen: usize,
}

impl Inputs {
    /// For heads of `classes` and updates of the tensors of `table`.
    pub(super) fn new(
        device: &mut dyn Device,
        heads: &[HeadStage],
        classes: usize,
        table: &ParameterTable,
    ) -> Result<Inputs, EngineError> {
        let dropout = |head: &HeadStage| {
            let (layer, probability) = head.dropout?;
            Some(Dropout { layer, probability, features: head.features() })
        };
        let mut block = Block::default();
        let parts = UpdateParts {
            constants: block.part(2 * UNIT),
            share: block.part(UNIT),
            limit: block.part(size_of::<f64>()),
            rates: block.part(table.trainable.len() * 2 * UNIT),
            block: Block::default(),
        };
        let parts = UpdateParts { block, ..parts };
        Ok(Inputs {
            dropouts: heads.iter().map(dropout).collect(),
            classes,
            slots: Vec::new(),
            next: 0,
            room: 0,
            batch: Region::none(),
            update: device.allocate(parts.block.bytes)?,
            table: device.allocate(3 * 256 * UNIT)?,
            normaliser: None,
            parts,
        })
    }

    fn batch_parts(&self, images: usize) -> BatchParts {
        BatchParts::new(&self.dropouts, self.classes, images)
    }

    /// Bytes of device memory, and of the host, for batches of `images` of `image_bytes` each.
    pub(super) fn bytes(&self, images: usize, image_bytes: usize) -> (usize, usize) {
        let block = self.batch_parts(images).block.bytes;
        let staged = SLOTS * images * image_bytes;
        let device = staged + block + self.parts.block.bytes;
        (device, staged + SLOTS * (block + self.parts.block.bytes))
    }

    /// Whether there is room for batches of `images` images of `bytes`.
    pub(super) fn has_room(&self, images: usize, bytes: usize) -> bool {
        let fits = |slot: &Slot| slot.images.bytes() >= bytes;
        images <= self.room && self.slots.len() == SLOTS && self.slots.iter().all(fits)
    }

    /// Takes this room. What was captured before knows other places.
    pub(super) fn prepare(
        &mut self,
        device: &mut dyn Device,
        images: usize,
        bytes: usize,
    ) -> Result<(), EngineError> {
        device.synchronise()?;
        let room = self.room.max(images);
        let block = self.batch_parts(room).block.bytes;
        self.room = 0;
        for slot in self.slots.drain(..) {
            for pinned in [slot.images, slot.batch, slot.update] {
                device.free_pinned(pinned);
            }
            device.free(slot.staging);
        }
        if self.batch.bytes() < block {
            let old = std::mem::replace(&mut self.batch, Region::none());
            if old != Region::none() {
                device.free(old);
            }
            self.batch = device.allocate(block)?;
        }
        for _ in 0..SLOTS {
            self.slots.push(Slot {
                images: device.allocate_pinned(bytes)?,
                staging: device.allocate(bytes)?,
                batch: device.allocate_pinned(block)?,
                update: device.allocate_pinned(self.parts.block.bytes)?,
                consumed: None,
            });
        }
        self.room = room;
        Ok(())
    }

    /// Copies images to the device, beside what it computes. There is room for them.
    pub(super) fn stage(
        &mut self,
        device: &mut dyn Device,
        images: Images<'_>,
    ) -> Result<Staged, EngineError> {
        self.next = (self.next + 1) % SLOTS;
        let slot = &mut self.slots[self.next];
        let (bytes, is_levels) = match images {
            Images::Levels { levels, normaliser } => {
                if self.normaliser.as_ref() != Some(normaliser) {
                    let values = bytemuck::cast_slice(normaliser.values().as_flattened());
                    transfer::write(device, values, self.table)?;
                    self.normaliser = Some(normaliser.clone());
                }
                (levels, true)
            }
            Images::Values(values) => (bytemuck::cast_slice(values), false),
        };
        device.pinned_mut(slot.images)?[..bytes.len()].copy_from_slice(bytes);
        if let Some(consumed) = slot.consumed.take() {
            device.wait(Stream::Copy, consumed)?;
            device.free_event(consumed);
        }
        let region = slot.staging.slice(0..bytes.len());
        device.upload(slot.images, region, Stream::Copy)?;
        let arrived = device.record(Stream::Copy)?;
        device.wait(Stream::Compute, arrived)?;
        device.free_event(arrived);
        Ok(Staged { slot: self.next, region, is_levels })
    }

    /// Brings staged images to the place where the first convolution reads them.
    pub(super) fn spread(
        &mut self,
        device: &mut dyn Device,
        staged: Staged,
        to: &Map,
    ) -> Result<(), EngineError> {
        match staged.is_levels {
            true => image::levels(device, staged.region, self.table, to)?,
            false => image::values(device, staged.region, to)?,
        }
        self.slots[staged.slot].consumed = Some(device.record(Stream::Compute)?);
        Ok(())
    }

    /// Copies what a batch brings besides its images, behind [`Inputs::stage`] of its images.
    pub(super) fn bring_batch(
        &mut self,
        device: &mut dyn Device,
        batch: &TrainBatch<'_>,
    ) -> Result<(), EngineError> {
        let images = batch.labels.len();
        let parts = self.batch_parts(images);
        let pinned = self.slots[self.next].batch;
        let block = device.pinned_mut(pinned)?;
        let shares = [batch.label_smoothing, batch.own_share.unwrap_or(1.0)];
        block[parts.shares].copy_from_slice(bytemuck::cast_slice(&shares));
        block[parts.bn_momentum].copy_from_slice(bytemuck::bytes_of(&(batch.bn_momentum as f32)));
        let class_weights: &mut [f64] = bytemuck::cast_slice_mut(&mut block[parts.class_weights]);
        match batch.class_weights {
            Some(weights) => class_weights.copy_from_slice(weights),
            None => class_weights.fill(1.0),
        }
        block[parts.labels].copy_from_slice(bytemuck::cast_slice(batch.labels));
        for (dropout, place) in self.dropouts.iter().zip(parts.masks) {
            if let (Some(dropout), Some(place)) = (dropout, place) {
                let mask = bytemuck::cast_slice_mut(&mut block[place]);
                let Dropout { layer, probability, .. } = *dropout;
                dropout_mask(batch.seed, batch.number, layer, probability, mask);
            }
        }
        device.upload(pinned, self.batch.slice(0..parts.block.bytes), Stream::Compute)?;
        Ok(())
    }

    /// Sets the weight of a batch in the running statistics alone.
    pub(super) fn bring_bn_momentum(
        &mut self,
        device: &mut dyn Device,
        images: usize,
        bn_momentum: f32,
    ) -> Result<(), EngineError> {
        let parts = self.batch_parts(images);
        let pinned = self.slots[self.next].batch;
        let bytes = parts.bn_momentum.end;
        device.pinned_mut(pinned)?[parts.bn_momentum]
            .copy_from_slice(bytemuck::bytes_of(&bn_momentum));
        device.upload(pinned, self.batch.slice(0..bytes), Stream::Compute)?;
        Ok(())
    }

    /// Copies what an update brings.
    pub(super) fn bring_update(
        &mut self,
        device: &mut dyn Device,
        update: &Update<'_>,
        rates: &Rates<'_>,
    ) -> Result<(), EngineError> {
        let parts = &self.parts;
        let pinned = self.slots[self.next].update;
        let block = device.pinned_mut(pinned)?;
        let constants = [1.0, update.sgd.momentum as f32];
        block[parts.constants.clone()].copy_from_slice(bytemuck::cast_slice(&constants));
        let share = (1.0 - update.ema_decay) as f32;
        block[parts.share.clone()].copy_from_slice(bytemuck::bytes_of(&share));
        block[parts.limit.clone()].copy_from_slice(bytemuck::bytes_of(&update.clip_norm));
        let of_tensors: &mut [[f32; 2]] = bytemuck::cast_slice_mut(&mut block[parts.rates.clone()]);
        for (index, spec) in rates.table.trainable.iter().enumerate() {
            let factor = update.sgd.lr_factors.get(index).copied().unwrap_or(1.0);
            let is_frozen = rates.frozen > 0 && spec.layer <= rates.frozen;
            let lr = if is_frozen || factor == 0.0 { STAYS } else { update.sgd.lr * factor };
            let decay = if spec.role.decays() { update.sgd.weight_decay } else { 0.0 };
            of_tensors[index] = [lr as f32, decay as f32];
        }
        device.upload(pinned, self.update, Stream::Compute)?;
        Ok(())
    }

    /// What images should be taken for.
    pub(super) fn targets(&self, images: usize) -> Targets {
        let parts = self.batch_parts(images);
        Targets {
            labels: self.batch.slice(parts.labels),
            class_weights: self.batch.slice(parts.class_weights),
            shares: self.batch.slice(parts.shares),
        }
    }

    /// Factors of each head's dropout.
    pub(super) fn masks(&self, images: usize) -> Vec<Option<Region>> {
        let place = |place: Option<Range<usize>>| place.map(|place| self.batch.slice(place));
        self.batch_parts(images).masks.into_iter().map(place).collect()
    }

    /// Weight of the batch in the running statistics.
    pub(super) fn bn_momentum(&self, images: usize) -> Region {
        self.batch.slice(self.batch_parts(images).bn_momentum)
    }

    /// Clipping factor and momentum.
    pub(super) fn constants(&self) -> Region {
        self.update.slice(self.parts.constants.clone())
    }

    /// Share of the weights in their moving average.
    pub(super) fn share(&self) -> Region {
        self.update.slice(self.parts.share.clone())
    }

    /// Largest norm of the gradient.
    pub(super) fn limit(&self) -> Region {
        self.update.slice(self.parts.limit.clone())
    }

    /// Rate and decay of each tensor.
    pub(super) fn rates(&self) -> Region {
        self.update.slice(self.parts.rates.clone())
    }
}
