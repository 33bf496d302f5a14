//! Where points stand: one square that holds all of them, and the part of it that is worth looking at first.

use super::Points;

/// Steps of a quantised coordinate: the largest `u16`.
pub(super) const STEPS: f32 = 65_535.0;

/// Share of the points that the first view may leave out, half at either end of an axis: one stray group would
/// otherwise press the rest of the map into a corner.
const STRAY: f32 = 0.001;

/// Maps positions to the unit square, x to the right and y upwards, with one scale for both axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    left: f32,
    bottom: f32,
    side: f32,
}

impl Frame {
    /// Returns the smallest square around all points, centred on them; the unit square when there are none.
    pub(super) fn around(points: &Points) -> Self {
        let (left, right) = extent(&points.x);
        let (bottom, top) = extent(&points.y);
        let side = (right - left).max(top - bottom);
        let side = if side > 0.0 { side } else { 1.0 };
        Self { left: (left + right - side) / 2.0, bottom: (bottom + top - side) / 2.0, side }
    }

    /// Returns the place of a position in the unit square; outside of it where the position is outside of the frame.
    pub(super) fn place(&self, x: f32, y: f32) -> (f32, f32) {
        ((x - self.left) / self.side, (y - self.bottom) / self.side)
    }

    /// Returns the place as steps of a `u16`.
    pub(super) fn steps(&self, x: f32, y: f32) -> (u16, u16) {
        let (u, v) = self.place(x, y);
        // In 0 to 65,535 by the clamp.
        let step = |t: f32| (t.clamp(0.0, 1.0) * STEPS).round() as u16;
        (step(u), step(v))
    }

    /// Returns `[left, bottom, right, top]` of the first view in the unit square: without the strayest points.
    pub(super) fn first_view(&self, points: &Points) -> [f32; 4] {
        let (left, right) = bulk(&points.x);
        let (bottom, top) = bulk(&points.y);
        let (u0, v0) = self.place(left, bottom);
        let (u1, v1) = self.place(right, top);
        if points.is_empty() { [0.0, 0.0, 1.0, 1.0] } else { [u0, v0, u1, v1] }
    }
}

fn extent(values: &[f32]) -> (f32, f32) {
    let bounds = values.iter().fold((f32::MAX, f32::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    if values.is_empty() { (0.0, 0.0) } else { bounds }
}

/// Returns the bounds of the values without the farthest at either end.
fn bulk(values: &[f32]) -> (f32, f32) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mut values = values.to_vec();
    let last = values.len() - 1;
    // Floor: with fewer than 2,000 points none is left out.
    let skip = (values.len() as f32 * STRAY / 2.0) as usize;
    let low = *values.select_nth_unstable_by(skip, f32::total_cmp).1;
    let high = *values.select_nth_unstable_by(last - skip, f32::total_cmp).1;
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_stray_point_does_not_shrink_the_first_view() {
        let mut points = Points::default();
        for i in 0..10_000 {
            points.x.push((i % 100) as f32);
            points.y.push((i / 100) as f32);
        }
        points.x[0] = 10_000.0;
        let frame = Frame::around(&points);
        let [left, _, right, _] = frame.first_view(&points);
        assert!((right - left) * frame.side <= 99.0);
        assert_eq!(frame.steps(10_000.0, 0.0).0, 65_535);
    }

    #[test]
    fn equal_points_stand_in_the_middle() {
        let points = Points { x: vec![3.0; 4], y: vec![-2.0; 4], ..Points::default() };
        assert_eq!(Frame::around(&points).place(3.0, -2.0), (0.5, 0.5));
    }
}
