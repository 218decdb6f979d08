//! The parts of a network, one behind the other: stem, modules, head. Training can leave the first ones as
//! they are, and give each a learning rate of its own.

use crate::error::ModelError;
use crate::layer::Op;
use crate::network::Network;

/// Layers that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `stem`, the name of a module such as `inception_3a`, or `head`.
    pub name: String,
    /// Its last layer, whose output is all that later parts read of it and of those before it.
    pub last: usize,
}

impl Network {
    /// The parts in their order. The stem ends with the second pool, each module with its concatenation.
    /// The last layers are the head; auxiliary heads belong to it.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for (last, layer) in self.layers.iter().enumerate() {
            let name = match layer.op {
                Op::Concat => layer.name.trim_end_matches("_output"),
                _ if layer.name == "pool2_3x3_s2" => "stem",
                _ => continue,
            };
            parts.push(Part { name: name.to_owned(), last });
        }
        parts.push(Part { name: "head".to_owned(), last: self.layers.len() - 1 });
        parts
    }

    /// The place among [`Network::parts`] of the part that layer `index` belongs to.
    pub fn part_of(&self, index: usize) -> usize {
        let parts = self.parts();
        match self.evaluated_layers()[index] {
            true => parts.iter().position(|part| index <= part.last).unwrap_or(parts.len() - 1),
            false => parts.len() - 1,
        }
    }

    /// This network, of which training leaves the parts of `range` as they are: `stem`, or `stem..NAME` up
    /// to the module of that name. Frozen layers use their running statistics, keep their weights, and get
    /// no gradient.
    ///
    /// # Errors
    /// A name that is no part, a range that does not begin with the stem, the head, or an auxiliary head
    /// that reads a frozen part and so would train nothing but itself.
    pub fn with_frozen(self, range: &str) -> Result<Network, ModelError> {
        let refuse = |reason: String| ModelError::Frozen { range: range.to_owned(), reason };
        let mut parts = self.parts();
        parts.pop();
        let names = || parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
        let (first, last) = range.split_once("..").unwrap_or((range, range));
        for name in [first, last] {
            if !parts.iter().any(|part| part.name == name) {
                return Err(refuse(format!(
                    "there is no part `{name}` to freeze; the parts are {}",
                    names()
                )));
            }
        }
        if first != parts[0].name {
            return Err(refuse(format!(
                "it must begin with `{0}`, because no gradient passes a frozen part: `{0}..{last}`",
                parts[0].name
            )));
        }
        let frozen = parts.iter().find(|part| part.name == last).map_or(0, |part| part.last);
        if let Some(loss) = self.losses.iter().find(|loss| loss.logits <= frozen) {
            return Err(refuse(format!(
                "the auxiliary head {} reads a frozen part: leave auxiliary heads out",
                self.layers[loss.logits].name
            )));
        }
        Ok(Network { frozen, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{AuxOptions, Kind, NetworkOptions};

    fn network(kind: Kind, aux: Option<AuxOptions>) -> Network {
        Network::new(kind, NetworkOptions { aux, ..NetworkOptions::default() }).unwrap()
    }

    #[test]
    fn every_layer_belongs_to_a_part() {
        let modules = |kind| match kind {
            Kind::BnInception => "3a 3b 3c 4a 4b 4c 4d 4e 5a 5b",
            Kind::GoogLeNet => "3a 3b 4a 4b 4c 4d 4e 5a 5b",
        };
        for kind in Kind::ALL {
            let network = network(kind, Some(AuxOptions::default()));
            let parts = network.parts();
            let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
            let modules = modules(kind).split(' ').map(|module| format!("inception_{module}"));
            let expected: Vec<String> =
                ["stem".to_owned()].into_iter().chain(modules).chain(["head".to_owned()]).collect();
            assert_eq!(names, expected);
            for (index, layer) in network.layers.iter().enumerate() {
                let part = names[network.part_of(index)];
                let expected = match layer.name.split('_').collect::<Vec<_>>()[..] {
                    ["inception", module, ..] => format!("inception_{module}"),
                    ["data"] => "stem".to_owned(),
                    ["pool1" | "pool2" | "conv1" | "conv2", ..] => "stem".to_owned(),
                    // The pools between GoogLeNet's modules belong to what reads them.
                    ["pool3", ..] => "inception_4a".to_owned(),
                    ["pool4", ..] => "inception_5a".to_owned(),
                    _ => "head".to_owned(),
                };
                assert_eq!(part, expected, "{}", layer.name);
            }
        }
    }

    #[test]
    fn only_first_parts_can_be_frozen() {
        let last_of = |network: &Network| network.layers[network.frozen].name.clone();
        for (range, last) in [
            ("stem", "pool2_3x3_s2"),
            ("stem..stem", "pool2_3x3_s2"),
            ("stem..inception_4e", "inception_4e_output"),
            ("stem..inception_5b", "inception_5b_output"),
        ] {
            for kind in Kind::ALL {
                let frozen = network(kind, None).with_frozen(range).unwrap();
                assert_eq!(last_of(&frozen), last);
            }
        }
        let with_aux = network(Kind::BnInception, Some(AuxOptions::default()));
        assert_eq!(
            last_of(&with_aux.clone().with_frozen("stem..inception_4a").unwrap()),
            "inception_4a_output"
        );
        for (range, reason) in [
            ("stem..inception_4f", "no part `inception_4f`"),
            ("stem..head", "no part `head`"),
            ("inception_3a..inception_4a", "`stem..inception_4a`"),
            ("inception_3a", "`stem..inception_3a`"),
            ("", "no part ``"),
            ("stem..inception_4b", "the auxiliary head aux1_linear"),
        ] {
            let error = with_aux.clone().with_frozen(range).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
