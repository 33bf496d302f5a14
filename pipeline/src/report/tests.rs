//! The page and the picture as a whole: what is written can be read back, and hostile text stays text.

use serde_json::Value;

use super::*;

const HOSTILE: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)> \"quoted\" & 'single'",
    "<!--[script]--> <!-- <script>",
    "مرحبا بالعالم \u{202e}reversed",
    "emoji 👩‍🔬 and a line separator \u{2028}",
    "back\\slash \u{0} {{braces}} ${x}",
];

/// Two topics of three points at the left and the right, two outliers between them, all titles hostile.
fn report() -> Report {
    let topic = |id: i32, x: f32| TopicSummary {
        id,
        name: HOSTILE[0].to_owned(),
        path: vec![HOSTILE[1].to_owned()],
        size: 2,
        labelled: 1,
        words: vec![(HOSTILE[2].to_owned(), 0.5)],
        representatives: vec![HOSTILE[3].to_owned()],
        x,
        y: 0.0,
    };
    Report {
        title: HOSTILE[0].to_owned(),
        subtitle: HOSTILE[1].to_owned(),
        created: "2026-11-21".to_owned(),
        noun: "papers".to_owned(),
        facts: vec![("encoder".to_owned(), HOSTILE[2].to_owned())],
        topics: vec![topic(7, -1.0), topic(3, 1.0)],
        points: Points {
            x: vec![-1.1, -1.0, -0.9, 0.9, 1.0, 1.1, 0.0, 0.0],
            y: vec![0.0, 0.1, 0.0, 0.0, -0.1, 0.0, 0.3, -0.3],
            topic: vec![7, 7, 7, 3, 3, 3, OUTLIER, OUTLIER],
            title: (0..8).map(|i| HOSTILE[i % HOSTILE.len()].to_owned()).collect(),
            detail: Vec::new(),
            score: vec![1.0, 0.5, f32::NAN, 0.0, 2.0, 0.25, 0.1, 0.1],
            part: (0..8).map(|i| if i % 3 == 2 { Part::Labelled } else { Part::Fitted }).collect(),
            days: vec![Some(0), None, Some(-1), Some(20_000), None, None, None, None],
        },
        quality: vec![Metric { name: "NPMI".into(), value: "0.1".into(), explanation: HOSTILE[0].into() }],
        histograms: vec![Histogram {
            name: "score".into(),
            explanation: String::new(),
            bins: vec![(0.0, 1.0, 3)],
        }],
        tables: vec![],
        settings: HOSTILE[0].to_owned(),
        warnings: vec![HOSTILE[1].to_owned()],
        options: MapOptions {
            width: 640,
            height: 480,
            scale: 1,
            point_size: Some(12.0),
            ..MapOptions::default()
        },
    }
}

fn html(report: &Report) -> String {
    let mut page = Vec::new();
    write_html(report, &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

/// Returns what stands between the tag that has the attribute and the next end of a script.
fn block<'a>(page: &'a str, attribute: &str) -> &'a str {
    let start = page.find(&format!(" {attribute}>")).unwrap_or_else(|| panic!("{attribute} is missing"));
    let content = &page[start + attribute.len() + 2..];
    &content[..content.find("</script>").unwrap()]
}

fn bytes(page: &str, column: &str) -> Vec<u8> {
    let text = block(page, &format!("data-column=\"{column}\""));
    let letter = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{} is no letter of base64", char::from(c)),
    };
    let letters = text.trim_end_matches('=').bytes().map(letter);
    let bits: Vec<u8> = letters.flat_map(|v| (0..6).rev().map(move |i| v >> i & 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

fn steps(page: &str, column: &str) -> Vec<u16> {
    bytes(page, column).chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

#[test]
fn every_column_can_be_read_back_from_the_page() {
    let report = report();
    let page = html(&report);
    let side = 2.2 / 65_535.0;
    for (row, (x, y)) in steps(&page, "x").into_iter().zip(steps(&page, "y")).enumerate() {
        assert!((f32::from(x) * side - 1.1 - report.points.x[row]).abs() <= side, "x of row {row}");
        assert!((f32::from(y) * side - 1.1 - report.points.y[row]).abs() <= side, "y of row {row}");
    }
    assert_eq!(steps(&page, "topic"), [0, 0, 0, 1, 1, 1, u16::MAX, u16::MAX]);
    assert_eq!(bytes(&page, "part"), [0, 0, 1, 0, 0, 1, 0, 0]);
    assert_eq!(bytes(&page, "score"), [254, 127, 255, 0, 254, 64, 25, 25]);
    let days = bytes(&page, "day");
    let days: Vec<i32> = days.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(days[..5], [0, i32::MIN, -1, 20_000, i32::MIN]);
    let titles: Vec<String> = serde_json::from_str(block(&page, "data-texts=\"title\"")).unwrap();
    assert_eq!(titles, report.points.title);
    let summary: Value = serde_json::from_str(block(&page, "id=\"report\"")).unwrap();
    assert_eq!(summary["title"], HOSTILE[0]);
    assert_eq!(summary["topics"][1]["id"], 3);
    assert_eq!(summary["topics"][0]["words"][0][0], HOSTILE[2]);
    assert_eq!(summary["points"], 8);
}

#[test]
fn hostile_text_opens_no_tag() {
    let mut plain = report();
    let safe = |text: &mut String| *text = "safe".to_owned();
    for text in [&mut plain.title, &mut plain.subtitle, &mut plain.settings, &mut plain.warnings[0]] {
        safe(text);
    }
    plain.points.title.iter_mut().for_each(safe);
    plain.facts[0].1 = "safe".to_owned();
    plain.quality[0].explanation = "safe".to_owned();
    for topic in &mut plain.topics {
        topic.name = "safe".to_owned();
        topic.path[0] = "safe".to_owned();
        topic.words[0].0 = "safe".to_owned();
        topic.representatives[0] = "safe".to_owned();
    }
    let tags = |page: &str| page.matches('<').count();
    assert_eq!(tags(&html(&report())), tags(&html(&plain)));
}

#[test]
fn the_page_names_no_address_to_load_from() {
    let page = html(&report());
    for address in [
        "src=\"http",
        "href=\"http",
        "url(http",
        "url(//",
        "@import",
        "import(",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
    ] {
        assert!(!page.contains(address), "{address}");
    }
    assert!(page.contains("default-src 'none'; style-src 'sha256-"));
}

#[test]
fn dropped_outliers_are_in_neither_page_nor_picture() {
    let mut report = report();
    report.options.outliers = Outliers::Drop;
    assert_eq!(steps(&html(&report), "topic").len(), 6);
    // Two discs of 12 pixels; the rims of letters and discs have a few grey pixels of their own.
    let grey = |report: &Report| pixels(report).0.iter().filter(|&&pixel| is_outlier(pixel)).count();
    assert!(grey(&report) < 50);
    report.options.outliers = Outliers::Grey;
    assert!(grey(&report) > 120);
}

/// Whether a pixel has the hue of an outlier's inside, which is drawn over white at 0.55.
fn is_outlier(pixel: [u8; 3]) -> bool {
    let wanted = Theme::Light.outlier().map(|c| (255.0 - 0.55 * (255.0 - f32::from(c))).round());
    pixel.iter().zip(wanted).all(|(&a, b)| (f32::from(a) - b).abs() <= 1.0)
}

fn pixels(report: &Report) -> (Vec<[u8; 3]>, usize) {
    let mut file = Vec::new();
    write_png(report, &mut file).unwrap();
    let picture = tiny_skia::Pixmap::decode_png(&file).unwrap();
    let pixels = picture.pixels().iter().map(|p| [p.red(), p.green(), p.blue()]).collect();
    (pixels, picture.width() as usize)
}

#[test]
fn the_picture_has_the_colour_of_a_topic_on_its_side() {
    let mut report = report();
    for topic in &mut report.topics {
        topic.name.clear();
    }
    let (pixels, width) = pixels(&report);
    let colours = Palette::Position.colours(&[(-1.0, 0.0), (1.0, 0.0)], Theme::Light);
    for (topic, colour) in colours.into_iter().enumerate() {
        let drawn = colour.map(|c| (255.0 - 0.8 * (255.0 - f32::from(c))).round());
        let same = |p: &[u8; 3]| p.iter().zip(drawn).all(|(&a, b)| (f32::from(a) - b).abs() <= 1.5);
        let columns: Vec<usize> =
            (0..pixels.len()).filter(|&i| same(&pixels[i])).map(|i| i % width).collect();
        // Three discs of 12 pixels.
        assert!(columns.len() > 200, "topic {topic}: {} pixels", columns.len());
        assert!(
            columns.iter().all(|&x| (x < width / 2) == (topic == 0)),
            "topic {topic} is on the wrong side"
        );
    }
}

#[test]
fn the_picture_has_the_same_bytes_each_time_and_the_size_asked_for() {
    let mut report = report();
    report.options.scale = 2;
    let write = || {
        let mut file = Vec::new();
        write_png(&report, &mut file).unwrap();
        file
    };
    let file = write();
    assert!(file == write());
    let picture = tiny_skia::Pixmap::decode_png(&file).unwrap();
    assert_eq!((picture.width(), picture.height()), (1280, 960));
}

#[test]
fn an_empty_report_is_drawn() {
    let mut report = report();
    report.topics.clear();
    report.points = Points::default();
    assert!(html(&report).contains("\"points\":0"));
    assert!(!pixels(&report).0.is_empty());
}

#[test]
fn parts_that_do_not_fit_are_refused_with_their_place() {
    let refusal = |change: fn(&mut Report)| {
        let mut report = report();
        change(&mut report);
        let page = write_html(&report, io::sink()).unwrap_err().to_string();
        assert_eq!(page, write_png(&report, io::sink()).unwrap_err().to_string());
        page
    };
    assert_eq!(
        refusal(|r| r.points.title.truncate(3)),
        "column \"title\" of the points has 3 rows, expected 8"
    );
    assert_eq!(
        refusal(|r| r.points.days.truncate(3)),
        "column \"days\" of the points has 3 rows, expected 8"
    );
    assert_eq!(
        refusal(|r| r.points.y[5] = f32::NAN),
        "row 5 has the position (1.1, NaN), expected finite numbers"
    );
    assert_eq!(
        refusal(|r| r.topics[1].x = f32::INFINITY),
        "topic 3 has the position (inf, 0), expected finite numbers"
    );
    assert_eq!(
        refusal(|r| r.points.topic[2] = 9),
        "row 2 has topic 9, which is neither -1 nor one of the 2 topics of the report"
    );
    assert_eq!(refusal(|r| r.topics[1].id = 7), "two topics of the report have the id 7");
    let mut report = report();
    report.options.width = 100;
    let error = write_png(&report, io::sink()).unwrap_err().to_string();
    assert!(error.starts_with("a picture of 100 x 480 pixels at scale 1 cannot be drawn"), "{error}");
}
