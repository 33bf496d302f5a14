//! `thema plan`: what it says a fit takes is what the fit takes.

use anyhow::{Context, Result, bail};
use harness::endpoint::Endpoint;
use harness::program::{thema, thema_with};
use harness::tables::{Blobs, Folder};
use serde_json::Value;

use crate::models::{self, BLOBS_ROWS, ENCODER, PAPERS, fit_arguments};

/// Four clusters in as many dimensions as small encoders have.
const WIDE: Blobs = Blobs { clusters: 4, dim: 384, seed: 5 };

/// Runs a plan, and returns the plans of its answer.
fn plans(arguments: &[&str]) -> Result<Vec<Value>> {
    let run = thema(&[&["plan", "--format", "json"], arguments].concat())?.succeeds()?;
    let told: Value = serde_json::from_str(&run.stdout)?;
    Ok(told["plans"].as_array().context("no plans")?.clone())
}

/// Fails unless the memory planned is that of a fit with the same arguments, to within `percent`.
fn check_peak(arguments: &[&str], out: &str, percent: f64) -> Result<()> {
    let plan = plans(arguments)?.remove(0);
    let planned = plan["peak_bytes"].as_f64().context("no peak")? / 1024.0;
    // Where the machine is busy, more may be read ahead than is worked on: a fit takes what it takes alone.
    let mut told = Vec::new();
    for n in 0..3 {
        let out = format!("{out}-{n}");
        let measured = thema(&[&["fit", "--out", &out], arguments].concat())?.succeeds()?.peak_kib as f64;
        let off = 100.0 * (planned / measured - 1.0);
        if off.abs() <= percent {
            return Ok(());
        }
        told.push(format!("{planned:.0} KiB planned, {measured:.0} KiB measured: {off:.1} % off"));
    }
    bail!("{}", told.join("; "))
}

#[test]
fn the_memory_that_is_planned_is_what_a_fit_takes() -> Result<()> {
    let folder = Folder::new()?;
    // The picture of the report is the most that few rows take; vectors and their search are that of many.
    for rows in [2_000, 16_000] {
        let input = folder.parquet("rows.parquet", &WIDE.rows(0, rows)?)?;
        let what = ["--input", &input, "--embeddings", "embedding", "--text", "{text}", "--id", "id"];
        let out = folder.path(&format!("model{rows}"));
        check_peak(&[&what[..], &["--min-cluster-size", "50"]].concat(), &out, 12.0)?;
    }
    Ok(())
}

#[test]
fn tokens_and_money_are_planned_where_endpoints_are_asked() -> Result<()> {
    let folder = Folder::new()?;
    let endpoint = Endpoint::start()?;
    let prices = "budget: { input_price: 0.1, output_price: 0.4 }";
    let chat = format!("endpoint: {{ url: '{}', {prices} }}, model: scribe", endpoint.url);
    let job = folder.write(
        "job.yaml",
        format!(
            "source: {{ table: {{ path: '{PAPERS}' }} }}\ntext: '{{title}}'\nid: id\n\
             encoder: {{ remote: {{ endpoint: {{ url: '{}' }}, model: letters }} }}\n\
             fit: {{ labeller: {{ llm: {{ chat: {{ {chat} }} }} }}, taxonomy: {{ llm: {{ {chat} }} }} }}\n",
            endpoint.url
        ),
    )?;
    let variables = [("THEMA_CACHE", folder.path("cache"))];
    let plan = ["plan", &job, "--rows", "10000,20000"];
    let run = thema_with(&[&plan[..], &["--format", "json"]].concat(), &variables)?.succeeds()?;
    let told: Value = serde_json::from_str(&run.stdout)?;
    let asked = |plan: usize, at: usize, key: &str| told["plans"][plan]["asked"][at][key].clone();
    let steps: Vec<Value> = (0..3).map(|at| asked(0, at, "step")).collect();
    assert_eq!(steps, ["vectors", "names", "taxonomy"]);
    // Titles have some eighty bytes; names are asked for each topic.
    let tokens = |plan, at| asked(plan, at, "tokens").as_f64().unwrap_or_default();
    assert!((150_000.0..450_000.0).contains(&tokens(0, 0)), "{told}");
    assert!((tokens(1, 0) / tokens(0, 0) - 2.0).abs() < 1e-3 && tokens(1, 1) > 1.9 * tokens(0, 1), "{told}");
    assert!(asked(0, 0, "money").is_null() && asked(0, 1, "money").as_f64() > Some(0.0));
    let text = thema_with(&plan, &variables)?.succeeds()?.stdout;
    assert!(text.contains("names asked") && text.contains("tokens") && text.contains("money"), "{text}");
    assert!(
        endpoint.requests().iter().all(|asked| asked["messages"].is_null()),
        "a plan asks no language model"
    );
    Ok(())
}

#[test]
fn long_texts_count_in_the_page_and_where_it_is_saved() -> Result<()> {
    let folder = Folder::new()?;
    let few = Blobs { clusters: 4, dim: 8, seed: 5 };
    let input = folder.parquet("rows.parquet", &few.rows(0, 8_000)?)?;
    // Long texts make a large page and a large table; the picture is small.
    let job = folder.write(
        "job.yaml",
        format!(
            "source: {{ table: {{ path: \"{input}\" }} }}\ntext: \"{{text}}\"\nshow: \"{}\"\nid: id\n\
             encoder: {{ column: embedding }}\nreport: {{ width: 320, height: 320, scale: 1 }}\n",
            "{text} ".repeat(200),
        ),
    )?;
    check_peak(&[&job, "--min-cluster-size", "50"], &folder.path("model"), 12.0)
}

#[test]
fn two_searches_for_neighbours_have_a_time_each() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let job = folder.write(
        "job.yaml",
        format!(
            "source: {{ table: {{ path: \"{input}\" }} }}\ntext: \"{{text}}\"\nencoder: {{ column: embedding }}\n\
             fit: {{ reducer: {{ umap: {{ n_neighbors: 200 }} }}, map: {{ n_neighbors: 3, n_components: 2 }} }}\n",
        ),
    )?;
    let plan = plans(&[&job, "--rows", "5000"])?.remove(0);
    let stages = plan["stages"].as_array().context("no stages")?;
    let searches: Vec<f64> = stages
        .iter()
        .filter(|stage| stage["stage"] == "neighbours")
        .map(|stage| stage["seconds"].as_f64().unwrap_or(f64::NAN))
        .collect();
    let &[of_the_map, of_the_layout] = &searches[..] else { panic!("{} searches", searches.len()) };
    // Graphs of 200 neighbours take many times as long to make as those of 3.
    assert!(of_the_layout > 1.5 * of_the_map, "{of_the_map} s and {of_the_layout} s");
    Ok(())
}

#[test]
fn an_encoder_counts_as_what_it_takes_when_it_is_loaded() -> Result<()> {
    let folder = Folder::new()?;
    let arguments =
        ["--input", PAPERS, "--rows", "0..300", "--text", "{title}", "--encoder", ENCODER, "--id", "id"];
    check_peak(&arguments, &folder.path("model"), 15.0)
}

#[test]
fn a_plan_is_made_for_any_number_of_rows_up_to_the_sample() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let what = ["--input", &input, "--embeddings", "embedding", "--text", "{text}"];
    let of = |more: &[&str]| plans(&[&what[..], more].concat());
    let number = |plan: &Value, name: &str| plan[name].as_f64().unwrap_or(f64::NAN);

    let own = of(&[])?;
    assert_eq!((own.len(), number(&own[0], "rows")), (1, BLOBS_ROWS as f64));
    let many = of(&["--rows", "1000,100000,10000000"])?;
    let fitted: Vec<f64> = many.iter().map(|plan| number(plan, "fitted")).collect();
    assert_eq!(fitted, [1_000.0, 100_000.0, 200_000.0], "the sample is 200,000 rows");
    for name in ["peak_bytes", "seconds", "disk_bytes"] {
        assert!(many.windows(2).all(|pair| number(&pair[0], name) < number(&pair[1], name)), "{name}");
    }
    let smaller = of(&["--rows", "100000", "--sample", "5000"])?;
    assert_eq!(number(&smaller[0], "fitted"), 5_000.0);
    assert!(number(&smaller[0], "peak_bytes") < number(&many[1], "peak_bytes"));
    Ok(())
}

#[test]
fn a_plan_is_shown_by_stage() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let job = folder.write(
        "job.yaml",
        format!("source: {{ table: {{ path: \"{input}\" }} }}\ntext: \"{{text}}\"\nencoder: {{ column: embedding }}\n"),
    )?;
    let run = thema(&["plan", &job, "--rows", "10000,1000000"])?.succeeds()?;
    let line = |name: &str| run.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    for stage in ["reading", "neighbours", "map layout", "clusters", "words", "threshold", "report", "saving"]
    {
        assert_eq!(line(stage).matches(" MiB ").count() + line(stage).matches(" GiB ").count(), 2, "{stage}");
    }
    assert!(line("rows fitted").ends_with("200,000"), "{}", run.stdout);
    assert!(line("in all").contains("iB") && line("model on disk").contains("iB"), "{}", run.stdout);
    assert!(run.stdout.contains("Time is an estimate"), "{}", run.stdout);
    Ok(())
}

#[test]
fn where_logs_are_json_a_plan_is_a_line_of_it() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    let run = thema(&[
        "plan",
        "--log",
        "json",
        "--input",
        &input,
        "--embeddings",
        "embedding",
        "--text",
        "{text}",
    ])?
    .succeeds()?;
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    let told: Value = serde_json::from_str(&run.stdout)?;
    assert_eq!(told["plans"][0]["rows"], BLOBS_ROWS, "{told}");
    Ok(())
}

#[test]
fn what_cannot_be_planned_is_said() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("blobs.parquet", &models::blob_rows()?)?;
    thema(&["plan"])?.fails(2, &["text", "--text"])?;
    thema(&["plan", "--text", "{text}", "--embeddings", "embedding"])?.fails(2, &["no input", "--input"])?;
    let out = folder.path("model");
    let mut wrong = fit_arguments(&input, &out);
    wrong[0] = "plan";
    // A plan writes nothing, so it has no place to write to.
    thema(&wrong)?.fails(2, &["--out"])?;
    thema(&["plan", "--input", &input, "--rows", "few"])?.fails(2, &["few", "N,N"])?;
    let what = ["plan", "--input", &input, "--embeddings", "embedding", "--text", "{text}"];
    let huge = [&what[..], &["--rows", "1000,9000000000000"]].concat();
    thema(&huge)?.fails(2, &["--rows", "9000000000000", "at most 100,000,000,000"])?;
    let missing = ["plan", "--input", &input, "--text", "{body}", "--embeddings", "embedding"];
    thema(&missing)?.fails(2, &["body"])?;
    assert_eq!(folder.names()?, ["blobs.parquet"]);
    Ok(())
}
