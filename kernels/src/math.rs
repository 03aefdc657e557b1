//! Functions of single numbers, without branches, so that loops over them compile to vector code.

/// `a · b + c`, in one rounding where it is one instruction.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with `coefficients`, the highest power first.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    coefficients.into_iter().fold(0.0, |sum, c| fma::<FMA>(sum, x, c))
}

/// Rounded to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// eˣ, with a relative error below 2e-7; 0 below −87.3, and the greatest number or infinity above 88.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding it rounds to an integer, which then stands in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with so few bits that its multiples are exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // x = n ln 2 + r, |r| ≤ ln 2 / 2; eʳ = 1 + r + r² q(r), q by minimax.
    const Q: [f32; 5] = [0.001_381_461_3, 0.008_368_71, 0.041_668_39, 0.166_665_21, 0.499_999_94];
    let clamped = x.clamp(-87.336_54, 88.722_8);
    let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = fma::<FMA>(n, -LOW, fma::<FMA>(n, -HIGH, clamped));
    let e = fma::<FMA>(r * r, polynomial::<FMA, 5>(Q, r), r) + 1.0;
    // 2ⁿ in two factors, as n may be 128.
    let n = (shifted.to_bits() as i32) - (MAGIC.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let value = e * power(half) * power(n - half);
    if x < -87.336_54 { 0.0 } else { value }
}

/// The normal distribution function Φ(x) and its density φ(x), each with an error below 1e-7.
#[inline(always)]
pub(crate) fn normal<const FMA: bool>(x: f32) -> (f32, f32) {
    // Φ(−t) = exp(−t²/2) p(1 / (1 + 0.3 t)) for t from 0 to 14, p by minimax of the relative error.
    const P: [f32; 9] = [
        0.038_378_22,
        -0.169_165_9,
        0.228_659_9,
        -0.076_506_55,
        0.142_535_76,
        0.094_683_36,
        0.121_920_4,
        0.119_487_68,
        7.169_419e-6,
    ];
    const DENSITY: f32 = 0.398_942_3;
    let t = x.abs();
    let e = exp::<FMA>(-0.5 * t * t);
    let tail = e * polynomial::<FMA, 9>(P, 1.0 / fma::<FMA>(0.3, t, 1.0));
    (if x < 0.0 { tail } else { 1.0 - tail }, e * DENSITY)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}
