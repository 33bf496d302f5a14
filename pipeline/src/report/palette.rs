//! Colours from positions: near topics get near colours, and neighbours in the round differ in lightness.
//!
//! Colours are chosen in OKLCH (Ottosson, <https://bottosson.github.io/posts/oklab/>), where equal steps look equal,
//! and drawn into the sRGB gamut by lowering the chroma. The hue follows the angle around the middle of the map, half
//! by angle and half by rank, so that a crowded side of the map still spreads over several hues.

use std::f32::consts::{PI, TAU};

use serde::{Deserialize, Serialize};

/// Says how topics get their colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Palette {
    /// Angle to hue, distance from the middle to lightness.
    #[default]
    Position,
    /// Angle to a ring of blue, dark, orange and light, which red-green blindness leaves distinct.
    ColourBlind,
}

/// Says what the colours stand on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// White paper.
    #[default]
    Light,
    /// Near black.
    Dark,
}

/// Red, green, blue in sRGB.
pub(super) type Rgb = [u8; 3];

impl Theme {
    /// Returns the colour behind the points; the page's style sheet has the same.
    pub(super) fn background(self) -> Rgb {
        match self {
            Self::Light => [255, 255, 255],
            Self::Dark => [16, 18, 22],
        }
    }

    /// Returns the colour of outliers; the page's style sheet has the same.
    pub(super) fn outlier(self) -> Rgb {
        match self {
            Self::Light => [196, 200, 207],
            Self::Dark => [74, 79, 88],
        }
    }

    /// Returns the colour of text.
    pub(super) fn ink(self) -> Rgb {
        match self {
            Self::Light => [23, 26, 31],
            Self::Dark => [236, 238, 242],
        }
    }

    /// Returns the colour of secondary text.
    pub(super) fn faint_ink(self) -> Rgb {
        match self {
            Self::Light => [98, 105, 117],
            Self::Dark => [155, 162, 174],
        }
    }
}

impl Palette {
    /// Returns a colour for each position.
    pub(super) fn colours(self, positions: &[(f32, f32)], theme: Theme) -> Vec<Rgb> {
        let turns = turns(positions);
        let depths = depths(positions);
        let colour = |((rank, turn), depth): ((usize, f32), f32)| match self {
            Self::Position => by_angle(turn, depth, rank, theme),
            Self::ColourBlind => on_ring(turn, rank, theme),
        };
        turns.into_iter().zip(depths).map(colour).collect()
    }
}

fn by_angle(turn: f32, depth: f32, rank: usize, theme: Theme) -> Rgb {
    // Three steps of lightness, so that topics next to each other in the round can be told apart.
    let step = [0.0, 0.06, -0.06][rank % 3];
    let (lightness, chroma) = match theme {
        Theme::Light => (0.67 - 0.10 * depth + step, 0.125 + 0.045 * depth),
        Theme::Dark => (0.74 - 0.06 * depth + step, 0.115 + 0.035 * depth),
    };
    let hue = turn * TAU;
    into_srgb(lightness, chroma * hue.cos(), chroma * hue.sin())
}

/// Returns a colour on a ring in the plane of lightness and the blue-yellow axis, which all common forms of colour
/// blindness keep.
fn on_ring(turn: f32, rank: usize, theme: Theme) -> Rgb {
    let angle = turn * TAU;
    let step = [0.0, 0.03, -0.03][rank % 3];
    let middle = if theme == Theme::Light { 0.58 } else { 0.70 };
    into_srgb(middle + 0.17 * angle.sin() + step, 0.02 * angle.cos(), 0.14 * angle.cos())
}

/// Returns for each position its rank by angle around the middle and its share of the whole turn.
fn turns(positions: &[(f32, f32)]) -> Vec<(usize, f32)> {
    let (x, y) = middle(positions);
    let angles: Vec<f32> = positions.iter().map(|p| ((p.1 - y).atan2(p.0 - x) + PI) / TAU).collect();
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|&a, &b| angles[a].total_cmp(&angles[b]).then(a.cmp(&b)));
    let mut turns = vec![(0, 0.0); positions.len()];
    for (rank, &i) in order.iter().enumerate() {
        let even = rank as f32 / positions.len() as f32;
        turns[i] = (rank, 0.5 * angles[i] + 0.5 * even);
    }
    turns
}

/// Returns for each position its share of positions that are nearer to the middle.
fn depths(positions: &[(f32, f32)]) -> Vec<f32> {
    let (x, y) = middle(positions);
    let far: Vec<f32> = positions.iter().map(|p| (p.0 - x).hypot(p.1 - y)).collect();
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|&a, &b| far[a].total_cmp(&far[b]).then(a.cmp(&b)));
    let mut depths = vec![0.0; positions.len()];
    for (rank, &i) in order.iter().enumerate() {
        depths[i] = rank as f32 / positions.len() as f32;
    }
    depths
}

fn middle(positions: &[(f32, f32)]) -> (f32, f32) {
    let n = positions.len().max(1) as f64;
    let x: f64 = positions.iter().map(|p| f64::from(p.0)).sum();
    let y: f64 = positions.iter().map(|p| f64::from(p.1)).sum();
    ((x / n) as f32, (y / n) as f32)
}

/// Returns the sRGB colour of an OKLab colour, with the largest chroma up to the given one that the gamut holds.
fn into_srgb(lightness: f32, a: f32, b: f32) -> Rgb {
    let mut inside = 0.0;
    let mut outside = 1.0;
    if let Some(colour) = srgb(lightness, a, b) {
        return colour;
    }
    // 8 halvings: a 256th of the chroma is below one step of sRGB.
    for _ in 0..8 {
        let share = (inside + outside) / 2.0;
        match srgb(lightness, a * share, b * share) {
            Some(_) => inside = share,
            None => outside = share,
        }
    }
    // Grey of a lightness in 0 to 1 is always inside.
    srgb(lightness, a * inside, b * inside).unwrap_or_default()
}

/// Returns the sRGB colour of an OKLab colour, or nothing outside of the gamut.
fn srgb(lightness: f32, a: f32, b: f32) -> Option<Rgb> {
    let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    let linear = [
        4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
        -1.268_438 * l + 2.609_757_4 * m - 0.341_319_38 * s,
        -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
    ];
    // A thousandth beyond is rounding, not another colour.
    if linear.iter().any(|c| !(-0.001..=1.001).contains(c)) {
        return None;
    }
    Some(linear.map(|c| {
        let c = c.clamp(0.0, 1.0);
        let encoded = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
        (encoded * 255.0).round() as u8
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a circle, in order.
    fn circle(n: usize) -> Vec<(f32, f32)> {
        (0..n).map(|i| (i as f32 / n as f32 * TAU).sin_cos()).map(|(y, x)| (x, y)).collect()
    }

    fn distance(a: Rgb, b: Rgb) -> f32 {
        a.iter().zip(b).map(|(&a, b)| (f32::from(a) - f32::from(b)).powi(2)).sum::<f32>().sqrt()
    }

    fn contrast(a: Rgb, b: Rgb) -> f32 {
        let luminance = |c: Rgb| {
            let [r, g, b] = c.map(|v| (f32::from(v) / 255.0).powf(2.2));
            0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
        };
        let (a, b) = (luminance(a), luminance(b));
        a.max(b) / a.min(b)
    }

    #[test]
    fn near_topics_have_nearer_colours_than_opposite_ones() {
        for palette in [Palette::Position, Palette::ColourBlind] {
            let colours = palette.colours(&circle(24), Theme::Light);
            let near: f32 = (0..24).map(|i| distance(colours[i], colours[(i + 3) % 24])).sum();
            let far: f32 = (0..24).map(|i| distance(colours[i], colours[(i + 12) % 24])).sum();
            assert!(2.0 * near < far, "{palette:?}: near {near}, far {far}");
        }
    }

    #[test]
    fn points_stand_out_from_their_background() {
        for theme in [Theme::Light, Theme::Dark] {
            for palette in [Palette::Position, Palette::ColourBlind] {
                for colour in palette.colours(&circle(60), theme) {
                    let contrast = contrast(colour, theme.background());
                    assert!(contrast > 1.9, "{palette:?} {theme:?} {colour:?}: {contrast}");
                }
            }
            assert!(contrast(theme.faint_ink(), theme.background()) > 4.5);
        }
    }

    #[test]
    fn known_colours_convert() {
        // Ottosson's table: OKLab (1, 0, 0) is white; (0.628, 0.2249, 0.1258) is sRGB red.
        assert_eq!(into_srgb(1.0, 0.0, 0.0), [255, 255, 255]);
        let red = into_srgb(0.62796, 0.22486, 0.12585);
        assert!(red[0] >= 254 && red[1] <= 2 && red[2] <= 2, "{red:?}");
    }
}
