//! The answers of `predict`, printed as they come, so that none is kept.

use std::path::Path;

use bninception_data::Source;
use serde_json::{Value, json};

use crate::cli::PredictArgs;
use crate::error::Error;
use crate::terminal::color::Accent;
use crate::terminal::output::{self, JsonArray, with_path};
use crate::terminal::text::{one_line, percent};

/// The likeliest classes of one image with their probabilities, or why it could not be read.
pub(super) type Answer<'a> = Result<Vec<(&'a str, f64)>, String>;

/// Says that no class is likely enough.
const UNSURE: &str = "unsure";

/// How answers are written.
enum Form {
    /// For people: a line an image where one class is asked for, a few lines otherwise.
    Text { one_line: bool },
    /// One array on one line.
    Json(JsonArray),
    /// An object a line.
    JsonLines,
    /// A row for each image and class.
    Csv,
}

/// Prints answers.
pub(super) struct Printer {
    form: Form,
    threshold: Option<f64>,
    /// Images without a class that is likely enough.
    pub(super) n_unsure: u64,
}

impl Printer {
    /// Prints what stands in front of all answers.
    pub(super) fn start(args: &PredictArgs) -> Result<Printer, Error> {
        let form = match (args.options.json, args.jsonl, args.csv) {
            (true, _, _) => Form::Json(JsonArray::default()),
            (_, true, _) => Form::JsonLines,
            (_, _, true) => Form::Csv,
            _ => Form::Text { one_line: args.topk == 1 },
        };
        let printer = Printer { form, threshold: args.threshold, n_unsure: 0 };
        if let Form::Csv = printer.form {
            let header = match printer.threshold {
                None => &["path", "class", "probability", "error"][..],
                Some(_) => &["path", "class", "probability", "answer", "error"],
            };
            output::raw(&rows_of([header])?).map_err(Error::Stdout)?;
        }
        Ok(printer)
    }

    /// Prints the answers of a batch, each with its image's place in the source.
    pub(super) fn print(
        &mut self,
        source: &dyn Source,
        answers: &[(u32, Answer<'_>)],
    ) -> Result<(), Error> {
        let answers: Vec<(&Path, Judged<'_>)> = answers
            .iter()
            .map(|(index, answer)| (source.path(*index as usize), self.judged(answer)))
            .collect();
        let is_unsure = |judged: &Judged<'_>| judged.sure == Some(None) && judged.answer.is_ok();
        self.n_unsure += answers.iter().filter(|(_, judged)| is_unsure(judged)).count() as u64;
        let printed = match &mut self.form {
            Form::Text { one_line } => {
                let one_line = *one_line;
                let text = answers.iter().map(|(path, judged)| judged.to_text(path, one_line));
                output::raw(text.collect::<String>().as_bytes())
            }
            Form::Json(array) => {
                let values: Vec<Value> =
                    answers.iter().map(|(path, judged)| judged.to_json(path)).collect();
                array.extend(&values)
            }
            Form::JsonLines => {
                let lines = answers.iter().map(|(path, judged)| judged.to_json(path));
                output::raw(lines.map(|value| format!("{value}\n")).collect::<String>().as_bytes())
            }
            Form::Csv => {
                let rows: Vec<Vec<Vec<u8>>> =
                    answers.iter().flat_map(|(path, judged)| judged.to_rows(path)).collect();
                output::raw(&rows_of(rows)?)
            }
        };
        printed.map_err(Error::Stdout)
    }

    /// Prints what stands behind all answers.
    pub(super) fn end(self) -> Result<(), Error> {
        match self.form {
            Form::Json(array) => array.end().map_err(Error::Stdout),
            Form::Text { .. } | Form::JsonLines | Form::Csv => Ok(()),
        }
    }

    fn judged<'a>(&self, answer: &'a Answer<'a>) -> Judged<'a> {
        // A probability that is no number reaches nothing.
        let best = answer.as_ref().ok().and_then(|classes| classes.first());
        let sure = self.threshold.map(|threshold| {
            best.filter(|(_, probability)| *probability >= threshold).map(|(class, _)| *class)
        });
        Judged { answer, sure }
    }
}

/// An answer, and what a threshold makes of it.
struct Judged<'a> {
    answer: &'a Answer<'a>,
    /// With a threshold, the class that reaches it.
    sure: Option<Option<&'a str>>,
}

impl Judged<'_> {
    fn to_json(&self, path: &Path) -> Value {
        let mut about = match self.answer {
            Ok(classes) => {
                let predictions: Vec<Value> = classes
                    .iter()
                    .map(|(class, probability)| json!({ "class": class, "probability": probability }))
                    .collect();
                json!({ "predictions": predictions })
            }
            Err(error) => json!({ "predictions": [], "error": error }),
        };
        if let (Some(sure), Value::Object(about)) = (self.sure, &mut about) {
            about.insert("answer".to_owned(), json!(sure));
        }
        with_path("path", path, about)
    }

    fn to_text(&self, path: &Path, on_one_line: bool) -> String {
        let path = one_line(&path.display().to_string());
        match self.answer {
            // The error names the path.
            Err(error) => format!("{}\n", Accent::Bad.paint(&one_line(error))),
            Ok(classes) if on_one_line => {
                let best = classes.iter().map(|(class, probability)| {
                    let class = self.sure.map_or(*class, |sure| sure.unwrap_or(UNSURE));
                    format!("{path}\t{}\t{}\n", one_line(class), percent(*probability))
                });
                best.collect()
            }
            Ok(classes) => {
                let mut text = match self.sure == Some(None) {
                    true => format!("{path}: {}\n", Accent::Caution.paint(UNSURE)),
                    false => format!("{path}\n"),
                };
                for (rank, (class, probability)) in classes.iter().enumerate() {
                    let line = format!("  {:6.2} %  {}", 100.0 * probability, one_line(class));
                    let line = if rank == 0 { Accent::Strong.paint(&line) } else { line };
                    text.push_str(&format!("{line}\n"));
                }
                text
            }
        }
    }

    /// The fields of a row for each class, or of one that has an error.
    fn to_rows(&self, path: &Path) -> Vec<Vec<Vec<u8>>> {
        let path = path.as_os_str().as_encoded_bytes();
        let row = |class: &str, probability: &str, error: &str| {
            let answer = self.sure.map(|sure| sure.unwrap_or_default().as_bytes());
            let fields = [Some(path), Some(class.as_bytes()), Some(probability.as_bytes()), answer];
            let fields = fields.into_iter().chain([Some(error.as_bytes())]);
            fields.flatten().map(<[u8]>::to_vec).collect()
        };
        match self.answer {
            Err(error) => vec![row("", "", error)],
            Ok(classes) => classes
                .iter()
                .map(|(class, probability)| row(class, &probability.to_string(), ""))
                .collect(),
        }
    }
}

/// Rows as CSV.
fn rows_of<R, F>(rows: impl IntoIterator<Item = R>) -> Result<Vec<u8>, Error>
where
    R: IntoIterator<Item = F>,
    F: AsRef<[u8]>,
{
    // Memory takes them, and all have as many fields: this cannot fail.
    let failed = |error: csv::Error| Error::Unusable(format!("cannot write CSV: {error}"));
    let mut table = csv::Writer::from_writer(Vec::new());
    for row in rows {
        table.write_record(row).map_err(failed)?;
    }
    table.into_inner().map_err(|error| Error::Unusable(format!("cannot write CSV: {error}")))
}
