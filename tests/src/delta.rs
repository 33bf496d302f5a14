//! Delta tables as others read and write them: Delta Kernel for Java and the Python package deltalake, which
//! `tests/servers/delta.sh` installs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The rows of a table: of each the values of `columns` as texts, in the order of the texts.
///
/// # Errors
/// A reader fails, or the two do not see the same.
pub fn rows(table: &str, columns: &[&str]) -> Result<Vec<Vec<String>>> {
    let place = installed()?;
    let mut java = Command::new("java");
    java.args(["-Xmx512m", "-cp"]).arg(format!("{0}/classes:{0}/libs/*", place.display())).arg("Rows");
    let mut python = Command::new(place.join("python/bin/python"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/delta/rows.py"));
    let by_java = lines(java.arg(table).args(columns))?;
    let by_python = lines(python.arg(table).args(columns))?;
    ensure!(
        by_java.len() == by_python.len(),
        "{table} has {} rows by Delta Kernel, {} by deltalake",
        by_java.len(),
        by_python.len()
    );
    // Numbers with a fraction are written in many ways.
    let same =
        |(a, b): (&String, &String)| a == b || a.parse::<f32>().ok().is_some_and(|a| b.parse() == Ok(a));
    for (a, b) in by_java.iter().zip(&by_python) {
        ensure!(a.iter().zip(b).all(same), "{table}: Delta Kernel reads {a:?}, deltalake {b:?}");
    }
    Ok(by_python)
}

/// Changes a table as another program does: what `tests/servers/delta/write.py` takes.
pub fn change(arguments: &[&str]) -> Result<()> {
    let mut python = Command::new(installed()?.join("python/bin/python"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/delta/write.py")).args(arguments);
    lines(&mut python).map(drop)
}

fn lines(command: &mut Command) -> Result<Vec<Vec<String>>> {
    let run = command.output().with_context(|| format!("{:?} does not start", command.get_program()))?;
    ensure!(run.status.success(), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8(run.stdout)?;
    let mut rows: Vec<Vec<String>> =
        text.lines().map(|line| line.split('\t').map(String::from).collect()).collect();
    rows.sort();
    Ok(rows)
}

fn installed() -> Result<PathBuf> {
    let cache = crate::cache()?;
    let place = cache.join("servers/delta");
    ensure!(place.join("classes").is_dir(), "there is no reader of tables: run tests/servers/delta.sh");
    Ok(place)
}
