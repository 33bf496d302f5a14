#!/usr/bin/env python3
"""Compiles the kernels to cubins and PTX with NVRTC, which needs neither a GPU nor a driver.

    scripts/kernels.sh build    writes built/ (kept in the repository, embedded in the program)
    scripts/kernels.sh check    compiles too, and fails where built/ differs by a byte

It also refuses what would be slow without a word: spilled registers, warp-group products that the compiler had to put
in order one by one. built/resources.txt says what each kernel takes; a change of it is seen in review.
"""

import argparse
import ctypes
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
BUILT = HERE / "built"
# sm_80: A100, and by it all of 8.x. sm_90a: H100, H200. PTX: compiled by the driver of whatever comes after.
TARGETS = {"sm_80.cubin": "sm_80", "sm_90a.cubin": "sm_90a", "compute_80.ptx": "compute_80"}
# No contraction: a sum of products is rounded as it is written, on every device and on the emulator; `fmaf` is said
# where it is meant.
OPTIONS = ["--std=c++17", "--fmad=false", "--extra-device-vectorization"]


def nvrtc():
    import nvidia.cuda_nvrtc

    folder = pathlib.Path(nvidia.cuda_nvrtc.__path__[0]) / "lib"
    for builtins in folder.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(next(folder.glob("libnvrtc.so.*"))))


def compile_to(library, target, architecture):
    """Returns the compiled bytes and the compiler's log."""
    sources = sorted(HERE.glob("*.cu"))
    included = sources + sorted(HERE.glob("*.h"))
    main = "".join(f'#include "{source.name}"\n' for source in sources).encode()
    texts = (ctypes.c_char_p * len(included))(*[path.read_bytes() for path in included])
    names = (ctypes.c_char_p * len(included))(*[path.name.encode() for path in included])
    program = ctypes.c_void_p()
    check(library, library.nvrtcCreateProgram(ctypes.byref(program), main, b"kernels.cu", len(included), texts, names))
    options = [*OPTIONS, f"--gpu-architecture={architecture}"]
    if architecture.startswith("sm_"):
        options.append("--ptxas-options=-v")
    arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    result = library.nvrtcCompileProgram(program, len(options), arguments)
    log = read(library, "ProgramLog", program).decode().rstrip("\0")
    if result:
        sys.exit(f"{target}: the kernels do not compile\n{log}")
    return read(library, "CUBIN" if target.endswith(".cubin") else "PTX", program), log


def read(library, what, program):
    size = ctypes.c_size_t()
    check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def check(library, result):
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    if result:
        sys.exit(f"nvrtc: {library.nvrtcGetErrorString(result).decode()}")


def resources(target, log):
    """Yields a line per kernel: registers, static shared memory, bytes spilled."""
    pattern = r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers(.*?)(?:\n|$)"
    found = re.findall(pattern, log, re.DOTALL)
    if not found:
        sys.exit(f"{target}: the compiler's log names no kernel\n{log}")
    for name, stores, loads, registers, rest in sorted(found):
        shared = re.search(r"(\d+) bytes smem", rest)
        yield name, int(registers), int(shared[1]) if shared else 0, int(stores) + int(loads)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with built/ instead of writing it")
    check_only = parser.parse_args().check
    library = nvrtc()
    outputs, report, refused = {}, ["target kernel registers shared_bytes"], []
    for target, architecture in TARGETS.items():
        outputs[target], log = compile_to(library, target, architecture)
        refused += [f"{target}: {line.strip()}" for line in log.splitlines() if "warning" in line.lower() or "C75" in line]
        if architecture.startswith("sm_"):
            for name, registers, shared, spilled in resources(target, log):
                report.append(f"{architecture} {name} {registers} {shared}")
                if spilled:
                    refused.append(f"{target}: {name} spills {spilled} bytes of registers")
    outputs["resources.txt"] = ("\n".join(report) + "\n").encode()
    if refused:
        sys.exit("\n".join(refused))
    BUILT.mkdir(exist_ok=True)
    for name, content in outputs.items():
        path = BUILT / name
        if check_only and (not path.exists() or path.read_bytes() != content):
            sys.exit(f"{path.relative_to(HERE.parent.parent)} is not what the kernels compile to: run scripts/kernels.sh build")
        if not check_only:
            path.write_bytes(content)
            print(f"{name}: {len(content)} bytes")


main()
