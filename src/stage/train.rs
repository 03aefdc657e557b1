//! The stage `train`: fine-tunes an embedding model.

mod curves;
mod params;
mod watch;

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::externals::onnx_runtime;
use super::{Context, External, Outcome, OutputPort, ParameterError, Port, Stage, StageKind, Surroundings, configure, schema};
use crate::artifact::{Judgements, Kind, Triplet, jsonl};
use crate::model::card::Card;
use crate::model::directory::ModelDirectory;
use crate::model::export::export;
use crate::model::weights::Weights;
use crate::train::trainer::Place;
use crate::train::{Trained, train};
use params::Train;
use watch::Watch;

pub const KIND: StageKind = StageKind {
    name: "train",
    version: 2,
    summary: "fine-tunes an embedding model",
    inputs: &[
        Port { name: "model", kind: Kind::Model, required: true, many: false, doc: "the model to start from" },
        Port { name: "triplets", kind: Kind::Triplets, required: true, many: false, doc: "what to learn from" },
        Port {
            name: "eval",
            kind: Kind::Judgements,
            required: false,
            many: false,
            doc: "judged queries to choose the best checkpoint by",
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
    unkeyed: &["checkpoint_steps"],
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
        Ok(())
    }

    fn externals(&self, surroundings: &Surroundings) -> Result<Vec<External>> {
        Ok(vec![onnx_runtime(surroundings)?])
    }

    fn run(&self, context: &Context) -> Result<Outcome> {
        let directory = ModelDirectory::open(context.input("model")?)?;
        let initial = Weights::read(&directory.weights())?;
        let triplets: Vec<Triplet> = jsonl::read(context.input("triplets")?)?;
        if triplets.is_empty() {
            bail!("there are no triplets to learn from");
        }
        let warnings = self.loss.formula().warnings(directory.config.hidden_size, directory.normalize);
        warnings.iter().for_each(|w| context.reporter.log(w));
        let eval = context.optional_input("eval").map(|folder| Judgements::read(folder, "test")).transpose()?;
        let examples: Vec<Vec<&str>> =
            triplets.iter().map(|t| vec![t.anchor.as_str(), t.positive.as_str(), t.negative.as_str()]).collect();
        let mut watch = Watch::new(context, &directory, eval, &self.metric);
        let place = Place { downloads: context.downloads, checkpoints: context.checkpoints, cancel: context.cancel };
        let trained = train(&directory, &initial, &examples, &self.settings(), place, &mut watch)?;
        context.reporter.log("writing the model");
        export(&directory, &trained.weights, &self.card(&directory, &triplets, &trained), context.output("model")?)?;
        let title = format!("{} on {} triplets", self.loss.formula().describe(), triplets.len());
        curves::write(&trained, &title, &self.metric.to_string(), context.output("curves")?)?;
        Ok(self.outcome(&trained, triplets.len(), warnings))
    }
}

impl Train {
    fn outcome(&self, trained: &Trained, triplets: usize, warnings: Vec<String>) -> Outcome {
        let progress = &trained.progress;
        let mut metrics = BTreeMap::from([("steps".to_owned(), progress.done() as f64)]);
        if let Some(loss) = trained.losses.last() {
            metrics.insert("loss".to_owned(), *loss);
        }
        let mut summary = format!("{} steps on {triplets} triplets", progress.done());
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

    fn card(&self, directory: &ModelDirectory, triplets: &[Triplet], trained: &Trained) -> Card {
        let columns = |t: &Triplet| {
            [("anchor", &t.anchor), ("positive", &t.positive), ("negative", &t.negative)]
                .map(|(n, x)| (n.to_owned(), x.clone()))
                .to_vec()
        };
        Card {
            base_model: self.base_model.clone().unwrap_or_else(|| directory.config.model_type.clone()),
            settings: self.described(),
            data: format!("{} triplets (anchor, positive, negative). The first of them:", triplets.len()),
            examples: triplets.iter().take(3).map(columns).collect(),
            evaluations: trained
                .progress
                .evaluations
                .iter()
                .map(|e| (e.step.to_string(), e.metrics.iter().map(|(k, v)| (k.clone(), *v)).collect()))
                .collect(),
            best: trained.progress.best(),
            dimensions: directory.config.hidden_size,
            max_seq_length: directory.max_seq_length,
            pooling: directory.pooling.name().to_owned(),
            normalize: directory.normalize,
        }
    }
}
