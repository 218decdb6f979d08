//! The network's layers as stages. Each stage is one piece of arithmetic over shared maps.
//!
//! A convolution with its batch norm and nonlinearity is one stage, and 1x1 convolutions that read the
//! same map may share a stage. A concatenation needs no stage: its inputs are written to their places
//! in the wide map.

use std::ops::Range;

use bninception_kernels::activation::Activation;
use bninception_kernels::conv::ConvShape;
use bninception_kernels::flatten::flat;
use bninception_kernels::lrn::Lrn;
use bninception_kernels::map::{Map, View};
use bninception_kernels::pool::MaxPool;
use bninception_kernels::window_average::WindowAverage;
use bninception_model::layer::{self, AuxPool, Layer, Op, PoolKind, Shape};
use bninception_model::network::Loss;
use bninception_model::{Network, ParameterTable, Role};

use super::padded::Padded;
use super::stage::{ConvStage, HeadStage, MAX_MEMBERS, Member, Norm, Place, Stage};
use crate::error::EngineError;

/// A network as stages.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    /// Maps that hold activations, concatenations as one.
    pub maps: Vec<Map>,
    /// The stages, in the order in which they run.
    pub stages: Vec<Stage>,
    /// The heads, which run after the stages: auxiliary heads if they are wanted, then that of the
    /// logits.
    pub heads: Vec<HeadStage>,
    /// The output of the last frozen layer, if there is one: what stages for training read and do not
    /// write, and those of the frozen layers write last.
    pub frozen: Option<Place>,
}

/// What a lowered network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// All layers behind the frozen ones, and all heads.
    Training,
    /// The frozen layers.
    Frozen,
    /// Only the logits.
    Evaluation,
}

/// Turns a network into stages. Ranges of tensors are those of `network`, except for the layers that
/// `padded` stores. With `merge`, 1x1 convolutions with batch norm that read the same map become one stage.
///
/// # Errors
/// A layer that this engine cannot compute, or not in this place.
pub(crate) fn lower(
    network: &Network,
    padded: &Padded,
    purpose: Purpose,
    merge: bool,
) -> Result<Lowered, EngineError> {
    let wide = padded.network();
    let mut lowering = Lowering {
        network: wide,
        padded,
        table: ParameterTable::new(network),
        merge,
        maps: Vec::new(),
        places: vec![None; wide.layers.len()],
        stages: Vec::new(),
    };
    lowering.place_concatenations()?;
    let (n_layers, frozen) = (wide.layers.len(), network.frozen);
    let (runs, losses): (Vec<bool>, _) = match purpose {
        Purpose::Training => {
            ((0..n_layers).map(|index| index > frozen).collect(), &wide.losses[..])
        }
        Purpose::Frozen => {
            let evaluated = wide.evaluated_layers().into_iter().enumerate();
            (evaluated.map(|(index, runs)| runs && index <= frozen).collect(), &[][..])
        }
        Purpose::Evaluation => (wide.evaluated_layers(), &wide.losses[wide.losses.len() - 1..]),
    };
    let is_split = frozen > 0 && purpose != Purpose::Evaluation;
    let frozen = is_split.then(|| lowering.output(frozen)).transpose()?;
    for index in runs.iter().enumerate().filter(|(_, runs)| **runs).map(|(index, _)| index) {
        lowering.layer(index)?;
    }
    let heads = losses.iter().map(|loss| lowering.head(loss)).collect::<Result<_, _>>()?;
    Ok(Lowered { maps: lowering.maps, stages: lowering.stages, heads, frozen })
}

struct Lowering<'a> {
    /// The network with channels added.
    network: &'a Network,
    padded: &'a Padded,
    /// Of the network without.
    table: ParameterTable,
    merge: bool,
    maps: Vec<Map>,
    /// Where each layer's output lies, if it lies in a map.
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
                let map = self.map_of(part)?;
                // A slice that other layers read too would get its gradient from two sides.
                self.only_reader(input)?;
                let view = View { first, ..place.view };
                self.places[input] = Some(Place { id: place.id, map, view });
                first += map.blocks();
            }
        }
        Ok(())
    }

    fn map_of(&self, layer: &Layer) -> Result<Map, EngineError> {
        let Shape { channels, height, width } = layer.output;
        if !channels.is_multiple_of(self.padded.multiple()) {
            return Err(unsupported(layer, "the number of its channels"));
        }
        Ok(Map { channels, height, width })
    }

    fn new_map(&mut self, layer: &Layer) -> Result<Place, EngineError> {
        Ok(self.add_map(self.map_of(layer)?))
    }

    fn add_map(&mut self, map: Map) -> Place {
        self.maps.push(map);
        Place { id: self.maps.len() - 1, map, view: View::whole(&map) }
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

    fn only_reader(&self, index: usize) -> Result<usize, EngineError> {
        let why = "one layer must read it, no more";
        self.network.only_reader(index).ok_or_else(|| unsupported(&self.network.layers[index], why))
    }

    fn trainable(&self, index: usize, role: Role) -> Option<Range<usize>> {
        if self.padded.stores(index) {
            return self.padded.trainable(index, role);
        }
        self.table.trainable_of(index, role).map(|spec| spec.range.clone())
    }

    fn layer(&mut self, index: usize) -> Result<(), EngineError> {
        let layer = &self.network.layers[index];
        match layer.op {
            Op::Conv(conv) => {
                let from = self.network.input_shape(index);
                let reads_image = self.network.layers[layer.inputs[0]].op == Op::Image;
                let input = if reads_image { None } else { Some(self.input(layer)?) };
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
                self.conv(index, Role::ConvWeight, shape, input)?;
            }
            Op::Linear { .. } if self.network.losses.iter().any(|loss| loss.logits == index) => {}
            Op::Linear { .. } => self.hidden(index)?,
            Op::AuxPool(_) => {
                let input = self.input(layer)?;
                let output = self.output(index)?;
                let (kernel, stride) = (AuxPool::KERNEL, AuxPool::STRIDE);
                let pool = WindowAverage { input: input.map, kernel, stride };
                let name = layer.name.clone();
                self.stages.push(Stage::WindowAverage { name, pool, input, output });
            }
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
            | Op::Dropout(_) => {}
        }
        Ok(())
    }

    /// A fully connected layer before a nonlinearity.
    fn hidden(&mut self, index: usize) -> Result<(), EngineError> {
        let layer = &self.network.layers[index];
        let mut input = self.input(layer)?;
        if self.network.input_shape(index).pixels() > 1 {
            let output = self.add_map(flat(&input.map));
            let name = format!("{}_input", layer.name);
            self.stages.push(Stage::Flatten { name, input, output });
            input = output;
        }
        let shape = ConvShape {
            batch: 0,
            in_channels: input.map.channels,
            out_channels: layer.output.channels,
            in_height: 1,
            in_width: 1,
            kernel: 1,
            stride: 1,
            pad: 0,
        };
        self.conv(index, Role::LinearWeight, shape, Some(input))
    }

    /// A convolution with the batch norm and the nonlinearity that follow it.
    fn conv(
        &mut self,
        index: usize,
        role: Role,
        shape: ConvShape,
        input: Option<Place>,
    ) -> Result<(), EngineError> {
        let layer = &self.network.layers[index];
        let mut last = self.only_reader(index)?;
        let mut norm = None;
        if self.network.layers[last].op == Op::BatchNorm {
            norm = self.norm(last);
            last = self.only_reader(last)?;
        }
        let Op::Activation(activation) = self.network.layers[last].op else {
            return Err(unsupported(layer, "a nonlinearity must follow it"));
        };
        let Some(weight) = self.trainable(index, role) else {
            return Err(unsupported(layer, "it has no filters"));
        };
        let stored = self.padded.stores(index);
        let member = Member {
            layer: index,
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
        let mergeable =
            self.merge && shape.kernel == 1 && shape.stride == 1 && member.norm.is_some();
        for stage in &mut self.stages {
            if let Stage::Conv(stage) = stage
                && mergeable
                && stage.input.is_some()
                && (stage.input, stage.stored) == (input, stored)
                && (stage.shape.kernel, stage.shape.stride) == (1, 1)
                && stage.members.len() < MAX_MEMBERS
            {
                stage.shape.out_channels += shape.out_channels;
                stage.members.push(member);
                return Ok(());
            }
        }
        let members = vec![member];
        self.stages.push(Stage::Conv(ConvStage { stored, shape, input, members }));
        Ok(())
    }

    fn norm(&self, index: usize) -> Option<Norm> {
        let statistic = |role| match self.padded.stores(index) {
            true => self.padded.statistic(index, role),
            false => self.table.statistic_of(index, role).map(|spec| spec.range.clone()),
        };
        Some(Norm {
            gamma: self.trainable(index, Role::Scale)?,
            beta: self.trainable(index, Role::Shift)?,
            mean: statistic(Role::RunningMean)?,
            variance: statistic(Role::RunningVar)?,
        })
    }

    /// The last layers before a loss: global average pool or a map of 1x1, dropout if the network has
    /// it, fully connected layer.
    fn head(&self, loss: &Loss) -> Result<HeadStage, EngineError> {
        let layers = &self.network.layers;
        let linear = &layers[loss.logits];
        let (Some(weight), Some(bias)) = (
            self.trainable(loss.logits, Role::LinearWeight),
            self.trainable(loss.logits, Role::Bias),
        ) else {
            return Err(unsupported(linear, "logits come from a fully connected layer with bias"));
        };
        let mut index = linear.inputs[0];
        let mut dropout = None;
        if let Op::Dropout(probability) = layers[index].op {
            dropout = Some((index, probability));
            index = layers[index].inputs[0];
        }
        let input = match layers[index].op {
            Op::GlobalAveragePool => self.input(&layers[index])?,
            _ => match self.places[index] {
                Some(place) if layers[index].output.pixels() == 1 => place,
                _ => {
                    return Err(unsupported(&layers[index], "a global average pool must end maps"));
                }
            },
        };
        let is_main = loss.logits == layers.len() - 1;
        Ok(HeadStage {
            name: if is_main { "head".to_owned() } else { linear.name.clone() },
            loss_weight: loss.weight,
            input,
            dropout,
            weight,
            bias,
            classes: linear.output.channels,
        })
    }
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
    use bninception_kernels::dtype::Dtype;
    use bninception_model::{AuxOptions, BatchNormOptions, Kind, NetworkOptions};

    use super::*;

    fn lowered(network: &Network, merge: bool) -> (Lowered, Padded) {
        let padded = Padded::new(network);
        (lower(network, &padded, Purpose::Training, merge).unwrap(), padded)
    }

    /// Both networks with all their options.
    fn full(kind: Kind) -> Network {
        let batch_norm = Some(BatchNormOptions { epsilon: 1e-5 });
        let aux = Some(AuxOptions::default());
        let options = NetworkOptions { batch_norm, aux, ..NetworkOptions::default() };
        Network::new(kind, options).unwrap()
    }

    #[test]
    fn every_layer_with_weights_belongs_to_one_stage() {
        // GoogLeNet's merge does not take in the reductions to 24 channels of 4b and 4c. A head has
        // a pool, a convolution, a flattening, and a fully connected layer.
        let (bn_inception, googlenet) = (69 + 12, 57 + 4 + 9);
        let cases = [
            (Kind::BnInception, false, bn_inception + 8),
            (Kind::BnInception, true, bn_inception + 8 - 18),
            (Kind::GoogLeNet, false, googlenet + 8),
            (Kind::GoogLeNet, true, googlenet + 8 - 2 * 7 - 2),
        ];
        for (kind, merge, stages) in cases {
            let network = full(kind);
            let (lowered, padded) = lowered(&network, merge);
            assert_eq!(lowered.stages.len(), stages, "{kind:?}, merged {merge}");
            let mut ranges: Vec<Range<usize>> = Vec::new();
            for head in &lowered.heads {
                ranges.extend([head.weight.clone(), head.bias.clone()]);
            }
            let mut stored: Vec<Range<usize>> = Vec::new();
            for stage in &lowered.stages {
                let Stage::Conv(stage) = stage else { continue };
                let widths = stage.members.iter().map(|member| member.output.map.channels);
                assert_eq!(widths.sum::<usize>(), stage.shape.out_channels);
                for member in &stage.members {
                    let norm = member.norm.as_ref().unwrap();
                    let ranges = if stage.stored { &mut stored } else { &mut ranges };
                    ranges.push(member.weight.clone());
                    ranges.extend([norm.gamma.clone(), norm.beta.clone()]);
                }
            }
            // The store holds the rest of the caller's vector, padded.
            let table = ParameterTable::new(&network);
            let left_out = table.trainable.iter().filter(|spec| padded.stores(spec.layer));
            ranges.extend(left_out.map(|spec| spec.range.clone()));
            assert_eq!(cover(&mut ranges), table.n_trainable());
            assert_eq!(cover(&mut stored), padded.gradients.len());
        }
    }

    /// The end of ranges that follow one another without a gap.
    fn cover(ranges: &mut [Range<usize>]) -> usize {
        ranges.sort_by_key(|range| range.start);
        ranges.iter().fold(0, |end, range| {
            assert_eq!(range.start, end, "a gap or an overlap");
            range.end
        })
    }

    #[test]
    fn evaluation_has_no_auxiliary_head() {
        for kind in Kind::ALL {
            let with = full(kind);
            let options = NetworkOptions { aux: None, ..with.options.clone() };
            let without = Network::new(kind, options).unwrap();
            let names = |network: &Network| -> Vec<String> {
                let lowered =
                    lower(network, &Padded::new(network), Purpose::Evaluation, false).unwrap();
                assert_eq!(lowered.heads.len(), 1);
                lowered.stages.iter().map(|stage| stage.row(Dtype::F32).name).collect()
            };
            assert_eq!(names(&with), names(&without));
        }
    }

    #[test]
    fn branches_fill_the_concatenation_in_order() {
        for kind in Kind::ALL {
            let (lowered, _) = lowered(&full(kind), true);
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
                        | Stage::WindowAverage { output, .. }
                        | Stage::Flatten { output, .. }
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
}
