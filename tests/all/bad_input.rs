//! Bad input: a clear error that names the place and the choices, an exit code by who must act, and no harm to what is
//! there already.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{AsArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type};
use harness::program::{Run, thema};
use harness::tables::{
    Folder, column, copy_folder, damage_row_group, floats, ints, read_parquet, strings, write_parquet,
};
use serde_json::{Value, json};

use crate::models::{self, BLOBS, ENCODER, PAPERS, fit_arguments};

#[test]
fn an_unknown_key_in_the_job_file_is_named_with_its_line_and_the_choices() -> Result<()> {
    let folder = Folder::new()?;
    for (text, words) in [
        ("text: \"{title}\"\nsauce: {}\n", ["sauce", "line 2", "source"]),
        ("fit:\n  reducer: { umap: { neighbours: 5 } }\n", ["neighbours", "line 2", "n_neighbors"]),
        ("source: { kafak: {} }\n", ["kafak", "line 1", "table"]),
        ("label: { top_k: many }\n", ["many", "line 1", "job.yaml"]),
    ] {
        let job = folder.write("job.yaml", text)?;
        for command in ["fit", "label", "embed", "check"] {
            thema(&[command, &job])?.fails(2, &words)?.fails(2, &["job.yaml"])?;
        }
    }
    thema(&["fit", &folder.path("none.yaml")])?.fails(2, &["none.yaml", "no such file"])?;
    Ok(())
}

#[test]
fn a_column_that_the_template_asks_for_and_the_table_lacks_is_named_with_the_columns_there_are() -> Result<()>
{
    let folder = Folder::new()?;
    let out = folder.path("model");
    let told = ["no column \"titel\"", "papers.parquet", "\"title\"", "\"abstract\""];
    let arguments = ["fit", "--input", PAPERS, "--encoder", ENCODER, "--out", &out, "--text"];
    thema(&[&arguments[..], &["{titel}: {abstract}"]].concat())?.fails(2, &told)?;
    thema(&[&arguments[..], &["{title}", "--id", "titel"]].concat())?.fails(2, &told)?;
    thema(&[&arguments[..], &["{title}", "--show", "{titel}"]].concat())?.fails(2, &told)?;
    thema(&[&arguments[..], &["{title"]].concat())?.fails(2, &["{title", "is not closed"])?;
    assert_eq!(folder.names()?, [""; 0]);
    Ok(())
}

#[test]
fn a_column_of_the_wrong_type_is_named_with_the_types_that_would_do() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.path("model");
    let mut arguments = fit_arguments(PAPERS, &out);
    arguments.extend(["--text", "{title}"]);
    let input = folder.parquet("rows.parquet", &BLOBS.rows(0, 100)?)?;
    let with = |embeddings: &str, text: &str| {
        thema(&["fit", "--input", &input, "--embeddings", embeddings, "--text", text, "--out", &out])
    };
    with("truth", "{text}")?.fails(2, &["\"truth\"", "Int32", "expected embeddings"])?;
    with("embedding", "{embedding}")?.fails(2, &["\"embedding\"", "expected strings, numbers, dates"])?;
    let date =
        ["fit", "--input", &input, "--embeddings", "embedding", "--text", "{text}", "--out", &out, "--date"];
    thema(&[&date[..], &["embedding"]].concat())?.fails(2, &["\"embedding\"", "expected a date"])?;

    // Vectors of another width than the model's.
    let other = folder.parquet("other.parquet", &harness::tables::Blobs { dim: 8, ..BLOBS }.rows(0, 10)?)?;
    let labelled = folder.path("out.parquet");
    label(&other, &models::blobs().model, &labelled, &[])?
        .fails(2, &["\"embedding\"", "8 dimensions", "16"])?;
    assert_eq!(folder.names()?, ["other.parquet", "rows.parquet"]);
    Ok(())
}

#[test]
fn a_truncated_file_in_a_folder_is_named_and_can_be_skipped() -> Result<()> {
    let folder = Folder::new()?;
    fs::create_dir(folder.path("rows"))?;
    for name in ["a", "b", "c"] {
        folder.parquet(&format!("rows/{name}.parquet"), &BLOBS.rows(0, 100)?)?;
    }
    let whole = fs::read(folder.path("rows/b.parquet"))?;
    folder.write("rows/b.parquet", &whole[..whole.len() / 2])?;
    refuses_or_skips(
        &folder,
        &["b.parquet", "not readable as Parquet"],
        "1 bad unit was skipped, 0 rows",
        200,
    )
}

#[test]
fn a_damaged_row_group_is_named_and_can_be_skipped() -> Result<()> {
    let folder = Folder::new()?;
    fs::create_dir(folder.path("rows"))?;
    folder.parquet("rows/a.parquet", &BLOBS.rows(0, 100)?)?;
    let rows = BLOBS.rows(0, 3000)?;
    let path = folder.path("rows/b.parquet");
    write_parquet(&path, rows.schema(), [Ok(rows)], 1000)?;
    damage_row_group(&path, 1)?;
    refuses_or_skips(&folder, &["b.parquet", "row group 1"], "1 bad unit was skipped, 1,000 rows", 2100)
}

/// Labels the folder `rows` of which a unit is bad: fails by default, skips and counts if told so, fails with --strict.
fn refuses_or_skips(folder: &Folder, words: &[&str], summary: &str, rows_left: usize) -> Result<()> {
    let (input, model) = (folder.path("rows"), &models::blobs().model);
    let out = folder.write("out.parquet", "what was there before")?;
    let untouched = || -> Result<()> {
        assert_eq!(fs::read_to_string(&out)?, "what was there before");
        assert_eq!(folder.names()?, ["out.parquet", "rows"]);
        Ok(())
    };
    label(&input, model, &out, &["--overwrite"])?.fails(3, words)?;
    untouched()?;
    let skip = ["--overwrite", "--on-bad-row", "skip"];
    let strict = label(&input, model, &out, &[&skip[..], &["--strict"]].concat())?;
    strict.fails(3, &[words, &["--strict", summary]].concat())?;
    untouched()?;
    let run = label(&input, model, &out, &skip)?.succeeds()?;
    ensure!(run.stderr.contains(summary), "{}", run.stderr);
    for word in words {
        ensure!(run.stderr.contains(word), "no {word:?} in\n{}", run.stderr);
    }
    assert_eq!(read_parquet(&out)?.num_rows(), rows_left);

    let fitted = folder.path("model");
    let fit = fit_arguments(&input, &fitted);
    thema(&fit)?.fails(3, words)?;
    assert!(!Path::new(&fitted).exists());
    Ok(())
}

#[test]
fn an_encoder_folder_without_weights_or_with_a_wrong_shape_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    let encoder = folder.path("encoder");
    small_encoder(&encoder)?;
    let embed = || -> Result<Run> {
        let out = folder.path("out.parquet");
        thema(&[
            "embed",
            "--input",
            PAPERS,
            "--rows",
            "0..3",
            "--text",
            "{title}",
            "--encoder",
            &encoder,
            "--out",
            &out,
        ])
    };
    // Whole, it works: what is refused below is refused for what was changed.
    weights(&encoder, |_| {})?;
    embed()?.succeeds()?;
    fs::remove_file(folder.path("out.parquet"))?;

    weights(&encoder, |tensors| tensors[0].1 = vec![100, 4])?;
    embed()?.fails(
        2,
        &["model.safetensors", "embeddings.word_embeddings.weight", "[100, 4]", "expected [30522, 8]"],
    )?;
    weights(&encoder, |tensors| drop(tensors.remove(1)))?;
    embed()?.fails(2, &["model.safetensors", "no tensor", "position_embeddings"])?;
    let cut = fs::read(format!("{encoder}/model.safetensors"))?;
    fs::write(format!("{encoder}/model.safetensors"), &cut[..cut.len() / 2])?;
    embed()?.fails(2, &["model.safetensors", "cannot be read as safetensors"])?;
    fs::remove_file(format!("{encoder}/model.safetensors"))?;
    embed()?.fails(2, &[&encoder, "has no model.safetensors"])?;
    fs::remove_file(format!("{encoder}/config.json"))?;
    embed()?.fails(2, &["has no config.json", "sentence-transformers folder"])?;
    assert_eq!(folder.names()?, ["encoder"]);
    Ok(())
}

#[test]
fn another_encoder_than_the_models_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    let encoder = folder.path("encoder");
    small_encoder(&encoder)?;
    weights(&encoder, |_| {})?;
    let job = folder.write("job.yaml", format!("encoder: {{ path: \"{encoder}\" }}\n"))?;
    let out = folder.path("out.parquet");
    let run = thema(&["label", &job, "--input", PAPERS, "--model", &models::papers().model, "--out", &out])?;
    run.fails(2, &["was fitted with another encoder", "dimensions 8, expected 384"])?;
    assert_eq!(folder.names()?, ["encoder", "job.yaml"]);
    Ok(())
}

#[test]
fn a_vector_that_is_no_number_is_named_by_row_and_column() -> Result<()> {
    let folder = Folder::new()?;
    for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        // In the third batch.
        let rows = with_value(&BLOBS.rows(0, 20_000)?, 17_003, 5, value)?;
        let input = folder.parquet("rows.parquet", &rows)?;
        let told = ["row 17003", "\"embedding\"", "dimension 5", word];
        thema(&fit_arguments(&input, &folder.path("model")))?.fails(3, &told)?;
        let out = folder.path("out.parquet");
        label(&input, &models::blobs().model, &out, &[])?.fails(3, &told)?;
        assert_eq!(folder.names()?, ["rows.parquet"]);

        // Skipped, it costs no other row.
        let skip = ["--on-bad-row", "skip"];
        let run = label(&input, &models::blobs().model, &out, &skip)?.succeeds()?;
        ensure!(run.stdout.starts_with("19,999 rows labelled"), "{}", run.stdout);
        ensure!(run.stderr.contains("1 bad unit was skipped, 1 row"), "{}", run.stderr);
        ensure!(run.stderr.contains("rows.parquet, row 17003: column"), "{}", run.stderr);
        assert_eq!(read_parquet(&out)?.num_rows(), 19_999);
        fs::remove_file(&out)?;
    }
    let input = folder.parquet("rows.parquet", &with_value(&BLOBS.rows(0, 600)?, 7, 0, f32::NAN)?)?;
    let model = folder.path("model");
    let fit = [fit_arguments(&input, &model), vec!["--on-bad-row", "skip"]].concat();
    let run = thema(&fit)?.succeeds()?;
    ensure!(run.stdout.contains("in 599 rows"), "{}", run.stdout);
    thema(&[fit, vec!["--overwrite", "--strict"]].concat())?.fails(3, &["--strict", "row 7", "NaN"])?;
    Ok(())
}

#[test]
fn rows_without_any_text_are_no_topic() -> Result<()> {
    let folder = Folder::new()?;
    let titles = strings(&read_parquet(PAPERS)?.slice(0, 30), "title")?;
    let lines = titles.iter().map(|title| json!({ "title": title }).to_string() + "\n");
    let blanks = ["{\"title\": null}\n", "{\"title\": \" \"}\n", "{\"title\": \"\"}\n"].map(String::from);
    let blanks = blanks.iter().cycle().take(30).cloned();
    let input = folder.write("rows.jsonl", lines.chain(blanks).collect::<String>())?;
    let (model, out) = (folder.path("model"), folder.path("out.parquet"));
    let fit = ["fit", "--input", &input, "--encoder", ENCODER, "--text", "{title}", "--out", &model];
    let run = thema(&[&fit[..], &["--min-cluster-size", "5"]].concat())?.succeeds()?;
    ensure!(run.stdout.contains("in 30 rows"), "{}", run.stdout);
    ensure!(run.stderr.contains("without any text left out"), "{}", run.stderr);
    label(&input, &model, &out, &[])?.succeeds()?;
    let rows = read_parquet(&out)?;
    ensure!(ints(&rows, "topic")?[30..].iter().all(|topic| *topic == -1), "a blank row has a topic");
    ensure!(floats(&rows, "score")?[30..].iter().all(|score| *score == 0.0), "a blank row has a score");
    Ok(())
}

#[test]
fn an_output_that_is_the_input_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("rows.parquet", &BLOBS.rows(0, 100)?)?;
    let other = folder.path("other.parquet");
    std::os::unix::fs::symlink(&input, &other)?;
    for out in [&input, &other] {
        label(&input, &models::blobs().model, out, &["--overwrite"])?.fails(2, &["is also the input"])?;
        let embed =
            ["embed", "--input", &input, "--embeddings", "embedding", "--prefix", "new_", "--overwrite"];
        thema(&[&embed[..], &["--out", out]].concat())?.fails(2, &["is also the input"])?;
    }
    assert_eq!(read_parquet(&input)?.num_rows(), 100);
    Ok(())
}

#[test]
fn a_file_where_a_models_folder_should_be_is_refused_before_any_work() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("rows.parquet", &BLOBS.rows(0, 100)?)?;
    for overwrite in [&[][..], &["--overwrite"]] {
        thema(&[&fit_arguments(&input, &input)[..], overwrite].concat())?
            .fails(2, &["expected a model's folder"])?;
    }
    thema(&["topics", &input])?.fails(2, &["rows.parquet", "expected a model's folder"])?;
    thema(&["fit", &input])?.fails(2, &["rows.parquet", "--input"])?;
    Ok(())
}

#[test]
fn fewer_rows_than_a_topic_needs_are_refused() -> Result<()> {
    let folder = Folder::new()?;
    let input = folder.parquet("rows.parquet", &BLOBS.rows(0, 20)?)?;
    thema(&fit_arguments(&input, &folder.path("model")))?.fails(3, &["20 rows", "min_cluster_size", "30"])?;
    assert_eq!(folder.names()?, ["rows.parquet"]);
    Ok(())
}

#[test]
fn rows_that_are_all_equal_make_a_model_without_surprises() -> Result<()> {
    let folder = Folder::new()?;
    let rows = |value: f32| -> Result<String> {
        let rows = with_values(&BLOBS.rows(0, 200)?, |_| value)?;
        folder.parquet(&format!("{value}.parquet"), &rows)
    };
    let (ones, zeros) = (rows(1.0)?, rows(0.0)?);
    let (model, out) = (folder.path("model"), folder.path("out.parquet"));
    let run = thema(&fit_arguments(&ones, &model))?.succeeds()?;
    assert!(run.stdout.contains("in 200 rows"), "{}", run.stdout);
    // Without a direction there is no cosine; with one, it is the same everywhere.
    for input in [&ones, &zeros] {
        label(input, &model, &out, &["--overwrite"])?.succeeds()?;
        let topics = ints(&read_parquet(&out)?, "topic")?;
        assert!(topics.len() == 200 && topics.windows(2).all(|pair| pair[0] == pair[1]), "{topics:?}");
    }
    thema(&fit_arguments(&zeros, &folder.path("none")))?.fails(3, &["all 200 vectors are zero"])?;
    Ok(())
}

#[test]
fn rows_of_one_id_are_one_record_and_that_is_told() -> Result<()> {
    let folder = Folder::new()?;
    let rows = BLOBS.rows(0, 100)?;
    let input = folder.path("rows.parquet");
    write_parquet(&input, rows.schema(), (0..3).map(|_| Ok(rows.clone())), 1000)?;
    let run = thema(&fit_arguments(&input, &folder.path("model")))?.succeeds()?;
    let told = "100 of the sample's 100 ids stand in more than one row, such as ";
    ensure!(run.stderr.contains(told) && run.stderr.contains("200 rows are left out"), "{}", run.stderr);
    Ok(())
}

#[test]
fn an_empty_source_is_refused_by_fit_and_labelled_as_no_rows() -> Result<()> {
    let folder = Folder::new()?;
    let (model, out) = (folder.path("model"), folder.path("out.parquet"));
    let nothing = folder.parquet("nothing.parquet", &BLOBS.rows(0, 0)?)?;
    thema(&fit_arguments(&nothing, &model))?.fails(3, &["no rows"])?;
    let rows = folder.parquet("rows.parquet", &BLOBS.rows(0, 100)?)?;
    thema(&[fit_arguments(&rows, &model), vec!["--where", "truth > 9"]].concat())?.fails(3, &["no rows"])?;
    let run = label(&nothing, &models::blobs().model, &out, &[])?.succeeds()?;
    assert!(run.stdout.starts_with("0 rows labelled"), "{}", run.stdout);
    let written = read_parquet(&out)?;
    assert_eq!((written.num_rows(), written.num_columns()), (0, 10), "the columns are there all the same");

    fs::create_dir(folder.path("folder"))?;
    let empty = folder.path("folder");
    thema(&fit_arguments(&empty, &model))?.fails(2, &["folder", "no folder with files in it"])?;
    let missing = folder.path("missing.parquet");
    thema(&fit_arguments(&missing, &model))?.fails(2, &["missing.parquet", "no such file"])?;
    let csv = folder.write("empty.csv", "")?;
    let run = thema(&fit_arguments(&csv, &model))?;
    ensure!(matches!(run.code, Some(2 | 3)), "ends with {:?}:\n{}", run.code, run.stderr);
    let code = run.code.unwrap_or_default();
    run.fails(code, &[])?;
    assert!(!Path::new(&model).exists());
    Ok(())
}

#[test]
fn a_bundle_of_another_format_or_with_a_damaged_part_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    let model = folder.path("model");
    let out = folder.path("out.parquet");
    let fresh = || -> Result<()> {
        if Path::new(&model).exists() {
            fs::remove_dir_all(&model)?;
        }
        copy_folder(Path::new(&blobs.model), Path::new(&model))
    };
    let refused = |words: &[&str]| -> Result<()> {
        label(&blobs.input, &model, &out, &[])?.fails(2, words)?;
        thema(&["topics", &model])?.fails(2, words)?;
        Ok(())
    };

    fresh()?;
    edit_manifest(&model, |manifest| manifest["format"] = json!(99))?;
    refused(&["model.json", "format 99", "reads format 4"])?;
    fresh()?;
    edit_manifest(&model, |manifest| manifest["format"] = json!("new"))?;
    refused(&["model.json", "cannot be read as a manifest"])?;
    fresh()?;
    fs::write(format!("{model}/v1/model.json"), "{ \"format\": 1")?;
    refused(&["model.json", "cannot be read as a manifest"])?;
    for part in [
        "codes.safetensors",
        "sample.parquet",
        "topics.parquet",
        "taxonomy.json",
        "terms.parquet",
        "tree.parquet",
    ] {
        fresh()?;
        let path = format!("{model}/v1/{part}");
        let mut bytes = fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes)?;
        refused(&[part, "has sha256", "the manifest says"])?;
        fs::remove_file(&path)?;
        refused(&[part, "is missing from the bundle"])?;
    }
    fresh()?;
    edit_manifest(&model, |manifest| {
        manifest["parts"]["topics.parquet"] = json!("0".repeat(64));
    })?;
    refused(&["topics.parquet", "has sha256", "the manifest says 000"])?;
    fs::remove_file(format!("{model}/v1/model.json"))?;
    refused(&[&model, "holds no model", "v1/model.json"])?;
    assert_eq!(folder.names()?, ["model"]);
    Ok(())
}

#[test]
fn an_output_that_cannot_be_is_refused_before_any_work() -> Result<()> {
    let folder = Folder::new()?;
    let blobs = models::blobs();
    label(&blobs.input, &blobs.model, &folder.path("out.txt"), &[])?
        .fails(2, &["out.txt", ".parquet or .jsonl"])?;
    fs::create_dir(folder.path("out.parquet"))?;
    label(&blobs.input, &blobs.model, &folder.path("out.parquet"), &[])?
        .fails(2, &["out.parquet", "is a folder"])?;
    assert_eq!(folder.names()?, ["out.parquet"]);
    Ok(())
}

fn label(input: &str, model: &str, out: &str, more: &[&str]) -> Result<Run> {
    thema(&[&["label", "--input", input, "--model", model, "--out", out], more].concat())
}

fn edit_manifest(model: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let path = format!("{model}/v1/model.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut manifest);
    fs::write(path, serde_json::to_vec(&manifest)?)?;
    Ok(())
}

/// Returns `rows` with one number of the embeddings changed.
fn with_value(rows: &RecordBatch, row: usize, dimension: usize, value: f32) -> Result<RecordBatch> {
    let changed = row * BLOBS.dim + dimension;
    with_values(rows, |at| if at.0 == changed { value } else { at.1 })
}

/// Returns `rows` with the numbers of the embeddings changed, each by its place and value.
fn with_values(rows: &RecordBatch, change: impl Fn((usize, f32)) -> f32) -> Result<RecordBatch> {
    let lists = column(rows, "embedding")?.as_fixed_size_list();
    let numbers = lists.values().as_primitive::<Float32Type>().values();
    let changed = Float32Array::from_iter_values(numbers.iter().copied().enumerate().map(change));
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let lists = FixedSizeListArray::try_new(item, lists.value_length(), Arc::new(changed), None)?;
    let mut columns = rows.columns().to_vec();
    let at = rows.schema().index_of("embedding")?;
    columns[at] = Arc::new(lists);
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

/// Writes a sentence-transformers folder of one layer of eight dimensions, with the tokenizer of the real one; its
/// weights are still missing.
fn small_encoder(place: &str) -> Result<()> {
    let shown = thema(&["encoders", "show", ENCODER])?.succeeds()?.stdout;
    let real =
        shown.lines().find_map(|line| line.strip_prefix("folder ")).context("no folder is shown")?.trim();
    fs::create_dir_all(format!("{place}/1_Pooling"))?;
    for file in ["modules.json", "tokenizer.json", "sentence_bert_config.json"] {
        fs::copy(format!("{real}/{file}"), format!("{place}/{file}"))?;
    }
    let config = json!({
        "model_type": "bert", "vocab_size": 30522, "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 512, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    });
    fs::write(format!("{place}/config.json"), config.to_string())?;
    let pooling = json!({ "word_embedding_dimension": 8, "pooling_mode_mean_tokens": true });
    fs::write(format!("{place}/1_Pooling/config.json"), pooling.to_string())?;
    Ok(())
}

/// Writes `model.safetensors` after `edit` has changed the names and shapes of its tensors.
fn weights(place: &str, edit: impl FnOnce(&mut Vec<(String, Vec<usize>)>)) -> Result<()> {
    let mut tensors: Vec<(String, Vec<usize>)> = [
        ("embeddings.word_embeddings.weight", vec![30522, 8]),
        ("embeddings.position_embeddings.weight", vec![512, 8]),
        ("embeddings.token_type_embeddings.weight", vec![2, 8]),
        ("embeddings.LayerNorm.weight", vec![8]),
        ("embeddings.LayerNorm.bias", vec![8]),
        ("encoder.layer.0.attention.self.query.weight", vec![8, 8]),
        ("encoder.layer.0.attention.self.query.bias", vec![8]),
        ("encoder.layer.0.attention.self.key.weight", vec![8, 8]),
        ("encoder.layer.0.attention.self.key.bias", vec![8]),
        ("encoder.layer.0.attention.self.value.weight", vec![8, 8]),
        ("encoder.layer.0.attention.self.value.bias", vec![8]),
        ("encoder.layer.0.attention.output.dense.weight", vec![8, 8]),
        ("encoder.layer.0.attention.output.dense.bias", vec![8]),
        ("encoder.layer.0.attention.output.LayerNorm.weight", vec![8]),
        ("encoder.layer.0.attention.output.LayerNorm.bias", vec![8]),
        ("encoder.layer.0.intermediate.dense.weight", vec![16, 8]),
        ("encoder.layer.0.intermediate.dense.bias", vec![16]),
        ("encoder.layer.0.output.dense.weight", vec![8, 16]),
        ("encoder.layer.0.output.dense.bias", vec![8]),
        ("encoder.layer.0.output.LayerNorm.weight", vec![8]),
        ("encoder.layer.0.output.LayerNorm.bias", vec![8]),
    ]
    .map(|(name, shape)| (name.to_owned(), shape))
    .into();
    edit(&mut tensors);
    // The format: the header's length (u64), the header (JSON), the numbers.
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors {
        let start = data.len();
        for at in 0..shape.iter().product::<usize>() {
            // Any numbers that differ.
            data.extend_from_slice(&((at % 13) as f32 / 13.0 - 0.4).to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let header = Value::from(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(format!("{place}/model.safetensors"), bytes)?;
    Ok(())
}
