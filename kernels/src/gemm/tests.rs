use super::*;
use crate::testing::{Random, all_isas, assert_close};
use crate::{Serial, Threads};

fn rounded(precision: Precision, x: &[f32]) -> Vec<f64> {
    let round = |x: &f32| match precision {
        Precision::Fp32 => f64::from(*x),
        Precision::Bf16 => f64::from(f32::from_bits(u32::from(crate::math::bf16(*x)) << 16)),
    };
    x.iter().map(round).collect()
}

/// The product of the rounded operands, `a [m, k]` and `b [k, n]` by their transposition flags.
fn naive(a: &[f64], b: &[f64], [m, k, n]: [usize; 3], [ta, tb]: [bool; 2]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            let x = if ta { a[l * m + i] } else { a[i * k + l] };
            for j in 0..n {
                c[i * n + j] += x * if tb { b[j * k + l] } else { b[l * n + j] };
            }
        }
    }
    c
}

fn matrix<'a>(data: impl Into<Numbers<'a>>, rows: usize, columns: usize, transposed: bool) -> Matrix<'a> {
    if transposed { Matrix::new(data, columns, rows).t() } else { Matrix::new(data, rows, columns) }
}

const SHAPES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [0, 5, 3],
    [3, 0, 5],
    [5, 3, 0],
    [1, 384, 384],
    [33, 31, 17],
    [32, 32, 32],
    [64, 512, 96],
    [70, 545, 50],
    [257, 100, 301],
    [384, 1100, 130],
    [31, 2000, 40],
];

#[test]
fn products_of_all_shapes_transpositions_and_instruction_sets() {
    let mut random = Random(1);
    for precision in [Precision::Fp32, Precision::Bf16] {
        for shape @ [m, k, n] in SHAPES {
            for flags in [[false, false], [true, false], [false, true], [true, true]] {
                let (a, b) = (random.normals(m * k), random.normals(k * n));
                let expected = naive(&rounded(precision, &a), &rounded(precision, &b), shape, flags);
                for isa in all_isas() {
                    let mut c = vec![f32::NAN; m * n];
                    let pool = Threads { threads: 2, isa };
                    gemm(&pool, precision, matrix(&a, m, k, flags[0]), matrix(&b, k, n, flags[1]), Then::Store, &mut c);
                    let what = format!("{isa} {precision:?} {shape:?} {flags:?}");
                    assert_close(&c, &expected, 1e-6 + 4e-7 * k as f64, &what);
                }
            }
        }
    }
}

#[test]
fn strided_operands() {
    let (m, k, n, stride) = (37, 40, 21, 50);
    let mut random = Random(2);
    let (wide, b) = (random.normals(m * stride), random.normals(k * n));
    let narrow: Vec<f32> = wide.chunks(stride).flat_map(|row| &row[7..7 + k]).copied().collect();
    let (mut c, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
    gemm(&Serial, Precision::Bf16, Matrix::new(&narrow, m, k), Matrix::new(&b, k, n), Then::Store, &mut expected);
    gemm(&Serial, Precision::Bf16, Matrix::strided(&wide[7..], m, k, stride), Matrix::new(&b, k, n), Then::Store, &mut c);
    assert_eq!(c, expected);
}

#[test]
fn what_follows_the_product() {
    let mut random = Random(3);
    for isa in all_isas() {
        for [m, k, n] in [[45, 33, 50], [70, 600, 64]] {
            let (a, b, bias) = (random.normals(m * k), random.normals(k * n), random.normals(n));
            let naive = naive(&rounded(Precision::Bf16, &a), &rounded(Precision::Bf16, &b), [m, k, n], [false, false]);
            let tolerance = 1e-6 + 4e-7 * k as f64;
            let pool = Threads { threads: 2, isa };
            let right = PackedB::pack(&pool, Precision::Bf16, Matrix::new(&b, k, n));
            let left = Matrix::new(&a, m, k);
            let product = |then: Then, c: &mut [f32]| multiply(&pool, &[left], &right, then, None, c);
            let mut plain = vec![0.0; m * n];
            product(Then::Store, &mut plain);

            let (summand, mut added) = (random.normals(m * n), vec![0.0; m * n]);
            product(Then::Add(&summand), &mut added);
            let expected: Vec<f64> = naive.iter().zip(&summand).map(|(x, s)| x + f64::from(*s)).collect();
            assert_close(&added, &expected, tolerance, "added");

            let mut biased = vec![0.0; m * n];
            product(Then::Bias(&bias), &mut biased);
            let expected: Vec<f64> = naive.iter().zip(bias.iter().cycle()).map(|(x, b)| x + f64::from(*b)).collect();
            assert_close(&biased, &expected, tolerance, "biased");

            let (mut slopes, mut after) = (vec![0.0; m * n], vec![0.0; m * n]);
            product(gelu(&bias, &mut slopes), &mut after);
            let expected: Vec<f64> = biased.iter().map(|&x| crate::testing::gelu(f64::from(x))).collect();
            assert_close(&after, &expected, 1e-5, "GELU");
            let mut expected = vec![0.0; m * n];
            crate::gelu::backward(&pool, &biased, &vec![1.0; m * n], &mut expected);
            assert_eq!(slopes, expected);

            let (mut scaled, mut expected) = (vec![0.0; m * n], plain.clone());
            product(Then::Scale((&slopes).into()), &mut scaled);
            expected.iter_mut().zip(&slopes).for_each(|(x, factor)| *x *= factor);
            assert_eq!(scaled, expected);

            // The same in bf16.
            let (mut slopes16, mut after16) = (vec![0; m * n], vec![0; m * n]);
            multiply(&pool, &[left], &right, gelu(&bias, &mut slopes16[..]), None, &mut after16[..]);
            assert_eq!(after16, narrow(&after));
            assert_eq!(slopes16, narrow(&slopes));
            let mut plain16 = vec![0; m * n];
            multiply(&pool, &[left], &right, Then::Store, None, &mut plain16[..]);
            assert_eq!(plain16, narrow(&plain));
        }
    }
}

fn gelu<'a>(bias: &'a [f32], slope: impl Into<NumbersMut<'a>>) -> Then<'a> {
    Then::Gelu { bias: Some(bias), slope: Some(slope.into()) }
}

/// Rounded to bf16.
fn narrow(x: &[f32]) -> Vec<u16> {
    x.iter().map(|&x| crate::math::bf16(x)).collect()
}

/// Factors that are there in bf16 give the products of those that are rounded on the way.
#[test]
fn factors_in_bf16() {
    let mut random = Random(6);
    for shape @ [m, k, n] in SHAPES {
        for flags in [[false, false], [true, false], [false, true], [true, true]] {
            let (a, b) = (random.normals(m * k), random.normals(k * n));
            let (a16, b16) = (narrow(&a), narrow(&b));
            for isa in all_isas() {
                let pool = Threads { threads: 2, isa };
                let (mut c, mut expected) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                let of = |a, b, c: &mut [f32]| gemm(&pool, Precision::Bf16, a, b, Then::Store, c);
                of(matrix(&a, m, k, flags[0]), matrix(&b, k, n, flags[1]), &mut expected);
                of(matrix(&a16[..], m, k, flags[0]), matrix(&b16[..], k, n, flags[1]), &mut c);
                assert_eq!(c, expected, "{isa} {shape:?} {flags:?}");
            }
        }
    }
}

#[test]
fn sums_of_products() {
    let mut random = Random(7);
    let (m, n) = (70, 45);
    for precision in [Precision::Fp32, Precision::Bf16] {
        for lengths in [[40, 33], [0, 5], [600, 545]] {
            let a = lengths.map(|k| random.normals(m * k));
            let b = lengths.map(|k| random.normals(k * n));
            let mut expected = vec![0.0; m * n];
            for i in 0..2 {
                let [a, b] = [rounded(precision, &a[i]), rounded(precision, &b[i])];
                let product = naive(&a, &b, [m, lengths[i], n], [false, false]);
                expected.iter_mut().zip(product).for_each(|(sum, x)| *sum += x);
            }
            for isa in all_isas() {
                let pool = Threads { threads: 2, isa };
                let [first, second] = [0, 1].map(|i| Matrix::new(&b[i], lengths[i], n));
                let right = PackedB::pack_all(&pool, precision, &[first, second]);
                let left = [0, 1].map(|i| Matrix::new(&a[i], m, lengths[i]));
                let mut c = vec![f32::NAN; m * n];
                multiply(&pool, &left, &right, Then::Store, None, &mut c);
                assert_close(&c, &expected, 6e-4, &format!("{isa} {precision:?} {lengths:?}"));
            }
        }
    }
}

#[test]
fn sums_of_rows_come_along() {
    let mut random = Random(4);
    for (m, k, n) in [(300, 1000, 70), (20, 16, 200), (5, 0, 3)] {
        let (a, b) = (random.normals(m * k), random.normals(k * n));
        let right = PackedB::pack(&Serial, Precision::Bf16, Matrix::new(&b, k, n));
        for transposed in [false, true] {
            let (mut sums, mut c) = (vec![0.0; m], vec![0.0; m * n]);
            multiply(&Serial, &[matrix(&a, m, k, transposed)], &right, Then::Store, Some(&mut sums), &mut c[..]);
            let at = |i: usize, l: usize| f64::from(if transposed { a[l * m + i] } else { a[i * k + l] });
            let expected: Vec<f64> = (0..m).map(|i| (0..k).map(|l| at(i, l)).sum()).collect();
            assert_close(&sums, &expected, 2e-4, "sums");
        }
    }
}

/// Whichever of both is the wider one.
#[test]
fn gradients_of_a_linear_layer() {
    let mut random = Random(8);
    for (tokens, to, from) in [(300, 130, 70), (300, 70, 130), (33, 5, 200), (0, 3, 4)] {
        let (dy, x) = (random.normals(tokens * to), random.normals(tokens * from));
        let expected = naive(&rounded(Precision::Bf16, &dy), &rounded(Precision::Bf16, &x), [to, tokens, from], [true, false]);
        let sums: Vec<f64> = (0..to).map(|i| dy.iter().skip(i).step_by(to).map(|&x| f64::from(x)).sum()).collect();
        for isa in all_isas() {
            let pool = Threads { threads: 2, isa };
            let (mut weight, mut bias) = (vec![f32::NAN; to * from], vec![f32::NAN; to]);
            let (dy, x) = (Matrix::new(&dy, tokens, to), Matrix::new(&x, tokens, from));
            weight_gradient(&pool, Precision::Bf16, dy, x, &mut weight, &mut bias);
            assert_close(&weight, &expected, 2e-4, &format!("weight, {isa}"));
            assert_close(&bias, &sums, 1e-4, &format!("bias, {isa}"));
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let mut random = Random(5);
    for isa in all_isas() {
        for (m, k, n) in [(700, 384, 384), (384, 900, 130), (100, 1536, 33)] {
            let (a, b) = (random.normals(m * k), random.normals(k * n));
            let results: Vec<(Vec<f32>, Vec<f32>)> = [1, 2, 3, 16]
                .into_iter()
                .map(|threads| {
                    let pool = Threads { threads, isa };
                    let (mut c, mut sums) = (vec![0.0; m * n], vec![0.0; m]);
                    let right = PackedB::pack(&pool, Precision::Bf16, Matrix::new(&b, k, n));
                    multiply(&pool, &[matrix(&a, m, k, true)], &right, Then::Store, Some(&mut sums), &mut c[..]);
                    (c, sums)
                })
                .collect();
            assert!(results.iter().all(|r| *r == results[0]), "{isa} {m} {k} {n}");
        }
    }
}

#[test]
fn infinities_and_nan_get_through() {
    for isa in all_isas() {
        for precision in [Precision::Fp32, Precision::Bf16] {
            let pool = Threads { threads: 1, isa };
            let (a, b) = ([f32::NAN, 1.0, f32::INFINITY, 1.0], [1.0, 2.0]);
            let mut c = [0.0f32; 2];
            gemm(&pool, precision, Matrix::new(&a[..], 2, 2), Matrix::new(&b[..], 2, 1), Then::Store, &mut c[..]);
            assert!(c[0].is_nan() && c[1] == f32::INFINITY, "{isa} {c:?}");
        }
    }
}
