//! The stage `train`: fine-tunes an embedding model.

mod curves;
mod data;
mod params;
mod watch;

use std::collections::BTreeMap;

use anyhow::Result;

use super::externals::{computation, runtime};
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Judgements, Kind};
use crate::model::card::Card;
use crate::model::directory::ModelDirectory;
use crate::model::export::export;
use crate::model::weights::Weights;
use crate::runtime::device::Device;
use crate::train::data::DataSet;
use crate::train::trainer::Place;
use crate::train::{Trained, train};
use params::Train;
use watch::Watch;

pub const KIND: StageKind = StageKind {
    name: "train",
    version: 4,
    summary: "fine-tunes an embedding model",
    inputs: &[
        Port { name: "model", kind: Kind::Model, required: true, many: false, doc: "the model to start from" },
        Port {
            name: "triplets",
            kind: Kind::Triplets,
            required: true,
            many: true,
            doc: "what to learn from: one data set of pairs, triplets or tuples, or several",
        },
        Port {
            name: "eval",
            kind: Kind::Judgements,
            required: false,
            many: false,
            doc: "judged queries to choose the best checkpoint by",
        },
        Port {
            name: "guide",
            kind: Kind::Model,
            required: false,
            many: false,
            doc: "the model by which the loss `gist` tells false negatives",
        },
    ],
    outputs: &[
        OutputPort {
            name: "model",
            kind: Kind::Model,
            file: "model",
            doc: "the fine-tuned model, loadable by sentence-transformers",
        },
        OutputPort {
            name: "curves",
            kind: Kind::File,
            file: "curves",
            doc: "`curves.svg` with loss, gradient norm, learning rate and evaluations over the steps; `steps.csv`, `evaluations.csv`",
        },
    ],
    declared: None,
    unkeyed: &["checkpoint_steps", "device"],
    schema: schema::<Train>,
    configure: configure::<Train>,
};

impl Stage for Train {
    fn check(&self) -> Result<(), ParameterError> {
        self.check_ranges()
    }

    fn check_inputs(&self, inputs: &[&str]) -> Result<(), ParameterError> {
        if self.patience > 0 && !inputs.contains(&"eval") {
            let message = "`patience` counts evaluations, and there are none; connect judged queries to the input `eval`";
            return Err(ParameterError::new("patience", message));
        }
        let is_guided = self.all_losses().any(|(_, loss)| loss.formula().is_guided());
        match (is_guided, inputs.contains(&"guide")) {
            (true, false) => {
                let message = "the loss `gist` asks a guide: connect a model to the input `guide`, or let the model guide itself with `guide: self`";
                Err(ParameterError::new("loss", message))
            }
            (false, true) => {
                let message = "the input `guide` is for the loss `gist` with `guide: model`; remove the input, or use that loss";
                Err(ParameterError::new("", message))
            }
            _ => Ok(()),
        }
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        computation(surroundings, self.precision, self.device)
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let mut directory = ModelDirectory::open(context.input("model")?)?;
        if let Some(other) = &self.prompts {
            directory.prompts = directory.prompts.replaced(other);
        }
        let initial = Weights::read(&directory.weights())?;
        let runtime = runtime(context, self.device)?;
        let sets = data::read(self, context)?;
        let warnings = data::warnings(&sets, &directory);
        warnings.iter().for_each(|w| context.reporter.log(w));
        let eval = context.optional_input("eval").map(|folder| Judgements::read(folder, "test")).transpose()?;
        let data = data::prepare(&sets, self, &directory, &runtime, context)?;
        let mut watch = Watch::new(context, &directory, eval, &self.metric, &runtime);
        let place = Place {
            runtime: &runtime,
            stays: runtime.device != Device::Cpu,
            checkpoints: context.checkpoints,
            cancel: context.cancel,
        };
        let trained = train(&directory, &initial, &data, &self.settings(), place, &mut watch)?;
        context.reporter.log("writing the model");
        export(&directory, &trained.weights, &self.card(&directory, &sets, &trained), context.output("model")?)?;
        let examples = sets.iter().map(|set| set.rows.len()).sum();
        let title = format!("{} on {examples} examples", described(&sets).join("; "));
        curves::write(&trained, &title, &self.metric.to_string(), context.output("curves")?)?;
        Ok(self.outcome(&trained, examples, warnings))
    }
}

impl Train {
    fn outcome(&self, trained: &Trained, examples: usize, warnings: Vec<String>) -> Outcome {
        let progress = &trained.progress;
        let mut metrics = BTreeMap::from([("steps".to_owned(), progress.done() as f64)]);
        if let Some(loss) = trained.losses.last() {
            metrics.insert("loss".to_owned(), *loss);
        }
        let mut summary = format!("{} steps on {examples} examples", progress.done());
        if progress.done() < trained.planned {
            summary += &format!(" of {}, ended early", trained.planned);
        }
        if let Some(best) = progress.best().and_then(|i| progress.evaluations.get(i)) {
            metrics.insert("best_step".to_owned(), best.step as f64);
            metrics.insert(format!("eval.{}", self.metric), best.score);
            summary += &format!(", best {} {:.4} after step {}", self.metric, best.score, best.step);
        }
        Outcome { metrics, summary, warnings, table: None }
    }

    fn card(&self, directory: &ModelDirectory, sets: &[DataSet], trained: &Trained) -> Card {
        let losses = described(sets).into_iter().map(|loss| ("loss".to_owned(), loss));
        let counts: Vec<String> = sets.iter().map(|set| format!("{} of `{}`", set.rows.len(), set.name)).collect();
        Card {
            base_model: self.base_model.clone().unwrap_or_else(|| directory.config.model_type.clone()),
            settings: losses.chain(self.described()).collect(),
            data: format!("Examples: {}. The first of them:", counts.join(", ")),
            examples: sets.iter().flat_map(|set| &set.rows).take(3).map(|(_, example)| example.columns()).collect(),
            evaluations: trained
                .progress
                .evaluations
                .iter()
                .map(|e| (e.step.to_string(), e.metrics.iter().map(|(k, v)| (k.clone(), *v)).collect()))
                .collect(),
            best: trained.progress.best(),
            dimensions: directory.dimensions(),
            max_seq_length: directory.max_seq_length,
            pooling: directory.pooling.name(),
            normalize: directory.normalize,
        }
    }
}

/// The losses of data sets; of several that differ, with their names.
fn described(sets: &[DataSet]) -> Vec<String> {
    match sets {
        [first, others @ ..] if others.iter().all(|set| set.loss == first.loss) => vec![first.loss.formula().describe()],
        sets => sets.iter().map(|set| format!("`{}`: {}", set.name, set.loss.formula().describe())).collect(),
    }
}
