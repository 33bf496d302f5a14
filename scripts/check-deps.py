#!/usr/bin/env python3
"""Checks what the compiler does not: dependencies, licences, the direction of our crates, and stray names.

    scripts/check-deps.py              check this repository; exit status 1 if a rule is broken
    scripts/check-deps.py --self-test  show that each check fails on an input made up to break it

The rules
  one version   arrow, object_store, cudarc and a few more are in the tree exactly once: two would not share types
  licences      each package's licence expression is granted by the licences allowed below
  direction     kernels <- operators <- pipeline <- deploy; nothing depends on tests
  stray names   no tracked file names a package registry's host or a path of somebody's machine
  long files    source files past 600 lines are listed, as a warning: is each still one idea?

It reads `cargo metadata`, for this platform and with all features on, and needs only Python's standard library.
cargo-deny knows more (advisories), but takes minutes to build on a small machine, each time its cache is empty.
"""

import json
import re
import subprocess
import sys

# Types of these packages cross our crates, or (cudarc) hold the one driver.
ONE_VERSION = ["arrow", "parquet", "datafusion", "object_store", "cudarc", "half", "ndarray"]

# What a dependency may be under, all compatible with distributing thema under Apache-2.0.
ALLOWED_LICENCES = {
    "MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "0BSD", "BSL-1.0", "Unlicense",
    "CC0-1.0",
    "Unicode-3.0",  # tables of Unicode
    "MPL-2.0",  # copyleft by file: using a crate unchanged asks nothing of our own files
    "OFL-1.1", "Ubuntu-font-1.0",  # fonts
    "CDLA-Permissive-2.0",  # lists of root certificates
}
# Exceptions only grant more than the licence they follow.
ALLOWED_EXCEPTIONS = {"LLVM-exception"}

# In order: a crate may depend on those before it.
ROOMS = ["thema-kernels", "thema-operators", "thema", "thema-deploy", "thema-tests"]

# The backslashes keep these patterns from finding themselves.
STRAY_NAMES = [
    (re.compile(r"\b(crates\.io|pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|(?:deb|security)\.debian\.org"
                r"|proxy\.golang\.org|maven\.org|static\.rust-lang\.org)\b"), "a registry's host"),
    (re.compile(r"(?<![\w.})~-])(/(?:work|root|tmp|home/\w+|Users/\w+)/|\.\./shared\b)"), "a machine's path"),
]
# Cargo writes its registry into the lock file; other people's texts may name anything.
MAY_NAME_ANYTHING = re.compile(r"^Cargo\.lock$|^tests/data/(?!README\.md$)")

LONG_FILE_LINES = 600
SOURCE_SUFFIXES = (".rs", ".cu", ".h", ".py", ".sh", ".js", ".css", ".html")


def one_version(packages):
    """Lists the packages of ONE_VERSION that are in the tree never or more than once."""
    for name in ONE_VERSION:
        versions = sorted(p["version"] for p in packages if p["name"] == name)
        if len(versions) != 1:
            found = " and ".join(versions) or "none"
            yield f"expected one version of {name}, found {found} (cargo tree --all-features -i {name})"


def licences(packages):
    """Lists the packages whose licence expression the allowed licences do not grant."""
    for package in packages:
        name = f"{package['name']} {package['version']}"
        expression = package["license"]
        try:
            if not expression:
                yield f"{name} states no licence"
            elif not is_granted(expression):
                yield f"{name} is under \"{expression}\", which the allowed licences do not grant"
        except ValueError as error:
            yield f"{name} is under \"{expression}\", which is no SPDX expression: {error}"


def is_granted(expression):
    """Evaluates an SPDX expression: OR needs one side, AND both, WITH a known exception; AND binds before OR."""
    tokens = re.findall(r"[()]|[\w.+-]+|\S", expression.replace("/", " OR "))  # "MIT/Apache-2.0" is the old way

    def take():
        if not tokens:
            raise ValueError("it ends too soon")
        return tokens.pop(0)

    def either():
        granted = both()
        while tokens and tokens[0] == "OR":
            take()
            granted |= both()
        return granted

    def both():
        granted = term()
        while tokens and tokens[0] == "AND":
            take()
            granted &= term()
        return granted

    def term():
        token = take()
        if token == "(":
            granted = either()
            if take() != ")":
                raise ValueError('expected ")"')
            return granted
        if not re.fullmatch(r"[\w.+-]+", token) or token in ("AND", "OR", "WITH"):
            raise ValueError(f'unexpected "{token}"')
        granted = token in ALLOWED_LICENCES
        if tokens and tokens[0] == "WITH":
            take()
            granted &= take() in ALLOWED_EXCEPTIONS
        return granted

    granted = either()
    if tokens:
        raise ValueError(f'unexpected "{tokens[0]}"')
    return granted


def direction(packages):
    """Lists the arrows between our own crates that point the wrong way, and crates that are no known room."""
    ours = [p for p in packages if p["source"] is None]
    for package in ours:
        name = package["name"]
        if name not in ROOMS:
            yield f"{name} is a crate without a room, expected one of {', '.join(ROOMS)}"
            continue
        before = ROOMS[: ROOMS.index(name)]
        for used in sorted({d["name"] for d in package["dependencies"]} & {p["name"] for p in ours}):
            if used not in before:
                yield f"{name} depends on {used}, but may depend only on: {', '.join(before) or 'no room'}"


def stray_names(files):
    """Lists the lines of (path, text) pairs that name a registry's host or a path of somebody's machine."""
    for path, text in files:
        if MAY_NAME_ANYTHING.search(path):
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            for pattern, what in STRAY_NAMES:
                if found := pattern.search(line):
                    yield f"{path}:{number} names {what}: {found.group(1)}"


def long_files(files):
    """Lists the source files past LONG_FILE_LINES."""
    for path, text in files:
        lines = text.count("\n")
        if lines > LONG_FILE_LINES and path.endswith(SOURCE_SUFFIXES):
            yield f"{path} has {lines} lines"


def read_packages():
    """Returns the packages of `cargo metadata`: ours, and all that any feature needs on this platform."""
    platform = re.search(r"^host: (.*)$", run("rustc", "-vV"), re.MULTILINE).group(1)
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    return json.loads(run(*command, "--filter-platform", platform))["packages"]


def read_tracked_files():
    """Returns (path, text) of each file that git tracks or would track; leaves out those that are no text."""
    files = []
    for path in sorted(run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")):
        try:
            with open(path, encoding="utf-8") as file:
                files.append((path, file.read()))
        except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
            continue  # deleted but not yet committed, the empty last name, or no text
    return files


def run(*command):
    """Returns what a command prints; what it complains of goes to the terminal, and its failure ends the program."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"check-deps: `{' '.join(command)}` failed with exit status {done.returncode}")
    return done.stdout


def self_test():
    """Feeds each check an input that keeps its rule and inputs that break it."""

    def package(name, version="1.0.0", licence="MIT", source="registry", uses=()):
        dependencies = [{"name": n} for n in uses]
        return {"name": name, "version": version, "license": licence, "source": source, "dependencies": dependencies}

    def expect(check, given, *problems):
        found = list(check(given))
        assert len(found) == len(problems), f"{check.__name__}: expected {problems}, found {found}"
        for text, problem in zip(found, problems):
            assert problem in text, f"{check.__name__}: expected {problem!r} in {text!r}"

    once = [package(name) for name in ONE_VERSION]
    expect(one_version, once)
    expect(one_version, once + [package("arrow", "2.0.0")], "arrow, found 1.0.0 and 2.0.0")
    expect(one_version, once[1:], "arrow, found none")

    for granted in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND Zlib",
                    "GPL-3.0 AND Zlib OR MIT", "Apache-2.0 WITH LLVM-exception"]:
        expect(licences, [package("a", licence=granted)])
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "MIT AND GPL-3.0 OR GPL-2.0",
                    "Apache-2.0 WITH Other-exception", "GPL-3.0 WITH LLVM-exception"]:
        expect(licences, [package("a", licence=refused)], "do not grant")
    for broken in ["MIT OR", "(MIT", "(MIT MIT", "MIT MIT", "AND MIT", "MIT, ISC", "MIT)"]:
        expect(licences, [package("a", licence=broken)], "no SPDX expression")
    expect(licences, [package("a", licence=None)], "states no licence")

    rooms = [package(name, source=None, uses=ROOMS[:place]) for place, name in enumerate(ROOMS)]
    expect(direction, rooms + [package("serde", uses=["thema"])])
    upwards = [package("thema-kernels", source=None, uses=["thema-operators"]), package("thema-operators", source=None)]
    expect(direction, upwards, "thema-kernels depends on thema-operators")
    on_tests = [package("thema", source=None, uses=["thema-tests"]), package("thema-tests", source=None)]
    expect(direction, on_tests, "thema depends on thema-tests")
    expect(direction, [package("thema-common", source=None)], "without a room")

    host, path = "https://" + "pypi" + ".org/simple", "/" + "work/x.rs"  # in two parts, for this file is read too
    expect(stray_names, [("a.rs", "http://example.org/work/\n{dir}/tmp/x\n"), ("Cargo.lock", host), ("tests/data/a.csv", path)])
    expect(stray_names, [("a.md", f"first\n{host}\n")], "a.md:2 names a registry's host")
    expect(stray_names, [("a.rs", f'open("{path}")')], "a.rs:1 names a machine's path")
    expect(stray_names, [("tests/data/README.md", f"from {path}")], "names a machine's path")

    expect(long_files, [("a.rs", "\n" * 600), ("a.json", "\n" * 601)])
    expect(long_files, [("a.rs", "\n" * 601)], "a.rs has 601 lines")
    print("check-deps: each check fails where it should")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        sys.exit(f"check-deps: unknown argument \"{sys.argv[1]}\", expected --self-test or nothing")

    packages, files = read_packages(), read_tracked_files()
    for warning in long_files(files):
        print(f"warning: {warning}")
    checks = [one_version(packages), licences(packages), direction(packages), stray_names(files)]
    problems = [problem for check in checks for problem in check]
    for problem in problems:
        print(f"error: {problem}")
    if problems:
        sys.exit(f"check-deps: {len(problems)} broken rules")
    print(f"check-deps: {len(packages)} packages and {len(files)} files keep the rules")


if __name__ == "__main__":
    main()
