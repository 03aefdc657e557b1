//! Where the captions of points go, so that they can be read.

/// An upright rectangle, in pixels; y grows downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rectangle {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Rectangle {
    /// The rectangle of `width` × `height` around a centre.
    pub fn around((x, y): (f64, f64), width: f64, height: f64) -> Self {
        Rectangle { left: x - width / 2.0, top: y - height / 2.0, right: x + width / 2.0, bottom: y + height / 2.0 }
    }

    pub fn centre(&self) -> (f64, f64) {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }

    /// The area that both cover.
    fn overlap(&self, other: &Rectangle) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    fn area(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

/// Directions from a point to its caption, the most readable first.
const DIRECTIONS: [(f64, f64); 8] =
    [(1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (0.8, -0.8), (-0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)];

/// Gaps between a point's marker and its caption, in pixels, the nearest first.
pub const GAPS: [f64; 6] = [3.0, 12.0, 24.0, 38.0, 54.0, 72.0];

/// A caption to place.
#[derive(Debug, Clone, Copy)]
pub struct Caption {
    pub point: (f64, f64),
    /// Width and height.
    pub size: (f64, f64),
}

/// Places each caption beside its point: as near as it can be without covering a marker, another caption or the edge of `area`;
/// where that cannot be, where it covers least. `radius` is that of a marker; `points` also holds those without a caption.
pub fn place(captions: &[Caption], points: &[(f64, f64)], radius: f64, area: &Rectangle) -> Vec<Rectangle> {
    let markers: Vec<Rectangle> = points.iter().map(|&p| Rectangle::around(p, 2.0 * radius, 2.0 * radius)).collect();
    let mut placed: Vec<Rectangle> = Vec::new();
    for caption in captions {
        let cost = |(rank, at): &(usize, Rectangle)| {
            let outside = at.area() - at.overlap(area);
            let covered: f64 = markers.iter().chain(&placed).map(|other| at.overlap(other)).sum();
            // Much more than any rank, so that a caption moves away before it covers something.
            (outside * 10.0 + covered) * 100.0 + *rank as f64
        };
        let best = candidates(caption, radius).enumerate().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        placed.extend(best.map(|(_, at)| at));
    }
    placed
}

/// The places that are tried for a caption, in the order of preference.
fn candidates(caption: &Caption, radius: f64) -> impl Iterator<Item = Rectangle> {
    let Caption { point: (x, y), size: (width, height) } = *caption;
    let side = |direction: f64| if direction == 0.0 { 0.0 } else { direction.signum() };
    GAPS.into_iter().flat_map(move |gap| {
        DIRECTIONS.into_iter().map(move |(right, down)| {
            let reach = radius + gap;
            let centre = (x + right * reach + side(right) * width / 2.0, y + down * reach + side(down) * height / 2.0);
            Rectangle::around(centre, width, height)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AREA: Rectangle = Rectangle { left: 0.0, top: 0.0, right: 800.0, bottom: 600.0 };

    #[test]
    fn a_lonely_caption_is_at_its_right_and_at_the_edge_at_its_left() {
        let at = |x| place(&[Caption { point: (x, 300.0), size: (100.0, 20.0) }], &[(x, 300.0)], 5.0, &AREA)[0];
        assert_eq!(at(400.0), Rectangle { left: 408.0, top: 290.0, right: 508.0, bottom: 310.0 });
        assert_eq!(at(790.0), Rectangle { left: 682.0, top: 290.0, right: 782.0, bottom: 310.0 });
    }

    proptest! {
        #[test]
        fn few_captions_never_overlap(points in prop::collection::vec((100f64..700.0, 100f64..500.0), 1..8)) {
            let captions: Vec<_> = points.iter().map(|&point| Caption { point, size: (90.0, 20.0) }).collect();
            let placed = place(&captions, &points, 5.0, &AREA);
            for (i, a) in placed.iter().enumerate() {
                prop_assert!(placed[i + 1..].iter().all(|b| a.overlap(b) == 0.0), "{:?}", placed);
                prop_assert_eq!(a.overlap(&AREA), a.area());
            }
        }
    }
}
