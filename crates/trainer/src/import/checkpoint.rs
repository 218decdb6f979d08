//! A checkpoint made of foreign weights: one that can be evaluated, used, and trained further.

use std::path::Path;

use bninception_data::Preprocessing;
use bninception_engine::ModelState;
use bninception_engine::model::{Kind, Network};

use super::error::ImportError;
use super::own_words;
use super::preprocessing::ForeignInput;
use super::public_names::{ImportOptions, ImportedNetwork};
use super::tensors::ForeignTensors;
use crate::config::{ConfigFile, Resolved, Sources, resolve};
use crate::run::initial::file_hash;
use crate::run::metadata::{InitialSource, Metadata};
use crate::run::state::TrainState;

/// A checkpoint that is not written yet.
pub struct ImportedCheckpoint {
    /// What it says about itself.
    pub metadata: Metadata,
    /// Its network.
    pub network: Network,
    /// Its weights, before any update.
    pub state: TrainState,
    /// Tensors of the file that were not taken.
    pub left_out: Vec<String>,
    /// Whether its classes have names, and not numbers.
    pub are_named: bool,
}

/// What is chosen for an import; what is not is left to the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportChoices {
    /// Names of the classes.
    pub classes: Option<Vec<String>>,
    /// What the network was trained to see.
    pub input: Option<ForeignInput>,
    /// Rows and columns of the input.
    pub image_size: Option<usize>,
    /// As in [`ImportOptions`].
    pub fold_biases: bool,
}

/// Rows and columns of the public weights' input.
const IMAGE_SIZE: usize = 224;

/// What images go through.
enum Input {
    Foreign(ForeignInput),
    Own(Preprocessing),
}

impl ImportedCheckpoint {
    /// Reads the file at `path`. Where a choice is left open, a file that this program exported says what
    /// holds; others are Caffe's at 224 px, and their classes get numbers for names.
    ///
    /// # Errors
    /// A file that cannot be read or holds another network, or names that are not as many as its classes.
    pub fn read(path: &Path, choices: ImportChoices) -> Result<ImportedCheckpoint, ImportError> {
        let format = |reason| ImportError::Format { path: path.to_owned(), reason };
        let ForeignTensors { tensors, metadata } = ForeignTensors::read(path)?;
        // What is chosen is not looked up: so a file whose words are broken can be imported too.
        let own_input = match (choices.input, choices.image_size) {
            (Some(_), Some(_)) => None,
            _ => own_words::input(&metadata).map_err(format)?,
        };
        let own_size = own_input.as_ref().map(|own| own.image_size);
        let options = ImportOptions {
            image_size: choices.image_size.or(own_size).unwrap_or(IMAGE_SIZE),
            fold_biases: choices.fold_biases,
            own: own_words::network(&metadata).map_err(format)?,
        };
        let imported = ImportedNetwork::of(tensors, options).map_err(format)?;
        let ImportedNetwork { network, mut weights, left_out } = imported;
        let input = match (choices.input, own_input) {
            (None, Some(own)) => Input::Own(own),
            (input, _) => Input::Foreign(input.unwrap_or(ForeignInput::Caffe)),
        };
        if let Input::Foreign(input) = input {
            input.turn_colours(&network, &mut weights);
        }
        let (who, classes) = match choices.classes {
            Some(classes) => ("--classes", Some(classes)),
            None => ("its metadata", own_words::classes(&metadata).map_err(format)?),
        };
        let are_named = classes.is_some();
        let n_classes = network.options.classes;
        let classes = match classes {
            Some(classes) if classes.len() != n_classes => {
                return Err(ImportError::Classes(format!(
                    "{who}: {} names, but {} has {n_classes} classes",
                    classes.len(),
                    path.display()
                )));
            }
            Some(classes) => classes,
            None => numbered(n_classes),
        };
        let name = path.display().to_string();
        let file = ConfigFile { name: name.clone(), text: settings(&network, &input) };
        let files = [file];
        let resolved = resolve(&Sources { files: &files, ..Sources::default() })?;
        let Resolved { config, recipe, .. } = resolved;
        let initial = InitialSource {
            path: name,
            blake3: file_hash(path)?,
            step: 0,
            kept_classes: classes.clone(),
        };
        let metadata =
            Metadata { initial: Some(initial), ..Metadata::without_run(classes, config, recipe) };
        let state = TrainState::of(ModelState::of(weights));
        Ok(ImportedCheckpoint { metadata, network, state, left_out, are_named })
    }
}

/// The settings of a network, as a config file.
fn settings(network: &Network, input: &Input) -> String {
    let options = &network.options;
    let kind = match network.kind {
        Kind::BnInception => "bn-inception",
        Kind::GoogLeNet => "googlenet",
    };
    let input = match input {
        Input::Foreign(input) => format!("mean = {:?}\nstd = {:?}\n", input.mean(), input.std()),
        Input::Own(Preprocessing { crop_ratio, mean, std, exif, interpolation, .. }) => format!(
            "mean = {mean:?}\nstd = {std:?}\ncrop_ratio = {crop_ratio:?}\nexif = {exif}\n[augment]\n\
             interpolation = {}\n",
            serde_json::json!(interpolation)
        ),
    };
    format!(
        "[network]\nkind = \"{kind}\"\nbatch_norm = {}\nlrn = {}\ndropout = 0.0\nconv_bias = {}\n\
         pool_proj_4c4d = {}\nactivation = \"{}\"\n[data]\nimage_size = {}\n{input}",
        options.batch_norm.is_some(),
        options.lrn,
        options.conv_bias,
        options.pool_proj_4c4d,
        options.activation.name(),
        options.image_size,
    )
}

/// Names for classes of which nothing but their number is known.
fn numbered(n: usize) -> Vec<String> {
    let width = n.saturating_sub(1).to_string().len();
    (0..n).map(|class| format!("class-{class:0width$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_classes_have_one_width() {
        assert_eq!(numbered(2), ["class-0", "class-1"]);
        assert_eq!(
            (numbered(11)[0].as_str(), numbered(1000)[999].as_str()),
            ("class-00", "class-999")
        );
    }
}
