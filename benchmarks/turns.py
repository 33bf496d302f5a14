"""Warm processes that take turns: the protocol of operators/benches/stages.rs."""

import json
import statistics
import subprocess


def medians(engines, rounds, environment=None, warm_up=True):
    """Starts a process for each of `engines` (name to command), runs each once to warm up (unless they have done so by
    themselves) and then `rounds` times in turns, and returns the median seconds by name; results are written when a
    process ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    running = {}
    for name, command in engines.items():
        running[name] = subprocess.Popen(command, **pipes)
        assert json.loads(running[name].stdout.readline())["ready"], name
    if warm_up:
        for process in running.values():
            once(process)
    seconds = {name: [] for name in engines}
    for _ in range(rounds):
        for name, process in running.items():
            seconds[name].append(once(process))
    for name, process in running.items():
        process.stdin.close()
        assert process.wait() == 0, name
    return {name: statistics.median(times) for name, times in seconds.items()}


def once(process):
    process.stdin.write("go\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())["seconds"]
