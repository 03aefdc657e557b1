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
const GAPS: [f64; 6] = [3.0, 12.0, 24.0, 38.0, 54.0, 72.0];
/// From this gap on, a line leads to the caption.
const FAR: f64 = 14.0;

/// A caption to place.
#[derive(Debug, Clone, Copy)]
pub struct Caption {
    pub point: (f64, f64),
    /// Width and height.
    pub size: (f64, f64),
}

/// Where a caption is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    pub at: Rectangle,
    /// The line to it from its point's marker, when it is far from it.
    pub leader: Option<((f64, f64), (f64, f64))>,
}

/// How often captions that found no place get to choose before the others.
const ROUNDS: usize = 12;

/// Places each caption beside its point: as near as it can be without covering a marker, another caption or a line to one, or leaving
/// `area`. One for which nothing is left has no place: two texts on top of each other say less than one. `radius` is that of a
/// marker; `points` also holds those without a caption.
pub fn place(captions: &[Caption], points: &[(f64, f64)], radius: f64, area: &Rectangle) -> Vec<Option<Place>> {
    let markers: Vec<Rectangle> = points.iter().map(|&p| Rectangle::around(p, 2.0 * radius, 2.0 * radius)).collect();
    let mut order: Vec<usize> = (0..captions.len()).collect();
    let (mut best, mut most): (Vec<Option<Place>>, usize) = (vec![None; captions.len()], 0);
    for _ in 0..ROUNDS {
        let places = place_in_order(captions, &order, &markers, radius, area);
        // Stable: the others keep their order.
        order.sort_by_key(|&i| places[i].is_some());
        let placed = places.iter().flatten().count();
        if placed > most {
            (best, most) = (places, placed);
        }
        if most == captions.len() {
            break;
        }
    }
    best
}

/// Places captions one after the other.
fn place_in_order(
    captions: &[Caption],
    order: &[usize],
    markers: &[Rectangle],
    radius: f64,
    area: &Rectangle,
) -> Vec<Option<Place>> {
    let (mut texts, mut lines): (Vec<Rectangle>, Vec<Rectangle>) = (Vec::new(), Vec::new());
    let covers = |at: &Rectangle, what: &[Rectangle]| what.iter().any(|other| at.overlap(other) > 0.0);
    let mut places = vec![None; captions.len()];
    for &i in order {
        places[i] = candidates(&captions[i], radius).find(|place| {
            let at = &place.at;
            let inside = at.overlap(area) >= at.area() - 1e-6;
            inside && ![&texts, markers, &lines].iter().any(|what| covers(at, what)) && !steps(place).any(|s| covers(&s, &texts))
        });
        texts.extend(places[i].map(|place| place.at));
        lines.extend(places[i].iter().flat_map(steps));
    }
    places
}

/// Small squares along a caption's line.
fn steps(place: &Place) -> impl Iterator<Item = Rectangle> + use<> {
    place.leader.into_iter().flat_map(|((x, y), (to_x, to_y))| {
        (0..=12).map(move |i| {
            let share = f64::from(i) / 12.0;
            Rectangle::around((x + (to_x - x) * share, y + (to_y - y) * share), 5.0, 5.0)
        })
    })
}

/// The places that are tried for a caption, in the order of preference.
fn candidates(caption: &Caption, radius: f64) -> impl Iterator<Item = Place> {
    let Caption { point: (x, y), size: (width, height) } = *caption;
    let side = |direction: f64| if direction == 0.0 { 0.0 } else { direction.signum() };
    GAPS.into_iter().flat_map(move |gap| {
        DIRECTIONS.into_iter().map(move |(right, down)| {
            let reach = radius + gap;
            let centre = (x + right * reach + side(right) * width / 2.0, y + down * reach + side(down) * height / 2.0);
            let at = Rectangle::around(centre, width, height);
            Place { at, leader: leader((x, y), radius, &at) }
        })
    })
}

/// The line from the rim of a marker to the nearest edge of its caption, if that is far.
fn leader((x, y): (f64, f64), radius: f64, at: &Rectangle) -> Option<((f64, f64), (f64, f64))> {
    let near = (x.clamp(at.left, at.right), y.clamp(at.top, at.bottom));
    let distance = (near.0 - x).hypot(near.1 - y);
    let start = (radius + 2.0) / distance;
    (distance > radius + FAR).then_some(((x + (near.0 - x) * start, y + (near.1 - y) * start), near))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AREA: Rectangle = Rectangle { left: 0.0, top: 0.0, right: 800.0, bottom: 600.0 };

    #[test]
    fn a_lonely_caption_is_at_its_right_and_at_the_edge_at_its_left() {
        let at = |x| place(&[Caption { point: (x, 300.0), size: (100.0, 20.0) }], &[(x, 300.0)], 5.0, &AREA)[0].unwrap().at;
        assert_eq!(at(400.0), Rectangle { left: 408.0, top: 290.0, right: 508.0, bottom: 310.0 });
        assert_eq!(at(790.0), Rectangle { left: 682.0, top: 290.0, right: 782.0, bottom: 310.0 });
    }

    proptest! {
        #[test]
        fn captions_never_overlap_nor_leave_the_area(points in prop::collection::vec((0f64..800.0, 0f64..600.0), 1..40)) {
            let captions: Vec<_> = points.iter().map(|&point| Caption { point, size: (150.0, 20.0) }).collect();
            let places = place(&captions, &points, 5.0, &AREA);
            prop_assert_eq!(places.len(), points.len());
            let placed: Vec<Rectangle> = places.into_iter().flatten().map(|p| p.at).collect();
            // At the edge there may be no room for a second one.
            let in_the_middle = points.iter().all(|(x, y)| (160.0..640.0).contains(x) && (60.0..540.0).contains(y));
            let least = if in_the_middle { points.len().min(6) } else { 1 };
            prop_assert!(placed.len() >= least, "{} of {}", placed.len(), points.len());
            for (i, a) in placed.iter().enumerate() {
                prop_assert!(placed[i + 1..].iter().all(|b| a.overlap(b) == 0.0));
                prop_assert!(a.overlap(&AREA) >= a.area() - 1e-6);
            }
        }
    }

    #[test]
    fn of_captions_on_one_spot_some_are_left_out() {
        let points = [(400.0, 300.0); 100];
        let captions = points.map(|point| Caption { point, size: (150.0, 20.0) });
        let placed = place(&captions, &points, 5.0, &AREA).into_iter().flatten().count();
        assert!((4..20).contains(&placed), "{placed}");
    }
}
