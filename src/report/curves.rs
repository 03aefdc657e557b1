//! Curves over the steps of a training, as panels of one picture.

use anyhow::Result;
use plotters::backend::DrawingBackend;
use plotters::style::{Color, RGBColor};

use super::axis::Axis;
use super::canvas::{Align, Canvas, svg};
use super::markdown::shorten;
use super::placement::Rectangle;

/// Of a panel with its margins, in pixels.
const PANEL: (f64, f64) = (900.0, 480.0);
/// The height of the title above all panels.
const TITLE: f64 = 80.0;
/// More points than there are pixels are averaged.
const MOST_POINTS: usize = 700;

const INK: RGBColor = RGBColor(34, 34, 34);
const MUTED: RGBColor = RGBColor(90, 90, 90);
const GRID: RGBColor = RGBColor(232, 232, 232);
const AXIS: RGBColor = RGBColor(120, 120, 120);
const LINE: RGBColor = RGBColor(0, 114, 178);
const BEST: RGBColor = RGBColor(213, 94, 0);

/// What a panel shows over the steps.
pub struct Panel {
    pub title: String,
    /// Steps and values.
    pub points: Vec<(f64, f64)>,
    pub form: Form,
}

/// How a panel shows its points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line.
    Plain,
    /// A pale line, and its moving mean.
    Smoothed,
    /// Dots joined by a line, with the highest one marked.
    Dots,
}

/// Panels, two beside each other.
pub struct Curves {
    pub title: String,
    pub panels: Vec<Panel>,
    /// Steps that get a vertical line: the ends of epochs.
    pub marks: Vec<f64>,
    /// The steps of the whole training.
    pub steps: usize,
}

impl Curves {
    /// The picture as SVG.
    ///
    /// # Errors
    /// A text cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        let rows = self.panels.len().div_ceil(2).max(1);
        let size = (2 * PANEL.0 as u32, (TITLE + rows as f64 * PANEL.1) as u32);
        svg(size, |canvas| {
            canvas.text(&shorten(&self.title, 95), (PANEL.0, TITLE / 2.0), 36.0, Align::Centre, INK)?;
            self.panels.iter().enumerate().try_for_each(|(at, panel)| self.draw(canvas, at, panel))
        })
    }

    fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, at: usize, panel: &Panel) -> Result<()> {
        let (left, top) = ((at % 2) as f64 * PANEL.0, TITLE + (at / 2) as f64 * PANEL.1);
        let frame = Rectangle { left: left + 120.0, top: top + 50.0, right: left + PANEL.0 - 40.0, bottom: top + PANEL.1 - 80.0 };
        let finite: Vec<(f64, f64)> = panel.points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
        let axes = [Axis::of([0.0, self.steps as f64].into_iter()), Axis::of(finite.iter().map(|(_, y)| *y))];
        self.frame(canvas, &frame, panel, &axes)?;
        let place = |(x, y): (f64, f64)| {
            let (across, up) = (axes[0].share(x), axes[1].share(y));
            (frame.left + across * (frame.right - frame.left), frame.bottom - up * (frame.bottom - frame.top))
        };
        let line = |points: &[(f64, f64)]| thinned(points).into_iter().map(place).collect::<Vec<_>>();
        match panel.form {
            Form::Plain => canvas.path(&line(&finite), 3.0, LINE.to_rgba()),
            Form::Smoothed => {
                canvas.path(&line(&finite), 2.0, LINE.mix(0.3))?;
                canvas.path(&line(&smoothed(&finite)), 4.0, LINE.to_rgba())
            }
            Form::Dots => {
                canvas.path(&finite.iter().copied().map(place).collect::<Vec<_>>(), 2.0, LINE.mix(0.5))?;
                finite.iter().try_for_each(|point| canvas.circle(place(*point), 6.0, LINE.to_rgba()))?;
                let best = finite.iter().copied().reduce(|best, point| if point.1 > best.1 { point } else { best });
                best.map_or(Ok(()), |best| {
                    canvas.circle(place(best), 9.0, BEST.to_rgba())?;
                    let text = format!("best: {:.4} at step {:.0}", best.1, best.0);
                    canvas.text(&text, (frame.right - 8.0, frame.top - 22.0), 22.0, Align::Right, BEST)
                })
            }
        }
    }

    /// Grid, frame, ticks and title of a panel.
    fn frame<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, frame: &Rectangle, panel: &Panel, axes: &[Axis; 2]) -> Result<()> {
        let Rectangle { left, top, right, bottom } = *frame;
        let across = |x: f64| left + axes[0].share(x) * (right - left);
        for &tick in axes[0].ticks.iter().filter(|tick| **tick >= 0.0) {
            canvas.line((across(tick), bottom), (across(tick), bottom + 6.0), 1.0, AXIS)?;
            canvas.text(&axes[0].label(tick), (across(tick), bottom + 22.0), 22.0, Align::Centre, MUTED)?;
        }
        for &tick in &axes[1].ticks {
            let y = bottom - axes[1].share(tick) * (bottom - top);
            canvas.line((left, y), (right, y), 1.0, GRID)?;
            canvas.text(&axes[1].label(tick), (left - 12.0, y), 22.0, Align::Right, MUTED)?;
        }
        for &mark in &self.marks {
            canvas.line((across(mark), top), (across(mark), bottom), 1.0, AXIS)?;
        }
        for (from, to) in [((left, top), (left, bottom)), ((left, bottom), (right, bottom))] {
            canvas.line(from, to, 1.0, AXIS)?;
        }
        canvas.text(&panel.title, (left, top - 22.0), 27.0, Align::Left, INK)?;
        canvas.text("step", ((left + right) / 2.0, bottom + 52.0), 22.0, Align::Centre, MUTED)
    }
}

/// The mean of each point and those before it, about a thirtieth of all.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let width = points.len().div_ceil(30).max(1);
    let mut sum = 0.0;
    let mut means = Vec::with_capacity(points.len());
    for (i, (x, y)) in points.iter().enumerate() {
        sum += y;
        if i >= width {
            sum -= points[i - width].1;
        }
        means.push((*x, sum / width.min(i + 1) as f64));
    }
    means
}

/// Neighbours averaged, so that no more than [`MOST_POINTS`] are left.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / chunk.len() as f64, sum.1 / chunk.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_points_become_few_and_keep_their_mean() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let few = thinned(&points);
        assert!(few.len() <= MOST_POINTS && few.len() > MOST_POINTS / 2);
        assert_eq!(thinned(&points[..30]), points[..30]);
        let smooth = smoothed(&points);
        assert_eq!(smooth.len(), points.len());
        assert!((smooth[9000].1 - 3.0).abs() < 0.05, "{:?}", smooth[9000]);
    }

    #[test]
    fn a_picture_has_every_panel_and_is_the_same_again() {
        let panel = |title: &str, form, count: u32| Panel {
            title: title.to_owned(),
            points: (1..=count).map(|i| (f64::from(i), 1.0 / f64::from(i))).collect(),
            form,
        };
        let curves = || Curves {
            title: "300 steps".to_owned(),
            panels: vec![panel("loss", Form::Smoothed, 300), panel("ndcg@10", Form::Dots, 4), panel("rate", Form::Plain, 1)],
            marks: vec![150.0],
            steps: 300,
        };
        let text = curves().svg().unwrap();
        for expected in ["300 steps", "loss", "ndcg@10", "best: 1.0000 at step 1", "rate", "1800"] {
            assert!(text.contains(expected), "{expected}");
        }
        assert_eq!(text, curves().svg().unwrap());
        let empty = Curves { title: String::new(), panels: vec![panel("loss", Form::Smoothed, 0)], marks: vec![], steps: 0 };
        empty.svg().unwrap();
    }
}
