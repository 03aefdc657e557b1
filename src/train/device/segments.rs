//! How rows of a table's gradient are added up, entry by entry, with the matrix products that a device is good at, and always in the
//! same order. Adding them in place, as scatter operators of devices do, takes them as they come, and the last digits change from run to run.
//!
//! Rows are sorted by their entry and cut into blocks; within a block the product with a matrix of zeros and ones adds up what belongs to one
//! entry. What one entry has in several blocks is added up in a second stage of the same kind.

use anyhow::{Result, ensure};

use crate::onnx::{DataType, Graph, Value};
use crate::runtime::session::Input;
use crate::shape;

/// Rows of a block.
const BLOCK: usize = 512;
/// The stages: enough for an entry with as many rows as `BLOCK` to this power.
const STAGES: usize = 2;

/// One stage.
struct Stage {
    /// `[blocks · BLOCK]`: which row comes there; 0 where none does.
    order: Vec<i64>,
    /// `[blocks · BLOCK]`: to which sum of its block it is added; −1 where there is none.
    sums: Vec<i64>,
}

/// The way from the rows of a batch to sums, one an entry.
pub struct Segments {
    stages: Vec<Stage>,
    /// The entries that occur, each once.
    entries: Vec<i64>,
    /// Where the sum of each is after the last stage.
    places: Vec<i64>,
}

impl Segments {
    /// For rows of these entries.
    ///
    /// # Errors
    /// One entry has too many rows.
    pub fn new(entries: &[i64]) -> Result<Self> {
        let mut rows: Vec<(i64, i64)> = entries.iter().enumerate().map(|(row, &entry)| (entry.max(0), row as i64)).collect();
        rows.sort_unstable();
        let mut stages = Vec::new();
        for _ in 0..STAGES {
            let (stage, sums) = stage(&rows);
            stages.push(stage);
            rows = sums;
        }
        ensure!(
            rows.windows(2).all(|pair| pair[0].0 != pair[1].0),
            "a batch has one token more than {} times; a smaller `batch_size` has it less often",
            BLOCK.pow(STAGES as u32)
        );
        let (entries, places) = rows.into_iter().unzip();
        Ok(Segments { stages, entries, places })
    }

    /// The graph inputs of [`sum`], by their `names`.
    pub fn inputs<'a>(&'a self, names: &'a Names) -> Vec<Input<'a>> {
        let mut inputs = Vec::new();
        for (stage, (order, sums)) in self.stages.iter().zip(&names.stages) {
            inputs.push(Input::integers(order, &[stage.order.len()], &stage.order));
            inputs.push(Input::integers(sums, &[stage.sums.len() / BLOCK, 1, BLOCK], &stage.sums));
        }
        inputs.push(Input::integers(&names.entries, &[self.entries.len(), 1], &self.entries));
        inputs.push(Input::integers(&names.places, &[self.places.len()], &self.places));
        inputs
    }
}

/// Lays out sorted rows, each with its entry: the stage, and the sums that it leaves, each with its entry and its place.
fn stage(rows: &[(i64, i64)]) -> (Stage, Vec<(i64, i64)>) {
    let mut stage = Stage { order: Vec::new(), sums: Vec::new() };
    let mut left = Vec::new();
    let mut next = 0;
    for piece in rows.chunk_by(|a, b| a.0 == b.0).flat_map(|segment| segment.chunks(BLOCK)) {
        let used = stage.order.len() % BLOCK;
        if used == 0 || used + piece.len() > BLOCK {
            stage.fill();
            next = 0;
        }
        let blocks = stage.order.len() / BLOCK;
        left.push((piece[0].0, (blocks * BLOCK + next) as i64));
        stage.order.extend(piece.iter().map(|(_, row)| row));
        stage.sums.resize(stage.order.len(), next as i64);
        next += 1;
    }
    stage.fill();
    (stage, left)
}

impl Stage {
    /// Fills the last block up.
    fn fill(&mut self) {
        let length = self.order.len().next_multiple_of(BLOCK);
        self.order.resize(length, 0);
        self.sums.resize(length, -1);
    }
}

/// The names of the graph inputs.
pub struct Names {
    stages: Vec<(String, String)>,
    entries: String,
    places: String,
}

impl Names {
    pub fn new(table: &str) -> Self {
        let stage = |i| (format!("order:{i}:{table}"), format!("sums:{i}:{table}"));
        Names { stages: (0..STAGES).map(stage).collect(), entries: format!("entries:{table}"), places: format!("places:{table}") }
    }
}

/// The gradient `[entries, width]` of a table from `rows` `[.., width]`, with graph inputs of these `names`.
pub fn sum(g: &Graph, rows: Value, entries: usize, names: &Names) -> Value {
    let width = g.last(rows);
    let mut rows = rows;
    for (i, (order, sums)) in names.stages.iter().enumerate() {
        let (padded, blocks) = (format!("{order} rows"), format!("{order} blocks"));
        let order = g.input(order, DataType::I64, shape![padded.as_str()]);
        let sums = g.input(sums, DataType::I64, shape![blocks.as_str(), 1, BLOCK]);
        let numbers: Vec<i64> = (0..BLOCK as i64).collect();
        let numbers = g.reshape(g.integers(&numbers), shape![BLOCK, 1]);
        let belongs = g.cast(g.equal(sums, numbers), DataType::F32);
        let sorted = g.reshape(g.lookup(rows, order), shape![blocks.as_str(), BLOCK, width]);
        let summed = g.matmul(belongs, sorted, false, false, 1.0);
        rows = g.reshape(summed, shape![format!("sums {i}").as_str(), width]);
    }
    let occurring = format!("{} entries", names.entries);
    let ids = g.input(&names.entries, DataType::I64, shape![occurring.as_str(), 1]);
    let places = g.input(&names.places, DataType::I64, shape![occurring.as_str()]);
    g.table(entries, ids, g.lookup(rows, places))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::runtime::session::Session;
    use crate::runtime::testing::downloads;
    use crate::train::optimizer::{Gradient, Rows};

    /// The gradient of a table of `entries` entries and 3 columns by the graph.
    fn found(ids: &[i64], rows: &[f32], entries: usize) -> Vec<f32> {
        let g = Graph::new();
        let names = Names::new("t");
        let value = g.input("rows", DataType::F32, shape!["n", 3]);
        g.output("table", sum(&g, value, entries, &names));
        let segments = Segments::new(ids).unwrap();
        let mut inputs = segments.inputs(&names);
        inputs.push(Input::floats("rows", &[ids.len(), 3], rows));
        let mut session = Session::from_model(&g.to_model().unwrap(), &downloads()).unwrap();
        session.run(&inputs).unwrap().remove(0).1
    }

    #[test]
    fn sums_are_those_of_the_rows_one_by_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // A frequent entry fills several blocks; others straddle the end of one.
        for (count, entries, frequent) in [(1, 4, 0.0), (700, 900, 0.0), (2500, 40, 0.0), (3000, 500, 0.6), (1300, 1, 0.0)] {
            let entry = |rng: &mut ChaCha8Rng| if rng.random_bool(frequent) { 0 } else { rng.random_range(0..entries as i64) };
            let ids: Vec<i64> = (0..count).map(|_| entry(&mut rng)).collect();
            // Whole numbers, of which sums are exact in any order.
            let rows: Vec<f32> = (0..count * 3).map(|_| rng.random_range(-50..50) as f32).collect();
            let mut expected = vec![0.0; entries * 3];
            for (&id, row) in ids.iter().zip(rows.chunks(3)) {
                expected[id as usize * 3..id as usize * 3 + 3].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            assert_eq!(found(&ids, &rows, entries), expected, "{count} rows, {entries} entries");
            let mut table = Rows::new(3);
            table.add(&ids, &rows);
            let norm = expected.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            assert_eq!(Gradient::Rows(table).norm(), norm);
        }
    }

    #[test]
    fn an_entry_with_more_rows_than_stages_can_sum_is_refused() {
        assert!(Segments::new(&vec![7; BLOCK * BLOCK]).is_ok());
        let error = Segments::new(&vec![7; BLOCK * BLOCK + 1]).err().unwrap();
        insta::assert_snapshot!(error, @"a batch has one token more than 262144 times; a smaller `batch_size` has it less often");
    }
}
