//! What GPUs can do at the most, by their data sheets.

/// A kind of GPU. Rates are dense: without the structured sparsity that data sheets double them by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Its name in options.
    pub key: &'static str,
    /// The name by which its driver knows it begins so.
    pub driver_name: &'static str,
    /// Bytes a second from and to its memory.
    pub bandwidth: f64,
    /// Operations a second of products of matrices of bf16.
    pub bf16: f64,
    /// The same of f32 with factors rounded to TF32.
    pub tf32: f64,
    /// Operations a second in f32, without tensor cores.
    pub f32: f64,
}

/// The known cards; of two whose names begin alike the longer stands first.
///
/// H100 and H200: the data sheets <https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet>
/// and <https://www.nvidia.com/en-us/data-center/h200/>. A100: the data sheet
/// <https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf>.
pub const CARDS: [Card; 5] = [
    Card {
        key: "h100-pcie",
        driver_name: "NVIDIA H100 PCIe",
        bandwidth: 2.0e12,
        bf16: 756e12,
        tf32: 378e12,
        f32: 51e12,
    },
    Card {
        key: "h100",
        driver_name: "NVIDIA H100",
        bandwidth: 3.35e12,
        bf16: 989e12,
        tf32: 494e12,
        f32: 67e12,
    },
    Card {
        key: "h200",
        driver_name: "NVIDIA H200",
        bandwidth: 4.8e12,
        bf16: 989e12,
        tf32: 494e12,
        f32: 67e12,
    },
    Card {
        key: "a100-40gb",
        driver_name: "NVIDIA A100-SXM4-40GB",
        bandwidth: 1.555e12,
        bf16: 312e12,
        tf32: 156e12,
        f32: 19.5e12,
    },
    Card {
        key: "a100",
        driver_name: "NVIDIA A100-SXM4-80GB",
        bandwidth: 2.039e12,
        bf16: 312e12,
        tf32: 156e12,
        f32: 19.5e12,
    },
];

impl Card {
    /// The card of this name in options.
    pub fn by_key(key: &str) -> Option<&'static Card> {
        CARDS.iter().find(|card| card.key == key)
    }

    /// The card that a driver calls so.
    pub fn by_driver_name(name: &str) -> Option<&'static Card> {
        CARDS.iter().find(|card| name.starts_with(card.driver_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_known_by_both_names() {
        for (name, key) in [
            ("NVIDIA H100 80GB HBM3", Some("h100")),
            ("NVIDIA H100 PCIe", Some("h100-pcie")),
            ("NVIDIA H200", Some("h200")),
            ("NVIDIA A100-SXM4-80GB", Some("a100")),
            ("NVIDIA A100-SXM4-40GB", Some("a100-40gb")),
            ("NVIDIA GeForce RTX 4090", None),
            ("host", None),
        ] {
            assert_eq!(Card::by_driver_name(name).map(|card| card.key), key, "{name}");
        }
        for card in &CARDS {
            assert_eq!(Card::by_key(card.key), Some(card));
            assert!(card.bf16 > card.tf32 && card.tf32 > card.f32 && card.bandwidth > 1e12);
        }
    }
}
