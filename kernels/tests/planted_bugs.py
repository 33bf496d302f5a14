"""Plants bugs in the CUDA kernels, one after another, and checks that a test sees each of them.

    scripts/kernels.sh planted [WORD...]    only those whose names hold a word

Each is a small change of the kind that is easily made: a barrier less, a wait too weak, a number off by one. The tests
of the kernels run on an emulator built from the changed copy, and must fail. What passed once for the same kernels,
emulator and tests is not run again.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

KERNELS = pathlib.Path(__file__).resolve().parent.parent

# (name, file, text, what it becomes, the tests that must see it)
BUGS = [
    ("layer: a stage is read before its copies are done", "linear_mma.cu", "copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();", "linear"),
    ("layer: no barrier after the wait", "linear_mma.cu", "        copy_wait<STAGES - 2>();\n        __syncthreads();", "        copy_wait<STAGES - 2>();", "linear"),
    ("layer: the live stage is filled", "linear_mma.cu", "load_step(step + STAGES - 1);", "load_step(step + STAGES);", "linear"),
    ("layer: fragments of the wrong rows", "linear_mma.cu", "b[j / 2] + j % 2 * 2", "b[j / 2] + (1 - j % 2) * 2", "linear"),
    ("layer: rows past the end are stored", "linear.h", "if (r < p.rows && c < width)", "if (c < width)", "linear"),
    ("layer: tiles exchanged wrongly", "linear.h", "int from = quad ^ step;", "int from = quad;", "linear"),
    ("layer: gate and value swapped", "linear.h", "odd *= sums[5] + bias[9];", "odd *= sums[4] + bias[9];", "linear"),
    ("layer: rotation the other way", "linear.h", "fmaf(even, turn.x, -odd * turn.y)", "fmaf(even, turn.x, odd * turn.y)", "linear"),
    ("wgmma: wrong parity of a full stage", "linear_wgmma.cu", "turn / STAGES & 1);", "(turn / STAGES + 1) & 1);", "linear"),
    ("wgmma: wrong parity of an empty stage", "linear_wgmma.cu", "(turn / STAGES - 1) & 1", "(turn / STAGES) & 1", "linear"),
    ("wgmma: a stage is freed while it is read", "linear_wgmma.cu", "mbarrier_arrive(empty + (turn - 1) % STAGES);\n            }", "mbarrier_arrive(empty + turn % STAGES);\n            }", "linear"),
    ("wgmma: sums are stored before they are there", "linear_wgmma.cu", "            wgmma_wait<0>();\n            if", "            if", "linear"),
    ("wgmma: fewer bytes expected than come", "linear_wgmma.cu", "mbarrier_arrive_expect(full + stage, STAGE_BYTES)", "mbarrier_arrive_expect(full + stage, X_BYTES)", "linear"),
    ("wgmma: steps along rows too long", "linear_wgmma.cu", "multiply(sums, a + k * 2, b + k * 2)", "multiply(sums, a + k * 2, b + k * 4)", "linear"),
    ("wgmma: the second group has the first one's rows", "linear_wgmma.cu", "operand(at + group * 64 * DEPTH)", "operand(at)", "linear"),
    ("float8: sums leave before they are there", "linear_wgmma.cu", "                wgmma_wait<0>();\n", "", "float8"),
    ("float8: a stage is freed while it is read", "linear_wgmma.cu", "                wgmma_wait<0>();\n                wgmma_settle(part);\n                if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + stage);\n", "                if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + stage);\n                wgmma_wait<0>();\n                wgmma_settle(part);\n", "float8"),
    ("float8: a part begins with the last one's sums", "linear_wgmma.cu", "wgmma_float8<false>", "wgmma_float8<true>", "float8"),
    ("float8: another row's scale", "linear.h", "row + lane / 4 + half * 8, p.rows - 1)", "row + lane / 4 + half, p.rows - 1)", "float8"),
    ("float8: another column's scale", "linear.h", "column + tile * 8 + lane % 4 * 2, p.columns - 2)", "column + tile * 8 + lane % 4, p.columns - 2)", "float8"),
    ("float8: scales of a lane's numbers alone", "float8.cu", "    largest = __uint_as_float(__reduce_max_sync(ALL_LANES, __float_as_uint(largest)));\n", "", "float8"),
    ("float8: a row too many", "float8.cu", "if (row >= rows) return;", "if (row > rows) return;", "float8"),
    ("attention: keys are read before they are there", "attention.cu", "        if (tile) {\n            copy_wait<1>();", "        if (tile) {\n            copy_wait<2>();", "attention"),
    ("attention: no barrier after keys", "attention.cu", "            copy_wait<1>();\n            __syncthreads();\n        }", "            copy_wait<1>();\n        }", "attention"),
    ("attention: no barrier after values", "attention.cu", "        copy_wait<1>();\n        __syncthreads();\n#pragma unroll\n        for (int i = 0; i < SPAN / 16; i++) {\n            // Two", "        copy_wait<1>();\n#pragma unroll\n        for (int i = 0; i < SPAN / 16; i++) {\n            // Two", "attention"),
    ("attention: no barrier between items", "attention.cu", "        // All warps have read the last tiles before the next item's come.\n        __syncthreads();", "", "attention"),
    ("attention: the live keys are overwritten", "attention.cu", "load<WIDTH, SPAN>(keys + there,", "load<WIDTH, SPAN>(keys + here,", "attention"),
    ("attention: one key too many", "attention.cu", "bool inside = key + right < length;", "bool inside = key + right <= length;", "attention"),
    ("attention: heads past the last", "attention.cu", "heads = min(ROWS / SPAN, p.heads - first_head);", "heads = ROWS / SPAN;", "attention"),
    ("attention: sums are not shrunk", "attention.cu", "out[i][2 * half] *= shrink;", "", "attention"),
    ("attention: offsets the other way", "attention.cu", "offsets[key + right - query - down]", "offsets[query + down - key - right]", "attention"),
    ("norm: what pads a row is counted", "norm.cu", "        if ((c * 32 + lane) * 8 >= width) continue;\n#pragma unroll\n        for (int i = 0; i < 8; i++) squares", "#pragma unroll\n        for (int i = 0; i < 8; i++) squares", "norm"),
    ("pooling: no barrier after partial sums", "pool.cu", "= sums[i];\n    }\n    __syncthreads();", "= sums[i];\n    }", "pool"),
    ("pooling: lengths of rows that change meanwhile", "pool.cu", "float length = row_length(vector, p.width);\n        __syncthreads();", "float length = row_length(vector, p.width);", "pool"),
    ("pooling: a prompt is counted", "pool.cu", "p.offsets[text] + p.skipped", "p.offsets[text]", "pool"),
    ("codes: bits in the wrong order", "codes.h", "positive >> (24 - 8 * lane)", "positive >> (8 * lane)", "codes"),
    ("codes: lengths joined another way", "codes.h", "for (int lanes = 8; lanes; lanes >>= 1)", "for (int lanes = 1; lanes <= 8; lanes <<= 1)", "rows_are_scaled"),
    ("k-means: a part is multiplied before it is there", "kmeans.cu", "            copy_wait<1>();", "            copy_wait<2>();", "kmeans"),
    ("k-means: no barrier before products", "kmeans.cu", "        __syncthreads();\n        const float* x", "        const float* x", "kmeans"),
    ("k-means: no barrier after products", "kmeans.cu", "        // All have read this part before the one after the next takes its place.\n        __syncthreads();", "", "kmeans"),
    ("k-means: columns past the last are counted", "kmeans.cu", "            if (column >= p.clusters) break;\n            float half = p.halves[column];", "            float half = column < p.clusters ? p.halves[column] : 0.f;", "kmeans"),
    ("k-means: larger centroids win ties between lanes", "kmeans.cu", "centroid < other.centroid", "centroid > other.centroid", "kmeans"),
    ("k-means: the second is lost when lanes join", "kmeans.cu", "second = beaten.ahead_of(next) ? beaten : next;", "second = beaten.ahead_of(next) ? next : beaten;", "kmeans"),
    ("k-means: no barrier before the two warps of a point join", "kmeans.cu", "joined[first_point + i * 4] = races[i];\n    }\n    __syncthreads();", "joined[first_point + i * 4] = races[i];\n    }", "kmeans"),
    ("k-means: seeds before are forgotten", "kmeans.cu", "before ? before[point] : INFINITY", "before ? before[0] : INFINITY", "kmeans"),
    ("k-means: candidates of the wrong columns", "kmeans.cu", "            u32 c = first_column + j * 8;", "            u32 c = first_column + j * 4;", "kmeans"),
    ("k-means: points past the last have distances", "kmeans.cu", "            if (inside) {", "            if (inside || from + point == p.points.count) {", "kmeans"),
    ("k-means: no barrier before sums of distances", "kmeans.cu", "    __syncthreads();\n    for (u32 i = threadIdx.x; i < p.count * BLOCK", "    for (u32 i = threadIdx.x; i < p.count * BLOCK", "kmeans"),
    ("k-means: a third segment is left out", "kmeans.cu", "for (u32 i = first; i < end; i++) sum += p.partial", "for (u32 i = first; i < min(first + 2, end); i++) sum += p.partial", "kmeans"),
    ("search: a limit that is not the k-th", "search.h", "Operand::product(best[lists.k - 1])", "Operand::product(best[0])", "search"),
    ("search: pending lists overflow", "search.h", "> PENDING / 2)", "> PENDING - 1)", "search"),
    ("search: no warp barrier before a flush", "search.h", "        __syncwarp();\n        u32 full", "        u32 full", "search"),
    ("search: larger rows win ties", "search.h", "(u32) ~(p.first_point + point)", "(u32)(p.first_point + point)", "search"),
    ("search: keys overwritten before they moved", "search.h", "        __syncwarp();\n        if (from < count && to < k) best[to] = key;", "        if (from < count && to < k) best[to] = key;", "search"),
    ("search: points past a split's end", "search.h", " && point < end)", ")", "search"),
    ("search: lists of queries that are none", "search.h", "real ? limit : Operand::most()", "limit", "search"),
    ("search: a split is left out", "search_finish.cu", "split < p.splits", "split < max(p.splits - 1, 1)", "search"),
    ("search: queries that stay are read before they are there", "search_wgmma.cu", "    if (p.resident) mbarrier_wait(ready, 0);\n", "", "search"),
    ("search: queries that stay are those of the first columns", "search_wgmma.cu", "shared + step * QUERY_BYTES : at", "shared : at", "search"),
    ("search: a stage is freed too early", "search_wgmma.cu", "if (step > 0 && threadIdx.x % 32 == 0) mbarrier_arrive(empty + (turn - 1) % STAGES);", "if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + turn % STAGES);", "search"),
    ("search: candidates taken for exact", "search_finish.cu", "p.exact[query] = all ||", "p.exact[query] = true || all ||", "search"),
    ("vote: rows vote for themselves", "search_finish.cu", "if (point == own) continue;", "if (point == own && own < 0) continue;", "search"),
    ("vote: outliers always vote", "search_finish.cu", "if (topic >= 0 || !p.outliers_abstain)", "if (true)", "search"),
    ("vote: ties to the later voter", "search_finish.cu", "one.first < best.first", "one.first > best.first", "search"),
    ("layout: no barrier before events are taken", "layout.cu", "            __syncthreads();\n            // A vertex's events", "            // A vertex's events", "any_graph"),
    ("layout: no barrier before the ring is filled again", "layout.cu", "            __syncthreads();\n            done +=", "            done +=", "any_graph"),
    ("layout: pushed by the wrong lane's row", "layout.cu", "int next = (threadIdx.x + 1) % LANES;", "int next = (threadIdx.x + 15) % LANES;", "any_graph"),
    ("layout: a first epoch that counts from before it", "layout.cu", "(epoch ? epoch - 1 : 0)", "(epoch - 1)", "any_graph"),
    ("layout: steps that are not clipped", "layout.cu", "return step < -4.f ? -4.f : step;", "return step;", "any_graph"),
    ("layout: a sum of squares rounded twice", "layout.cu", "s = fmaf(delta, delta, s);", "s = s + delta * delta;", "any_graph"),
    ("layout: both ends of an edge are pushed", "layout.cu", "pushes = tail ? 0 : p.force.negatives;", "pushes = p.force.negatives;", "any_graph"),
    ("layout: all new points draw the same rows", "layout.cu", "        u64 key = mix(p.keys[point] ^ epoch);", "        u64 key = mix(p.keys[0] ^ epoch);", "new_points"),
    ("layout: the ring of events runs over", "layout.cu", "if (seen < events.length && queued - done < CHUNK)", "if (seen < events.length)", "any_graph"),
    ("tree: no barrier after a tile is loaded", "spanning_tree.cu", "        __syncthreads();\n        for (u32 group", "        for (u32 group", "spanning_tree"),
    ("tree: no barrier before the reach is joined", "spanning_tree.cu", "*shared.reach = 0;\n        __syncthreads();", "*shared.reach = 0;", "spanning_tree"),
    ("tree: a distance rounded another way", "spanning_tree.cu", "sums[i] = fma(difference, difference, sums[i]);", "sums[i] = sums[i] + difference * difference;", "spanning_tree"),
    ("core distances: a heap upside down", "spanning_tree.cu", "at(child + 1) > at(child)", "at(child + 1) < at(child)", "core_distances"),
    ("core distances: a point is its own neighbour", "spanning_tree.cu", " || point == own) return;", ") return;", "core_distances"),
    ("tree: ties to the larger row", "spanning_tree.cu", "return other_row < row;", "return other_row > row;", "trees_have"),
    ("tree: a bound that hides edges", "spanning_tree.cu", "max(p.at_least[point], min(search.weight, limit));", "max(p.at_least[point], search.weight);", "trees_have"),
    ("tree: tiles past the first threads", "spanning_tree.cu", "turn < p.count; turn += blockDim.x", "turn < p.count; turn += 128", "many_tiles"),
    ("core distances: a bound before there are k", "spanning_tree.cu", "if (size == k) bound = at(0);", "bound = at(0);", "core_distances"),
]


def test_binary():
    """Builds the tests of the kernels and returns their program."""
    command = ["cargo", "test", "--release", "--locked", "--package", "thema-kernels", "--features", "cuda", "--test", "gpu", "--no-run"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=KERNELS)
    if told.returncode:
        sys.exit(told.stderr)
    return told.stderr.rsplit("(", 1)[1].split(")")[0]


def is_seen(binary, folder, tests):
    """Runs the tests on kernels from `folder` until one fails; says what happened, or nothing if all pass."""
    environment = {**os.environ, "THEMA_TEST_KERNELS": str(folder), "RUST_BACKTRACE": "0"}
    command = ["timeout", "300", binary, tests, "--nocapture"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as run:
        told, panics = [], {}
        for line in run.stdout:
            told.append(line)
            panic = re.match(r"thread '([^']+)'.* panicked at", line)
            if panic:
                # Tests also check that something panics: what counts is whether they fail.
                panics[panic[1]] = line + run.stdout.readline()
            failed = re.match(r"test (\S+) \.\.\. FAILED", line)
            if failed or line.startswith("emulator:"):
                run.kill()
                return " ".join((panics.get(failed[1], line) if failed else line).split())
        if run.wait() == 0:
            assert " 0 passed" not in "".join(told), f"no test has {tests} in its name"
            return None
    return f"exit status {run.returncode}"


def main():
    words = sys.argv[1:]
    bugs = [bug for bug in BUGS if not words or any(word in bug[0] for word in words)]
    for name, file, text, *_ in BUGS:
        count = (KERNELS / "cuda" / file).read_text().count(text)
        if count == 0:
            sys.exit(f"planted bug \"{name}\": {file} no longer holds\n{text}")
    state = hashlib.sha256()
    for path in sorted([*KERNELS.glob("cuda/*.[hc]*"), *KERNELS.glob("emulator/*"), *KERNELS.glob("tests/**/*.*"), *KERNELS.glob("src/gpu/*.rs")]):
        state.update(path.read_bytes())
    cache = pathlib.Path(os.environ.get("THEMA_CACHE") or pathlib.Path.home() / ".cache/thema")
    passed = cache / "emulator" / f"planted-{state.hexdigest()[:16]}"
    if passed.exists() and not words:
        print(f"{len(BUGS)} planted bugs: all were seen for these kernels and tests")
        return
    binary = test_binary()
    missed = []
    for number, (name, file, text, becomes, tests) in enumerate(bugs, 1):
        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            for part in ("cuda", "emulator"):
                shutil.copytree(KERNELS / part, copy / part, ignore=shutil.ignore_patterns("built"))
            source = copy / "cuda" / file
            source.write_text(source.read_text().replace(text, becomes))
            built = subprocess.run([KERNELS / "emulator/build.sh", copy], capture_output=True, text=True)
            if built.returncode:
                sys.exit(f'planted bug "{name}" does not compile\n{built.stderr}')
            seen = is_seen(binary, copy, tests)
        if not seen:
            missed.append(name)
        print(f"{number}/{len(bugs)} {name}: {seen or 'NOT SEEN'} ({time.time() - started:.0f} s)"[:230], flush=True)
    if missed:
        sys.exit(f"{len(missed)} of {len(bugs)} planted bugs are not seen by the tests: " + "; ".join(missed))
    if not words:
        passed.touch()


main()
