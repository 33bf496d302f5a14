"""thema on a GPU beside torch, sentence-transformers, FAISS and cuVS: warm processes that take turns.

    python gpu.py encoders WORK [--small]
    python gpu.py bench PACK WORK RESULTS.jsonl [--budget SECONDS] [--small] [--only STAGE,...]
    python gpu.py table RESULTS.jsonl

benchmarks/gpu-check.sh runs it. `encoders` makes BERTs of random weights; `bench` writes a row of JSON for each thing
measured, as soon as it is, and leaves out ("skipped") what the budget has no time for; `table` prints them beside peers,
the device's roofline and our targets. Shares of arithmetic are of torch's bfloat16 product of two large squares on the
same device minutes before (those of float8 of its product in float8, k-means' of that in float32), of memory of torch's
copy, bytes read and written.
"""

import argparse
import glob
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import sys
import time

import numpy as np

from turns import Engine

here = os.path.dirname(os.path.abspath(__file__))
K = 10


class Sizes:
    """What is measured, and how large."""

    # hidden, layers, heads, intermediate; tokens of a set of texts.
    encoders = {
        "minilm-l6": ((384, 6, 12, 1536), 1 << 20),
        "bert-base": ((768, 12, 12, 3072), 1 << 18),
        "bert-small": ((384, 12, 12, 1536), 1 << 19),
        "bert-large": ((1024, 24, 16, 4096), 1 << 17),
    }
    texts = ["real", "128", "512"]
    rounds = 3
    tokens = 16_384
    # More than any cache holds.
    many_tokens = 262_144
    attention = [(12, 32), (12, 64)]
    lengths = [32, 128, 512]
    matmul, copied = 8192, 1 << 30
    dim, queries = 384, 16_384
    points = [100_000, 1_000_000, 10_000_000]
    kmeans = (1_000_000, 1000)
    fit = (1_000_000, 1000)
    # Seconds that a case takes, at a guess, and those after which it is given up.
    needs = {"kernels": (30, 90), "encoder": (15, 90), "search": (20, 120), "search-large": (60, 150)}
    needs |= {"kmeans": (25, 90), "fit": (30, 130)}


class Small(Sizes):
    """The same in sizes that the emulator can do."""

    encoders = {"tiny-32": ((64, 2, 2, 128), 200), "tiny-64": ((128, 1, 2, 256), 150)}
    texts = ["real", "12"]
    rounds = 2
    tokens, many_tokens = 128, 256
    attention = [(2, 32), (1, 64)]
    lengths = [16, 64]
    matmul, copied = 128, 1 << 16
    dim, queries = 24, 40
    points = [1000, 2000]
    kmeans = (600, 20)
    fit = (600, 8)
    needs = dict.fromkeys(("kernels", "encoder", "search", "search-large", "kmeans"), (1, 200)) | {"fit": (1, 300)}


def cosine(a, b):
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


class Crew:
    """Engines that take turns. One that fails is told, and started again for the next case."""

    def __init__(self, bench, commands):
        self.bench, self.commands, self.running = bench, commands, {}

    def engine(self, name):
        if name not in self.running:
            bench = self.bench
            errors = open(f"{bench.work}/{name}.err", "a")
            # 60 s: what a cold disk takes to import torch.
            self.running[name] = Engine(name, self.commands[name], limit=200 if bench.small else 60, errors=errors)
        return self.running[name]

    def turns(self, case, limit, names=None, rounds=None):
        """Each engine once to warm up, then in turns: medians of what each measured, and the last answers."""
        seconds, answers = {}, {}
        names = list(names or self.commands)
        deadline = time.monotonic() + limit
        for turn in range(1 + (rounds or self.bench.sizes.rounds)):
            for name in list(names):
                # What has been measured once is a result; more turns are only better ones.
                if turn > 1 and (time.monotonic() > deadline or self.bench.left() < 0):
                    continue
                try:
                    # However long others took.
                    answers[name] = self.engine(name).ask(case, max(limit / 3, deadline - time.monotonic()))
                except (RuntimeError, OSError, ValueError) as error:
                    self.bench.failed(f"{name} {case}", f"{error}; see {name}.err")
                    self.drop(name)
                    names.remove(name)
                    continue
                if turn > 0:
                    for key, value in answers[name]["each"].items():
                        seconds.setdefault(name, {}).setdefault(key, []).append(value)
        return {n: {k: statistics.median(v) for k, v in each.items()} for n, each in seconds.items()}, answers

    def drop(self, name):
        if name in self.running:
            self.running.pop(name).process.kill()

    def close(self):
        for engine in self.running.values():
            engine.process.stdin.close()
            try:
                engine.process.wait(10)
            except subprocess.TimeoutExpired:
                engine.process.kill()
        self.running.clear()


class Bench:
    def __init__(self, args):
        self.sizes = Small if args.small else Sizes
        self.small = args.small
        self.pack, self.work = args.pack, args.work
        self.started, self.budget = time.monotonic(), args.budget
        self.rows = open(args.results, "w")
        for old in glob.glob(f"{self.work}/*.err"):
            os.remove(old)
        self.program = f"{self.work}/bench"
        self.failures = []
        self.peaks = {}

    def say(self, text):
        print(f"{time.monotonic() - self.started:6.0f} s  {text}", flush=True)

    def left(self):
        return self.budget - (time.monotonic() - self.started)

    def row(self, **row):
        print(json.dumps(row), file=self.rows, flush=True)

    def failed(self, what, why):
        self.say(f"{what}: FAILED: {why}")
        self.failures.append(what)

    def share(self, rate, of):
        """The share of the roofline, if that was measured."""
        return round(rate / self.peaks[of], 3) if of in self.peaks else None

    def crew(self, **commands):
        return Crew(self, {name: [str(part) for part in command] for name, command in commands.items()})

    def peer(self, script, *args):
        return [sys.executable, f"{here}/peers/{script}", *args]

    def case(self, stage, kind, what, measure, **labels):
        """Measures a case unless there is no time; one that fails does not end the others."""
        need, limit = self.sizes.needs[kind]
        if self.left() < need:
            self.say(f"{stage} {what}: skipped: out of time")
            self.row(stage=stage, **labels, skipped="out of time")
            return
        self.say(f"{stage} {what} ...")
        try:
            measure(min(limit, self.left() + 10))
        except Exception as error:
            self.failed(f"{stage} {what}".strip(), f"{type(error).__name__}: {error}")
            self.row(stage=stage, **labels, failed=f"{type(error).__name__}: {error}")

    # The roofline, and single kernels.

    def jobs(self):
        sizes, jobs = self.sizes, []
        for name, ((hidden, _, _, inner), _) in sizes.encoders.items():
            if name == "bert-small":
                continue  # the shapes of minilm-l6
            for part, columns, inputs, gelu in [
                ("query-key-value", 3 * hidden, hidden, False),
                ("projection", hidden, hidden, False),
                ("up, gelu", inner, hidden, True),
                ("down", hidden, inner, False),
            ]:
                label = f"{hidden}: {part}"
                jobs.append({"kernel": "linear", "name": label, "rows": sizes.tokens, "columns": columns})
                jobs[-1] |= {"inputs": inputs, "gelu": gelu}
                jobs.append({**jobs[-1], "kernel": "linear_float8", "name": f"{label}, float8"})
        for width in sorted({width for (hidden, _, _, inner), _ in sizes.encoders.values() for width in (hidden, inner)}):
            label = f"float8_rows {width}, {sizes.tokens} tokens"
            jobs.append({"kernel": "float8_rows", "name": label, "tokens": sizes.tokens, "width": width})
        for heads, width in sizes.attention:
            for length in sizes.lengths:
                label = f"{heads} heads of {width}, texts of {length}"
                jobs.append({"kernel": "attention", "name": label, "tokens": sizes.tokens, "length": length})
                jobs[-1] |= {"heads": heads, "width": width}
        for hidden in sorted({shape[0] for shape, _ in sizes.encoders.values()}):
            for tokens in (sizes.tokens, sizes.many_tokens):
                for kernel in ("add_norm", "embed_norm"):
                    label = f"{kernel} {hidden}, {tokens} tokens"
                    jobs.append({"kernel": kernel, "name": label, "tokens": tokens, "width": hidden})
                label = f"pool {hidden}, {tokens} tokens"
                jobs.append({"kernel": "pool", "name": label, "tokens": tokens, "length": 128, "width": hidden})
        return jobs

    def kernels(self, limit, only_roofline=False):
        sizes, jobs = self.sizes, [] if only_roofline else self.jobs()
        path = f"{self.work}/jobs.json"
        json.dump(jobs, open(path, "w"))
        crew = self.crew(
            torch=self.peer("torch_kernels.py", path, sizes.matmul, sizes.copied),
            thema=[self.program, "kernels", path],
        )
        median, _ = crew.turns("roofline", limit, ["torch"], rounds=2)
        peer = median.get("torch", {})
        # Kind by kind, so that a fault of one takes no other along.
        for kind in dict.fromkeys(job["kernel"] for job in jobs):
            for system, each in crew.turns(kind, limit, rounds=2)[0].items():
                median.setdefault(system, {}).update(each)
        crew.close()
        if "matmul" in peer:
            self.peaks["tflops"] = 2 * sizes.matmul**3 / peer["matmul"] / 1e12
            self.peaks["terabytes"] = 2 * sizes.copied / peer["copy"] / 1e12
            self.row(stage="roofline", what="matmul bfloat16", system="torch", tflops=round(self.peaks["tflops"], 1))
            self.peaks["tflops_f32"] = 2 * sizes.matmul**3 / peer["matmul_float32"] / 1e12
            if "matmul_float8" in peer:
                self.peaks["float8"] = 2 * sizes.matmul**3 / peer["matmul_float8"] / 1e12
                self.row(stage="roofline", what="matmul float8", system="torch", tflops=round(self.peaks["float8"], 1))
            self.row(stage="roofline", what="copy", system="torch", terabytes=round(self.peaks["terabytes"], 3))
            peak = round(self.peaks["tflops_f32"], 1)
            self.row(stage="roofline", what="matmul float32", system="torch", tflops=peak)
        for job in jobs:
            kind, name = job["kernel"], job["name"]
            flop = byte = 0
            if kind in ("linear", "linear_float8"):
                flop = 2 * job["rows"] * job["columns"] * job["inputs"]
            elif kind == "attention":
                flop = 4 * job["tokens"] * job["length"] * job["heads"] * job["width"]
            else:
                # Halves read and written; embeddings' positions stay in the cache, pooling writes floats.
                moved = {"add_norm": 6, "embed_norm": 4, "float8_rows": 3, "pool": 2 + 4 / job.get("length", 1)}[kind]
                byte = moved * job["tokens"] * job["width"]
            for system in ("thema", "torch"):
                seconds = median.get(system, {}).get(name)
                if seconds is None:
                    continue
                row = {"stage": "kernels", "kernel": kind, "what": name, "system": system, "microseconds": seconds * 1e6}
                row["microseconds"] = round(row["microseconds"], 2)
                if flop:
                    row["tflops"] = round(flop / seconds / 1e12, 3)
                    row["share"] = self.share(flop / seconds / 1e12, "float8" if kind == "linear_float8" else "tflops")
                else:
                    row["terabytes"] = round(byte / seconds / 1e12, 4)
                    row["share"] = self.share(byte / seconds / 1e12, "terabytes")
                if system == "thema" and name in peer:
                    row["ratio"] = round(peer[name] / seconds, 3)
                self.row(**row)

    # Encoders.

    def texts(self):
        """Writes the texts of each set, in tokens of the random vocabulary, and returns the lengths of each file's."""
        first = next(iter(self.sizes.encoders))
        vocabulary = json.load(open(f"{self.work}/encoders/{first}/tokenizer.json"))["model"]["vocab"]
        words = [word for word in vocabulary if not word.startswith("[")]
        real = json.load(open(f"{self.pack}/lengths.json"))
        dice = random.Random(1)
        made = {}
        for _, total in self.sizes.encoders.values():
            for texts in self.sizes.texts:
                path = f"{self.work}/texts-{texts}-{total}.json"
                lengths = []
                while sum(lengths) < total:
                    length = dice.choice(real) if texts == "real" else int(texts)
                    lengths.append(max(3, length // 8) if self.small and texts == "real" else length)
                json.dump([" ".join(dice.choices(words, k=length - 2)) for length in lengths], open(path, "w"))
                made[texts, total] = (path, lengths)
        return made

    def encoders(self):
        made = self.texts()
        cases = {"thema": {}, "sentence-transformers": {}}
        for name, (_, total) in self.sizes.encoders.items():
            for texts in self.sizes.texts:
                for system, of in cases.items():
                    case = {"folder": f"{self.work}/encoders/{name}", "texts": made[texts, total][0]}
                    of[f"{name}/{texts}"] = {**case, "out": f"{self.work}/{system}-{name}-{texts}.f32"}
                    out = f"{self.work}/{system}-{name}-{texts}-float8.f32"
                    of[f"{name}/{texts} float8"] = {**case, "weights": "float8", "out": out}
        for system, of in cases.items():
            json.dump(of, open(f"{self.work}/{system}.json", "w"))
        peer = self.peer("sentence_transformers_embed.py", f"{self.work}/sentence-transformers.json")
        thema = [self.program, "embed", f"{self.work}/thema.json"]
        crew = self.crew(**{"thema": thema, "sentence-transformers": peer})

        def measure(name, texts, limit):
            median, answers = crew.turns(f"{name}/{texts}", limit)
            (hidden, layers, _, inner), total = self.sizes.encoders[name]
            lengths = np.array(made[texts, total][1])
            tokens = int(lengths.sum())
            assert "thema" in median, "no result of thema"
            assert answers["thema"]["tokens"] == tokens, f"{answers['thema']['tokens']} tokens, expected {tokens}"
            flop = float(layers * (2 * tokens * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * (lengths**2.0).sum()))
            read = lambda system, case: np.fromfile(cases[system][case]["out"], np.float32).reshape(len(lengths), -1)
            cosines = {}
            if len(median) == 2:
                a, b = (read(system, f"{name}/{texts}") for system in cases)
                # And of what tells texts apart: vectors of random weights are much alike.
                cosines["encode"] = (cosine(a, b).min(), cosine(a - a.mean(0), b - b.mean(0)).min())
            # A torch that has a float8 product tells that the device has it.
            if texts == self.sizes.texts[1] and ("float8" in self.peaks or self.small):
                found = crew.turns(f"{name}/{texts} float8", limit / 2, ["thema"])[0].get("thema", {})
                median["thema"].update({f"{part} float8": seconds for part, seconds in found.items() if part != "tokenize"})
                if found and cosines:
                    a = read("thema", f"{name}/{texts} float8")
                    cosines["encode float8"] = (cosine(a, b).min(), cosine(a - a.mean(0), b - b.mean(0)).min())
            for system, each in median.items():
                for part, seconds in each.items():
                    row = {"stage": "encoder", "model": name, "texts": texts, "system": system, "part": part}
                    row |= {"tokens": tokens, "seconds": round(seconds, 5), "tokens_per_second": round(tokens / seconds)}
                    if part in ("gpu", "gpu float8"):
                        row["tflops"] = round(flop / seconds / 1e12, 2)
                        row["share"] = self.share(flop / seconds / 1e12, "tflops" if part == "gpu" else "float8")
                    theirs = median.get("sentence-transformers", {}).get(part.removesuffix(" float8"))
                    if system == "thema" and theirs:
                        row["ratio"] = round(theirs / seconds, 3)
                    if system == "thema" and part in cosines:
                        row["cosine_min"] = round(float(cosines[part][0]), 6)
                        row["cosine_centred_min"] = round(float(cosines[part][1]), 5)
                    if system != "thema":
                        row["batch"] = answers[system]["gpu_batch" if part == "gpu" else "batch"]
                    self.row(**row)
            for part, least in {"encode": 0.999, "encode float8": 0.98}.items():
                found = cosines.get(part, (1, 1))[0]
                assert found > least, f"vectors differ: least cosine {found:.5f}, {part}"

        for name in self.sizes.encoders:
            for texts in self.sizes.texts:
                self.case(
                    "encoder", "encoder", f"{name}, texts of {texts}", lambda limit: measure(name, texts, limit),
                    model=name, texts=texts,
                )  # fmt: skip
        crew.close()

    # Search.

    def search(self, rows, limit):
        sizes, out = self.sizes, f"{self.work}/found"
        for old in glob.glob(f"{out}.{rows}.*"):
            os.remove(old)
        shape = [sizes.dim, sizes.queries, K]
        crew = self.crew(
            thema=[self.program, "search", *shape, out],
            torch=self.peer("torch_topk.py", *shape, out),
        )
        median, answers = crew.turns(f"{rows} int8", limit)
        for precision in ("float16", "bits"):
            found = crew.turns(f"{rows} {precision}", limit / 2, ["thema"])[0].get("thema", {})
            median.setdefault("thema", {}).update(found)
        crew.close()
        exact = None
        if os.path.exists(f"{out}.{rows}.exact.u32"):
            exact = np.fromfile(f"{out}.{rows}.exact.u32", np.uint32).reshape(-1, K)
        for system, each in median.items():
            for what, seconds in each.items():
                row = {"stage": "search", "points": rows, "k": K, "system": system, "what": what}
                row |= {"queries": sizes.queries, "seconds": round(seconds, 6)}
                row["queries_per_second"] = round(sizes.queries / seconds)
                row["tera_operations"] = round(2 * sizes.queries * rows * sizes.dim / seconds / 1e12, 2)
                row["share"] = self.share(row["tera_operations"], "tflops")
                path = f"{out}.{rows}.{what.split(' ')[0]}.u32"
                if exact is not None and os.path.exists(path):
                    found = np.fromfile(path, np.uint32).reshape(-1, K)[: len(exact)]
                    same = [len(np.intersect1d(a, b)) / K for a, b in zip(found, exact)]
                    row["recall"] = round(float(np.mean(same)), 4)
                theirs = median.get("torch", {}).get("torch")
                if system == "thema" and theirs:
                    row["ratio"] = round(theirs / seconds, 3)
                if system == "torch" and what == "torch":
                    row["tile"] = answers["torch"]["tile"]
                self.row(**row)
        assert median["thema"], "no result of thema"

    # k-means.

    def kmeans(self, limit):
        (rows, clusters), dim = self.sizes.kmeans, self.sizes.dim
        crew = self.crew(
            thema=[self.program, "kmeans", rows, dim, clusters],
            torch=self.peer("torch_kmeans.py", rows, dim, clusters),
        )
        median, _ = crew.turns("", limit, rounds=2)
        crew.close()
        for system, each in median.items():
            for what, seconds in each.items():
                row = {"stage": "kmeans", "points": rows, "clusters": clusters, "system": system, "what": what}
                row["seconds"] = round(seconds, 6)
                if what == "iteration":
                    row["tflops"] = round(2 * rows * dim * clusters / seconds / 1e12, 3)
                    row["share"] = self.share(row["tflops"], "tflops_f32")
                theirs = median.get("torch", {}).get(what)
                if system == "thema" and theirs:
                    row["ratio"] = round(theirs / seconds, 3)
                self.row(**row)
        assert median["thema"], "no result of thema"

    # A whole fit.

    def fit(self, limit):
        rows, centres = self.sizes.fit
        crew = self.crew(thema=[self.program, "fit", rows, self.sizes.dim, centres, max(5, limit - 15)])
        try:
            answer = crew.engine("thema").ask("", limit)
        finally:
            crew.close()
        stages = {stage: round(seconds, 2) for stage, seconds in answer["stages"].items()}
        row = {"stage": "fit", "rows": rows, "dimensions": self.sizes.dim, "system": "thema", "seconds_by_stage": stages}
        if "failed" in answer:
            self.row(**row, stopped=answer["failed"])
            raise RuntimeError(f"{answer['failed']}: {stages}")
        each = answer["each"]
        row |= {"seconds": round(each["fit"], 2), "topics": answer["topics"], "outliers": round(answer["outliers"], 3)}
        self.row(**row, labels_per_second=round(answer["labels"] / each["label"]))

    def machine(self):
        """What this was measured on and with."""
        device = {"device": "emulated"}
        if not self.small:
            asked = ["name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit"]
            told = ["nvidia-smi", "--format=csv,noheader", f"--query-gpu={','.join(asked)}"]
            told = subprocess.run(told, capture_output=True, text=True).stdout.splitlines()[:1]
            device = dict(zip(asked, told[0].split(", "))) if told else {}
        packages = ["torch", "sentence-transformers", "transformers", "faiss-gpu", "cuvs-cu13", "cuvs-cu12"]
        found = {}
        for package in packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                pass
        about = f"{self.pack}/about.txt"
        commit = open(about).readline().strip() if os.path.exists(about) else None
        date = time.strftime("%F")
        self.row(stage="machine", **device, cores=os.cpu_count(), packages=found, thema=commit, date=date)

    def run(self, only):
        self.machine()
        wants = lambda stage: not only or stage in only.split(",")
        if any(wants(stage) for stage in ("kernels", "roofline", "encoder", "search", "kmeans")):
            small = not wants("kernels")
            self.case("kernels", "kernels", "roofline" if small else "", lambda limit: self.kernels(limit, small))
        if wants("encoder"):
            try:
                self.encoders()
            except OSError as error:
                self.failed("encoder", error)
        if wants("search"):
            for rows in self.sizes.points[:-1]:
                self.case("search", "search", rows, lambda limit: self.search(rows, limit), points=rows)
        if wants("kmeans"):
            self.case("kmeans", "kmeans", self.sizes.kmeans[0], self.kmeans, points=self.sizes.kmeans[0])
        if wants("fit"):
            self.case("fit", "fit", self.sizes.fit[0], self.fit, rows=self.sizes.fit[0])
        if wants("search"):
            rows = self.sizes.points[-1]
            self.case("search", "search-large", rows, lambda limit: self.search(rows, limit), points=rows)
        self.say(f"done; failed: {', '.join(self.failures) or 'nothing'}")
        return 1 if self.failures else 0


def table(path):
    """Prints the rows for people."""
    rows = [json.loads(line) for line in open(path)]
    peers = {}
    for row in rows:
        if row["stage"] == "encoder" and row.get("system") == "sentence-transformers":
            peers[row["model"], row["texts"], row["part"]] = row["tokens_per_second"]
    print("| stage | case | thema | peer | ratio | share of roofline | target |")
    print("|---|---|---|---|---|---|---|")

    def reached(found, least):
        return None if found is None else found >= least

    def line(stage, case, thema, peer="", ratio=None, share=None, target=None, met=None):
        told = "not measured" if met is None else "met" if met else "MISSED"
        verdict = "" if target is None else f"{target}: {told}"
        ratio = "" if ratio is None else f"{ratio:.2f}"
        share = "" if share is None else f"{share:.1%}"
        print(f"| {stage} | {case} | {thema} | {peer} | {ratio} | {share} | {verdict} |")

    torch = {row["what"]: row for row in rows if row["stage"] == "kernels" and row.get("system") == "torch"}
    searched = {row["points"]: row for row in rows if row["stage"] == "search" and row.get("what") == "torch"}
    for row in rows:
        stage, share, ratio = row["stage"], row.get("share"), row.get("ratio")
        if "skipped" in row or "failed" in row:
            case = " ".join(str(row[key]) for key in ("model", "texts", "points", "rows") if key in row)
            line(stage, case, f"skipped: {row['skipped']}" if "skipped" in row else f"FAILED: {row['failed']}")
        elif stage == "roofline":
            line(
                stage,
                row["what"],
                "",
                f"torch {row.get('tflops') or row['terabytes']} {'TFLOP/s' if 'tflops' in row else 'TB/s'}",
            )
        elif stage == "kernels" and row["system"] == "thema":
            unit = "tflops" if "tflops" in row else "terabytes"
            name = {"tflops": "TFLOP/s", "terabytes": "TB/s"}[unit]
            peer = torch.get(row["what"])
            told = f"torch {peer[unit]} {name} ({peer['share']:.1%})" if peer and peer["share"] is not None else ""
            line(stage, row["what"], f"{row[unit]} {name}, {row['microseconds']} us", told, ratio, share)
        elif stage == "encoder" and row["system"] == "thema":
            target = met = None
            if row["part"] == "gpu":
                least = 0.35 if row["model"] in ("minilm-l6", "bert-small") else 0.5
                target, met = f">= {least:.0%}", reached(share, least)
            elif row["part"] == "encode" and row["texts"] == "real":
                target, met = ">= 2x", reached(ratio, 2)
            peer = peers.get((row["model"], row["texts"], row["part"]))
            told = f"sentence-transformers {peer:,}" if peer else ""
            case = f"{row['model']}, texts of {row['texts']}, {row['part']}"
            cosines = f", cosine {row['cosine_min']}" if "cosine_min" in row else ""
            line(stage, case, f"{row['tokens_per_second']:,} tokens/s{cosines}", told, ratio, share, target, met)
        elif stage == "search":
            case, rate = f"{row['points']:,} points, {row['what']}", f"{row['queries_per_second']:,} queries/s"
            found = f", recall {row['recall']}" if "recall" in row else ""
            if row["system"] == "thema":
                peer = searched.get(row["points"])
                told = f"torch {peer['queries_per_second']:,}" if peer else ""
                target = ">= 2.5x" if row["what"] == "int8" else None
                line(stage, case, rate + found, told, ratio, share, target, reached(ratio, 2.5))
            else:
                line(stage, case, "", rate + found, None, share)
        elif stage == "kmeans" and row["system"] == "thema":
            case = f"{row['points']:,} points, {row['clusters']:,} clusters, {row['what']}"
            rate = f", {row['tflops']} TFLOP/s" if "tflops" in row else ""
            peer = f"torch {row['seconds'] * ratio:.4f} s" if ratio else ""
            line(stage, case, f"{row['seconds']:.4f} s{rate}", peer, ratio, share)
        elif stage == "fit" and "seconds" in row:
            case = f"{row['rows']:,} x {row['dimensions']}, {row['topics']} topics, {row['outliers']:.0%} outliers"
            line(stage, case, f"{row['seconds']} s", target="< 60 s", met=row["seconds"] < 60)
            line(stage, "seconds by stage", ", ".join(f"{name} {taken}" for name, taken in row["seconds_by_stage"].items()))
            line(stage, "labels", f"{row['labels_per_second']:,} rows/s")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    encoders = commands.add_parser("encoders")
    encoders.add_argument("work")
    encoders.add_argument("--small", action="store_true")
    bench = commands.add_parser("bench")
    for name in ("pack", "work", "results"):
        bench.add_argument(name)
    bench.add_argument("--budget", type=float, default=300)
    bench.add_argument("--small", action="store_true")
    bench.add_argument("--only")
    commands.add_parser("table").add_argument("results")
    args = parser.parse_args()
    if args.command == "table":
        return table(args.results)
    if args.command == "encoders":
        sizes = Small if args.small else Sizes
        path = f"{args.work}/shapes.json"
        json.dump({name: shape for name, (shape, _) in sizes.encoders.items()}, open(path, "w"))
        make = [sys.executable, f"{here}/peers/random_encoders.py", path, f"{args.work}/encoders"]
        return subprocess.run(make).returncode
    return Bench(args).run(args.only)


if __name__ == "__main__":
    sys.exit(main())
