//! Foreseeing that a training would run out of memory, and what would fit.

use anyhow::{Result, bail};

use super::data::{Batch, Data};
use super::graphs::Size;
use super::step::Step;
use super::trainer::Settings;
use crate::runtime::memory::available;

/// ONNX Runtime takes memory in pieces that double, and kernels need room of their own: by so much what is taken exceeds what values need.
const ROOM: f64 = 1.15;

/// What a training needs besides what it has when its weights are there, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// Gradients, moments, the best weights, and the model that is evaluated.
    pub fixed: u64,
    /// The values of the largest batch.
    pub batch: u64,
}

impl Needs {
    pub fn total(&self) -> u64 {
        self.fixed + self.batch
    }
}

/// Estimates what the training needs.
///
/// # Errors
/// A graph cannot be built.
pub fn needs(step: &Step, data: &Data, settings: &Settings, evaluates: bool) -> Result<(Needs, Largest)> {
    let largest = Largest::of(data, settings.seed)?;
    let batch = of_batch(step, settings, &largest, 1.0)?;
    let (all, trained) = step.sizes();
    let mut floats = 3 * trained;
    if settings.accumulation > 1 || settings.choice.mini_batch_tokens > 0 {
        floats += trained;
    }
    if evaluates {
        // The best weights; and a model with its weights, as a file and as ONNX Runtime lays them out.
        floats += trained + 4 * all;
    }
    Ok((Needs { fixed: 4 * floats as u64, batch }, largest))
}

/// The batches of an epoch that take the most: by their tokens, and by what would be padded.
#[derive(Debug, Clone)]
pub struct Largest(Vec<(usize, Size)>);

impl Largest {
    fn of(data: &Data, seed: u64) -> Result<Self> {
        let padded = |size: &Size| size.texts * size.longest;
        let mut found: Vec<(usize, Size)> = Vec::new();
        for batch in data.epoch(seed, 0) {
            let size = size(data, &batch)?;
            let covers =
                |(set, other): &(usize, Size)| *set == batch.set && other.tokens >= size.tokens && padded(other) >= padded(&size);
            if !found.iter().any(covers) {
                found.retain(|(set, other)| *set != batch.set || other.tokens > size.tokens || padded(other) > padded(&size));
                found.push((batch.set, size));
            }
        }
        Ok(Largest(found))
    }
}

fn size(data: &Data, batch: &Batch) -> Result<Size> {
    let columns = data.columns(batch)?;
    let lengths = columns.texts.iter().flatten().map(|text| text.ids.len());
    Ok(Size {
        rows: batch.rows.len(),
        texts: batch.rows.len() * columns.texts.len(),
        longest: lengths.clone().max().unwrap_or(0),
        tokens: lengths.sum(),
    })
}

/// The bytes of the largest batch, if batches had `share` as many rows.
fn of_batch(step: &Step, settings: &Settings, largest: &Largest, share: f64) -> Result<u64> {
    let mut most = 0;
    for (set, size) in &largest.0 {
        let limit = settings.choice.mini_batch_tokens;
        let share = if limit > 0 { share.min(limit as f64 / size.tokens.max(1) as f64) } else { share };
        most = most.max(step.peak(*set, &size.times(share))?);
    }
    Ok((most as f64 * ROOM) as u64)
}

/// Ends a training that would not fit, before its first step.
///
/// # Errors
/// It would not fit: says what would.
pub fn check(step: &Step, settings: &Settings, batch_size: usize, needs: &Needs, largest: &Largest) -> Result<()> {
    let Some(available) = available() else { return Ok(()) };
    if needs.total() <= available {
        return Ok(());
    }
    let fits = |rows: usize| -> Result<bool> {
        let share = rows as f64 / batch_size.max(1) as f64;
        Ok(needs.fixed + of_batch(step, settings, largest, share)? <= available)
    };
    // The largest number of rows that fits, by halving.
    let (mut low, mut high) = (0, batch_size);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if fits(middle)? { low = middle } else { high = middle }
    }
    let tokens = largest.0.iter().map(|(_, size)| size.tokens).max().unwrap_or(0);
    bail!(refusal(needs.total(), available, batch_size, low, tokens))
}

/// Why a training is not begun; `fits` is the number of rows that would fit, of `batch_size` with `tokens` tokens.
fn refusal(needed: u64, available: u64, batch_size: usize, fits: usize, tokens: usize) -> String {
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let problem =
        format!("the training would need about {} of memory more, and {} are left", gigabytes(needed), gigabytes(available));
    if fits == 0 {
        return format!(
            "{problem}; not even batches of one row fit: train a smaller model, a part of it (`train`, `lora`), or shorter texts (`max_seq_length`)"
        );
    }
    let part = (tokens * fits / batch_size.max(1)).max(1);
    format!(
        "{problem}; `batch_size: {fits}` fits (with `accumulation: {}` a step has as many rows), or `mini_batch_tokens: {part}` for the same batches in \
         parts",
        batch_size.div_ceil(fits)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_named() {
        let message = |fits| refusal(14_200_000_000, 9_800_000_000, 32, fits, 8650);
        insta::assert_snapshot!(message(12), @"the training would need about 14.2 GB of memory more, and 9.8 GB are left; `batch_size: 12` fits (with `accumulation: 3` a step has as many rows), or `mini_batch_tokens: 3243` for the same batches in parts");
        insta::assert_snapshot!(message(0), @"the training would need about 14.2 GB of memory more, and 9.8 GB are left; not even batches of one row fit: train a smaller model, a part of it (`train`, `lora`), or shorter texts (`max_seq_length`)");
    }
}
