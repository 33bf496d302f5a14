//! A matrix of similarities as a picture: a cell for each pair, darker where it is larger.
//!
//! It is an SVG, so that labels can be read at any size and a cell tells its value to the mouse.

use std::fmt::Write;

/// Side of a cell, and room for a letter of a label, in pixels.
const CELL: usize = 28;
const LETTER: usize = 7;

/// The longest label, in letters.
const LONGEST: usize = 48;

/// The colour of the smallest value and that of the largest.
const SMALLEST: [f32; 3] = [247.0, 251.0, 255.0];
const LARGEST: [f32; 3] = [8.0, 48.0, 107.0];

/// Draws `values`, a row for each of `rows` and in it a value for each of `columns`.
pub(crate) fn svg(title: &str, rows: &[String], columns: &[String], values: &[Vec<f32>]) -> String {
    let finite = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (least, most) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
    let (left, top) = (label_room(rows), 40 + label_room(columns));
    let (width, height) = (left + CELL * columns.len() + 20, top + CELL * rows.len() + 40);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"Inter, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"15\" font-weight=\"600\">{}</text>\n",
        escaped(title)
    );
    for (at, name) in columns.iter().enumerate() {
        let (x, y) = (left + CELL * at + CELL / 2 + 4, top - 6);
        let label = escaped(&cut(name));
        push(&mut svg, format_args!("<text transform=\"translate({x} {y}) rotate(-90)\">{label}</text>\n"));
    }
    for (row, (name, of_row)) in rows.iter().zip(values).enumerate() {
        let y = top + CELL * row;
        let (x, middle, label) = (left - 6, y + CELL / 2 + 4, escaped(&cut(name)));
        push(&mut svg, format_args!("<text x=\"{x}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>\n"));
        for (column, value) in of_row.iter().enumerate() {
            let share = if most > least { (value - least) / (most - least) } else { 0.5 };
            push(
                &mut svg,
                format_args!(
                    "<rect x=\"{}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"{}\"><title>{} × {}: \
                     {value:.4}</title></rect>\n",
                    left + CELL * column,
                    colour(share),
                    escaped(name),
                    columns.get(column).map(|name| escaped(name)).unwrap_or_default(),
                ),
            );
        }
    }
    let y = height - 14;
    push(
        &mut svg,
        format_args!("<text x=\"{left}\" y=\"{y}\">{least:.3} (light) to {most:.3} (dark)</text>\n</svg>\n"),
    );
    svg
}

fn push(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let written = svg.write_fmt(text);
    debug_assert!(written.is_ok());
}

fn label_room(names: &[String]) -> usize {
    let longest = names.iter().map(|name| name.chars().count().min(LONGEST)).max().unwrap_or(0);
    20 + LETTER * longest
}

fn cut(name: &str) -> String {
    let line = name.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn colour(share: f32) -> String {
    // What is no number is grey.
    if !share.is_finite() {
        return "#999999".into();
    }
    let [r, g, b] = [0, 1, 2].map(|i| {
        let value = SMALLEST[i] + (LARGEST[i] - SMALLEST[i]) * share.clamp(0.0, 1.0);
        // In 0 to 255: between two colours.
        value.round() as u8
    });
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_has_a_cell_that_tells_its_value() {
        let names = |names: [&str; 2]| names.map(String::from);
        let svg =
            svg("T & U", &names(["a", "<b>"]), &names(["x", "y"]), &[vec![0.0, 0.5], vec![1.0, f32::NAN]]);
        assert_eq!(svg.matches("<title>").count(), 4);
        assert!(svg.contains("T &amp; U") && svg.contains("&lt;b&gt; × x: 1.0000"), "{svg}");
        assert!(
            svg.contains("fill=\"#f7fbff\"") && svg.contains("fill=\"#08306b\"") && svg.contains("#999999")
        );
        assert!(svg.ends_with("</svg>\n"));
    }
}
