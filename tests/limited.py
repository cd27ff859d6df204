#!/usr/bin/env python3
"""Runs one command for a limited time. When the command ends, or its time is over, all processes that it started end as well.

    tests/limited.py --seconds 600 --name "the tests" --log target/steps/tests.log [--table FILE] -- cargo nextest run

Standard output and standard error go to the file of `--log` and are copied from there to standard output. A process that is left
behind therefore cannot keep the output of the caller open. `--table` names a file that gets one line: wall-clock seconds,
processor seconds, result and name, separated by tabs.

The exit code is the command's. It is 124 if the time was over: the process group of the command then gets SIGTERM and has
15 seconds, after which every process below this one gets SIGKILL. Linux only: it reads /proc and adopts orphans.
"""

import argparse
import contextlib
import ctypes
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# What a command may need to say what it was doing.
GRACE = 15
OVER = 124


def descendants():
    """The processes below this one: id, age in seconds, command line."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            # The name before the fields is in parentheses, and can contain anything.
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append((int(entry.name), int(fields[19])))
        except (OSError, IndexError):
            continue  # It has ended.
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    found, waiting = [], [os.getpid()]
    while waiting:
        for process, begin in children.get(waiting.pop(), []):
            waiting.append(process)
            try:
                words = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            found.append((process, uptime - begin / os.sysconf("SC_CLK_TCK"), words.strip()))
    return found


def reap(command):
    """Takes the exit codes of the processes that this one has adopted. That of the command is for its caller."""
    try:
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == command.pid and command.returncode is None:
                return
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        return


def end_all(command):
    """Kills everything below this process. A process that is killed may leave children behind, so this repeats."""
    for _ in range(100):
        command.poll()
        reap(command)
        processes = descendants()
        if not processes:
            return
        for process, _, _ in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def listed(what, processes):
    print(what)
    # The oldest first: that is where the others come from.
    for process, age, words in sorted(processes, key=lambda it: -it[1])[:12]:
        print(f"   process {process}, {age:.0f} s old: {words[:150]}")


class Run:
    """A command that runs, with what it has printed so far."""

    def __init__(self, command, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.printed = log.open("rb")

    def copy(self):
        while part := self.printed.read(1 << 16):
            sys.stdout.buffer.write(part)
        sys.stdout.flush()

    def ends(self, until):
        """Has the command ended before this time?"""
        while self.process.poll() is None:
            self.copy()
            if time.monotonic() >= until:
                return False
            reap(self.process)
            time.sleep(0.05)
        self.copy()
        return True


class Interrupted(Exception):
    """Somebody asked for the end of this program."""


def interrupted(number, _):
    raise Interrupted(number)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--log", type=pathlib.Path, required=True)
    parser.add_argument("--table", type=pathlib.Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Without its caller, nobody would see how this ends.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    begin = time.monotonic()
    run = Run(options.command, options.log)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)
    over = None
    try:
        if not run.ends(begin + options.seconds):
            over = f"not finished after {options.seconds:.0f} s"
    except Interrupted as stop:
        over = f"interrupted by signal {stop.args[0]}"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if over:
        listed(f"== {options.name}: {over}. These processes run, and are ended now:", descendants())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGTERM)
        run.ends(time.monotonic() + GRACE)
    elif left := descendants():
        listed(f"== {options.name}: left these processes behind, which are ended now:", left)
    end_all(run.process)
    code = OVER if over else run.process.wait()
    # The shell's code for a signal.
    code = 128 - code if code < 0 else code
    run.copy()
    seconds = time.monotonic() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    result = "ok" if code == 0 else over or f"exit code {code}"
    print(f"== {options.name}: {result}, {seconds:.0f} s, {processor:.0f} s of processor time", flush=True)
    if options.table:
        with options.table.open("a") as table:
            table.write(f"{seconds:.0f}\t{processor:.0f}\t{result}\t{options.name}\n")
    sys.exit(code)


main()
