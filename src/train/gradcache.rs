//! GradCache (Gao et al., 2021): the gradients of a loss of a whole batch, with the memory of a part of it. Embeddings are computed part by part, then the loss
//! and its gradients with respect to all embeddings, then part by part again those with respect to the weights: the chain rule, in the order that
//! keeps the values of one part at a time.

use std::ops::Range;

use anyhow::Result;

use super::data::Columns;
use super::device;
use super::graphs::{Differentiated, OfEmbeddings, Shared, backward, backward_inputs, embed, forward};
use super::optimizer::Sum;
use crate::model::batch::Batch;
use crate::model::tokenizer::Tokens;
use crate::runtime::trainable::Trainable;

/// Where the gradients of the parts are summed.
pub enum Summing<'a> {
    Memory(&'a mut Sum),
    Device(&'a mut device::Optimizer),
}

impl Summing<'_> {
    fn loss_scale(&self) -> f32 {
        match self {
            Summing::Memory(_) => 1.0,
            Summing::Device(optimizer) => optimizer.loss_scale(),
        }
    }
}

/// The graphs that embeddings go through part by part.
pub struct Parts {
    forward: Trainable,
    backward: Differentiated,
}

impl Parts {
    pub fn open(shared: &mut Shared) -> Result<Self> {
        Ok(Parts { forward: forward(shared)?, backward: backward(shared)? })
    }

    /// The loss of `batch`; adds the gradients of the weights in training to `sum`. At most `tokens` tokens go through the model at a time. Both passes leave out the same.
    pub fn run(
        &mut self,
        loss: &mut OfEmbeddings,
        batch: &Columns,
        tokens: usize,
        seed: i64,
        shared: &Shared,
        mut sum: Summing,
    ) -> Result<f32> {
        let (rows, dimensions) = (batch.rows(), shared.dimensions);
        let texts: Vec<&Tokens> = batch.texts.concat();
        let order = by_length(&texts);
        let parts: Vec<(&[usize], Batch)> = cut(&order, &texts, tokens)
            .into_iter()
            .zip(0..)
            .map(|(part, number)| {
                let part = &order[part];
                let texts: Vec<&Tokens> = part.iter().map(|&i| texts[i]).collect();
                (part, Batch::new(&texts, &shared.directory.pooling).seeded(seed.wrapping_add(number)))
            })
            .collect();
        let mut embeddings = vec![vec![0.0; rows * dimensions]; batch.texts.len()];
        for (part, texts) in &parts {
            let found = embed(&mut self.forward, texts)?;
            for (&i, vector) in part.iter().zip(found.chunks_exact(dimensions)) {
                embeddings[i / rows][range(i % rows, dimensions)].copy_from_slice(vector);
            }
        }
        let (value, upstream) = loss.run(batch, &embeddings, dimensions)?;
        for (part, texts) in &parts {
            let upstream: Vec<f32> =
                part.iter().flat_map(|&i| &upstream[i / rows][range(i % rows, dimensions)]).copied().collect();
            let scale = sum.loss_scale();
            let (_, outputs) = self.backward.run(backward_inputs(texts, &upstream, dimensions), &scale)?;
            match &mut sum {
                Summing::Memory(sum) => sum.add(&self.backward.gradients(&outputs, &shared.buffers)?),
                Summing::Device(optimizer) => self.backward.add_to(optimizer, &outputs, &shared.buffers)?,
            }
        }
        Ok(value)
    }
}

/// The numbers of `texts` in the order of their lengths: like lengths together, so that little is padded where a layout pads.
fn by_length(texts: &[&Tokens]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| (texts[i].ids.len(), i));
    order
}

/// Cuts `order` into parts of at most `limit` tokens, or of one text.
fn cut(order: &[usize], texts: &[&Tokens], limit: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (place, &i) in order.iter().enumerate() {
        let length = texts[i].ids.len();
        if place > start && sum + length > limit {
            parts.push(start..place);
            (start, sum) = (place, 0);
        }
        sum += length;
    }
    if start < order.len() {
        parts.push(start..order.len());
    }
    parts
}

/// Where row `row` of a matrix lies.
fn range(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_as_many_tokens_as_they_may() {
        let tokens: Vec<Tokens> = [3, 9, 1, 4, 2].iter().map(|&n| Tokens { ids: vec![0; n], ..Tokens::default() }).collect();
        let texts: Vec<&Tokens> = tokens.iter().collect();
        let order = by_length(&texts);
        assert_eq!(order, [2, 4, 0, 3, 1]);
        assert_eq!(cut(&order, &texts, 6), [0..3, 3..4, 4..5]);
        assert_eq!(cut(&order, &texts, 19), vec![0..5]);
        assert!(cut(&[], &texts, 6).is_empty());
    }
}
