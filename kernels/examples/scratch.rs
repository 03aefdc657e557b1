use retune_kernels::activation;
use retune_kernels::attention::*;
use retune_kernels::gemm::*;
use retune_kernels::*;
use std::time::Instant;
fn best(mut f: impl FnMut()) -> f64 {
    let mut b = f64::INFINITY;
    let s = Instant::now();
    while s.elapsed().as_millis() < 700 {
        let s = Instant::now();
        f();
        b = b.min(s.elapsed().as_secs_f64());
    }
    b
}
fn main() {
    let pool = Serial;
    let n = 8192;
    let x: Vec<f32> = (0..n).map(|i| (i % 1000) as f32 / 100.0 - 5.0).collect();
    let dy = x.clone();
    let mut y = vec![0.0; n];
    for a in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        println!(
            "{a:?} fwd {:.3} ns/el bwd {:.3}",
            best(|| activation::forward(&pool, a, &x, &mut y)) * 1e9 / n as f64,
            best(|| activation::backward(&pool, a, &x, &dy, &mut y)) * 1e9 / n as f64
        );
    }
    let d = Dropout { seed: 1, site: 1, probability: 0.1 };
    println!("dropout {:.3} ns/el", best(|| dropout(&pool, d, 384, &x[..384 * 20], &mut y[..384 * 20])) * 1e9 / 7680.0);
    for (m, k, n) in [(128, 384, 384), (512, 384, 384), (128, 1536, 384), (128, 384, 1536), (512, 384, 1536), (512, 1536, 384)] {
        let a: Vec<f32> = (0..m * k).map(|i| (i % 100) as f32).collect();
        let b: Vec<f32> = (0..n * k).map(|i| (i % 100) as f32).collect();
        let mut c = vec![0.0; m * n];
        let p = PackedB::pack(&pool, Precision::Bf16, Matrix::new(&b, k, n));
        let t = best(|| multiply(&pool, Matrix::new(&a, m, k), &p, Then::Store, None, &mut c));
        println!("gemm {m} {k} {n}: {:.1} us {:.0} GFLOP/s", t * 1e6, 2.0 * (m * n * k) as f64 / t / 1e9);
    }
    for len in [20, 64, 128, 245, 256, 512] {
        let (heads, hidden) = (12, 384);
        let texts = 1;
        let t = texts * len;
        let q: Vec<f32> = (0..t * hidden).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let starts: Vec<usize> = (0..texts + 1).map(|i| i * len).collect();
        for precision in [Precision::Bf16, Precision::Fp32] {
            let at = Attention { starts: &starts, heads, scale: 0.18, window: None, bias: None, dropout: None, precision };
            let m = Matrix::new(&q, t, hidden);
            let inputs = Inputs { query: m, key: m, value: m };
            let (mut o, mut l) = (vec![0.0; t * hidden], vec![0.0; t * heads]);
            let f = best(|| forward(&pool, &at, &inputs, &mut o, &mut l));
            let mut g = [(); 3].map(|()| vec![0.0; t * hidden]);
            let b = best(|| {
                backward(
                    &pool,
                    &at,
                    &inputs,
                    &o,
                    &l,
                    &q,
                    Gradients { inputs: InputGradients::Apart(g.each_mut().map(|g| &mut g[..])), bias: None },
                )
            });
            let n = (texts * heads * len * len) as f64;
            println!("attention {precision:?} {len}: fwd {:.2} ns/score bwd {:.2} ns/score", f * 1e9 / n, b * 1e9 / n);
        }
    }
}
