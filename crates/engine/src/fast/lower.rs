//! The network's layers as stages that each are one piece of arithmetic over shared maps.
//!
//! A convolution with its batch norm and nonlinearity is one stage, 1x1 convolutions that read the
//! same map may share one, and a concatenation is none: its inputs are written where they belong
//! in the wide map.

use std::ops::Range;

use bninception_kernels::activation::Activation;
use bninception_kernels::conv::{BLOCK, ConvShape, View};
use bninception_kernels::lrn::Lrn;
use bninception_kernels::map::Map;
use bninception_kernels::pool::MaxPool;
use bninception_model::layer::{self, Layer, Op, PoolKind, Shape};
use bninception_model::{Network, ParameterTable, Role};

use crate::error::EngineError;

/// A layer's output: channel blocks of one of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index into [`Lowered::maps`].
    pub id: usize,
    /// Sizes of the layer's own output.
    pub map: Map,
    /// Its blocks within the map.
    pub view: View,
}

/// A network as stages.
#[derive(Clone, Debug)]
pub(super) struct Lowered {
    /// Maps that hold activations, concatenations as one.
    pub maps: Vec<Map>,
    /// What runs, in order.
    pub stages: Vec<Stage>,
    /// What runs behind the last map.
    pub head: Head,
}

/// One piece of arithmetic on maps.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Convolutions of one input.
    Conv(ConvStage),
    /// 3x3 maximum pool.
    MaxPool { name: String, pool: MaxPool, input: Place, output: Place },
    /// 3x3 average pool with stride 1.
    AveragePool { name: String, input: Place, output: Place },
    /// Normalisation across channels.
    Lrn { name: String, lrn: Lrn, input: Place, output: Place },
}

/// Convolutions of one input, run as one.
#[derive(Clone, Debug)]
pub(super) struct ConvStage {
    /// Sizes of all members together; the batch is 0 until a plan is made.
    pub shape: ConvShape,
    /// `None` for the image.
    pub input: Option<Place>,
    /// The convolutions, first output channels first.
    pub members: Vec<Member>,
}

/// One convolution with what follows it. Ranges are places in the flat vectors of
/// [`bninception_model::Weights`].
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The convolution's name.
    pub name: String,
    /// Filters.
    pub weight: Range<usize>,
    /// Bias.
    pub bias: Option<Range<usize>>,
    /// Batch norm.
    pub norm: Option<Norm>,
    /// The nonlinearity.
    pub activation: Activation,
    /// Output of the nonlinearity.
    pub output: Place,
}

/// Batch norm behind a convolution.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    /// Scale.
    pub gamma: Range<usize>,
    /// Shift.
    pub beta: Range<usize>,
    /// Running mean.
    pub mean: Range<usize>,
    /// Running variance.
    pub variance: Range<usize>,
}

/// Global average pool, dropout and the fully connected layer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// What is averaged.
    pub input: Place,
    /// Index of the dropout layer and its probability.
    pub dropout: Option<(usize, f64)>,
    /// Matrix.
    pub weight: Range<usize>,
    /// Bias.
    pub bias: Range<usize>,
    /// Outputs.
    pub classes: usize,
}

impl Head {
    /// Inputs of the fully connected layer.
    pub(super) fn features(&self) -> usize {
        self.input.map.channels
    }
}

impl Stage {
    /// The name that profiles show.
    pub(super) fn name(&self) -> String {
        match self {
            Stage::Conv(stage) => {
                let names: Vec<&str> = stage.members.iter().map(|m| m.name.as_str()).collect();
                names.join(" + ")
            }
            Stage::MaxPool { name, .. }
            | Stage::AveragePool { name, .. }
            | Stage::Lrn { name, .. } => name.clone(),
        }
    }
}

/// Turns `network` into stages. With `merge`, 1x1 convolutions with batch norm that read the same
/// map become one stage.
///
/// # Errors
/// A layer that this engine has no arithmetic for, or not in this place.
pub(super) fn lower(network: &Network, merge: bool) -> Result<Lowered, EngineError> {
    let mut lowering = Lowering {
        network,
        table: ParameterTable::new(network),
        merge,
        maps: Vec::new(),
        places: vec![None; network.layers.len()],
        stages: Vec::new(),
    };
    lowering.place_concatenations()?;
    for index in 0..network.layers.len() {
        lowering.layer(index)?;
    }
    let head = lowering.head()?;
    Ok(Lowered { maps: lowering.maps, stages: lowering.stages, head })
}

struct Lowering<'a> {
    network: &'a Network,
    table: ParameterTable,
    merge: bool,
    maps: Vec<Map>,
    /// Where each layer's output lies, for those whose output lies in a map.
    places: Vec<Option<Place>>,
    stages: Vec<Stage>,
}

impl Lowering<'_> {
    /// Gives each concatenation a map, and each of its inputs a slice of it.
    fn place_concatenations(&mut self) -> Result<(), EngineError> {
        for (index, layer) in self.network.layers.iter().enumerate() {
            if layer.op != Op::Concat {
                continue;
            }
            let place = self.new_map(layer)?;
            self.places[index] = Some(place);
            let mut first = 0;
            for &input in &layer.inputs {
                let part = &self.network.layers[input];
                let map = map_of(part)?;
                // A slice that others read too would need its gradient from both sides.
                self.only_consumer(input)?;
                let view = View { first, ..place.view };
                self.places[input] = Some(Place { id: place.id, map, view });
                first += map.blocks();
            }
        }
        Ok(())
    }

    fn new_map(&mut self, layer: &Layer) -> Result<Place, EngineError> {
        let map = map_of(layer)?;
        self.maps.push(map);
        Ok(Place { id: self.maps.len() - 1, map, view: View::whole(&map) })
    }

    /// The place of a layer's output: a slice of a concatenation or a map of its own.
    fn output(&mut self, index: usize) -> Result<Place, EngineError> {
        if let Some(place) = self.places[index] {
            return Ok(place);
        }
        let place = self.new_map(&self.network.layers[index])?;
        self.places[index] = Some(place);
        Ok(place)
    }

    fn input(&self, layer: &Layer) -> Result<Place, EngineError> {
        let place = layer.inputs.first().and_then(|&input| self.places[input]);
        place.ok_or_else(|| unsupported(layer, "its input is no map"))
    }

    fn only_consumer(&self, index: usize) -> Result<usize, EngineError> {
        let layers = self.network.layers.iter().enumerate();
        let mut consumers = layers.filter(|(_, l)| l.inputs.contains(&index)).map(|(i, _)| i);
        match (consumers.next(), consumers.next()) {
            (Some(consumer), None) => Ok(consumer),
            _ => Err(unsupported(&self.network.layers[index], "one layer must read it, no more")),
        }
    }

    fn trainable(&self, index: usize, role: Role) -> Option<Range<usize>> {
        self.table.trainable_of(index, role).map(|spec| spec.range.clone())
    }

    fn layer(&mut self, index: usize) -> Result<(), EngineError> {
        let layer = &self.network.layers[index];
        match layer.op {
            Op::Conv(conv) => self.conv(index, &conv)?,
            Op::Pool(pool) => {
                let input = self.input(layer)?;
                let output = self.output(index)?;
                let name = layer.name.clone();
                self.stages.push(match (pool.kind, pool.stride) {
                    (PoolKind::Max, stride) => {
                        let pool = MaxPool { input: input.map, stride };
                        Stage::MaxPool { name, pool, input, output }
                    }
                    (PoolKind::Average, 1) => Stage::AveragePool { name, input, output },
                    (PoolKind::Average, _) => {
                        return Err(unsupported(layer, "its average must have stride 1"));
                    }
                });
            }
            Op::Lrn(layer::Lrn { size, alpha, beta }) => {
                let input = self.input(layer)?;
                let output = self.output(index)?;
                if [input, output].iter().any(|place| place.map.blocks() != place.view.blocks) {
                    return Err(unsupported(layer, "it must read and write whole maps"));
                }
                let lrn = Lrn { size, alpha: alpha as f32, beta: beta as f32 };
                let name = layer.name.clone();
                self.stages.push(Stage::Lrn { name, lrn, input, output });
            }
            // Parts of a convolution's stage, of the head, or a matter of places only.
            Op::Image
            | Op::BatchNorm
            | Op::Activation(_)
            | Op::Concat
            | Op::GlobalAveragePool
            | Op::Dropout(_)
            | Op::Linear => {}
        }
        Ok(())
    }

    fn conv(&mut self, index: usize, conv: &layer::Conv) -> Result<(), EngineError> {
        let network = self.network;
        let layer = &network.layers[index];
        let mut last = self.only_consumer(index)?;
        let mut norm = None;
        if network.layers[last].op == Op::BatchNorm {
            norm = self.norm(last);
            last = self.only_consumer(last)?;
        }
        let Op::Activation(activation) = network.layers[last].op else {
            return Err(unsupported(layer, "a nonlinearity must follow it"));
        };
        let Some(weight) = self.trainable(index, Role::ConvWeight) else {
            return Err(unsupported(layer, "it has no filters"));
        };
        let from = network.input_shape(index);
        let reads_image = network.layers[layer.inputs[0]].op == Op::Image;
        let input = if reads_image { None } else { Some(self.input(layer)?) };
        let member = Member {
            name: layer.name.clone(),
            weight,
            bias: self.trainable(index, Role::Bias),
            norm,
            activation: match activation {
                layer::Activation::Relu => Activation::Relu,
                layer::Activation::Sigmoid => Activation::Sigmoid,
            },
            output: self.output(last)?,
        };
        let mergeable = self.merge && conv.kernel == 1 && conv.stride == 1 && member.norm.is_some();
        for stage in &mut self.stages {
            if let Stage::Conv(stage) = stage
                && mergeable
                && stage.input.is_some()
                && stage.input == input
                && (stage.shape.kernel, stage.shape.stride) == (1, 1)
                && stage.members.len() < MAX_MEMBERS
            {
                stage.shape.out_channels += conv.out_channels;
                stage.members.push(member);
                return Ok(());
            }
        }
        let shape = ConvShape {
            batch: 0,
            in_channels: conv.in_channels,
            out_channels: conv.out_channels,
            in_height: from.height,
            in_width: from.width,
            kernel: conv.kernel,
            stride: conv.stride,
            pad: conv.pad,
        };
        self.stages.push(Stage::Conv(ConvStage { shape, input, members: vec![member] }));
        Ok(())
    }

    fn norm(&self, index: usize) -> Option<Norm> {
        let statistic = |role| self.table.statistic_of(index, role).map(|spec| spec.range.clone());
        Some(Norm {
            gamma: self.trainable(index, Role::Scale)?,
            beta: self.trainable(index, Role::Shift)?,
            mean: statistic(Role::RunningMean)?,
            variance: statistic(Role::RunningVar)?,
        })
    }

    /// The last layers: global average pool, dropout if there is one, fully connected.
    fn head(&self) -> Result<Head, EngineError> {
        let layers = &self.network.layers;
        let last = layers.len() - 1;
        let linear = &layers[last];
        let (Some(weight), Some(bias)) =
            (self.trainable(last, Role::LinearWeight), self.trainable(last, Role::Bias))
        else {
            return Err(unsupported(linear, "the last layer must be fully connected"));
        };
        let mut index = linear.inputs[0];
        let mut dropout = None;
        if let Op::Dropout(probability) = layers[index].op {
            dropout = Some((index, probability));
            index = layers[index].inputs[0];
        }
        if layers[index].op != Op::GlobalAveragePool {
            return Err(unsupported(&layers[index], "a global average pool must end the maps"));
        }
        let input = self.input(&layers[index])?;
        Ok(Head { input, dropout, weight, bias, classes: linear.output.channels })
    }
}

/// Multiply-accumulates of one image in one direction.
pub(super) fn macs_of_one_image(stage: &ConvStage) -> usize {
    ConvShape { batch: 1, ..stage.shape }.macs()
}

/// Most convolutions of one stage: the three 1x1 ones of an Inception module.
pub(super) const MAX_MEMBERS: usize = 3;

fn map_of(layer: &Layer) -> Result<Map, EngineError> {
    let Shape { channels, height, width } = layer.output;
    if !channels.is_multiple_of(BLOCK) {
        return Err(unsupported(layer, "its channels are no multiple of 16"));
    }
    Ok(Map { channels, height, width, block: BLOCK })
}

fn unsupported(layer: &Layer, why: &str) -> EngineError {
    EngineError::Unsupported {
        what: format!("layer {} ({}): {why}; it", layer.name, layer.op.kind()),
        engine: "fast",
        hint: "use the reference engine",
    }
}

#[cfg(test)]
mod tests {
    use bninception_model::NetworkOptions;

    use super::*;

    #[test]
    fn every_layer_with_weights_belongs_to_one_stage() {
        for (merge, stages) in [(false, 69 + 12), (true, 69 + 12 - 18)] {
            let network = Network::bn_inception(NetworkOptions::default()).unwrap();
            let lowered = lower(&network, merge).unwrap();
            assert_eq!(lowered.stages.len(), stages);
            let mut ranges: Vec<Range<usize>> = vec![lowered.head.weight, lowered.head.bias];
            for stage in &lowered.stages {
                let Stage::Conv(stage) = stage else { continue };
                let widths = stage.members.iter().map(|member| member.output.map.channels);
                assert_eq!(widths.sum::<usize>(), stage.shape.out_channels);
                for member in &stage.members {
                    let norm = member.norm.as_ref().unwrap();
                    ranges.push(member.weight.clone());
                    ranges.extend([norm.gamma.clone(), norm.beta.clone()]);
                }
            }
            ranges.sort_by_key(|range| range.start);
            let end = ranges.iter().fold(0, |end, range| {
                assert_eq!(range.start, end, "a gap or an overlap");
                range.end
            });
            assert_eq!(end, ParameterTable::new(&network).n_trainable());
        }
    }

    #[test]
    fn branches_fill_the_concatenation_in_order() {
        let network = Network::bn_inception(NetworkOptions::default()).unwrap();
        let lowered = lower(&network, true).unwrap();
        for (id, map) in lowered.maps.iter().enumerate() {
            let mut views: Vec<(usize, usize)> = Vec::new();
            let mut add = |place: &Place| {
                if place.id == id {
                    views.push((place.view.first, place.map.blocks()));
                }
            };
            for stage in &lowered.stages {
                match stage {
                    Stage::Conv(stage) => stage.members.iter().for_each(|m| add(&m.output)),
                    Stage::MaxPool { output, .. }
                    | Stage::AveragePool { output, .. }
                    | Stage::Lrn { output, .. } => add(output),
                }
            }
            views.sort();
            let end = views.iter().fold(0, |end, &(first, blocks)| {
                assert_eq!(first, end);
                first + blocks
            });
            assert_eq!(end, map.blocks(), "map {id} has a block that nothing writes");
        }
    }
}
