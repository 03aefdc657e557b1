//! Principal component analysis.

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip, s};

/// Rows projected on the two directions in which they vary most.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `[rows, 2]`
    pub coordinates: Array2<f64>,
    /// The share of the variance along either axis, from 0 to 1.
    pub explained: [f64; 2],
}

/// Directions whose share of the variance is below this are noise of the arithmetic.
const NEGLIGIBLE: f64 = 1e-12;

/// Projects `rows` `[rows, dimensions]`. The sign of an axis, which is arbitrary, is the one that makes its largest loading (of equal
/// ones the first) positive, so that the same rows always yield the same picture. An axis without variance is all zeros.
pub fn project(rows: ArrayView2<f64>) -> Projection {
    let mut projection = Projection { coordinates: Array2::zeros((rows.nrows(), 2)), explained: [0.0; 2] };
    let Some(mean) = rows.mean_axis(Axis(0)) else { return projection };
    let centred = &rows - &mean;
    let variance: f64 = centred.iter().map(|x| x * x).sum();
    // Both products have the same eigenvalues other than 0; the smaller one is quicker.
    let wide = centred.nrows() <= centred.ncols();
    let (values, vectors) = eigen(if wide { centred.dot(&centred.t()) } else { centred.t().dot(&centred) });
    for (axis, (value, vector)) in values.iter().zip(vectors.rows()).take(2).enumerate() {
        if *value <= NEGLIGIBLE * variance {
            continue;
        }
        let mut loadings = if wide { centred.t().dot(&vector) / value.sqrt() } else { vector.to_owned() };
        if largest(&loadings) < 0.0 {
            loadings.mapv_inplace(|x| -x);
        }
        projection.coordinates.column_mut(axis).assign(&centred.dot(&loadings));
        projection.explained[axis] = value / variance;
    }
    projection
}

/// The entry of the largest magnitude; of equal ones the first.
fn largest(loadings: &Array1<f64>) -> f64 {
    loadings.iter().fold(0.0, |best: f64, &x| if x.abs() > best.abs() { x } else { best })
}

/// Eigenvalues, largest first, and eigenvectors (as rows) of a symmetric matrix, by Jacobi's method: plane rotations, each of which
/// makes one pair of entries 0, until all of them are (Golub and Van Loan, Matrix Computations, 8.5).
fn eigen(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    let mut vectors = Array2::eye(n);
    let negligible = a.iter().map(|x| x * x).sum::<f64>() * 1e-30;
    // Convergence is quadratic; sweeps beyond ten are not seen.
    for _ in 0..50 {
        let off: f64 = a.indexed_iter().filter(|((i, j), _)| i < j).map(|(_, x)| x * x).sum();
        if off <= negligible {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[[j, j]].total_cmp(&a[[i, i]]).then(i.cmp(&j)));
    (order.iter().map(|&i| a[[i, i]]).collect(), vectors.select(Axis(0), &order))
}

/// Rotates in the plane of `p` < `q` so that `a[p][q]` becomes 0.
fn rotate(a: &mut Array2<f64>, vectors: &mut Array2<f64>, p: usize, q: usize) {
    let (app, aqq, apq) = (a[[p, p]], a[[q, q]], a[[p, q]]);
    if apq == 0.0 {
        return;
    }
    let theta = (aqq - app) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for matrix in [&mut *a, vectors] {
        let (mut rows_p, mut rows_q) = matrix.multi_slice_mut((s![p, ..], s![q, ..]));
        Zip::from(&mut rows_p).and(&mut rows_q).for_each(|x, y| (*x, *y) = (c * *x - s * *y, s * *x + c * *y));
    }
    // The matrix stays symmetric: its columns are its rows, but for the four entries that both rotations touch.
    for k in 0..a.nrows() {
        a[[k, p]] = a[[p, k]];
        a[[k, q]] = a[[q, k]];
    }
    a[[p, p]] = app - t * apq;
    a[[q, q]] = aqq + t * apq;
    a[[p, q]] = 0.0;
    a[[q, p]] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    /// Rows that any language can make: a linear congruential generator, columns of falling weight, three groups.
    fn rows(n: usize, d: usize) -> Array2<f64> {
        let mut state = 1u64;
        Array2::from_shape_fn((n, d), |(i, j)| {
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            (state as f64 / f64::from(1u32 << 31) - 0.5) / (1 + j) as f64 + (i % 3) as f64 * 0.2
        })
    }

    fn agrees(found: &Projection, coordinates: &Array2<f64>, explained: [f64; 2]) {
        assert!((&found.coordinates - coordinates).iter().all(|x| x.abs() < 1e-11), "{:?}", found.coordinates);
        assert!(found.explained.iter().zip(explained).all(|(a, b)| (a - b).abs() < 1e-11), "{:?}", found.explained);
    }

    // Figures of scikit-learn's `PCA(2, svd_solver="full")`, signs by the rule of `project`.
    #[test]
    fn agrees_with_scikit_learn_on_few_rows() {
        let expected = array![
            [-0.563474038208, -0.163555086966],
            [-0.093173845353, -0.101821439835],
            [0.819921769424, 0.040960365322],
            [-0.476370436742, 0.26029506612],
            [0.313096550879, -0.035878904641]
        ];
        agrees(&project(rows(5, 8).view()), &expected, [0.874890035451, 0.071289109516]);
    }

    #[test]
    fn agrees_with_scikit_learn_on_many_rows() {
        let expected = array![
            [-0.512111838212, -0.225914507725],
            [0.217911224005, -0.356861750754],
            [0.178660784747, -0.03736693098],
            [-0.556912451168, 0.053573736304],
            [0.231685008823, -0.046253708768],
            [0.497393830627, -0.179757595807],
            [-0.473771560985, 0.156581610925],
            [0.170986131337, 0.120629646792],
            [0.67338421464, 0.004218551371],
            [-0.55978987437, -0.083506148199],
            [-0.09132921054, 0.09662844426],
            [0.223893741095, 0.49802865258]
        ];
        agrees(&project(rows(12, 4).view()), &expected, [0.759044996333, 0.194456591010]);
    }

    #[test]
    fn rows_without_variance_are_at_the_origin() {
        let same = project(array![[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]].view());
        assert_eq!((same.coordinates, same.explained), (Array2::zeros((3, 2)), [0.0; 2]));
        let line = project(array![[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]].view());
        assert_eq!(line.coordinates.column(1).to_vec(), [0.0, 0.0]);
        assert!((line.coordinates[[1, 0]] - 2.5).abs() < 1e-12 && (line.explained[0] - 1.0).abs() < 1e-12);
        assert_eq!(project(Array2::zeros((0, 3)).view()).coordinates.nrows(), 0);
        assert_eq!(project(Array2::zeros((2, 0)).view()).coordinates, Array2::<f64>::zeros((2, 2)));
    }

    proptest! {
        #[test]
        fn eigenvectors_are_orthogonal_and_make_the_matrix_up(entries in prop::collection::vec(-5i32..5, 36)) {
            let half = Array2::from_shape_vec((6, 6), entries.into_iter().map(f64::from).collect()).unwrap();
            let matrix = &half + &half.t();
            let (values, vectors) = eigen(matrix.clone());
            prop_assert!(values.is_sorted_by(|a, b| a >= b));
            let close = |a: Array2<f64>, b: &Array2<f64>| (a - b).iter().all(|x| x.abs() < 1e-9);
            prop_assert!(close(vectors.dot(&vectors.t()), &Array2::eye(6)));
            let scaled = &vectors * &Array1::from(values).insert_axis(Axis(1));
            prop_assert!(close(vectors.t().dot(&scaled), &matrix));
        }
    }
}
