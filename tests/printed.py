#!/usr/bin/env python3
"""What nextest's reports say of the tests of a `cargo nextest run`.

    tests/printed.py target/nextest/*/junit.xml --text target/test-output
    tests/printed.py target/repeated/*.xml --failures

`--text` writes everything that the tests printed into files of the folder, where tests/secrets.sh searches it. It prints the number
of tests, and the slowest of them.
`--failures` counts in how many of the reports each test failed. Then the exit code is 1 if a test failed at all.
"""

import argparse
import collections
import pathlib
import sys
import xml.etree.ElementTree as xml

SLOWEST = 15


def named(case):
    return f"{case.get('classname')} {case.get('name')}"


def lines(case):
    """What a test printed. A report repeats in attributes what a panic said."""
    for part in case.iter():
        for text in (part.text or "", *(value for key, value in part.items() if key not in ("name", "classname"))):
            yield from (line for line in text.splitlines() if line.strip())


def write(reports, folder):
    seconds = {}
    for report in reports:
        profile = report.parent.name
        with (folder / f"printed-{profile}.log").open("w") as printed:
            for case in xml.parse(report).iter("testcase"):
                seconds[f"{named(case)} ({profile})"] = float(case.get("time"))
                for line in lines(case):
                    printed.write(f"{named(case)}: {line}\n")
    if not seconds:
        sys.exit(f"tests/printed.py: no test is in {', '.join(map(str, reports))}")
    print(f"{len(seconds)} tests took {sum(seconds.values()):.0f} s together. The slowest:")
    for name in sorted(seconds, key=seconds.get, reverse=True)[:SLOWEST]:
        print(f"{seconds[name]:8.1f} s  {name}")


def failures(reports):
    failed = collections.Counter()
    for report in reports:
        cases = xml.parse(report).iter("testcase")
        failed.update({named(case) for case in cases if case.find("failure") is not None or case.find("error") is not None})
    for name, times in failed.most_common():
        print(f"failed in {times} of {len(reports)} runs: {name}")
    print(f"{len(failed)} tests failed in {len(reports)} runs")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=pathlib.Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", type=pathlib.Path)
    what.add_argument("--failures", action="store_true")
    options = parser.parse_args()
    if options.failures:
        sys.exit(failures(options.reports))
    write(options.reports, options.text)


main()
