//! The report as a reader meets it: opened from disk in a real browser and clicked through.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::chromium::Chromium;
use pipeline::report::{MapOptions, Metric, OUTLIER, Part, Points, Report, TopicSummary, write_html};
use serde_json::Value;

use crate::models;

/// Names the software renderer otherwise, which the page would refuse as too slow.
const HIDE_SOFTWARE_WEBGL: &str = "const getParameter = WebGL2RenderingContext.prototype.getParameter; \
     WebGL2RenderingContext.prototype.getParameter = function (name) { \
     const value = getParameter.call(this, name); \
     return /swiftshader/i.test(value) ? 'a graphics card' : value; };";

#[test]
fn a_reader_clicks_through_the_report_drawn_without_webgl() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let page = folder.path().join("report.html");
    write_html(&report(), File::create(&page)?)?;
    let mut browser = Chromium::start(1280, 800, &["--disable-gpu", "--disable-3d-apis"])?;
    click_through(&mut browser, &page)
}

#[test]
fn a_reader_clicks_through_the_report_drawn_by_webgl() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let page = folder.path().join("report.html");
    write_html(&report(), File::create(&page)?)?;
    let mut browser =
        Chromium::start(1280, 800, &["--use-angle=swiftshader", "--enable-unsafe-swiftshader"])?;
    browser.before_each_page(HIDE_SOFTWARE_WEBGL)?;
    click_through(&mut browser, &page)?;
    let drawn_by_webgl = "document.getElementById('points-layer').getContext('webgl2') !== null";
    ensure!(browser.evaluate(drawn_by_webgl)? == true, "the page did not use WebGL");
    Ok(())
}

#[test]
fn a_reader_clicks_through_the_report_of_a_fit_on_real_papers() -> Result<()> {
    let page = format!("{}/report.html", models::papers().model);
    let mut browser = Chromium::start(1280, 800, &["--disable-gpu", "--disable-3d-apis"])?;
    click_through(&mut browser, Path::new(&page))
}

#[test]
fn hostile_titles_are_shown_as_they_are() -> Result<()> {
    let hostile = "</script><img src=x onerror=\"document.title='broken'\"> & שלום 👩‍🔬";
    let mut report = report();
    report.title = hostile.to_owned();
    report.topics[0].name = hostile.to_owned();
    report.points.title.fill(hostile.to_owned());
    let folder = tempfile::tempdir()?;
    let page = folder.path().join("report.html");
    write_html(&report, File::create(&page)?)?;
    let mut browser = Chromium::start(1280, 800, &["--disable-gpu"])?;
    browser.open(&page)?;
    browser.wait_until("document.getElementById('loading') === null")?;
    assert_eq!(browser.text("#title")?, hostile);
    assert_eq!(browser.text("#legend [data-topic=\"0\"] .name")?, hostile);
    assert_eq!(browser.evaluate("document.title")?, hostile);
    point_at_a_text(&mut browser)?;
    assert_eq!(browser.text("#card h3")?, hostile);
    assert_eq!(browser.evaluate("document.images.length")?, 0);
    assert_eq!(browser.problems()?, [""; 0]);
    Ok(())
}

/// Opens a report and uses everything on it once. Works on any report with at least two topics.
fn click_through(browser: &mut Chromium, page: &Path) -> Result<()> {
    let (summary, titles) = contents(page)?;
    let topics = summary["topics"].as_array().context("the report has no topics")?;
    let noun = summary["noun"].as_str().context("the report has no noun")?;

    browser.open(page)?;
    browser.wait_until("document.getElementById('loading') === null")?;
    assert_eq!(browser.text("#title")?, summary["title"].as_str().unwrap_or_default());
    assert_eq!(browser.evaluate("document.querySelectorAll('#legend .row').length")?, topics.len());

    for topic in topics.iter().take(3) {
        let drawn = pixels_of(browser, topic)?;
        ensure!(drawn > 20, "{drawn} pixels of the map have the colour of {}", topic["name"]);
    }

    point_at_a_text(browser)?;
    let shown = browser.text("#card h3")?;
    ensure!(titles.contains(&shown), "the card shows {shown:?}, which is no title");

    let word = titles
        .iter()
        .flat_map(|title| title.split_whitespace())
        .find(|word| word.len() > 5 && word.bytes().all(|b| b.is_ascii_alphabetic()));
    let word = word.context("no title has a word to search for")?.to_lowercase();
    let found = titles.iter().filter(|title| title.to_lowercase().contains(&word)).count();
    browser.click("#search")?;
    browser.type_text(&word)?;
    browser.wait_until("!document.getElementById('results').hidden")?;
    let status = browser.text("#results-status")?;
    ensure!(
        status.starts_with(&format!("{} {noun}", grouped(found))),
        "{found} titles have {word:?}, but {status:?}"
    );
    let listed = browser.evaluate("document.querySelectorAll('#text-hits button').length")?;
    assert_eq!(listed, found.min(100));
    browser.click("#text-hits button")?;
    browser.wait_until("document.getElementById('card').classList.contains('pinned')")?;
    ensure!(browser.text("#card h3")?.to_lowercase().contains(&word), "the card is not that of the hit");
    browser.click("#search")?;
    browser.press("Escape")?;
    browser.wait_until("document.getElementById('results').hidden")?;
    browser.press("Escape")?;
    browser.click("#zoom-fit")?;

    isolate_a_topic(browser, topics)?;
    move_around(browser)?;

    let light = browser.evaluate("getComputedStyle(document.body).backgroundColor")?;
    let before = browser.attribute("#theme", "aria-pressed")?;
    browser.click("#theme")?;
    assert_ne!(browser.evaluate("getComputedStyle(document.body).backgroundColor")?, light);
    assert_ne!(browser.attribute("#theme", "aria-pressed")?, before);

    sort_the_table(browser, topics)?;
    for view in ["quality", "settings", "map"] {
        browser.click(&format!("#tab-{view}"))?;
        browser.bounds(&format!("#view-{view}"))?;
    }
    assert_eq!(browser.problems()?, [""; 0]);
    Ok(())
}

/// Counts the pixels of the map that have the colour of a topic's points, drawn at 215 / 255 over the background.
fn pixels_of(browser: &mut Chromium, topic: &Value) -> Result<u64> {
    let picture = browser.picture("#map")?;
    let count = browser.evaluate(&format!(
        "(async () => {{
            const image = new Image();
            image.src = 'data:image/png;base64,{picture}';
            await image.decode();
            const canvas = new OffscreenCanvas(image.width, image.height);
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const pixels = context.getImageData(0, 0, image.width, image.height).data;
            const paper = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
            const hex = parseInt({topic}[document.documentElement.dataset.theme].slice(1), 16);
            const drawn = [hex >> 16, (hex >> 8) & 255, hex & 255].map((c, i) => (c * 215 + paper[i] * 40) / 255);
            let count = 0;
            for (let i = 0; i < pixels.length; i += 4) count += drawn.every((c, j) => Math.abs(pixels[i + j] - c) < 6);
            return count;
        }})()"
    ))?;
    count.as_u64().context("the picture has no count of pixels")
}

/// Moves the mouse over the map, from its middle outwards, until a card shows.
fn point_at_a_text(browser: &mut Chromium) -> Result<()> {
    let [left, top, width, height] = browser.bounds("#map")?;
    for step in 0..2000 {
        // A spiral of Fermat: even steps over the map.
        let (radius, angle) = (12.0 * f64::from(step).sqrt(), 2.4 * f64::from(step));
        let (x, y) = (width / 2.0 + radius * angle.cos(), height / 2.0 + radius * angle.sin());
        if !(0.0..width).contains(&x) || !(0.0..height).contains(&y) {
            continue;
        }
        browser.hover(left + x, top + y)?;
        if browser.evaluate("document.getElementById('card').hidden")? == false {
            return Ok(());
        }
    }
    anyhow::bail!("no card shows anywhere on the map")
}

fn isolate_a_topic(browser: &mut Chromium, topics: &[Value]) -> Result<()> {
    let id = browser.attribute("#legend .row", "data-topic")?.context("the legend is empty")?;
    let id: i64 = id.parse()?;
    let topic = topics
        .iter()
        .find(|topic| topic["id"].as_i64() == Some(id))
        .context("the legend has an unknown topic")?;
    let all = browser.picture("#map")?;
    browser.click("#legend .row")?;
    assert_eq!(browser.attribute("#legend .row", "aria-pressed")?.as_deref(), Some("true"));
    assert_eq!(browser.evaluate("document.querySelectorAll('#legend [aria-pressed=true]').length")?, 1);
    let members = topic["size"].as_u64().unwrap_or(0) + topic["labelled"].as_u64().unwrap_or(0);
    let note = browser.text("#map-note")?;
    let name = topic["name"].as_str().unwrap_or_default();
    ensure!(note.starts_with(name), "{note:?} does not begin with {name:?}");
    ensure!(
        note.contains(&format!("{} of ", grouped(members as usize))),
        "{note:?} does not count {members}"
    );
    browser.wait_until("document.querySelectorAll('#legend .about:not([hidden]) .chips li').length > 0")?;
    ensure!(browser.picture("#map")? != all, "the map looks the same with one topic isolated");
    browser.click("#legend .row")?;
    assert_eq!(browser.attribute("#legend .row", "aria-pressed")?.as_deref(), Some("false"));
    browser.click("#legend .row")?;
    browser.press("Escape")?;
    assert_eq!(browser.evaluate("document.querySelectorAll('#legend [aria-pressed=true]').length")?, 0);
    Ok(())
}

fn move_around(browser: &mut Chromium) -> Result<()> {
    let [left, top, width, height] = browser.bounds("#map")?;
    let middle = (left + width / 2.0, top + height / 2.0);
    let settle = "new Promise((resume) => setTimeout(() => requestAnimationFrame(() => resume(true)), 300))";
    browser.hover(left + 5.0, top + height - 5.0)?;
    browser.evaluate(settle)?;
    let mut last = browser.picture("#map")?;
    let mut changes = |browser: &mut Chromium, what: &str| -> Result<()> {
        browser.hover(left + 5.0, top + height - 5.0)?;
        browser.evaluate(settle)?;
        let now = browser.picture("#map")?;
        ensure!(now != last, "{what} leaves the map as it is");
        last = now;
        Ok(())
    };
    browser.wheel(middle.0, middle.1, -240.0)?;
    changes(browser, "the wheel")?;
    browser
        .drag((left + width - 120.0, top + height - 60.0), (left + width - 220.0, top + height - 140.0))?;
    changes(browser, "a drag")?;
    browser.evaluate("document.getElementById('map').focus()")?;
    browser.press("ArrowLeft")?;
    changes(browser, "an arrow key")?;
    browser.press("+")?;
    changes(browser, "the key +")?;
    browser.press("0")?;
    changes(browser, "the key 0")?;
    if browser.evaluate("document.getElementById('timeline').hidden")? == true {
        return Ok(());
    }
    let [left, top, width, height] = browser.bounds("#timeline .plot")?;
    browser.drag((left + width * 0.3, top + height / 2.0), (left + width * 0.7, top + height / 2.0))?;
    browser.wait_until("!document.querySelector('#timeline .period').hidden")?;
    changes(browser, "a choice of dates")?;
    browser.click("#timeline .period button")?;
    changes(browser, "the release of the dates")
}

fn sort_the_table(browser: &mut Chromium, topics: &[Value]) -> Result<()> {
    browser.click("#tab-topics")?;
    let rows = "[...document.querySelectorAll('#topic-table tbody tr')]";
    let column =
        |n: usize| format!("{rows}.map((row) => Number(row.cells[{n}].textContent.replaceAll(',', '')))");
    browser.click("#topic-table [data-sort=labelled]")?;
    let sizes: Vec<u64> = serde_json::from_value(browser.evaluate(&column(3))?)?;
    assert_eq!(sizes.len(), topics.len().min(200));
    ensure!(sizes.is_sorted_by(|a, b| a >= b), "not sorted by the labelled rows: {sizes:?}");
    browser.click("#topic-table [data-sort=labelled]")?;
    let sizes: Vec<u64> = serde_json::from_value(browser.evaluate(&column(3))?)?;
    ensure!(sizes.is_sorted(), "not sorted the other way round: {sizes:?}");
    browser.click("#topic-table [data-sort=name]")?;
    assert_eq!(browser.attribute("#topic-table th", "aria-sort")?.as_deref(), Some("ascending"));
    let names = format!("{rows}.map((row) => row.querySelector('strong').textContent)");
    let sorted = format!(
        "(() => {{ const names = {names}; return names.every((name, i) => i === 0 || names[i - 1].localeCompare(name) <= 0); }})()"
    );
    assert_eq!(browser.evaluate(&sorted)?, true);
    let papers = "#topic-table tbody [aria-expanded]";
    browser.click(papers)?;
    assert_eq!(browser.attribute(papers, "aria-expanded")?.as_deref(), Some("true"));
    browser.bounds("#topic-table .papers:not([hidden])")?;
    Ok(())
}

/// Reads the summary and the titles out of the file.
fn contents(page: &Path) -> Result<(Value, Vec<String>)> {
    let page = fs::read_to_string(page)?;
    let blocks = |tag: &'static str| {
        page.split(tag).skip(1).map(|rest| rest.split("</script>").next().unwrap_or_default())
    };
    let summary = blocks(" id=\"report\">").next().context("the page has no summary")?;
    let mut titles = Vec::new();
    for block in blocks(" data-texts=\"title\">") {
        titles.extend(serde_json::from_str::<Vec<String>>(block)?);
    }
    Ok((serde_json::from_str(summary)?, titles))
}

fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b',')).into_owned()
}

/// Returns 1,200 texts in six topics around a ring, one in ten an outlier, over two years.
fn report() -> Report {
    let names = [
        "speech recognition",
        "machine translation",
        "question answering",
        "parsing",
        "sentiment",
        "dialogue",
    ];
    let centre = |topic: usize| (3.0 * (topic as f32).cos(), 3.0 * (topic as f32).sin());
    let mut points = Points::default();
    let mut topics: Vec<TopicSummary> = names
        .iter()
        .enumerate()
        .map(|(topic, name)| TopicSummary {
            id: topic as i32,
            name: (*name).to_owned(),
            path: Vec::new(),
            size: 0,
            labelled: 0,
            words: vec![((*name).to_owned(), 0.5), ("text".to_owned(), 0.2)],
            representatives: vec![format!("On {name}")],
            x: centre(topic).0,
            y: centre(topic).1,
        })
        .collect();
    let mut seed = 1_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    for row in 0..1200_usize {
        // Uneven sizes, so that sorting has something to do.
        let topic = (row * row / 7) % names.len();
        let outlier = row % 10 == 0;
        let part = if row % 4 == 0 { Part::Labelled } else { Part::Fitted };
        let (x, y) = centre(topic);
        let spread = if outlier { 6.0 } else { 1.2 };
        points.x.push(x + spread * (random() + random()));
        points.y.push(y + spread * (random() + random()));
        points.topic.push(if outlier { OUTLIER } else { topic as i32 });
        points.title.push(format!("Study {row} of {}", names[topic]));
        points.detail.push(format!("Abstract {row}"));
        points.score.push(0.5 + random());
        points.part.push(part);
        points.days.push((row % 50 != 0).then_some(19_000 + (row as i32 * 7) % 730));
        match part {
            _ if outlier => {}
            Part::Fitted => topics[topic].size += 1,
            Part::Labelled => topics[topic].labelled += 1,
        }
    }
    Report {
        title: "Topics of a small corpus".to_owned(),
        subtitle: "1,200 studies".to_owned(),
        created: "2026-11-21".to_owned(),
        noun: "studies".to_owned(),
        facts: vec![("topics".to_owned(), "6".to_owned())],
        topics,
        points,
        quality: vec![Metric {
            name: "NPMI".into(),
            value: "0.1".into(),
            explanation: "Higher is better.".into(),
        }],
        histograms: Vec::new(),
        tables: Vec::new(),
        settings: "source:\n  table: { path: studies.parquet }\n".to_owned(),
        warnings: vec!["a warning".to_owned()],
        options: MapOptions::default(),
    }
}
