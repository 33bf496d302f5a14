//! Text in the picture: one glyph after another from the embedded Inter, as coverage.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};

use super::Result;

const REGULAR: &[u8] = include_bytes!("font/Inter-Regular.otf");
const SEMI_BOLD: &[u8] = include_bytes!("font/Inter-SemiBold.otf");

/// Height of a capital letter over the em in Inter.
pub(super) const CAP_HEIGHT: f32 = 0.727;

/// A font at any size.
pub(super) struct Face(FontRef<'static>);

/// Coverage in 0 to 1 of a rectangle of pixels, row by row.
pub(super) struct Coverage {
    /// Left edge in pixels of the picture.
    pub(super) left: i32,
    /// Top edge.
    pub(super) top: i32,
    /// Columns.
    pub(super) width: usize,
    /// Rows times columns of coverage.
    pub(super) values: Vec<f32>,
}

impl Face {
    /// Reads the embedded regular weight.
    pub(super) fn regular() -> Result<Self> {
        Ok(Self(FontRef::try_from_slice(REGULAR)?))
    }

    /// Reads the embedded semi-bold weight.
    pub(super) fn semi_bold() -> Result<Self> {
        Ok(Self(FontRef::try_from_slice(SEMI_BOLD)?))
    }

    /// Returns the width in pixels of a line whose em is `size` pixels.
    pub(super) fn width(&self, line: &str, size: f32) -> f32 {
        let font = self.0.as_scaled(self.scale(size));
        line.chars().map(|c| font.h_advance(font.glyph_id(printable(c)))).sum()
    }

    /// Adds a line that starts at `x` and stands on `baseline` to the coverage.
    pub(super) fn draw(&self, line: &str, x: f32, baseline: f32, size: f32, onto: &mut Coverage) {
        let scale = self.scale(size);
        let font = self.0.as_scaled(scale);
        let mut x = x;
        for c in line.chars() {
            let id = font.glyph_id(printable(c));
            let glyph = id.with_scale_and_position(scale, point(x, baseline));
            x += font.h_advance(id);
            let Some(outline) = self.0.outline_glyph(glyph) else { continue };
            // Whole pixels by the contract of px_bounds.
            let (left, top) = (outline.px_bounds().min.x as i32, outline.px_bounds().min.y as i32);
            outline.draw(|dx, dy, coverage| onto.add(left + dx as i32, top + dy as i32, coverage));
        }
    }

    /// Returns ab_glyph's scale, which measures from ascender to descender, for an em in pixels.
    fn scale(&self, size: f32) -> PxScale {
        let em = self.0.units_per_em().unwrap_or(1000.0);
        PxScale::from(size * self.0.height_unscaled() / em)
    }
}

impl Coverage {
    /// Returns an empty rectangle that contains the given one.
    pub(super) fn empty(left: f32, top: f32, width: f32, height: f32) -> Self {
        // Pictures are at most 32,768 pixels a side.
        let (width, rows) = (width.ceil() as usize + 2, height.ceil() as usize + 2);
        Self { left: left.floor() as i32, top: top.floor() as i32, width, values: vec![0.0; width * rows] }
    }

    /// Returns the coverage grown by `radius` pixels on all sides, with a soft rim: the halo of a text.
    pub(super) fn grown(&self, radius: f32) -> Self {
        let reach = radius.ceil() as i32;
        let rows = self.values.len() / self.width;
        let mut grown = Self {
            left: self.left - reach,
            top: self.top - reach,
            width: self.width + 2 * reach as usize,
            values: vec![0.0; (self.width + 2 * reach as usize) * (rows + 2 * reach as usize)],
        };
        for (i, &value) in self.values.iter().enumerate().filter(|&(_, &value)| value > 0.0) {
            let (x, y) = ((i % self.width) as i32 + reach, (i / self.width) as i32 + reach);
            for dy in -reach..=reach {
                for dx in -reach..=reach {
                    let distance = (dx as f32).hypot(dy as f32);
                    let share = value * (radius + 0.5 - distance).clamp(0.0, 1.0);
                    let at = (y + dy) as usize * grown.width + (x + dx) as usize;
                    grown.values[at] = grown.values[at].max(share);
                }
            }
        }
        grown
    }

    fn add(&mut self, x: i32, y: i32, coverage: f32) {
        let (column, row) = (x - self.left, y - self.top);
        let inside = column >= 0 && row >= 0 && (column as usize) < self.width;
        if let Some(value) = self.values.get_mut(row.max(0) as usize * self.width + column.max(0) as usize)
            && inside
        {
            *value = (*value + coverage).min(1.0);
        }
    }
}

/// Returns the character, or a space for one that moves the pen in another way.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_covers_about_the_area_that_its_width_promises() {
        let face = Face::regular().unwrap();
        let width = face.width("Häuser Ωμέγα Слово", 40.0);
        let mut coverage = Coverage::empty(0.0, 0.0, width, 60.0);
        face.draw("Häuser Ωμέγα Слово", 0.0, 45.0, 40.0, &mut coverage);
        let last = (0..coverage.width)
            .rfind(|&x| coverage.values.iter().skip(x).step_by(coverage.width).any(|&v| v > 0.5));
        assert!((width - last.unwrap() as f32).abs() < 6.0, "{width} {last:?}");
        assert!(coverage.grown(3.0).values.iter().sum::<f32>() > 1.5 * coverage.values.iter().sum::<f32>());
    }
}
