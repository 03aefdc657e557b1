use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::runtime::testing::devices;
use crate::train::optimizer::{self, Gradient, Rows, clip_factor, norm};

const WEIGHTS: [(&str, &[usize], Treatment); 4] = [
    ("matrix", &[40, 30], Treatment { decay: 0.01, rate: 1.0 }),
    ("bias", &[30], Treatment { decay: 0.0, rate: 1.0 }),
    ("table", &[700, 6], Treatment { decay: 0.01, rate: 1.0 }),
    ("slow", &[5, 5], Treatment { decay: 0.01, rate: 0.1 }),
];

/// A graph that hands its inputs on as the graph of a training step hands on gradients.
fn passing(buffers: &mut Buffers, parameters: &Parameters, runtime: &Runtime) -> Trainable {
    let g = Graph::new();
    for (name, shape, _) in WEIGHTS.iter().filter(|(name, ..)| *name != "table") {
        let output = format!("gradient:{name}");
        let input = g.input(&format!("in {name}"), DataType::F32, fixed(shape));
        g.output(&output, g.scale(input, 1.0));
        buffers.add(&output, shape, runtime).unwrap();
    }
    let ids = g.input("in ids", DataType::I64, crate::shape!["n"]);
    let rows = g.input("in rows", DataType::F32, crate::shape!["n", 6]);
    g.output("ids", ids);
    g.output("rows", g.scale(rows, 1.0));
    let free = vec!["ids".to_owned(), "rows".to_owned()];
    Trainable::open(&g.to_model().unwrap(), parameters, buffers, free, runtime).unwrap().keeping(vec!["rows".to_owned()])
}

/// The gradients of one batch.
struct Gradients {
    dense: Vec<(String, Vec<usize>, Vec<f32>)>,
    ids: Vec<i64>,
    rows: Vec<f32>,
}

impl Gradients {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        let mut numbers = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0f32)).collect::<Vec<f32>>();
        let dense = WEIGHTS.iter().filter(|(name, ..)| *name != "table");
        let dense =
            dense.map(|(name, shape, _)| (format!("in {name}"), shape.to_vec(), numbers(shape.iter().product()))).collect();
        let rows = numbers(900 * 6);
        Gradients { dense, ids: (0..900).map(|_| rng.random_range(0..90)).collect(), rows }
    }

    fn run(&self, graph: &mut Trainable) -> Outputs {
        let mut inputs: Vec<Input> = self.dense.iter().map(|(name, shape, data)| Input::floats(name, shape, data)).collect();
        inputs.push(Input::integers("in ids", &[self.ids.len()], &self.ids));
        inputs.push(Input::floats("in rows", &[self.ids.len(), 6], &self.rows));
        graph.run(&inputs).unwrap()
    }

    /// In the order of the weights.
    fn of_processor(&self) -> Vec<Gradient<'_>> {
        let mut gradients: Vec<Gradient> = self.dense.iter().map(|(_, _, data)| Gradient::Dense(data)).collect();
        let mut rows = Rows::new(6);
        rows.add(&self.ids, &self.rows);
        gradients.insert(2, Gradient::Rows(rows));
        gradients
    }
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for (x, e) in found.iter().zip(expected) {
        assert!((x - e).abs() <= 1e-6 * largest, "{what}: {x} instead of {e}");
    }
}

#[test]
fn ten_steps_are_those_of_the_optimizer_in_memory() {
    for runtime in devices() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut weights: Vec<Vec<f32>> = WEIGHTS
            .iter()
            .map(|(_, shape, _)| (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect())
            .collect();
        let initial = WEIGHTS.iter().zip(&weights).map(|((name, shape, _), data)| (*name, *shape, data.as_slice()));
        let mut parameters = Parameters::new(initial, &runtime).unwrap();
        let mut buffers = Buffers::default();
        let mut graph = passing(&mut buffers, &parameters, &runtime);
        let mut device = Optimizer::new(AdamW::default(), WEIGHTS.into_iter(), &mut parameters, &runtime).unwrap();
        let dense = |name: &str| Form::Dense(format!("gradient:{name}"));
        let forms = [dense("matrix"), dense("bias"), Form::Rows(vec![("ids".into(), "rows".into())]), dense("slow")];
        let mut gather = device.gather(&forms, &buffers).unwrap();
        let mut memory = optimizer::Optimizer::treating(AdamW::default(), WEIGHTS.iter().map(|(_, shape, t)| (*shape, *t)));
        for step in 0..10 {
            let lr = 1e-2 / (1.0 + f64::from(step));
            let gradients = Gradients::random(&mut rng);
            device.add(&mut gather, &gradients.run(&mut graph)).unwrap();
            let found = device.norm();
            let of_processor = gradients.of_processor();
            let expected = norm(&of_processor);
            assert!((found - expected).abs() <= 1e-6 * expected, "norm {found} instead of {expected}");
            // Half of the steps clip.
            let most = if step % 2 == 0 { expected / 3.0 } else { 2.0 * expected };
            device.step(lr, clip_factor(found, most)).unwrap();
            memory.step(lr, clip_factor(expected, most), weights.iter_mut().map(Vec::as_mut_slice).collect(), &of_processor);
            if step == 4 {
                // What a checkpoint holds is all there is.
                let moments = device.moments().unwrap();
                device = Optimizer::new(AdamW::default(), WEIGHTS.into_iter(), &mut parameters, &runtime).unwrap();
                device.resume(5, &moments, None).unwrap();
                gather = device.gather(&forms, &buffers).unwrap();
            }
        }
        for ((name, ..), expected) in WEIGHTS.iter().zip(&weights) {
            assert_close(&parameters.tensor(name).unwrap().read().unwrap(), expected, name);
        }
        for ((found, expected), (name, ..)) in device.moments().unwrap().iter().zip(memory.moments()).zip(WEIGHTS) {
            assert_close(&found.0, expected.0, name);
            assert_close(&found.1, expected.1, name);
        }
    }
}

#[test]
fn the_gradients_of_several_batches_are_added_up_and_given_up() {
    for runtime in devices() {
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let zeros: Vec<Vec<f32>> = WEIGHTS.iter().map(|(_, shape, _)| vec![0.0; shape.iter().product()]).collect();
        let initial = WEIGHTS.iter().zip(&zeros).map(|((name, shape, _), data)| (*name, *shape, data.as_slice()));
        let mut parameters = Parameters::new(initial, &runtime).unwrap();
        let mut buffers = Buffers::default();
        let mut graph = passing(&mut buffers, &parameters, &runtime);
        let mut device = Optimizer::new(AdamW::default(), WEIGHTS.into_iter(), &mut parameters, &runtime).unwrap();
        let rows = || Form::Rows(vec![("ids".into(), "rows".into())]);
        let forms = [Form::Dense("gradient:matrix".into()), Form::Nowhere, rows(), Form::Dense("gradient:slow".into())];
        let mut gather = device.gather(&forms, &buffers).unwrap();
        let batches = [Gradients::random(&mut rng), Gradients::random(&mut rng)];
        let mut broken = Gradients::random(&mut rng);
        broken.rows[7] = f32::NAN;
        device.add(&mut gather, &broken.run(&mut graph)).unwrap();
        assert!(!device.norm().is_finite());
        device.forget();
        batches.iter().for_each(|batch| device.add(&mut gather, &batch.run(&mut graph)).unwrap());
        let found = device.norm();
        let mut sum = optimizer::Sum::default();
        batches.iter().for_each(|batch| sum.add(&batch.of_processor()));
        // All but the bias, which this loss does not depend on.
        let expected = sum.take(|gradients| {
            let squares = gradients.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, g)| g.norm().powi(2));
            squares.sum::<f64>().sqrt()
        });
        assert!((found - expected).abs() <= 1e-6 * expected, "norm {found} instead of {expected}");
    }
}
