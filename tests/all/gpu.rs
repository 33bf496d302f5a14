//! The program on GPUs: emulated ones (`kernels/emulator`), whose driver it finds as it would find the real one.

use std::process::Command;

use anyhow::{Result, ensure};
use harness::program::{Run, thema, thema_with_libraries, thema_with_libraries_and};
use harness::tables::{Folder, read_parquet};

use crate::models::{self, BLOBS};

/// The folder of the emulated driver, built if it is not there.
fn driver() -> Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/emulator/build.sh");
    let built = Command::new(script).output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(String::from_utf8(built.stdout)?.trim().to_string())
}

fn emulated(arguments: &[&str]) -> Result<Run> {
    thema_with_libraries(arguments, &driver()?)
}

#[test]
fn labels_of_gpus_are_those_of_the_processor() -> Result<()> {
    let folder = Folder::new()?;
    let unseen = folder.parquet("unseen.parquet", &BLOBS.rows(5000, 300)?)?;
    let model = &models::blobs().model;
    let label = |device: &str, out: &str, more: &[&str]| {
        let what = ["label", "--input", &unseen, "--model", model, "--out", out, "--device", device];
        emulated(&[&what, more].concat())?.succeeds()
    };
    let expected = folder.path("cpu.parquet");
    label("cpu", &expected, &["--top-k", "7"])?;
    for device in ["cuda:0", "cuda:1", "cuda", "auto"] {
        let out = folder.path(&format!("{}.parquet", device.replace(':', "-")));
        let run = label(device, &out, &["--top-k", "7"])?;
        ensure!(read_parquet(&out)? == read_parquet(&expected)?, "{device}: other labels\n{}", run.stderr);
    }
    Ok(())
}

#[test]
fn devices_that_are_not_there_are_refused_with_a_way_out() -> Result<()> {
    let embed = [
        "embed",
        "--input",
        "none.parquet",
        "--text",
        "{x}",
        "--encoder",
        "none",
        "--out",
        "none",
        "--device",
    ];
    let refused = |device: &str| emulated(&[&embed[..], &[device]].concat());
    refused("cuda:7")?.fails(2, &["cuda:7", "there is no GPU 7, only 2", "\"cpu\""])?;
    refused("cuda:0,0")?.fails(2, &["cuda:0,0", "GPU 0 is named twice"])?;
    refused("gpu")?.fails(2, &["device gpu", "expected auto, cpu, cuda, or cuda:N"])?;
    Ok(())
}

#[test]
fn a_gpu_that_cannot_be_used_is_told_and_the_other_is_used() -> Result<()> {
    let folder = Folder::new()?;
    let unseen = folder.parquet("unseen.parquet", &BLOBS.rows(5000, 10)?)?;
    let label = |out: &str, device: &str| {
        let out = folder.path(out);
        let what =
            ["label", "--input", &unseen, "--model", &models::blobs().model, "--out", &out, "--device"];
        let run =
            thema_with_libraries_and(&[&what[..], &[device]].concat(), &driver()?, ("EMULATOR_OLD", "1"))?;
        Ok::<_, anyhow::Error>((run, out))
    };
    let (run, found) = label("some.parquet", "cuda")?;
    let told = |line: &str| line.contains("WARN") && line.contains("cuda:1 is not used");
    ensure!(run.succeeds()?.stderr.lines().any(told), "nothing is told");
    let (run, expected) = label("cpu.parquet", "cpu")?;
    run.succeeds()?;
    ensure!(read_parquet(&found)? == read_parquet(&expected)?, "other labels");
    label("none.parquet", "cuda:1")?.0.fails(2, &["cuda:1", "compute capability 7.0"])?;
    Ok(())
}

#[test]
fn without_a_gpu_auto_is_the_processor_and_says_so() -> Result<()> {
    let folder = Folder::new()?;
    let unseen = folder.parquet("unseen.parquet", &BLOBS.rows(5000, 10)?)?;
    let out = folder.path("out.parquet");
    let run = thema(&["label", "--input", &unseen, "--model", &models::blobs().model, "--out", &out])?
        .succeeds()?;
    let said = run.stderr.lines().any(|line| line.contains("device cpu (") && line.contains("driver"));
    // On a machine with a GPU of its own, that is used.
    let has_one = thema(&[
        "label",
        "--input",
        &unseen,
        "--model",
        &models::blobs().model,
        "--out",
        &out,
        "--overwrite",
        "--device",
        "cuda",
    ])?
    .code
        == Some(0);
    ensure!(said != has_one, "{}", run.stderr);
    Ok(())
}
