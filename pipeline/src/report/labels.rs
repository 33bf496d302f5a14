//! Labels on the picture: broken into short lines, sized by members, placed so that none covers another.

/// Most lines of a label; the rest is cut.
const MAX_LINES: usize = 3;

/// Letters a line may have before it is broken.
const LINE_LETTERS: usize = 20;

/// Shifts that are tried in turn, in widths and heights of the label: in place, above, below, to the sides.
const SHIFTS: [(f32, f32); 7] =
    [(0.0, 0.0), (0.0, -0.7), (0.0, 0.7), (0.4, 0.0), (-0.4, 0.0), (0.35, -0.7), (-0.35, -0.7)];

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rect {
    pub(super) left: f32,
    pub(super) top: f32,
    pub(super) right: f32,
    pub(super) bottom: f32,
}

impl Rect {
    /// Returns whether the inner points of two rectangles meet.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn around(x: f32, y: f32, width: f32, height: f32) -> Self {
        let (w, h) = (width / 2.0, height / 2.0);
        Self { left: x - w, top: y - h, right: x + w, bottom: y + h }
    }

    fn contains(&self, other: &Self) -> bool {
        self.left <= other.left
            && self.top <= other.top
            && self.right >= other.right
            && self.bottom >= other.bottom
    }
}

/// Returns the em of a topic's label: the fourth root of its share of the largest topic, within bounds.
pub(super) fn size(members: usize, most: usize, smallest: f32, largest: f32) -> f32 {
    let share = members as f32 / most.max(1) as f32;
    (largest * share.powf(0.25)).clamp(smallest, largest)
}

/// Returns the name in lines of similar length.
pub(super) fn lines(name: &str) -> Vec<String> {
    let letters = name.chars().count();
    let wanted = letters.div_ceil(LINE_LETTERS).clamp(1, MAX_LINES);
    let length = letters.div_ceil(wanted).clamp(10, LINE_LETTERS);
    let mut lines: Vec<String> = Vec::new();
    for word in words(name) {
        match lines.last_mut() {
            // A third beyond the wanted length is better than a lone short word.
            Some(line) if line.chars().count() + 1 + word.chars().count() <= length + length / 3 => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(cut(&word, 2 * LINE_LETTERS)),
        }
    }
    // A separator is not needed where a line ends.
    let last = lines.len().saturating_sub(1);
    for line in &mut lines[..last] {
        line.truncate(line.trim_end_matches(['·', '|', ' ']).len());
    }
    if lines.len() > MAX_LINES {
        lines.truncate(MAX_LINES);
        lines[MAX_LINES - 1].push('…');
    }
    lines
}

/// Returns the words of a name, a lone separator with the word before it.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in name.split_whitespace() {
        let separator = word.chars().all(|c| matches!(c, '·' | '|' | ',' | ';' | '/' | '–' | '—' | '-'));
        match words.last_mut() {
            Some(last) if separator => *last = format!("{last} {word}"),
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// Places rectangles of `(x, y, width, height)` in order of importance; one that finds no free place gets none.
pub(super) fn place(wanted: &[(f32, f32, f32, f32)], area: Rect) -> Vec<Option<Rect>> {
    let mut taken: Vec<Rect> = Vec::new();
    let mut free_place = |&(x, y, width, height): &(f32, f32, f32, f32)| {
        let tries =
            SHIFTS.iter().map(|(dx, dy)| Rect::around(x + dx * width, y + dy * height, width, height));
        let found = tries.into_iter().find(|r| area.contains(r) && !taken.iter().any(|t| t.overlaps(r)))?;
        taken.push(found);
        Some(found)
    };
    wanted.iter().map(&mut free_place).collect()
}

fn cut(word: &str, letters: usize) -> String {
    if word.chars().count() <= letters {
        return word.to_owned();
    }
    word.chars().take(letters - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap_and_stay_inside() {
        let area = Rect { left: 0.0, top: 0.0, right: 800.0, bottom: 600.0 };
        let mut seed = 7_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32
        };
        let wanted: Vec<_> = (0..300)
            .map(|_| (random() * 800.0, random() * 600.0, 40.0 + random() * 90.0, 14.0 + random() * 30.0))
            .collect();
        let placed: Vec<Rect> = place(&wanted, area).into_iter().flatten().collect();
        assert!(placed.len() > 60, "{}", placed.len());
        for (i, a) in placed.iter().enumerate() {
            assert!(area.contains(a));
            assert!(placed[..i].iter().all(|b| !a.overlaps(b)));
        }
    }

    #[test]
    fn names_break_into_balanced_lines() {
        assert_eq!(lines("speech"), ["speech"]);
        assert_eq!(
            lines("machine translation quality estimation"),
            ["machine translation", "quality estimation"]
        );
        assert_eq!(lines("clinical · medical · patient care"), ["clinical · medical", "patient care"]);
        assert_eq!(lines(&"word ".repeat(40)).len(), 3);
        assert_eq!(lines(&"x".repeat(100))[0].chars().count(), 40);
        assert!(lines("  ").is_empty());
    }

    #[test]
    fn a_label_grows_with_the_fourth_root_of_its_members() {
        assert_eq!(size(1600, 1600, 5.0, 20.0), 20.0);
        assert_eq!(size(100, 1600, 5.0, 20.0), 10.0);
        assert_eq!(size(0, 1600, 5.0, 20.0), 5.0);
    }
}
