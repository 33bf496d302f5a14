"""A whole stream, from topic to topic: messages a second, and how long each takes.

    python benchmarks/kafka.py THEMA BROKER ENCODER_FOLDER MODEL PAPERS.parquet EMBEDDINGS.parquet WORK_FOLDER [ROUNDS]

BROKER is host:port; topics are made there, and stay. MODEL was fitted on the vectors of that encoder, such as
those of EMBEDDINGS (columns `id` and `embedding`). Each round streams, with `--until-end` and a process of its own:

- papers (title and abstract), which are embedded; beside them the same rows by `thema label`, which no broker delays;
- their embeddings, as JSON and as Arrow IPC streams of 250 rows, which leave as JSON, or as such streams again; beside
  them the same rows by `thema label`.

What a round counts is what the program itself says: rows, and seconds from its first poll to its last commit. Then single
messages are sent at an even pace, and the time is taken until each can be read as committed: papers at a fifth of the rate
at which they can be labelled, embeddings 100 a second. Prints one JSON object for each row of the table, medians of ROUNDS.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

thema, broker, encoder, model, papers, embeddings, work = sys.argv[1:8]
rounds = int(sys.argv[8]) if len(sys.argv) > 8 else 3
PARTITIONS, PAPERS, VECTORS = 2, 500, 120_000
BY_TEXT = f'encoder: {{ path: {encoder} }}\ntext: "{{title}}: {{abstract}}"'
BY_COLUMN = "encoder: { column: embedding }\nid: id"
os.makedirs(work, exist_ok=True)
made = 0


def topics():
    """Three new topics: in, out, dead."""
    global made
    made += 1
    names = [f"bench-{os.getpid()}-{made}-{name}" for name in ("in", "out", "dead")]
    client = AdminClient({"bootstrap.servers": broker})
    for done in client.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        done.result()
    return names


def send(topic, payloads):
    producer = Producer({"bootstrap.servers": broker, "message.max.bytes": 10_000_000})
    for at, payload in enumerate(payloads):
        while True:
            try:
                producer.produce(topic, payload, partition=at % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def job(names, payload, extra, mode, leaves="json"):
    source, sink, dead = names
    path = f"{work}/{source}.yaml"
    with open(path, "w") as file:
        file.write(
            f'source: {{ kafka: {{ format: {payload}, connection: {{ bootstrap: "{broker}" }}, topics: [{source}], group: {source} }} }}\n'
            f"sink: {{ kafka: {{ topic: {sink}, dead_letters: {dead}, format: {leaves} }} }}\nmodel: {model}\n{extra}\nstream: {{ mode: {mode} }}\n"
        )
    return path


def by_stream(payload, payloads, extra, mode, leaves="json"):
    names = topics()
    send(names[0], payloads)
    command = [thema, "--log", "json", "stream", job(names, payload, extra, mode, leaves), "--until-end"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    told = json.loads(done.stdout)
    return told["rows"] / told["seconds"]


def by_label(rows, extra):
    table, settings = f"{work}/rows.parquet", f"{work}/label.yaml"
    pq.write_table(rows, table)
    with open(settings, "w") as file:
        file.write(f"model: {model}\n{extra}\n")
    command = [thema, "--log", "json", "label", settings, "--input", table, "--out", f"{work}/labelled.parquet", "--overwrite"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    told = json.loads(done.stdout)
    return rows.num_rows / told["seconds"]


def latency(payloads, extra, per_second, count):
    """Milliseconds from when a message is made until it can be read as committed."""
    names = topics()
    worker = subprocess.Popen([thema, "stream", job(names, "json", extra, "latency")], stderr=subprocess.PIPE, text=True)
    for line in worker.stderr:
        if " reads bench-" in line:
            break
    threading.Thread(target=worker.stderr.read, daemon=True).start()
    reader = Consumer({
        "bootstrap.servers": broker, "group.id": names[1], "isolation.level": "read_committed",
        "fetch.wait.max.ms": 5, "enable.auto.commit": False,
    })
    reader.assign([TopicPartition(names[1], partition, 0) for partition in range(PARTITIONS)])
    took = []

    def read():
        while len(took) < count:
            message = reader.poll(0.01)
            if message and not message.error():
                took.append(time.time() * 1000 - message.timestamp()[1])

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0})
    began = time.time()
    for at in range(count):
        time.sleep(max(0, began + at / per_second - time.time()))
        now = int(time.time() * 1000)
        producer.produce(names[0], payloads[at % len(payloads)], partition=at % PARTITIONS, timestamp=now)
        producer.poll(0)
    producer.flush()
    reading.join(120)
    worker.send_signal(signal.SIGTERM)
    worker.wait()
    if len(took) < count:
        sys.exit(f"{count - len(took)} of {count} messages did not come out")
    # The first tenth warms up.
    took = sorted(took[count // 10:])
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def tell(name, **figures):
    print(json.dumps({"stage": name, "threads": os.cpu_count(), **figures}), flush=True)


def rates(name, ways):
    """Rows a second of each of `ways`, in turns."""
    found = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            found[way].append(run())
    medians = {way: round(statistics.median(values), 1) for way, values in found.items()}
    tell(name, rows_per_second=medians, all={way: [round(v, 1) for v in values] for way, values in found.items()})
    return medians


table = pq.read_table(papers, columns=["id", "title", "abstract"]).slice(6_000, PAPERS)
texts = [json.dumps(row).encode() for row in table.to_pylist()]
text_rate = rates("stream, papers as JSON, MiniLM-L6", {
    "stream": lambda: by_stream("json", texts, BY_TEXT, "throughput"),
    "label": lambda: by_label(table, BY_TEXT),
})["stream"]

vectors = pq.read_table(embeddings, columns=["id", "embedding"])
vectors = pa.concat_tables([vectors] * (VECTORS // vectors.num_rows + 1)).slice(0, VECTORS).combine_chunks()
objects = [
    json.dumps({"id": row["id"], "embedding": [round(x, 6) for x in row["embedding"]]}).encode()
    for row in vectors.to_pylist()
]
streams = []
for first in range(0, VECTORS, 250):
    out = pa.BufferOutputStream()
    part = vectors.slice(first, 250).combine_chunks()
    with pa.ipc.new_stream(out, part.schema) as writer:
        writer.write_table(part)
    streams.append(out.getvalue().to_pybytes())
rates("stream, embeddings of 384 numbers", {
    "json": lambda: by_stream("json", objects, BY_COLUMN, "throughput"),
    "arrow to json": lambda: by_stream("arrow", streams, BY_COLUMN, "throughput"),
    "arrow to arrow": lambda: by_stream("arrow", streams, BY_COLUMN, "throughput", "arrow"),
    "label": lambda: by_label(vectors, BY_COLUMN),
})

pace = max(1, round(text_rate / 5))
p50, p99 = latency(texts, BY_TEXT, pace, pace * 40)
tell("latency, papers", per_second=pace, p50_ms=round(p50), p99_ms=round(p99))
p50, p99 = latency(objects, BY_COLUMN, 100, 2_000)
tell("latency, embeddings", per_second=100, p50_ms=round(p50), p99_ms=round(p99))
