//! Dropout of released operators, for devices on which retune's own do not run. What is left out is a function of seed, site and place, as there, so that
//! nothing is stored and a second pass leaves out the same: a hash of the place by squares modulo primes, which 32-bit integers hold.

use super::super::graph::{Attribute, Graph, Value};
use super::super::shape::DataType;
use super::own::Dropout;

/// Of the hash of a position along one axis: the largest prime whose squares fit 64-bit integers with room for sums.
const WIDE: i64 = 2_147_483_647;
/// Of the hash of an element: a prime whose squares fit 32-bit integers.
const NARROW: i64 = 46_337;
/// Multipliers of what goes into a hash, to set like numbers apart.
const SPREAD: [i64; 3] = [1_103_515_245, 742_938_285, 630_360_016];
/// Squarings along an axis.
const ROUNDS: usize = 3;

impl Graph {
    /// A share of the elements of `x` set to 0, and the others multiplied accordingly.
    pub(super) fn released_dropout(&self, x: Value, how: Dropout) -> Value {
        let last = self.rank(x).saturating_sub(1);
        // Of all axes but the last, and of the last: two hashes each, so that elements that share one differ in the other.
        let rows = [0, 1].map(|salt| self.hash_of_rows(x, last, how, salt));
        let columns = [2, 3].map(|salt| self.hash_of_axis(x, last, how, salt));
        let mut hash = self.modulo(self.narrow_add(rows[0], columns[0]));
        for other in [rows[1], columns[1]] {
            hash = self.modulo(self.narrow_add(self.narrow_mul(hash, hash), other));
        }
        let threshold = self.narrow((f64::from(how.probability) * NARROW as f64) as i64);
        let shape = self.shape(x);
        let kept = self.node("GreaterOrEqual", "", &[hash, threshold], &[], DataType::Bool, shape);
        self.select(kept, self.scale(x, 1.0 / (1.0 - how.probability)), self.scalar(0.0))
    }

    /// The hash of the position along the axes before `last`.
    fn hash_of_rows(&self, x: Value, last: usize, how: Dropout, salt: i64) -> Value {
        let axes = (0..last).map(|axis| self.hash_of_axis(x, axis, how, salt));
        let mix = |hash, axis| self.modulo(self.narrow_add(self.narrow_mul(hash, hash), axis));
        axes.reduce(mix).unwrap_or_else(|| self.narrow(salt))
    }

    /// A hash below `NARROW` of every position along `axis`, in the shape of `x` with the other axes 1.
    fn hash_of_axis(&self, x: Value, axis: usize, how: Dropout, salt: i64) -> Value {
        let wide = |value| self.integer("Mod", value, self.integers(&[WIDE]));
        let place = (i64::from(how.site) * 8 + salt) * 8 + axis as i64;
        let seed = wide(self.integer("Add", wide(how.seed), self.integers(&[place * SPREAD[0] % WIDE])));
        let numbers = self.integer("Mul", self.numbers(x, axis), self.integers(&[SPREAD[1]]));
        let mut hash = wide(self.integer("Add", numbers, seed));
        for _ in 0..ROUNDS {
            // Squares alone would not tell x from −x.
            let more = self.integer("Add", hash, self.integers(&[SPREAD[2]]));
            hash = wide(self.integer("Mul", hash, more));
        }
        let hash = self.cast(self.integer("Mod", hash, self.integers(&[NARROW])), DataType::I32);
        let others: Vec<usize> = (0..self.rank(x)).filter(|&other| other != axis).collect();
        self.unsqueeze(hash, &others)
    }

    fn modulo(&self, x: Value) -> Value {
        self.binary("Mod", x, self.narrow(NARROW), DataType::I32)
    }

    fn narrow_add(&self, a: Value, b: Value) -> Value {
        self.binary("Add", a, b, DataType::I32)
    }

    fn narrow_mul(&self, a: Value, b: Value) -> Value {
        self.binary("Mul", a, b, DataType::I32)
    }

    /// A 32-bit integer.
    fn narrow(&self, x: i64) -> Value {
        let to = [("to", Attribute::Int(DataType::I32 as i64))];
        self.node("Cast", "", &[self.integers(&[x])], &to, DataType::I32, vec![1.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Gradient, differentiate};
    use super::*;
    use crate::runtime::session::{Input, Session};
    use crate::runtime::testing::devices;
    use crate::shape;

    /// Where ones of this shape are kept, and the gradient of their sum.
    fn mask(runtime: &crate::runtime::Runtime, shape: &[usize], seed: i64, site: u32) -> (Vec<f32>, Vec<f32>) {
        let g = Graph::new();
        let x = g.input("x", DataType::F32, shape.iter().map(|&size| size.into()).collect());
        let seed_input = g.input("seed", DataType::I64, shape![1]);
        let y = g.dropout(x, Dropout { seed: seed_input, site, probability: 0.1 });
        let Gradient::Dense(dx) = differentiate(&g, g.mean_all(y), &[x]).unwrap().remove(0) else { panic!() };
        g.output("y", y);
        g.output("dx", dx);
        let ones = vec![1.0; shape.iter().product()];
        let mut session = Session::from_model(&g.to_model().unwrap(), runtime).unwrap();
        let inputs = [Input::floats("x", shape, &ones), Input::integers("seed", &[1], std::slice::from_ref(&seed))];
        let mut outputs = session.run(&inputs).unwrap();
        (outputs.remove(0).1, outputs.remove(0).1)
    }

    /// How far the number of kept elements is from what is expected, in standard deviations.
    fn deviation(kept: usize, of: usize) -> f64 {
        (kept as f64 - of as f64 * 0.9) / (of as f64 * 0.09).sqrt()
    }

    #[test]
    fn elements_are_left_out_at_random_and_the_same_by_the_same_seed() {
        for runtime in devices() {
            let (rows, width) = (400, 384);
            let (y, dx) = mask(&runtime, &[rows, width], 7, 3);
            assert!(y.iter().all(|&y| y == 0.0 || (y - 1.0 / 0.9).abs() < 1e-6));
            assert!(y.iter().zip(&dx).all(|(y, dx)| (*y == 0.0) == (*dx == 0.0)), "the gradient passes where the value does");
            let kept: Vec<bool> = y.iter().map(|y| *y != 0.0).collect();
            let count = |at: &dyn Fn(usize, usize) -> bool| (0..rows * width).filter(|i| at(i / width, i % width)).count();
            let is = |row: usize, column: usize| kept[row * width + column];
            assert!(deviation(count(&is), rows * width).abs() < 4.0);
            // Row by row and column by column the numbers scatter as they should: their mean square is 1.
            let lines = |n: usize, of: usize, at: &dyn Fn(usize, usize) -> bool| {
                (0..n).map(|i| deviation((0..of).filter(|&k| at(i, k)).count(), of).powi(2)).sum::<f64>() / n as f64
            };
            for spread in [lines(rows, width, &is), lines(width, rows, &|column, row| is(row, column))] {
                assert!((0.75..1.25).contains(&spread), "{spread}");
            }
            // Neighbours, other seeds and other sites agree as often as chance has it: 0.82.
            let same =
                |other: &dyn Fn(usize, usize) -> bool| count(&|r, c| is(r, c) == other(r, c)) as f64 / (rows * width) as f64;
            let others =
                [(8, 3), (7, 4), (i64::MIN, 3), (-1, 3)].map(|(seed, site)| mask(&runtime, &[rows, width], seed, site).0);
            let mut agreements = vec![same(&|r, c| is(r, (c + 1) % width)), same(&|r, c| is((r + 1) % rows, c))];
            agreements.extend(others.iter().map(|other| same(&|r, c| other[r * width + c] != 0.0)));
            assert!(agreements.iter().all(|agreement| (agreement - 0.82).abs() < 0.01), "{agreements:?}");
            assert_eq!(mask(&runtime, &[rows, width], 7, 3).0, y);
        }
    }

    #[test]
    fn probabilities_of_attention_are_left_out_too() {
        for runtime in devices() {
            let shape = [3, 4, 50, 60];
            let (y, _) = mask(&runtime, &shape, 1, 2);
            let kept = y.iter().filter(|y| **y != 0.0).count();
            assert!(deviation(kept, y.len()).abs() < 4.0);
            let heads = y.chunks(50 * 60);
            let agreements = heads.clone().zip(heads.skip(1)).map(|(a, b)| a.iter().zip(b).filter(|(a, b)| a == b).count());
            assert!(agreements.into_iter().all(|same| (same as f64 / 3000.0 - 0.82).abs() < 0.04));
        }
    }
}
