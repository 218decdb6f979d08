//! The page about a model (<https://huggingface.co/docs/hub/model-cards>), written from what its checkpoint
//! knows: nothing that was not measured stands in it.

use std::path::Path;

use serde_json::Value;

use super::exported::Exported;
use super::storage::Storage;
use crate::evaluation::interval::Interval;
use crate::evaluation::majority::Majority;
use crate::evaluation::statistics::{self, Statistics};
use crate::images::class_counts::IMBALANCE;
use crate::run::image_lists::ClassImages;
use crate::run::metadata::Metadata;
use crate::run::state::EvaluationResult;
use crate::terminal::text::{duration, grouped, has_top5, one_line, percent};

/// Classes in the table; the rest stand in config.json.
const MOST_CLASSES: usize = 50;

/// What a page is written from.
#[derive(Clone, Copy, Debug)]
pub struct ModelCard<'a> {
    /// The model's name.
    pub name: &'a str,
    /// What the checkpoint says about itself.
    pub metadata: &'a Metadata,
    /// Batch norm statistics in the file; none without batch norm.
    pub statistics: Option<Statistics>,
}

impl ModelCard<'_> {
    /// The page, as Markdown behind its front matter.
    pub fn to_text(&self, exported: &Exported<'_>, storage: Storage, has_curves: bool) -> String {
        let sections = [
            self.front_matter(),
            self.summary(exported),
            self.usage(exported),
            self.classes(),
            self.evaluation(),
            self.training(has_curves),
            self.limits(storage),
        ];
        sections.join("\n")
    }

    /// The evaluation of exactly these weights with these statistics, if there is one.
    fn result(&self) -> Option<EvaluationResult> {
        let progress = &self.metadata.progress;
        let is_of_weights = progress.evaluated_step == Some(self.metadata.step);
        let result = progress.evaluation.filter(|_| is_of_weights)?;
        (result.statistics == self.statistics).then_some(result)
    }

    fn front_matter(&self) -> String {
        // A JSON string is one of YAML.
        let name = Value::from(self.name);
        let mut text = "---\npipeline_tag: image-classification\nlibrary_name: pytorch\ntags:\n\
                        - image-classification\n- bn-inception\n- inception-v2\n"
            .to_owned();
        if let Some(result) = self.result() {
            text.push_str(&format!(
                "model-index:\n- name: {name}\n  results:\n  - task:\n      type: image-classification\n    \
                 dataset:\n      name: {}\n      type: imagefolder\n      split: validation\n    metrics:\n    \
                 - type: accuracy\n      value: {:.4}\n",
                Value::from(self.data()),
                result.top1
            ));
        }
        text + "---\n"
    }

    /// The name of the folder of validation images.
    fn data(&self) -> String {
        let dirs = &self.metadata.data_dirs;
        let dir = if dirs.val_dir.is_empty() { &dirs.dir } else { &dirs.val_dir };
        match Path::new(dir).file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => "the images of its run".to_owned(),
        }
    }

    fn summary(&self, exported: &Exported<'_>) -> String {
        let weights = exported.tensors().iter().map(|(_, values)| values.len()).sum::<usize>();
        format!(
            "# {}\n\n[BN-Inception](https://arxiv.org/abs/1502.03167) (Inception-v2) that names the class of \
             an image, one of {}, at {} px. It has {:.1} million values. {} with {}.\n",
            one_line(self.name),
            exported.classes.len(),
            exported.preprocessing.image_size,
            weights as f64 / 1e6,
            if self.metadata.origin_without_run().is_none() { "Trained" } else { "Written" },
            self.metadata.program
        )
    }

    fn usage(&self, exported: &Exported<'_>) -> String {
        let input = exported.input();
        let size = exported.preprocessing.image_size;
        let resized = (size as f64 / exported.preprocessing.crop_ratio).round();
        let opened = match exported.preprocessing.exif {
            true => "ImageOps.exif_transpose(Image.open(\"IMAGE\"))",
            false => "Image.open(\"IMAGE\")",
        };
        let filter = input["interpolation"].as_str().unwrap_or("bilinear").to_uppercase();
        format!(
            "## Use\n\nWith PyTorch, torchvision and safetensors, in this folder:\n\n```python\n\
             import json\n\nimport torch\nfrom PIL import Image, ImageOps\n\
             from safetensors.torch import load_file\n\
             from torchvision.transforms import v2\n\nfrom bn_inception import BnInception\n\n\
             config = json.load(open(\"config.json\"))\n\
             network = BnInception(config[\"num_classes\"], **config[\"model_args\"]).eval()\n\
             network.load_state_dict(load_file(\"model.safetensors\"))\n\
             view = v2.Compose([\n    v2.Resize({resized}, v2.InterpolationMode.{filter}),\n    \
             v2.CenterCrop({size}),\n    v2.PILToTensor(),\n    v2.ToDtype(torch.float32, scale=True),\n    \
             v2.Normalize({}, {}),\n])\n\
             image = {opened}.convert(\"RGB\")\n\
             with torch.inference_mode():\n    \
             probabilities = network(view(image)[None]).softmax(1)[0]\n\
             print(config[\"label_names\"][probabilities.argmax()], probabilities.max().item())\n```\n\n\
             With `bninception`:\n\n```\nbninception import model.safetensors model.ckpt.safetensors\n\
             bninception predict model.ckpt.safetensors IMAGE\n```\n",
            input["mean"], input["std"]
        )
    }

    fn classes(&self) -> String {
        let Metadata { classes, images, .. } = self.metadata;
        let number = |list: &[ClassImages], class: usize| {
            list.get(class).map_or("unknown".to_owned(), |images| grouped(images.0))
        };
        let rows = classes.iter().enumerate().take(MOST_CLASSES).map(|(class, name)| {
            let [train, val] = [&images.train, &images.val].map(|list| number(list, class));
            format!("| {} | {train} | {val} |\n", cell(name))
        });
        let mut text = format!(
            "## Classes\n\n| class | training images | validation images |\n|---|---:|---:|\n{}",
            rows.collect::<String>()
        );
        if let Some(more) = classes.len().checked_sub(MOST_CLASSES).filter(|&more| more > 0) {
            text.push_str(&format!(
                "\nAnd {more} more, which `label_names` in config.json lists.\n"
            ));
        }
        text
    }

    fn evaluation(&self) -> String {
        let Some(result) = self.result() else {
            return "## Evaluation\n\nNo evaluation of these weights with these statistics of batch norm is \
                    known.\n"
                .to_owned();
        };
        let Metadata { classes, images, progress, .. } = self.metadata;
        let interval = Interval::of_rate(result.top1, result.images);
        let mut rows = vec![("images", grouped(result.images)), ("top-1", percent(result.top1))];
        rows.extend(interval.map(|interval| ("95 % interval of top-1", interval.to_text())));
        rows.extend(result.balanced.map(|balanced| ("mean recall of classes", percent(balanced))));
        if has_top5(classes.len()) {
            rows.push(("top-5", percent(result.top5)));
        }
        rows.extend(result.loss.map(|loss| ("cross-entropy", format!("{loss:.4}"))));
        let counts: Vec<u64> = images.val.iter().map(|images| images.0).collect();
        let majority = Majority::of_counts(&counts).filter(|_| counts.len() == classes.len());
        let rows: String =
            rows.into_iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
        let mut text = format!(
            "## Evaluation\n\nOn the validation images of {}, centre crops, batch norm statistics: {}.\n\n\
             | measure | value |\n|---|---:|\n{rows}",
            cell(&self.data()),
            statistics::name(self.statistics)
        );
        if let Some(majority) = majority {
            text.push_str(&format!("\n{}.\n", capital(&majority.verdict(classes, result.top1))));
        }
        // Whether later evaluations were worse, the checkpoint does not know.
        if progress.best.is_some_and(|best| best.step == result.step) {
            text.push_str(
                "\nThese weights were the best so far when they were evaluated. If they were picked from several \
                 evaluations of these images, the figures flatter: only other images give honest ones.\n",
            );
        }
        text
    }

    fn training(&self, has_curves: bool) -> String {
        let Metadata { config, recipe, progress, initial, averaged, .. } = self.metadata;
        let Metadata { trained_image_size, step, epoch, .. } = self.metadata;
        let origin = self.metadata.origin_without_run();
        let mut text = match origin {
            Some(origin) => format!("## Training\n\n- no run of this program: it {origin}\n"),
            None => format!(
                "## Training\n\n- recipe: {}\n- updates: {}, {} whole epochs, {}\n\
                 - images: {} px, batches of {}, seed {}\n- learning rate: {}, weight decay: {}\n",
                recipe,
                grouped(*step),
                grouped(*epoch),
                duration(progress.seconds),
                trained_image_size.unwrap_or(config.data.image_size),
                config.train.batch_size,
                config.train.seed,
                config.optimizer.lr,
                config.optimizer.weight_decay,
            ),
        };
        let averaged = averaged.iter().map(|source| (&source.path, &source.blake3));
        let initial = initial.iter().map(|source| (&source.path, &source.blake3));
        for (path, blake3) in averaged.chain(initial) {
            let file = Path::new(path).file_name();
            let file = file.map_or(path.clone(), |name| name.to_string_lossy().into_owned());
            text.push_str(&format!("- weights of `{}` (BLAKE3 {blake3})\n", one_line(&file)));
        }
        if has_curves {
            text.push_str("\n![loss, accuracy and learning rate](curves.png)\n");
        }
        text
    }

    fn limits(&self, storage: Storage) -> String {
        let Metadata { classes, images, .. } = self.metadata;
        let mut text = format!(
            "## Limits\n\n- It always answers with a class of its list ({}), whatever an image shows.\n\
             - Its probabilities were not calibrated.\n",
            classes.len()
        );
        if self.result().is_some() {
            text.push_str(
                "- It was not tested on images of other sources than those above. On them it may be worse.\n",
            );
        }
        let counts = images.train.iter().map(|images| images.0);
        if let (Some(least), Some(most)) = (counts.clone().min(), counts.max())
            && most >= IMBALANCE * least
        {
            text.push_str(&format!(
                "- Its classes are uneven: {} to {} training images. Rare classes are found less often.\n",
                grouped(least),
                grouped(most)
            ));
        }
        if storage != Storage::F32 {
            text.push_str(&format!(
                "- Filters and the classifier are stored as {}{}.\n",
                storage.name(),
                match self.result() {
                    Some(_) => "; the evaluation above used the weights before they were rounded",
                    None => "",
                }
            ));
        }
        text + "- Its license is not stated here: whoever publishes it has to name one.\n"
    }
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
