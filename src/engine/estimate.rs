//! How long a run would take, from how long it took before.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Engine;
use super::plan::{Planned, Verdict};

/// Results that are read to learn how long a kind of stage takes.
const MOST_READ: usize = 500;

/// How long a run would take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// What runs in any case, with as many stages side by side as there may be; in seconds.
    pub least: f64,
    /// The same if everything that depends on other stages runs too; in seconds.
    pub most: f64,
    /// Stages that run or may run and of whose kind no time is known; they are in no sum.
    pub unknown: usize,
}

impl Engine<'_> {
    /// Tells of every stage that runs, or may, how long it takes: as long as its last result did, or else the median of the results
    /// of its kind; and how long all of them take.
    pub fn estimate(&self, planned: &mut [Planned]) -> Estimate {
        let mut by_kind: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for plan in planned.iter_mut() {
            if may_run(plan) {
                plan.estimate = self.last.0.get(&plan.stage).and_then(|last| self.store.seconds(&last.key()));
            }
            if let Some(seconds) = plan.seconds.or(plan.estimate) {
                by_kind.entry(plan.uses.clone()).or_default().push(seconds);
            }
        }
        let lacking = |plan: &Planned| may_run(plan) && plan.estimate.is_none();
        if planned.iter().any(|plan| lacking(plan) && !by_kind.contains_key(&plan.uses)) {
            let known: Vec<String> = by_kind.keys().cloned().collect();
            for (kind, seconds) in self.store.timings(MOST_READ).into_iter().filter(|(kind, _)| !known.contains(kind)) {
                by_kind.entry(kind).or_default().push(seconds);
            }
        }
        let medians: BTreeMap<String, f64> = by_kind.into_iter().filter_map(|(kind, all)| Some((kind, median(all)?))).collect();
        planned.iter_mut().filter(|plan| lacking(plan)).for_each(|plan| plan.estimate = medians.get(&plan.uses).copied());
        Estimate {
            least: self.duration(planned, |plan| plan.verdict == Verdict::Runs),
            most: self.duration(planned, may_run),
            unknown: planned.iter().filter(|plan| lacking(plan)).count(),
        }
    }

    /// How long the stages take that `runs` picks when each begins as soon as its inputs are there and a place is free.
    fn duration(&self, planned: &[Planned], runs: impl Fn(&Planned) -> bool) -> f64 {
        let mut free = vec![0.0_f64; self.jobs.min(planned.len())];
        let mut ends = vec![0.0_f64; planned.len()];
        for (index, (plan, node)) in planned.iter().zip(&self.pipeline.stages).enumerate() {
            let ready = node.inputs.iter().map(|edge| ends[edge.from]).fold(0.0, f64::max);
            let seconds = plan.estimate.filter(|_| runs(plan)).unwrap_or(0.0);
            ends[index] = ready;
            if let Some(place) = free.iter_mut().min_by(|a, b| a.total_cmp(b)).filter(|_| seconds > 0.0) {
                *place = place.max(ready) + seconds;
                ends[index] = *place;
            }
        }
        ends.into_iter().fold(0.0, f64::max)
    }
}

fn may_run(plan: &Planned) -> bool {
    matches!(plan.verdict, Verdict::Runs | Verdict::Depends)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2)?;
    let below = if values.len().is_multiple_of(2) { values.get(values.len() / 2 - 1)? } else { middle };
    Some(f64::midpoint(*middle, *below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median() {
        assert_eq!([vec![], vec![3.0], vec![4.0, 1.0], vec![9.0, 1.0, 2.0]].map(median), [None, Some(3.0), Some(2.5), Some(2.0)]);
    }
}
