//! Prints how fast each kernel is on the shapes of a MiniLM at a batch of 4,084 tokens: `cargo run --release -p retune-kernels --example speed`.

use std::hint::black_box;
use std::time::Instant;

use retune_kernels::gemm::{Matrix, PackedB, Then, gemm, multiply};
use retune_kernels::{Isa, Pool, Precision, Threads};

const TOKENS: usize = 4_084;
const HIDDEN: usize = 384;
const INNER: usize = 1_536;

/// The best time of several runs, in seconds.
fn time(mut run: impl FnMut()) -> f64 {
    run();
    let mut best = f64::INFINITY;
    let start = Instant::now();
    while start.elapsed().as_millis() < 400 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
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
    line("x [4084,384] · v', 384 columns", HIDDEN, time(|| gemm(pool, precision, x, v.t(), Then::Store, &mut narrow)));
    line("x [4084,384] · w', 1536 columns", INNER, time(|| gemm(pool, precision, x, w.t(), Then::Store, &mut wide)));
    let packed = PackedB::pack(pool, precision, w.t());
    line("  w packed", INNER, time(|| multiply(pool, x, &packed, Then::Store, None, &mut wide)));
    line("h [4084,1536] · w, 384 columns", INNER, time(|| gemm(pool, precision, h, w, Then::Store, &mut narrow)));
    line("x' · x, 384 × 384", HIDDEN, time(|| gemm(pool, precision, x.t(), x, Then::Store, &mut gradient[..HIDDEN * HIDDEN])));
    line("h' · x, 1536 × 384", INNER, time(|| gemm(pool, precision, h.t(), x, Then::Store, &mut gradient)));
    let with_sums = time(|| {
        let right = PackedB::pack(pool, precision, x);
        multiply(pool, h.t(), &right, Then::Store, Some(&mut sums), &mut gradient);
    });
    line("  with the sums of h's columns", INNER, with_sums);
    line("x' · h, 384 × 1536", INNER, time(|| gemm(pool, precision, x.t(), h, Then::Store, &mut gradient)));
    line("pack x as right matrix", HIDDEN, time(|| drop(black_box(PackedB::pack(pool, precision, x)))));
    line("pack h as right matrix", HIDDEN, time(|| drop(black_box(PackedB::pack(pool, precision, h)))));
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2);
    for isa in Isa::available().into_iter().rev() {
        let pool = Threads { threads, isa };
        for precision in [Precision::Bf16, Precision::Fp32] {
            println!("{isa}, {precision:?}, {threads} threads");
            products(&pool, precision);
        }
        if std::env::args().nth(2).is_none() {
            break;
        }
    }
}
