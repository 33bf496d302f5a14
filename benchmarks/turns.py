"""Warm processes that take turns: the protocol of operators/benches/stages.rs and gpu.rs."""

import json
import statistics
import subprocess
import threading


class Engine:
    """A warm process that does its work each time it is asked; what takes longer than `limit` seconds ends it."""

    def __init__(self, name, command, environment=None, limit=None, errors=None):
        self.name, self.limit = name, limit
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        assert self.answer()["ready"], name

    def ask(self, case="", limit=None):
        """Has it work once, and returns its answer."""
        self.process.stdin.write(f"go {case}".strip() + "\n")
        self.process.stdin.flush()
        return self.answer(limit)

    def answer(self, limit=None):
        limit = limit or self.limit
        watch = threading.Timer(limit, self.process.kill) if limit else None
        if watch:
            watch.start()
        try:
            line = self.process.stdout.readline()
        finally:
            if watch:
                watch.cancel()
        if not line:
            raise RuntimeError(f"{self.name} ended, status {self.process.wait()}")
        return json.loads(line)

    def close(self):
        """Ends it; results are written by then."""
        self.process.stdin.close()
        assert self.process.wait() == 0, self.name


def medians(engines, rounds, environment=None, warm_up=True):
    """Starts a process for each of `engines` (name to command), runs each once to warm up (unless they have done so by
    themselves) and then `rounds` times in turns, and returns the median seconds by name; results are written when a
    process ends."""
    running = [Engine(name, command, environment) for name, command in engines.items()]
    if warm_up:
        for engine in running:
            engine.ask()
    seconds = {name: [] for name in engines}
    for _ in range(rounds):
        for engine in running:
            seconds[engine.name].append(engine.ask()["seconds"])
    for engine in running:
        engine.close()
    return {name: statistics.median(times) for name, times in seconds.items()}
