//! The curves of a training: a picture, and the figures it is drawn from.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::report::curves::{Curves, Form, Panel};
use crate::train::Trained;
use crate::train::progress::Progress;

/// Writes `curves.svg`, `steps.csv` and, when there were any, `evaluations.csv` into the new folder `folder`. They hold what is the same for
/// the same training, so no speeds.
pub fn write(trained: &Trained, title: &str, metric: &str, folder: &Path) -> Result<()> {
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("`{}` cannot be written", path.display()))
    };
    fs::create_dir_all(folder).with_context(|| format!("`{}` cannot be written", folder.display()))?;
    let progress = &trained.progress;
    put("curves.svg", curves(trained, title, metric).svg()?.as_bytes())?;
    put("steps.csv", &steps(progress)?)?;
    if progress.evaluations.is_empty() { Ok(()) } else { put("evaluations.csv", &evaluations(progress)?) }
}

fn curves(trained: &Trained, title: &str, metric: &str) -> Curves {
    let progress = &trained.progress;
    let panel = |title: &str, form, figure: fn(&crate::train::progress::Passed) -> f64| Panel {
        title: title.to_owned(),
        points: progress.steps.iter().enumerate().map(|(i, step)| ((i + 1) as f64, figure(step))).collect(),
        form,
    };
    let mut panels = vec![panel("loss", Form::Smoothed, |step| step.loss)];
    if !progress.evaluations.is_empty() {
        let points = progress.evaluations.iter().map(|e| (e.step as f64, e.score)).collect();
        panels.push(Panel { title: metric.to_owned(), points, form: Form::Dots });
    }
    panels.push(panel("gradient norm before clipping", Form::Smoothed, |step| step.grad_norm));
    panels.push(panel("learning rate", Form::Plain, |step| step.lr));
    let marks = trained.epochs.iter().map(|end| *end as f64).collect();
    Curves { title: title.to_owned(), panels, marks, steps: progress.done() }
}

fn steps(progress: &Progress) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["step", "loss", "learning_rate", "gradient_norm", "tokens"])?;
    for (number, step) in progress.steps.iter().enumerate() {
        let figures = [step.loss, step.lr, step.grad_norm].map(|figure| figure.to_string());
        csv.write_record([(number + 1).to_string()].into_iter().chain(figures).chain([step.tokens.to_string()]))?;
    }
    Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

fn evaluations(progress: &Progress) -> Result<Vec<u8>> {
    let names: Vec<&String> = progress.evaluations.iter().take(1).flat_map(|e| e.metrics.keys()).collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record([&"step".to_owned()].into_iter().chain(names.iter().copied()))?;
    for evaluation in &progress.evaluations {
        let figures = names.iter().map(|name| evaluation.metrics.get(*name).map(f64::to_string).unwrap_or_default());
        csv.write_record([evaluation.step.to_string()].into_iter().chain(figures))?;
    }
    Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
}
