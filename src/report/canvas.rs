//! Drawing the same picture as pixels and as vectors.

use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, IntoFont, RGBAColor, RGBColor, ShapeStyle, TextStyle, register_font};

use super::markdown::one_line;

/// Pixels a side that become one, so that edges are smooth.
const OVERSAMPLING: u32 = 3;

/// The built-in font, and for an SVG on a machine without it, others that are as wide.
const FAMILY: &str = "Ubuntu, Helvetica, Arial, sans-serif";

/// Where a text lies with respect to its position; vertically it is centred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Centre,
    Right,
    /// Centred, and read upwards.
    Upwards,
}

/// A surface with its origin at the upper left; lengths are in pixels of the finished picture.
pub struct Canvas<B> {
    backend: B,
    scale: f64,
    /// How far below its position the backend draws a text too high, in heights of the text.
    drop: f64,
}

/// The picture as RGB pixels, drawn large and averaged.
pub fn pixels((width, height): (u32, u32), draw: impl FnOnce(&mut Canvas<BitMapBackend>) -> Result<()>) -> Result<Vec<u8>> {
    let (wide, high) = (width * OVERSAMPLING, height * OVERSAMPLING);
    let mut buffer = vec![255; wide as usize * high as usize * 3];
    let backend = BitMapBackend::with_buffer(&mut buffer, (wide, high));
    draw(&mut Canvas { backend, scale: f64::from(OVERSAMPLING), drop: 0.11 })?;
    let (wide, side) = (wide as usize, OVERSAMPLING as usize);
    let mut small = Vec::with_capacity(width as usize * height as usize * 3);
    for band in buffer.chunks_exact(wide * 3 * side) {
        for x in 0..width as usize {
            for channel in 0..3 {
                let block = (0..side * side).map(|i| (i / side) * wide * 3 + (x * side + i % side) * 3 + channel);
                let sum: usize = block.filter_map(|at| band.get(at)).map(|&v| usize::from(v)).sum();
                small.push(((sum + side * side / 2) / (side * side)) as u8);
            }
        }
    }
    Ok(small)
}

/// The picture as SVG.
pub fn svg((width, height): (u32, u32), draw: impl FnOnce(&mut Canvas<SVGBackend>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    let mut canvas = Canvas { backend: SVGBackend::with_string(&mut text, (width, height)), scale: 1.0, drop: 0.0 };
    canvas.rectangle((0.0, 0.0), (f64::from(width), f64::from(height)), RGBColor(255, 255, 255))?;
    draw(&mut canvas)?;
    canvas.backend.present().map_err(|e| anyhow!("the picture cannot be finished: {e}"))?;
    drop(canvas);
    Ok(text)
}

/// The width of a text of `size` in pixels.
///
/// # Errors
/// The font that is built in cannot be read.
pub fn text_width(text: &str, size: f64) -> Result<f64> {
    font_is_there();
    let measured = (FAMILY, size).into_font().box_size(&one_line(text));
    Ok(f64::from(measured.map_err(|e| anyhow!("a text cannot be measured: {e}"))?.0))
}

/// The program brings its font along, so that pictures are the same everywhere.
fn font_is_there() {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // Fails only for bytes that are no font, which the first text then reports.
        let _ = register_font(FAMILY, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
}

impl<B: DrawingBackend> Canvas<B> {
    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn length(&self, length: f64) -> u32 {
        (length * self.scale).round().max(1.0) as u32
    }

    /// A straight line, `width` wide.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, color: RGBColor) -> Result<()> {
        let style = ShapeStyle { color: color.to_rgba(), filled: false, stroke_width: self.length(width) };
        let path = [self.at(from), self.at(to)];
        self.backend.draw_path(path, &style).map_err(fail)
    }

    /// A line through many points.
    pub fn path(&mut self, points: &[(f64, f64)], width: f64, color: RGBAColor) -> Result<()> {
        let style = ShapeStyle { color, filled: false, stroke_width: self.length(width) };
        let points: Vec<_> = points.iter().map(|point| self.at(*point)).collect();
        self.backend.draw_path(points, &style).map_err(fail)
    }

    /// A filled rectangle.
    pub fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Result<()> {
        let (from, to) = (self.at(from), self.at(to));
        self.backend.draw_rect(from, to, &color, true).map_err(fail)
    }

    /// A filled circle.
    pub fn circle(&mut self, centre: (f64, f64), radius: f64, color: RGBAColor) -> Result<()> {
        let (centre, radius) = (self.at(centre), self.length(radius));
        self.backend.draw_circle(centre, radius, &color, true).map_err(fail)
    }

    /// A filled triangle that points up, as large as a circle of `radius`.
    pub fn triangle(&mut self, (x, y): (f64, f64), radius: f64, color: RGBAColor) -> Result<()> {
        let (half, up, down) = (1.15 * radius, 1.25 * radius, 0.75 * radius);
        let corners = [self.at((x, y - up)), self.at((x + half, y + down)), self.at((x - half, y + down))];
        self.backend.fill_polygon(corners, &color).map_err(fail)
    }

    /// A text on one line.
    pub fn text(&mut self, text: &str, (x, y): (f64, f64), size: f64, align: Align, color: RGBColor) -> Result<()> {
        font_is_there();
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Centre | Align::Upwards => HPos::Center,
            Align::Right => HPos::Right,
        };
        let mut style =
            TextStyle::from((FAMILY, size * self.scale).into_font()).color(&color).pos(Pos::new(horizontal, VPos::Center));
        let drop = self.drop * size;
        let at = if align == Align::Upwards {
            style = style.transform(FontTransform::Rotate270);
            (x + drop, y)
        } else {
            (x, y + drop)
        };
        let at = self.at(at);
        self.backend.draw_text(&one_line(text), &style, at).map_err(fail)
    }
}

fn fail(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}
