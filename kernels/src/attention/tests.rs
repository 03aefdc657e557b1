use super::*;
use crate::matrix::Numbers;
use crate::testing::{Random, all_isas, assert_close};
use crate::{Pool, Threads};

/// A case with its inputs.
struct Case {
    starts: Vec<usize>,
    heads: usize,
    width: usize,
    scale: f32,
    window: Option<usize>,
    /// With its values.
    bias: Option<(usize, Vec<f32>)>,
    dropout: Option<Dropout>,
    /// Queries, keys, values side by side: `[tokens, 3 · hidden]`.
    qkv: Vec<f32>,
    gradient: Vec<f32>,
}

impl Case {
    fn new(lengths: &[usize], heads: usize, width: usize) -> Self {
        let mut starts = vec![0];
        lengths.iter().for_each(|len| starts.push(starts.last().unwrap() + len));
        let size = starts.last().unwrap() * heads * width;
        let mut random = Random(size as u64);
        let (qkv, gradient) = (random.normals(3 * size), random.normals(size));
        let scale = 1.0 / (width as f32).sqrt();
        Case { starts, heads, width, scale, window: None, bias: None, dropout: None, qkv, gradient }
    }

    fn all() -> Vec<Case> {
        let span = 150;
        let dropout = Dropout { seed: 3, site: 5, probability: 0.25 };
        vec![
            Case::new(&[1], 1, 32),
            Case::new(&[], 2, 32),
            Case::new(&[5, 0, 33, 32, 1], 2, 32),
            Case::new(&[100, 17], 3, 64),
            Case { window: Some(20), ..Case::new(&[130, 7, 64], 2, 48) },
            Case { window: Some(0), ..Case::new(&[40], 1, 16) },
            // Blocks within the window, on its border and beyond it.
            Case { window: Some(75), ..Case::new(&[200], 1, 32) },
            // More queries than gradients of keys are summed up over at once.
            Case::new(&[600, 3], 1, 16),
            // The greatest score belongs to the least product.
            Case { scale: -0.3, ..Case::new(&[50, 64], 2, 32) },
            Case { dropout: Some(dropout), ..Case::new(&[31, 70], 2, 32) },
            Case {
                bias: Some((span, Random(9).normals(3 * (2 * span - 1)))),
                window: Some(100),
                dropout: Some(dropout),
                ..Case::new(&[150, 20, 1, 65], 3, 20)
            },
        ]
    }

    fn tokens(&self) -> usize {
        *self.starts.last().unwrap()
    }

    fn attention(&self, precision: Precision) -> Attention<'_> {
        Attention {
            starts: &self.starts,
            heads: self.heads,
            scale: self.scale,
            window: self.window,
            bias: self.bias.as_ref().map(|(span, values)| Bias { values, span: *span }),
            dropout: self.dropout,
            precision,
        }
    }

    /// Output, logarithms of sums, gradients of queries, keys, values, bias.
    fn run(&self, pool: &dyn Pool, precision: Precision) -> [Vec<f32>; 6] {
        let (tokens, hidden) = (self.tokens(), self.heads * self.width);
        let attention = self.attention(precision);
        let columns = |i: usize| {
            let start = (i * hidden).min(self.qkv.len());
            Matrix::strided(&self.qkv[start..], tokens, hidden, 3 * hidden)
        };
        let inputs = Inputs { query: columns(0), key: columns(1), value: columns(2) };
        let (mut output, mut sums) = (vec![f32::NAN; tokens * hidden], vec![f32::NAN; tokens * self.heads]);
        forward(pool, &attention, &inputs, &mut output, &mut sums);
        let mut apart = [(); 3].map(|()| vec![f32::NAN; tokens * hidden]);
        let mut bias = vec![f32::NAN; self.bias.as_ref().map_or(0, |(_, values)| values.len())];
        let gradients = Gradients { inputs: apart.each_mut().map(|g| g.into()), bias: self.bias.as_ref().map(|_| &mut bias[..]) };
        backward(pool, &attention, &inputs, (&output).into(), &sums, (&self.gradient).into(), gradients);
        let [q, k, v] = apart;
        [output, sums, q, k, v, bias]
    }

    /// The same by the textbook, in double precision.
    fn naive(&self) -> [Vec<f64>; 6] {
        let (tokens, heads, width) = (self.tokens(), self.heads, self.width);
        let hidden = heads * width;
        let at = |part: usize, token: usize, column: usize| f64::from(self.qkv[token * 3 * hidden + part * hidden + column]);
        let scale = f64::from(self.scale);
        let mut out = [(); 5].map(|()| vec![0.0; tokens * hidden]);
        out[1] = vec![0.0; tokens * heads];
        let [output, sums, dq, dk, dv] = &mut out;
        let mut dbias = vec![0.0; self.bias.as_ref().map_or(0, |(_, values)| values.len())];
        for text in self.starts.windows(2) {
            for head in 0..heads {
                let columns = head * width..(head + 1) * width;
                for i in text[0]..text[1] {
                    let place = |j: usize| {
                        let (span, values) = self.bias.as_ref()?;
                        Some((head * (2 * span - 1) + j + span - 1 - i, values))
                    };
                    let score = |j: usize| {
                        let product: f64 = columns.clone().map(|c| at(0, i, c) * at(1, j, c)).sum();
                        product * scale + place(j).map_or(0.0, |(at, values)| f64::from(values[at]))
                    };
                    let seen: Vec<usize> =
                        (text[0]..text[1]).filter(|j| self.window.is_none_or(|w| j.abs_diff(i) <= w)).collect();
                    let greatest = seen.iter().map(|&j| score(j)).fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = seen.iter().map(|&j| (score(j) - greatest).exp()).sum();
                    sums[head * tokens + i] = greatest + sum.ln();
                    let probability = |j: usize| (score(j) - greatest).exp() / sum;
                    let keep = |j: usize| match self.dropout {
                        Some(d) if !d.keeps((i * heads + head) as u64, (j - text[0]) as u32) => 0.0,
                        Some(d) => 1.0 / (1.0 - f64::from(d.probability)),
                        None => 1.0,
                    };
                    let dp = |j: usize| -> f64 {
                        keep(j) * columns.clone().map(|c| f64::from(self.gradient[i * hidden + c]) * at(2, j, c)).sum::<f64>()
                    };
                    let average: f64 = seen.iter().map(|&j| probability(j) * dp(j)).sum();
                    for &j in &seen {
                        let p = probability(j);
                        let ds = p * (dp(j) - average);
                        if let Some((at, _)) = place(j) {
                            dbias[at] += ds;
                        }
                        for c in columns.clone() {
                            output[i * hidden + c] += p * keep(j) * at(2, j, c);
                            dv[j * hidden + c] += p * keep(j) * f64::from(self.gradient[i * hidden + c]);
                            dq[i * hidden + c] += ds * scale * at(1, j, c);
                            dk[j * hidden + c] += ds * scale * at(0, i, c);
                        }
                    }
                }
            }
        }
        let [output, sums, dq, dk, dv] = out;
        [output, sums, dq, dk, dv, dbias]
    }
}

const NAMES: [&str; 6] = ["output", "sums", "dq", "dk", "dv", "dbias"];

#[test]
fn follows_the_textbook() {
    for (i, case) in Case::all().into_iter().enumerate() {
        let expected = case.naive();
        for isa in all_isas() {
            for (precision, tolerance) in [(Precision::Fp32, 2e-5), (Precision::Bf16, 3e-2)] {
                let results = case.run(&Threads { threads: 2, isa }, precision);
                for ((result, expected), name) in results.iter().zip(&expected).zip(NAMES) {
                    assert_close(result, expected, tolerance, &format!("{name} of case {i}, {isa} {precision:?}"));
                }
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for isa in all_isas() {
        for precision in [Precision::Fp32, Precision::Bf16] {
            for case in Case::all() {
                let one = case.run(&Threads { threads: 1, isa }, precision);
                for threads in [2, 3] {
                    assert!(case.run(&Threads { threads, isa }, precision) == one);
                }
            }
        }
    }
}

/// Large scores must not overflow, as the greatest is subtracted.
#[test]
fn great_scores() {
    let mut case = Case::new(&[40, 3], 1, 32);
    case.qkv.iter_mut().for_each(|x| *x *= 30.0);
    let results = case.run(&Threads { threads: 1, isa: Isa::best() }, Precision::Fp32);
    assert_close(&results[0], &case.naive()[0], 2e-3, "output");
}

/// What is there in bf16 gives what rounding it on the way gives, and results in bf16 are the others rounded.
#[test]
fn numbers_in_bf16() {
    let narrow = |x: &[f32]| x.iter().map(|&x| crate::math::bf16(x)).collect::<Vec<u16>>();
    let wide = |x: &[u16]| x.iter().map(|&x| f32::from_bits(u32::from(x) << 16)).collect::<Vec<f32>>();
    let mut case = Case::new(&[5, 70, 33], 2, 32);
    (case.qkv, case.gradient) = (wide(&narrow(&case.qkv)), wide(&narrow(&case.gradient)));
    let (tokens, hidden) = (case.tokens(), case.heads * case.width);
    let (qkv, gradient) = (narrow(&case.qkv), narrow(&case.gradient));
    for isa in all_isas() {
        let pool = Threads { threads: 2, isa };
        let attention = case.attention(Precision::Bf16);
        let columns = |i: usize| Matrix::strided(&qkv[i * hidden..], tokens, hidden, 3 * hidden);
        let inputs = Inputs { query: columns(0), key: columns(1), value: columns(2) };
        let (mut output, mut sums) = (vec![0; tokens * hidden], vec![f32::NAN; tokens * case.heads]);
        forward(&pool, &attention, &inputs, &mut output[..], &mut sums);
        let [expected, expected_sums, ..] = case.run(&pool, Precision::Bf16);
        assert!(output == narrow(&expected) && sums == expected_sums, "{isa}");

        let expected = wide(&output);
        let [mut a, mut b] = [(); 2].map(|()| [(); 3].map(|()| vec![f32::NAN; tokens * hidden]));
        let mut low = [(); 3].map(|()| vec![0; tokens * hidden]);
        let gradients = |inputs| Gradients { inputs, bias: None };
        let wide_gradient = wide(&gradient);
        let all = [
            (Numbers::Fp32(&expected), Numbers::Fp32(&wide_gradient), a.each_mut().map(|g| g.into())),
            (Numbers::Bf16(&output), Numbers::Bf16(&gradient), b.each_mut().map(|g| g.into())),
            (Numbers::Bf16(&output), Numbers::Bf16(&gradient), low.each_mut().map(|g| g[..].as_mut().into())),
        ];
        for (output, gradient, inputs_of) in all {
            backward(&pool, &attention, &inputs, output, &sums, gradient, gradients(inputs_of));
        }
        assert!(a == b && low == a.each_ref().map(|g| narrow(g)), "{isa}");
    }
}
