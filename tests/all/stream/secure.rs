//! Brokers that ask who we are, over encrypted connections.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, ensure};
use harness::kafka::{Cluster, Listener};
use harness::program::{thema, thema_with};
use harness::tables::Folder;

use super::{Stream, blobs, check_labelled, labels};
use crate::models::BLOBS;

/// Runs Java's tool for keys.
fn keytool(arguments: &[&str]) -> Result<()> {
    let run = Command::new("keytool").args(arguments).output()?;
    ensure!(run.status.success(), "keytool: {}", String::from_utf8_lossy(&run.stdout));
    Ok(())
}

/// Makes a key for the loopback address, and writes its certificate; returns the files of both.
fn key(folder: &Folder, name: &str) -> Result<(String, String)> {
    let (store, certificate) = (folder.path(&format!("{name}.p12")), folder.path(&format!("{name}.pem")));
    let of = ["-alias", "broker", "-keystore", &store, "-storetype", "PKCS12", "-storepass", "changeit"];
    let made = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-ext", "SAN=IP:127.0.0.1"];
    keytool(&[&made[..], &of].concat())?;
    keytool(&[&["-exportcert", "-rfc", "-file", &certificate], &of[..]].concat())?;
    ensure!(Path::new(&certificate).is_file(), "no certificate");
    Ok((store, certificate))
}

#[test]
fn a_stream_shows_its_password_over_tls() -> Result<()> {
    let keys = Folder::new()?;
    let (store, certificate) = key(&keys, "broker")?;
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required user_ann=\"plainly\";";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let listener = Listener {
        protocol: "SASL_SSL",
        settings: vec![
            ("ssl.keystore.location", store),
            ("ssl.keystore.type", "PKCS12".into()),
            ("ssl.keystore.password", "changeit".into()),
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".into()),
            ("plain.sasl.jaas.config", plain.into()),
            ("scram-sha-256.sasl.jaas.config", scram.into()),
            ("scram-sha-512.sasl.jaas.config", scram.into()),
        ],
        advertised: None,
        format: ["SCRAM-SHA-256=[name=ann,password=two]", "SCRAM-SHA-512=[name=ann,password=five]"]
            .iter()
            .flat_map(|user| ["--add-scram".to_string(), (*user).to_string()])
            .collect(),
    };
    let (kafka, port) = Cluster::start_with(&listener)?;
    let kafka = Arc::new(kafka);
    let job = |stream: &Stream, mechanism: &str, ca: &str| -> Result<String> {
        let text = std::fs::read_to_string(stream.job()?)?;
        let plain = format!("{{ bootstrap: \"{}\" }}", kafka.bootstrap());
        let secure = format!(
            "{{ bootstrap: \"127.0.0.1:{port}\", tls: {{ ca: \"{ca}\" }}, \
             sasl: {{ mechanism: {mechanism}, username: ann, password: \"${{PASSWORD}}\" }} }}"
        );
        stream.folder.write("secure.yaml", text.replace(&plain, &secure))
    };
    let expected = labels(&keys, &BLOBS.rows(0, 50)?)?;
    for (mechanism, password) in [("plain", "plainly"), ("scram-sha-256", "two"), ("scram-sha-512", "five")] {
        let stream = Stream::new(&kafka, 1)?;
        kafka.produce(&stream.input, &blobs(0, 50, 1)?)?;
        let job = job(&stream, mechanism, &certificate)?;
        let run = |password: &str| {
            thema_with(&["stream", &job, "--until-end"], &[("PASSWORD", password.to_string())])
        };
        let refused = run("another")?.fails(2, &["the broker does not accept our name and password"])?;
        ensure!(!refused.stderr.contains("another"), "{}", refused.stderr);
        run(password)?.succeeds()?;
        check_labelled(&kafka.read(&stream.output)?, &expected)?;
    }
    // Whoever the broker is, we do not know it.
    let stream = Stream::new(&kafka, 1)?;
    let (_, stranger) = key(&keys, "stranger")?;
    let job = job(&stream, "plain", &stranger)?;
    thema_with(&["stream", &job, "--until-end"], &[("PASSWORD", "plainly".to_string())])?
        .fails(2, &["no encrypted connection: look at tls:"])?;
    thema(&["stream", &job, "--until-end"])?.fails(2, &["PASSWORD"])?;
    Ok(())
}
