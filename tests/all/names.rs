//! Topics named by a language model, behind an endpoint that is a test double ([`harness::endpoint`]): what it is asked,
//! how often, and what comes of its faults.

use anyhow::{Result, ensure};
use harness::endpoint::{Endpoint, Fault};
use harness::program::{Run, start_with, thema, thema_with};
use harness::tables::{Folder, copy_folder, ints, read_parquet};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

use crate::models;

const KEY: &str = "sk-test-0123456789abcdef";

/// A copy of the papers' model, an endpoint, and a cache of its own.
struct Setting {
    folder: Folder,
    endpoint: Endpoint,
    model: String,
}

impl Setting {
    fn new() -> Result<Self> {
        let folder = Folder::new()?;
        let model = folder.path("model");
        copy_folder(Path::new(&models::papers().model), Path::new(&model))?;
        Ok(Self { folder, endpoint: Endpoint::start()?, model })
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let flags = ["--name", "--llm-url", &self.endpoint.url, "--llm-model", "scribe", "--format", "json"];
        [&["topics", &self.model], &flags[..], more].concat()
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("THEMA_CACHE", self.folder.path("cache")), ("THEMA_TEST_KEY", KEY.into())]
    }

    /// Names the topics of the newest version.
    fn name(&self, more: &[&str]) -> Result<Run> {
        thema_with(&self.arguments(more), &self.variables())
    }

    /// A job file with this under `labeller.llm`.
    fn job(&self, llm: &str) -> Result<String> {
        self.folder.write("job.yaml", format!("fit: {{ labeller: {{ llm: {{ {llm} }} }} }}"))
    }

    /// A job whose failures take no time.
    fn hasty(&self) -> Result<String> {
        self.job("chat: { endpoint: { retries: 1, concurrency: 2 } }")
    }
}

fn rows(run: &Run) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&run.stdout)?)
}

fn count(rows: &[Value], named_by: &str) -> usize {
    rows.iter().filter(|row| row["named_by"] == named_by).count()
}

#[test]
fn a_second_run_makes_no_call_and_a_killed_one_resumes() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.always(Some(Fault::Slow(Duration::from_millis(300))));
    let one_at_a_time = setting.job("chat: { endpoint: { concurrency: 1 } }")?;
    let arguments = setting.arguments(&["--job", &one_at_a_time]);
    let killed = start_with(&arguments, &setting.variables())?;
    setting.endpoint.wait_for_calls(4)?;
    killed.signal("KILL")?;
    killed.wait()?;
    let before = setting.endpoint.calls();
    setting.endpoint.always(None);

    let run = setting.name(&["--job", &one_at_a_time])?.succeeds()?;
    let topics = rows(&run)?;
    assert_eq!(count(&topics, "llm:scribe"), topics.len());
    // All but the answers that came before the kill are asked for; the one under way then is asked for again.
    let resumed = setting.endpoint.calls() - before;
    ensure!(
        before + resumed <= topics.len() + 1,
        "{before} calls, then {resumed} for {} topics",
        topics.len()
    );

    let before = setting.endpoint.calls();
    let again = setting.name(&[])?.succeeds()?;
    assert_eq!(setting.endpoint.calls(), before, "a second run asks nothing");
    let names = |rows: Vec<Value>| rows.into_iter().map(|row| row["Updated"].clone()).collect::<Vec<_>>();
    assert_eq!(names(rows(&again)?), names(topics));
    Ok(())
}

#[test]
fn faults_that_pass_do_no_harm() -> Result<()> {
    let setting = Setting::new()?;
    let job = setting.job("chat: { endpoint: { concurrency: 1 } }")?;
    setting.endpoint.fail([
        Fault::Status(429, vec![("retry-after-ms", "20")], r#"{"error": {"message": "slow down"}}"#),
        Fault::Status(503, vec![("retry-after", "0")], "<html>busy</html>"),
        Fault::Body("application/json", "{\"choices\": [{\"mess"),
        Fault::Body("application/json", "{\"choices\": []}"),
        Fault::Says("Let me think. The topic is trees."),
        Fault::Says("{\"name\": \"Trees\"}"),
        Fault::CutOff,
        Fault::Says("```json\n{\"topic\": \"  \\\"Trees of  every kind.\\\" \"}\n```"),
    ]);
    let run = setting.name(&["--job", &job])?.succeeds()?;
    let topics = rows(&run)?;
    assert_eq!(count(&topics, "llm:scribe"), topics.len(), "{}", run.stderr);
    let is_cleaned = |row: &Value| row["Updated"] == "Trees of every kind";
    ensure!(topics.iter().any(is_cleaned), "{topics:?}");
    // The model hears what was wrong with its answers.
    let bodies = setting.endpoint.requests().iter().map(Value::to_string).collect::<String>();
    ensure!(bodies.contains("holds no JSON object") && bodies.contains("missing field `topic`"));
    Ok(())
}

#[test]
fn an_answer_of_no_use_leaves_one_topic_to_its_words() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.fail([Fault::Refuses]);
    let run = setting.name(&[])?.succeeds()?;
    assert_eq!(count(&rows(&run)?, "words"), 1);
    ensure!(run.stderr.contains("1 topic of") && run.stderr.contains("the model refuses"), "{}", run.stderr);
    // The refusal is kept too: what was asked is not asked again.
    let before = setting.endpoint.calls();
    let run = setting.name(&["--strict"])?;
    ensure!(run.code == Some(4), "{:?} {}", run.code, run.stderr);
    assert_eq!(setting.endpoint.calls(), before);
    Ok(())
}

#[test]
fn an_endpoint_that_fails_leaves_names_of_words_and_says_so() -> Result<()> {
    let quota = r#"{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}"#;
    let key = r#"{"error": {"message": "Incorrect API key provided: sk-test-0123456789abcdef."}}"#;
    let rate = r#"{"error": {"message": "Rate limit reached"}}"#;
    for (fault, most_calls, words) in [
        (Fault::Status(401, vec![], key), 1, "Incorrect API key provided: (the key)."),
        (Fault::Status(404, vec![], r#"{"error": {"message": "no model scribe"}}"#), 1, "no model scribe"),
        (Fault::Status(429, vec![], quota), 1, "exceeded your current quota"),
        (Fault::Status(429, vec![("retry-after-ms", "1")], rate), 2, "Rate limit reached, 2 times"),
        (Fault::Status(429, vec![("retry-after", "3600")], rate), 1, "Rate limit reached"),
        (Fault::Status(500, vec![], "oops"), 2, "answers 500: oops"),
        (Fault::Body("text/html", "<html>Welcome</html>"), 1, "is this the API's base"),
        (Fault::Body("application/json", "Welcome"), 2, "no JSON"),
        (Fault::Slow(Duration::from_secs(30)), 2, "no answer in time"),
    ] {
        let setting = Setting::new()?;
        let job = match fault {
            Fault::Slow(_) => {
                setting.job("chat: { endpoint: { retries: 1, concurrency: 2, timeout_seconds: 1 } }")?
            }
            _ => setting.hasty()?,
        };
        setting.endpoint.always(Some(fault));
        let run = setting.name(&["--job", &job, "--llm-key", "${THEMA_TEST_KEY}"])?.succeeds()?;
        let topics = rows(&run)?;
        assert_eq!(count(&topics, "words"), topics.len());
        ensure!(topics.iter().all(|row| row["Original"] == row["Updated"]), "{topics:?}");
        ensure!(run.stderr.contains("WARN") && run.stderr.contains(words), "no {words:?} in {}", run.stderr);
        ensure!(!run.stderr.contains(KEY), "the key is in the log");
        // One failure that all would meet ends the asking.
        let calls = setting.endpoint.calls();
        ensure!(calls <= most_calls, "{words}: {calls} calls");
        ensure!(setting.endpoint.keys().iter().all(|key| key.as_deref() == Some(&format!("Bearer {KEY}"))));
    }
    Ok(())
}

#[test]
fn an_endpoint_that_is_down_ends_a_strict_fit_with_code_4_and_a_model() -> Result<()> {
    let folder = Folder::new()?;
    let (job, model) = (folder.path("job.yaml"), folder.path("model"));
    let llm = "{ chat: { endpoint: { url: 'http://127.0.0.1:9/v1', retries: 0 }, model: scribe } }";
    std::fs::write(&job, format!("fit: {{ labeller: {{ llm: {llm} }} }}"))?;
    let fit = models::fit_arguments(&models::blobs().input, &model);
    let arguments: Vec<&str> = fit.iter().copied().chain([job.as_str(), "--strict"]).collect();
    let run = thema(&arguments)?;
    ensure!(run.code == Some(4), "{:?} {}", run.code, run.stderr);
    ensure!(run.stderr.contains("cannot be reached") && run.stderr.contains("--name"), "{}", run.stderr);
    let topics: Vec<Value> =
        serde_json::from_str(&thema(&["topics", &model, "--format", "json"])?.succeeds()?.stdout)?;
    ensure!(topics.len() >= 4 && topics.iter().all(|row| row["named_by"] == "words"), "{topics:?}");
    Ok(())
}

#[test]
fn a_fit_names_its_topics_and_keeps_no_key() -> Result<()> {
    let setting = Setting::new()?;
    let model = setting.folder.path("fitted");
    let fit = models::fit_arguments(&models::blobs().input, &model);
    let llm = ["--llm-url", "${THEMA_TEST_URL}", "--llm-model", "scribe", "--llm-key", "${THEMA_TEST_KEY}"];
    let arguments: Vec<&str> = fit.iter().copied().chain(llm).chain(["--log", "json"]).collect();
    let variables = [setting.variables(), vec![("THEMA_TEST_URL", setting.endpoint.url.clone())]].concat();
    let run = thema_with(&arguments, &variables)?.succeeds()?;
    let told: Value = serde_json::from_str(run.stdout.lines().last().unwrap_or_default())?;
    assert_eq!(told["names"]["named"], 4);
    assert_eq!(told["names"]["usage"]["calls"], 4);
    assert_eq!(told["names"]["usage"]["input_tokens"], 400);
    let topics: Vec<Value> =
        serde_json::from_str(&thema(&["topics", &model, "--format", "json"])?.succeeds()?.stdout)?;
    for row in topics.iter().filter(|row| row["Topic"] != -1) {
        ensure!(row["Name"].as_str().is_some_and(|name| name.starts_with("scribe on ")), "{row}");
    }
    let mut folders = vec![std::path::PathBuf::from(setting.folder.path("cache")), model.into()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path)?;
            ensure!(
                !bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes()),
                "the key is in {}",
                path.display()
            );
            files += 1;
        }
    }
    ensure!(files > 10, "{files} files were looked at");
    Ok(())
}

#[test]
fn a_budget_ends_the_asking_and_is_never_overspent() -> Result<()> {
    let setting = Setting::new()?;
    // An answer costs 110 tokens, but some 1,000 are set aside until it is there.
    let run = setting.name(&["--llm-budget", "1500"])?.succeeds()?;
    let topics = rows(&run)?;
    let named = count(&topics, "llm:scribe");
    ensure!((1..topics.len()).contains(&named) && named * 110 <= 1500, "{named} of {}", topics.len());
    ensure!(run.stderr.contains("of the budget of 1500 tokens"), "{}", run.stderr);
    // The next run goes on where this one stopped.
    let calls = setting.endpoint.calls();
    let run = setting.name(&["--llm-budget", "1000000"])?.succeeds()?;
    assert_eq!(count(&rows(&run)?, "llm:scribe"), topics.len());
    assert_eq!(setting.endpoint.calls(), topics.len());
    ensure!(calls == named, "{calls} calls for {named} names");
    Ok(())
}

#[test]
fn ratings_reach_every_labelled_row() -> Result<()> {
    let setting = Setting::new()?;
    let run = setting.name(&["--name-mode", "rated"])?.succeeds()?;
    let ratings: std::collections::BTreeMap<i64, i64> = rows(&run)?
        .iter()
        .filter_map(|row| Some((row["Topic"].as_i64()?, row["rating"].as_i64()?)))
        .collect();
    ensure!(ratings.values().all(|rating| (1..=10).contains(rating)), "{ratings:?}");
    let out = setting.folder.path("labelled.parquet");
    let rows = format!("0..{}", models::PAPERS_ROWS);
    let input =
        ["label", "--input", models::PAPERS, "--rows", &rows, "--model", &setting.model, "--out", &out];
    thema(&[&input[..], &["--keep", "topic >= 0 and topic_rating >= 3"]].concat())?.succeeds()?;
    let labelled = read_parquet(&out)?;
    let (topics, found) = (ints(&labelled, "topic")?, ints(&labelled, "topic_rating")?);
    ensure!(!topics.is_empty(), "no row is kept");
    for (topic, rating) in topics.iter().zip(found) {
        assert_eq!(ratings[&i64::from(*topic)], i64::from(rating));
        ensure!(rating >= 3);
    }
    // Words anew: the names stay, and their ratings.
    let updated = thema(&["topics", &setting.model, "--update", "--stop-words", "sklearn"])?.succeeds()?;
    ensure!(updated.stdout.contains("Original"));
    let after: Vec<Value> =
        serde_json::from_str(&thema(&["topics", &setting.model, "--format", "json"])?.succeeds()?.stdout)?;
    ensure!(
        after
            .iter()
            .filter(|row| row["Topic"] != -1)
            .all(|row| row["named_by"] == "llm:scribe" && row["rating"].is_i64())
    );
    // A model without a rating adds no such column.
    setting.name(&["--name-mode", "label"])?.succeeds()?;
    thema(&[&input[..], &["--overwrite"]].concat())?.succeeds()?;
    ensure!(read_parquet(&out)?.column_by_name("topic_rating").is_none(), "a rating of nobody");
    Ok(())
}

#[test]
fn three_words_are_a_name_too() -> Result<()> {
    let setting = Setting::new()?;
    let topics = rows(&setting.name(&["--name-mode", "words"])?.succeeds()?)?;
    for row in &topics {
        let name = row["Updated"].as_str().unwrap_or_default();
        ensure!(row["named_by"] == "llm:scribe" && name.split(", ").count() == 3, "{row}");
    }
    Ok(())
}

#[test]
fn topics_of_the_same_name_are_asked_for_another() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.always_name("Neural networks");
    let topics = rows(&setting.name(&[])?.succeeds()?)?;
    let mut names: Vec<&str> = topics.iter().filter_map(|row| row["Updated"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), topics.len(), "{names:?}");
    let asked = setting.endpoint.requests();
    let again = asked.iter().filter(|body| body.to_string().contains("was called \\\"Neural networks\\\""));
    assert_eq!(again.count(), topics.len());
    Ok(())
}

#[test]
fn an_endpoint_without_schemas_is_asked_in_words() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.refuse("response_format", "response_format is not supported by this model");
    setting
        .endpoint
        .refuse("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.");
    let run = setting.name(&[])?.succeeds()?;
    let topics = rows(&run)?;
    assert_eq!(count(&topics, "llm:scribe"), topics.len(), "{}", run.stderr);
    let asked = setting.endpoint.requests();
    let last = asked.last().map(Value::to_string).unwrap_or_default();
    ensure!(last.contains("one JSON object of this JSON schema") && last.contains("max_completion_tokens"));
    let before = asked.len();
    setting.name(&[])?.succeeds()?;
    assert_eq!(setting.endpoint.calls(), before, "kept under what was meant, not under how it was said");
    Ok(())
}

#[test]
fn two_models_are_shown_side_by_side_and_nothing_is_written() -> Result<()> {
    let setting = Setting::new()?;
    let before: Vec<Value> =
        serde_json::from_str(&thema(&["topics", &setting.model, "--format", "json"])?.succeeds()?.stdout)?;
    let pairs = rows(&setting.name(&["--beside", "poet"])?.succeeds()?)?;
    let sum = |rows: &[Value]| rows.iter().filter_map(|row| row["Count"].as_i64()).sum::<i64>();
    let topics: Vec<Value> = before.into_iter().filter(|row| row["Topic"] != -1).collect();
    assert_eq!(sum(&pairs), sum(&topics));
    for pair in &pairs {
        let (scribe, poet) = (pair["scribe"].as_str(), pair["poet"].as_str());
        assert_eq!(
            scribe.and_then(|name| name.strip_prefix("scribe")),
            poet.and_then(|name| name.strip_prefix("poet"))
        );
    }
    ensure!(!Path::new(&setting.model).join("v2").exists(), "a comparison has written something");
    let run = setting.name(&["--beside", "scribe"])?;
    run.fails(2, &["--beside", "the first model too"])?;
    Ok(())
}

#[test]
fn what_a_user_gets_wrong_is_said_before_anything_is_asked() -> Result<()> {
    let setting = Setting::new()?;
    let prompts = setting.folder.write("prompts.yaml", "label: { system: a, user: 'Name {keyword}' }")?;
    for (more, words) in [
        (vec!["--prompts", prompts.as_str()], vec!["prompts.yaml: label", "{keyword}", "\"keywords\""]),
        (vec!["--llm-key", KEY], vec!["fit.labeller.llm.chat.endpoint.key", "${VARIABLE}"]),
        (vec!["--llm-key", "${THEMA_NO_SUCH}"], vec!["the environment has no THEMA_NO_SUCH"]),
        (vec!["--llm-url", "ftp://a/v1"], vec!["http"]),
        (vec!["--llm-url", "http://me:secret@a/v1"], vec!["a user or a password"]),
        (vec!["--llm-model", ""], vec!["fit.labeller.llm.chat.model"]),
    ] {
        let mut given = vec!["topics", &setting.model, "--name"];
        let url = ["--llm-url", &setting.endpoint.url];
        let usual = [url, ["--llm-model", "scribe"]];
        given.extend(usual.iter().filter(|pair| pair[0] != more[0]).flatten());
        given.extend(&more);
        let run = thema_with(&given, &setting.variables())?.fails(2, &words)?;
        ensure!(!run.stderr.contains(KEY) && !run.stderr.contains("me:secret"), "{}", run.stderr);
    }
    thema(&["topics", &setting.model, "--llm-model", "scribe"])?.fails(2, &["--name"])?;
    assert_eq!(setting.endpoint.calls(), 0);
    Ok(())
}

#[test]
fn kept_answers_are_used_where_the_endpoint_fails() -> Result<()> {
    let setting = Setting::new()?;
    let run = setting.name(&["--llm-budget", "1600"])?.succeeds()?;
    let kept = count(&rows(&run)?, "llm:scribe");
    ensure!(kept > 0 && kept < rows(&run)?.len(), "{kept}");
    setting.endpoint.always(Some(Fault::Status(401, vec![], "{}")));
    let run = setting.name(&[])?.succeeds()?;
    assert_eq!(count(&rows(&run)?, "llm:scribe"), kept, "{}", run.stderr);
    Ok(())
}

#[test]
fn money_is_a_budget_too() -> Result<()> {
    let setting = Setting::new()?;
    // 110 tokens an answer: 0.0012 each; until one is there some 1,500 tokens are set aside.
    let budget = "budget: { money: 0.02, input_price: 10, output_price: 20 }";
    let job = setting.job(&format!("chat: {{ endpoint: {{ {budget} }} }}"))?;
    let run = setting.name(&["--job", &job])?.succeeds()?;
    let named = count(&rows(&run)?, "llm:scribe");
    ensure!(named > 0 && named < rows(&run)?.len(), "{named} {}", run.stderr);
    ensure!(run.stderr.contains("of the budget of 0.02"), "{}", run.stderr);
    ensure!(run.stderr.contains(&format!("{:.4} spent", 0.0012 * named as f64)), "{}", run.stderr);
    Ok(())
}

#[test]
fn ctrl_c_ends_the_asking_and_nothing_is_written() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.always(Some(Fault::Slow(Duration::from_secs(100))));
    let running = start_with(&setting.arguments(&[]), &setting.variables())?;
    setting.endpoint.wait_for_calls(1)?;
    running.interrupt()?;
    running.wait()?.fails(130, &["stopped"])?;
    ensure!(!Path::new(&setting.model).join("v2").exists());
    Ok(())
}

#[test]
fn examples_may_be_drawn_by_a_seed() -> Result<()> {
    let setting = Setting::new()?;
    let asked = |seed: u64| -> Result<Vec<String>> {
        let before = setting.endpoint.calls();
        let examples = format!(
            "examples: {{ count: 2, select: {{ random: {{ seed: {seed} }} }}, cut: {{ tokens: 4 }} }}"
        );
        let job = setting.job(&examples)?;
        setting.name(&["--job", &job])?.succeeds()?;
        let requests = setting.endpoint.requests();
        let mut users: Vec<String> = requests[before..]
            .iter()
            .filter_map(|body| Some(body["messages"][1]["content"].as_str()?.into()))
            .collect();
        users.sort();
        Ok(users)
    };
    let one = asked(1)?;
    ensure!(asked(1)?.is_empty(), "the same seed asks the same, which is kept");
    assert_ne!(one, asked(2)?);
    let examples = |user: &String| {
        user.split("Some of its texts:")
            .nth(1)
            .map(|rest| rest.split("\n\n").next().unwrap_or_default().matches("\n- ").count())
    };
    ensure!(one.iter().all(|user| examples(user) == Some(2)), "{}", one[0]);
    Ok(())
}

#[test]
fn a_key_goes_to_no_other_place_and_a_budget_to_no_other_run() -> Result<()> {
    let setting = Setting::new()?;
    setting.name(&["--llm-key", "${THEMA_TEST_KEY}", "--llm-budget", "1600"])?.succeeds()?;
    ensure!(setting.endpoint.keys().iter().all(Option::is_some));
    let other = Endpoint::start()?;
    let arguments = ["topics", &setting.model, "--name", "--llm-url", &other.url, "--format", "json"];
    let run = thema_with(&arguments, &setting.variables())?.succeeds()?;
    let topics = rows(&run)?;
    assert_eq!(count(&topics, "llm:scribe"), topics.len(), "{}", run.stderr);
    ensure!(!other.keys().is_empty() && other.keys().iter().all(Option::is_none), "{:?}", other.keys());
    Ok(())
}

#[test]
fn names_by_a_language_model_stay_where_it_gives_no_others() -> Result<()> {
    let setting = Setting::new()?;
    let named = rows(&setting.name(&[])?.succeeds()?)?;
    setting.endpoint.always(Some(Fault::Status(401, vec![], "{}")));
    let run = setting.name(&["--name-mode", "rated"])?.succeeds()?;
    let after = rows(&run)?;
    assert_eq!(count(&after, "llm:scribe"), named.len());
    ensure!(after.iter().all(|row| row["Original"] == row["Updated"]));
    ensure!(run.stderr.contains("WARN") && run.stderr.contains("not named by scribe"), "{}", run.stderr);
    ensure!(run.stderr.contains("no version is written") && !Path::new(&setting.model).join("v3").exists());
    Ok(())
}

#[test]
fn a_change_that_another_one_has_overtaken_writes_nothing() -> Result<()> {
    let setting = Setting::new()?;
    setting.endpoint.fail([Fault::Slow(Duration::from_secs(5))]);
    let slow = start_with(&setting.arguments(&[]), &setting.variables())?;
    setting.endpoint.wait_for_calls(1)?;
    thema(&["topics", &setting.model, "--merge", "0,1"])?.succeeds()?;
    slow.wait()?.fails(2, &["version 2 was written meanwhile"])?;
    ensure!(!Path::new(&setting.model).join("v3").exists(), "the merge is gone from the newest version");
    // What was answered is kept; the merged topic alone is asked for.
    let calls = setting.endpoint.calls();
    setting.name(&[])?.succeeds()?;
    ensure!(setting.endpoint.calls() - calls < calls, "{} after {calls}", setting.endpoint.calls());
    Ok(())
}
