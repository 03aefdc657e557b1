//! Two scatter plots side by side that share their axes.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::backend::DrawingBackend;
use plotters::style::{Color, RGBColor};

use super::axis::Axis;
use super::canvas::{Align, Canvas, pixels, svg, text_width};
use super::markdown::shorten;
use super::placement::{Caption, Place, Rectangle, place};
use super::png;

/// Of the finished picture, in pixels.
const SIZE: (u32, u32) = (1800, 900);
/// The frames of the two panels.
const FRAMES: [Rectangle; 2] = [
    Rectangle { left: 120.0, top: 118.0, right: 920.0, bottom: 732.0 },
    Rectangle { left: 970.0, top: 118.0, right: 1770.0, bottom: 732.0 },
];

/// Characters of the title that there is room for.
const TITLE: usize = 95;

const INK: RGBColor = RGBColor(34, 34, 34);
const MUTED: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(232, 232, 232);
const AXIS: RGBColor = RGBColor(120, 120, 120);

/// Colours that can be told apart by people with any colour vision: those of Okabe and Ito, "Color Universal Design" (2008), without
/// yellow, which is hard to see on white.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// For what has no colour of its own.
const GREY: RGBColor = RGBColor(150, 150, 150);

/// How many groups have a colour of their own.
pub const COLORS: usize = PALETTE.len();

/// The form of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Marker {
    Circle,
    Triangle,
}

/// What is drawn in both panels.
pub struct Item {
    /// Index into [`Scatter::groups`].
    pub group: usize,
    pub marker: Marker,
    /// Written beside the point; empty for none.
    pub caption: String,
    /// Where it is in either panel.
    pub at: [(f64, f64); 2],
}

/// Two panels with the same items at other places.
pub struct Scatter {
    pub title: String,
    pub panels: [String; 2],
    /// Below, and at the left.
    pub axes: [String; 2],
    /// Names in the legend; those beyond [`COLORS`] are grey.
    pub groups: Vec<String>,
    /// What the markers mean, for the legend; empty when that goes without saying.
    pub markers: Vec<(Marker, String)>,
    pub items: Vec<Item>,
}

/// Sizes that depend on how much there is to draw.
struct Sizes {
    radius: f64,
    opacity: f64,
    caption: f64,
}

impl Scatter {
    /// Writes the picture as a PNG of 1800 × 900 pixels at 150 dots an inch, and as an SVG.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, png: &Path, svg_path: &Path) -> Result<()> {
        let axes = [0, 1].map(|axis| {
            let values = self.items.iter().flat_map(move |i| i.at.map(|(x, y)| if axis == 0 { x } else { y }));
            Axis::of(values)
        });
        let sizes = self.sizes();
        let captions = [self.captions(0, &axes, &sizes)?, self.captions(1, &axes, &sizes)?];
        png::write(png, SIZE, &pixels(SIZE, |canvas| self.draw(canvas, &axes, &sizes, &captions))?)?;
        let text = svg(SIZE, |canvas| self.draw(canvas, &axes, &sizes, &captions))?;
        std::fs::write(svg_path, text).with_context(|| format!("failed to write {}", svg_path.display()))
    }

    fn sizes(&self) -> Sizes {
        match self.items.len() {
            0..=60 => Sizes { radius: 8.0, opacity: 1.0, caption: 21.0 },
            61..=400 => Sizes { radius: 6.0, opacity: 0.85, caption: 19.0 },
            _ => Sizes { radius: 4.0, opacity: 0.6, caption: 19.0 },
        }
    }

    fn color(&self, group: usize) -> RGBColor {
        PALETTE.get(group).copied().unwrap_or(GREY)
    }

    /// Where a point of a panel is on the picture.
    fn position(&self, item: &Item, panel: usize, axes: &[Axis; 2]) -> (f64, f64) {
        let (frame, (x, y)) = (&FRAMES[panel], item.at[panel]);
        (frame.left + axes[0].share(x) * (frame.right - frame.left), frame.bottom - axes[1].share(y) * (frame.bottom - frame.top))
    }

    /// Captions of a panel: which item's, and where.
    fn captions(&self, panel: usize, axes: &[Axis; 2], sizes: &Sizes) -> Result<Vec<(&str, Place)>> {
        let points: Vec<(f64, f64)> = self.items.iter().map(|item| self.position(item, panel, axes)).collect();
        let (mut texts, mut wanted) = (Vec::new(), Vec::new());
        for (item, &point) in self.items.iter().zip(&points).filter(|(item, _)| !item.caption.is_empty()) {
            texts.push(item.caption.as_str());
            wanted.push(Caption { point, size: (text_width(&item.caption, sizes.caption)? + 4.0, sizes.caption) });
        }
        let places = place(&wanted, &points, sizes.radius, &FRAMES[panel]);
        Ok(texts.into_iter().zip(places).filter_map(|(text, place)| Some((text, place?))).collect())
    }

    fn draw<B: DrawingBackend>(
        &self,
        canvas: &mut Canvas<B>,
        axes: &[Axis; 2],
        sizes: &Sizes,
        captions: &[Vec<(&str, Place)>; 2],
    ) -> Result<()> {
        canvas.text(&shorten(&self.title, TITLE), (f64::from(SIZE.0) / 2.0, 40.0), 36.0, Align::Centre, INK)?;
        for (panel, captions) in captions.iter().enumerate() {
            self.frame(canvas, panel, axes)?;
            self.points(canvas, panel, axes, sizes)?;
            for (_, place) in captions {
                place.leader.map_or(Ok(()), |(from, to)| canvas.line(from, to, 1.0, GREY))?;
            }
            for (text, place) in captions {
                canvas.text(text, place.at.centre(), sizes.caption, Align::Centre, INK)?;
            }
        }
        canvas.text(&self.axes[1], (36.0, (FRAMES[0].top + FRAMES[0].bottom) / 2.0), 25.0, Align::Upwards, INK)?;
        self.legend(canvas)
    }

    /// Grid, frame, ticks and titles of a panel.
    fn frame<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, panel: usize, axes: &[Axis; 2]) -> Result<()> {
        let Rectangle { left, top, right, bottom } = FRAMES[panel];
        for &tick in &axes[0].ticks {
            let x = left + axes[0].share(tick) * (right - left);
            canvas.line((x, top), (x, bottom), 1.0, GRID)?;
            canvas.line((x, bottom), (x, bottom + 6.0), 1.0, AXIS)?;
            canvas.text(&axes[0].label(tick), (x, bottom + 22.0), 22.0, Align::Centre, MUTED)?;
        }
        for &tick in &axes[1].ticks {
            let y = bottom - axes[1].share(tick) * (bottom - top);
            canvas.line((left, y), (right, y), 1.0, GRID)?;
            canvas.line((left - 6.0, y), (left, y), 1.0, AXIS)?;
            if panel == 0 {
                canvas.text(&axes[1].label(tick), (left - 12.0, y), 22.0, Align::Right, MUTED)?;
            }
        }
        for (from, to) in [((left, top), (right, top)), ((left, bottom), (right, bottom))] {
            canvas.line(from, to, 1.0, AXIS)?;
        }
        for (from, to) in [((left, top), (left, bottom)), ((right, top), (right, bottom))] {
            canvas.line(from, to, 1.0, AXIS)?;
        }
        let middle = (left + right) / 2.0;
        canvas.text(&self.panels[panel], (middle, top - 24.0), 29.0, Align::Centre, INK)?;
        canvas.text(&self.axes[0], (middle, bottom + 58.0), 25.0, Align::Centre, INK)
    }

    /// The points of a panel, each with a white rim that keeps it apart from its neighbours.
    fn points<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, panel: usize, axes: &[Axis; 2], sizes: &Sizes) -> Result<()> {
        // Triangles are the few among the many, so they lie on top.
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by_key(|item| item.marker);
        for item in items {
            let at = self.position(item, panel, axes);
            let color = self.color(item.group);
            mark(canvas, item.marker, at, sizes.radius + 1.5, RGBColor(255, 255, 255), sizes.opacity)?;
            mark(canvas, item.marker, at, sizes.radius, color, sizes.opacity)?;
        }
        Ok(())
    }

    /// What colours and markers mean, in the middle below both panels, in as many lines as it takes.
    fn legend<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<()> {
        let groups = self.groups.iter().enumerate().map(|(i, name)| (Marker::Circle, self.color(i), name.as_str()));
        let markers = self.markers.iter().map(|(marker, name)| (*marker, MUTED, name.as_str()));
        let (size, pad, between, most) = (24.0, 18.0, 34.0, f64::from(SIZE.0) - 80.0);
        let mut lines: Vec<(f64, Vec<_>)> = Vec::new();
        for entry in groups.chain(markers) {
            let width = pad + text_width(entry.2, size)? + between;
            match lines.last_mut().filter(|(used, _)| used + width <= most) {
                Some((used, entries)) => {
                    entries.push((*used, entry));
                    *used += width;
                }
                None => lines.push((width, vec![(0.0, entry)])),
            }
        }
        let first = 850.0 - 15.0 * lines.len().saturating_sub(1) as f64;
        for (i, (used, entries)) in lines.into_iter().enumerate() {
            let (left, y) = ((f64::from(SIZE.0) - used + between) / 2.0, first + 32.0 * i as f64);
            for (offset, (marker, color, name)) in entries {
                mark(canvas, marker, (left + offset, y), 8.0, color, 1.0)?;
                canvas.text(name, (left + offset + pad, y), size, Align::Left, INK)?;
            }
        }
        Ok(())
    }
}

fn mark<B: DrawingBackend>(
    canvas: &mut Canvas<B>,
    marker: Marker,
    at: (f64, f64),
    radius: f64,
    color: RGBColor,
    opacity: f64,
) -> Result<()> {
    match marker {
        Marker::Circle => canvas.circle(at, radius, color.mix(opacity)),
        Marker::Triangle => canvas.triangle(at, radius * 1.1, color.mix(opacity)),
    }
}
