//! Prints how fast each kernel is on the shapes of a MiniLM at a batch of 4,084 tokens: `cargo run --release -p retune-kernels --example speed`.

use std::hint::black_box;
use std::time::Instant;

use retune_kernels::adamw::{Factors, squares, update};
use retune_kernels::attention::{Attention, Gradients, Inputs, backward, forward};
use retune_kernels::gelu;
use retune_kernels::gemm::{PackedB, Then, gemm, multiply};
use retune_kernels::norm::{self, LayerNorm};
use retune_kernels::{Dropout, Isa, Matrix, Pool, Precision, Threads, dropout};

const TOKENS: usize = 4_084;
const HIDDEN: usize = 384;
const INNER: usize = 1_536;

/// Seconds of the processor that all threads of this process have used.
fn used() -> f64 {
    const PROCESS: i32 = 2;
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    let mut time = [0; 2];
    // SAFETY: the call writes seconds and nanoseconds, 64 bits each.
    unsafe { clock_gettime(PROCESS, &mut time) };
    time[0] as f64 + time[1] as f64 / 1e9
}

/// The best time of several runs, in seconds of one thread: what other programs take from the processor does not count.
fn time(pool: &dyn Pool, mut run: impl FnMut()) -> f64 {
    run();
    let mut best = f64::INFINITY;
    let start = Instant::now();
    while start.elapsed().as_millis() < 400 {
        let start = used();
        run();
        best = best.min(used() - start);
    }
    best / pool.threads() as f64
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5).collect()
}

fn products(pool: &dyn Pool, precision: Precision) {
    let (x, h) = (values(TOKENS * HIDDEN), values(TOKENS * INNER));
    let (w, v) = (values(INNER * HIDDEN), values(HIDDEN * HIDDEN));
    let (mut narrow, mut wide) = (vec![0.0; TOKENS * HIDDEN], vec![0.0; TOKENS * INNER]);
    let (mut gradient, mut sums) = (vec![0.0; INNER * HIDDEN], vec![0.0; INNER]);
    let (x, h) = (Matrix::new(&x, TOKENS, HIDDEN), Matrix::new(&h, TOKENS, INNER));
    let (w, v) = (Matrix::new(&w, INNER, HIDDEN), Matrix::new(&v, HIDDEN, HIDDEN));
    let line = |name: &str, size: usize, seconds: f64| {
        let flops = 2.0 * (TOKENS * HIDDEN * size) as f64;
        println!("{name:40} {:8.2} ms {:8.0} GFLOP/s", seconds * 1e3, flops / seconds / 1e9);
    };
    line("x [4084,384] · v', 384 columns", HIDDEN, time(pool, || gemm(pool, precision, x, v.t(), Then::Store, &mut narrow)));
    line("x [4084,384] · w', 1536 columns", INNER, time(pool, || gemm(pool, precision, x, w.t(), Then::Store, &mut wide)));
    let packed = PackedB::pack(pool, precision, w.t());
    line("  w packed", INNER, time(pool, || multiply(pool, &[x], &packed, Then::Store, None, &mut wide)));
    line("h [4084,1536] · w, 384 columns", INNER, time(pool, || gemm(pool, precision, h, w, Then::Store, &mut narrow)));
    line(
        "x' · x, 384 × 384",
        HIDDEN,
        time(pool, || gemm(pool, precision, x.t(), x, Then::Store, &mut gradient[..HIDDEN * HIDDEN])),
    );
    line("h' · x, 1536 × 384", INNER, time(pool, || gemm(pool, precision, h.t(), x, Then::Store, &mut gradient)));
    let with_sums = time(pool, || {
        let right = PackedB::pack(pool, precision, x);
        multiply(pool, &[h.t()], &right, Then::Store, Some(&mut sums), &mut gradient);
    });
    line("  with the sums of h's columns", INNER, with_sums);
    line("x' · h, 384 × 1536", INNER, time(pool, || gemm(pool, precision, x.t(), h, Then::Store, &mut gradient)));
    line("pack x as right matrix", HIDDEN, time(pool, || drop(black_box(PackedB::pack(pool, precision, x)))));
    line("pack h as right matrix", HIDDEN, time(pool, || drop(black_box(PackedB::pack(pool, precision, h)))));
}

/// Titles of 20 tokens and abstracts of 245, as triplets have them.
fn attend(pool: &dyn Pool, precision: Precision, dropout: Option<Dropout>) {
    let lengths = [20; 8].into_iter().chain([245; 15]).chain([TOKENS - 8 * 20 - 15 * 245]);
    let mut starts = vec![0];
    lengths.clone().for_each(|len| starts.push(starts.last().unwrap_or(&0) + len));
    let heads = 12;
    let attention = Attention { starts: &starts, heads, scale: 0.18, window: None, bias: None, dropout, precision };
    let qkv = values(3 * TOKENS * HIDDEN);
    let of = |i: usize| Matrix::new(&qkv[i * TOKENS * HIDDEN..(i + 1) * TOKENS * HIDDEN], TOKENS, HIDDEN);
    let inputs = Inputs { query: of(0), key: of(1), value: of(2) };
    let (mut output, mut sums) = (vec![0.0; TOKENS * HIDDEN], vec![0.0; TOKENS * heads]);
    let products = 2.0 * lengths.map(|len| len * len * HIDDEN).sum::<usize>() as f64;
    let line = |name: &str, products: f64, seconds: f64| {
        println!("{name:40} {:8.2} ms {:8.0} GFLOP/s", seconds * 1e3, products / seconds / 1e9);
    };
    let seconds = time(pool, || forward(pool, &attention, &inputs, &mut output, &mut sums));
    line(if dropout.is_some() { "attention with dropout" } else { "attention" }, 2.0 * products, seconds);
    let mut gradients = [(); 3].map(|()| vec![0.0; TOKENS * HIDDEN]);
    let gradient = values(TOKENS * HIDDEN);
    let seconds = time(pool, || {
        let gradients = Gradients { inputs: gradients.each_mut().map(|g| g.into()), bias: None };
        backward(pool, &attention, &inputs, (&output).into(), &sums, (&gradient).into(), gradients);
    });
    line("  its gradients", 5.0 * products, seconds);
}

/// Kernels that memory limits.
fn passes(pool: &dyn Pool) {
    let (x, dy) = (values(TOKENS * INNER), values(TOKENS * INNER));
    let mut y = vec![0.0; TOKENS * INNER];
    let line = |name: &str, numbers: usize, seconds: f64| {
        println!("{name:40} {:8.2} ms {:8.1} GB/s", seconds * 1e3, numbers as f64 * 4e-9 / seconds);
    };
    let size = x.len();
    line("GELU [4084,1536]", 2 * size, time(pool, || gelu::forward(pool, &x, &mut y)));
    line("  its gradient", 3 * size, time(pool, || gelu::backward(pool, &x, &dy, &mut y)));

    let size = TOKENS * HIDDEN;
    let (x, dy, y) = (&x[..size], &dy[..size], &mut y[..size]);
    let (weight, bias) = (values(HIDDEN), values(HIDDEN));
    let norm = LayerNorm { weight: &weight, bias: Some(&bias), epsilon: 1e-12 };
    let (mut sum, mut mean, mut inverse) = (vec![0.0; size], vec![0.0; TOKENS], vec![0.0; TOKENS]);
    let seconds = time(pool, || {
        let outputs = norm::Outputs { y, low: None, sum: Some(&mut sum), mean: &mut mean, inverse: &mut inverse };
        norm::forward(pool, &norm, x, Some(dy), outputs);
    });
    line("add and layer norm [4084,384]", 4 * size, seconds);
    let (mut dweight, mut dbias) = (vec![0.0; HIDDEN], vec![0.0; HIDDEN]);
    let inputs = norm::Inputs { x: &sum, mean: &mean, inverse: &inverse, weight: &weight };
    let seconds = time(pool, || {
        let gradients = norm::Gradients { x: y, low: None, weight: &mut dweight, bias: Some(&mut dbias) };
        norm::backward(pool, &inputs, dy, gradients);
    });
    line("  its gradients", 3 * size, seconds);
    let setting = Dropout { seed: 1, site: 2, probability: 0.1 };
    line("dropout [4084,384]", 2 * size, time(pool, || dropout(pool, setting, HIDDEN, x, y)));

    let size = 1 << 22;
    let (mut weight, mut first, mut second, gradient) = (values(size), values(size), vec![1.0; size], values(size));
    let factors =
        Factors { keep: 0.9999, clip: 0.5, beta2: 0.999, rest1: 0.1, rest2: 0.001, rate: 0.01, scale: 3.0, epsilon: 1e-8 };
    let seconds = time(pool, || update(pool.isa(), factors, &mut weight, &mut first, &mut second, &gradient));
    // On one thread, which `time` does not know.
    line("AdamW of 4 million", 7 * size, seconds * pool.threads() as f64);
    line("squares of 4 million", size, time(pool, || _ = black_box(squares(pool, &gradient))));
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2);
    for isa in Isa::available().into_iter().rev() {
        let pool = Threads { threads, isa };
        for precision in [Precision::Bf16, Precision::Fp32] {
            if std::env::var_os("BF").is_some() && precision == Precision::Fp32 {
                continue;
            }
            println!("{isa}, {precision:?}, {threads} threads");
            if std::env::var_os("ONLY").is_none() {
                products(&pool, precision);
            }
            if precision == Precision::Bf16 {
                passes(&pool);
            }
            attend(&pool, precision, None);
            attend(&pool, precision, Some(Dropout { seed: 1, site: 2, probability: 0.1 }));
        }
        if std::env::args().nth(2).is_none() {
            break;
        }
    }
}
