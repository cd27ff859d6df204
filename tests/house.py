#!/usr/bin/env python3
"""Is each optional capability in one place, and does the core need few files? Numbers that may only fall.

    tests/house.py                     measures this checkout, compares it with tests/house/bounds.toml, and prints the numbers
    tests/house.py --write             writes the numbers that fell, tests/house/files.txt, and the table in CONTRIBUTING.md
    tests/house.py NAME                the places of a capability, the files of a closure by their size, or the circle of a folder
    tests/house.py NAME FILE           how a closure reaches this file
    tests/house.py --self-test         plants faults in a small workspace and wants each one found

- **Scatter**, for each optional capability: the files outside its own that mention it, how many of these are on the path of a request, and
  the folders with its own code. A file mentions a capability if its code matches one of the capability's names, if a `cfg` in it
  names one of its features, or if it uses or declares one of its files, whatever the names are.
- **Reading closure**: the files, and their lines of code, that a reader of the first file may have to open. Lines have a tolerance of one
  percent, so that a fix may add a line.
- **Circles**: sets of files that all lead to each other by `use` and paths. Arrows from a module to a module above it do not count.
- **Instructions** of a request with a cached token, as tests/cost.rs and tests/cost/proxied.rs record them.

tests/house/rust.py says how files and arrows are found, and what is not seen. Comments and tests never count; lines of code are not empty.
A number fails if it rises, and also if it fell and the table was not written. Code that moves to another crate, module or `include!`
is found again there. A pattern that matches no file, and a name that no code has, fail: after a renaming the table needs the new name.
"""

import collections
import re
import signal
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "house"))
import planted  # noqa: E402
import rust  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
BOUNDS, FILES, GUIDE = "tests/house/bounds.toml", "tests/house/files.txt", "CONTRIBUTING.md"
BEGIN, END = "<!-- house: begin -->\n", "<!-- house: end -->\n"
# How much the lines of a closure may differ from the table.
TOLERANCE = 0.01
LARGEST = 6
SHOWN = 12
FEATURE = re.compile(r'feature\s*=\s*"([^"]*)"')
HEAD = "# What each file mentions and belongs to, so that a failure names the new places. python3 tests/house.py --write\n"


def walk(first, ways, seen):
    """The files that can be reached from the first one and were not seen, each after those behind it."""
    stack = [(first, iter(ways[first]))]
    seen.add(first)
    while stack:
        file, rest = stack[-1]
        if used := next((used for used in rest if used not in seen), None):
            seen.add(used)
            stack.append((used, iter(ways[used])))
        else:
            stack.pop()
            yield file


def matches(name, globs):
    return any(fnmatchcase(name, glob) for glob in globs)


class House:
    """What is measured in a checkout."""

    def __init__(self, root):
        self.root, self.wrong = root, []
        self.bounds = tomllib.loads((root / BOUNDS).read_text())
        self.code = rust.Workspace(root)
        self.texts = {name: file.code for name, file in self.code.files.items()} | self.code.other
        self.path = self.chosen("path", self.bounds["path"])
        # By its name: a capability's own files; the files outside with how they mention it; the files of a closure with how each is
        # reached.
        self.own, self.mentions, self.closures = {}, {}, {}
        self.capabilities()
        for name, closure in self.bounds["closure"].items():
            self.closures[name] = self.closure(name, closure)
        self.circles = self.find_circles()
        self.numbers = self.count()

    def chosen(self, where, globs):
        """The files that the patterns name."""
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in self.texts):
                self.wrong.append(f"{BOUNDS}: {where}: no file has the name {glob}: where is its code now?")
        return {name for name in self.texts if matches(name, globs)}

    # Scatter

    def capabilities(self):
        """A line has a name if one of its words, as blanks separate them, has it. So each word is searched once."""
        words, features = {}, {}
        for file, text in self.texts.items():
            features[file] = set(FEATURE.findall(text))
            words[file] = set(FEATURE.sub("", text).split())
        all_words = "\n".join(set().union(*words.values()))
        for name, capability in self.bounds["capability"].items():
            own = self.own[name] = self.chosen(name, capability.get("own", []))
            found = set()
            for pattern in capability.get("names", []):
                having = {word_at(all_words, match.start()) for match in re.finditer(pattern, all_words)}
                if not having:
                    self.wrong.append(f"{BOUNDS}: {name}: no code has the name {pattern}: what is it called now?")
                found |= having
            wanted = set(capability.get("features", []))
            places = self.mentions[name] = {}
            for file in self.texts.keys() - own:
                if not found.isdisjoint(words[file]) or wanted & features[file]:
                    places[file] = None
            for user in self.code.files.keys() - own:
                for table in (self.code.uses, self.code.passes, self.code.declares):
                    for used in table[user].keys() & own:
                        places.setdefault(user, (table, used))
            for file in sorted(own & self.path):
                self.wrong.append(f"{BOUNDS}: {name}: {file} is on the path of a request, so it cannot be a capability's own file")

    def how_mentioned(self, name, file):
        """The place where a file mentions a capability, and in which words."""
        if self.mentions[name][file]:
            table, used = self.mentions[name][file]
            return f"{self.code.place(file, used, table)}, which is in {used}"
        capability, features = self.bounds["capability"][name], set()
        names, offset = re.compile("|".join(capability.get("names", [])) or r"(?!)"), 0
        for line in self.texts[file].split("\n"):
            features = set(FEATURE.findall(line)) & set(capability.get("features", []))
            if features or any(names.search(word) for word in FEATURE.sub("", line).split()):
                break
            offset += len(line) + 1
        parsed = self.code.files.get(file)
        place = parsed.place(offset) if parsed else f"{file}:{self.texts[file].count(chr(10), 0, offset) + 1}"
        return f"{place}: {line.strip()[:100]}"

    # Closures

    def closure(self, name, closure):
        """The files that the first one leads to, each with the file and the table by which."""
        start = closure["from"]
        if start not in self.code.files or closure["has"] not in self.code.files[start].bare:
            self.wrong.append(f"{BOUNDS}: {name}: `{closure['has']}` is not in {start}: where does it begin now?")
            return {}
        reached, waiting = {start: None}, collections.deque([start])
        while waiting:
            user = waiting.popleft()
            for table in (self.code.uses, self.code.methods):
                for used in sorted(table[user].keys() - reached.keys()):
                    reached[used] = (user, table)
                    waiting.append(used)
        return reached

    def chain(self, name, file):
        steps = []
        while self.closures[name][file]:
            user, table = self.closures[name][file]
            steps.append(f"{self.code.place(user, file, table)}: {file}")
            file = user
        return steps[::-1]

    # Circles

    def onward(self, file):
        return [used for used in self.code.uses[file] if not self.code.is_ancestor(used, file)]

    def find_circles(self):
        """The sets of files that all lead to each other, the largest first."""
        onward = {file: sorted(self.onward(file)) for file in sorted(self.code.files)}
        backward = {file: [] for file in onward}
        for file, used in onward.items():
            for other in used:
                backward[other].append(file)
        seen = set()
        order = [file for first in onward if first not in seen for file in walk(first, onward, seen)]
        seen = set()
        found = [set(walk(first, backward, seen)) for first in reversed(order) if first not in seen]
        return sorted((circle for circle in found if len(circle) > 1), key=lambda circle: (-len(circle), min(circle)))

    def way(self, begin, ends, within):
        """The shortest way from a file to one of others, in words."""
        before, waiting = {begin: None}, collections.deque([begin])
        while waiting:
            file = waiting.popleft()
            for used in sorted(set(self.onward(file)) & within):
                if used in ends:
                    steps = [f"{self.code.place(file, used, self.code.uses)}"]
                    while before[file]:
                        steps.append(self.code.place(before[file], file, self.code.uses))
                        file = before[file]
                    return steps[::-1]
                if used not in before:
                    before[used] = file
                    waiting.append(used)
        return []

    def circle_in(self, glob):
        return next((circle for circle in self.circles if any(fnmatchcase(file, glob) for file in circle)), set())

    # Numbers

    def lines(self, files):
        return sum(self.code.files[file].lines() for file in files)

    def recorded(self, row, name):
        """The instructions of a row, as a file of tests records them."""
        text = (self.root / name).read_text()
        quoted = re.escape(row)
        if found := re.search(rf'name: "{quoted}",\s*instructions: ([\d_]+)\.|\brow\("{quoted}", ([\d_]+)\.', text):
            return int((found[1] or found[2]).replace("_", ""))
        self.wrong.append(f"{BOUNDS}: instructions: {name} has no row {row}")
        return 0

    def count(self):
        """All numbers, by the section of the table and the key."""
        numbers = {}
        for name, places in self.mentions.items():
            folders = {file.rpartition("/")[0] for file in self.own[name]}
            numbers["capability", name] = {"files": len(places), "path": len(places.keys() & self.path), "folders": len(folders)}
        for name, files in self.closures.items():
            numbers["closure", name] = {"files": len(files), "lines": self.lines(files)}
        for name, circle in self.bounds["circle"].items():
            numbers["circle", name] = {"files": len(self.circle_in(circle["within"]))}
        numbers["circles",] = {"sizes": [len(circle) for circle in self.circles]}
        for row, place in self.bounds["instructions"].items():
            numbers["instructions", row] = {"count": self.recorded(row, place["in"])}
        return numbers

    def bound(self, section, key):
        table = self.bounds
        for part in section:
            table = table.get(part, {})
        return table.get(key)

    def record(self):
        """What tests/house/files.txt says: of each file, what it belongs to and mentions."""
        belongs, mentions = collections.defaultdict(list), collections.defaultdict(list)
        for name, files in self.closures.items():
            for file in files:
                belongs[file].append(name)
        for circle in self.circles:
            for file in circle:
                belongs[file].append(f"circle of {min(circle)}")
        for name in self.mentions:
            for file in self.own[name]:
                belongs[file].append(f"own of {name}")
            for file in self.mentions[name]:
                mentions[file].append(name)
        files = sorted(belongs.keys() | mentions.keys())
        return HEAD + "".join(f"{file}: {', '.join(belongs[file])}; {', '.join(mentions[file])}".rstrip("; ") + "\n" for file in files)


def word_at(text, at):
    end = text.find("\n", at)
    return text[text.rfind("\n", 0, at) + 1 : len(text) if end < 0 else end]


def read_record(root):
    """What tests/house/files.txt said of each file: what it belonged to, and mentioned."""
    path, found = root / FILES, {}
    for line in path.read_text().splitlines()[1:] if path.exists() else []:
        file, _, rest = line.partition(": ")
        belongs, _, mentions = rest.partition("; ")
        found[file] = (set(belongs.split(", ")), set(mentions.split(", ")))
    return found


class Comparison:
    """What rose and what fell against the table."""

    def __init__(self, house):
        self.house, self.before, self.rose, self.fell = house, read_record(house.root), [], []
        for section, numbers in house.numbers.items():
            for key, now in numbers.items():
                bound = house.bound(section, key)
                if bound is None:
                    self.fell.append(f"{' '.join(section)}: the table has no {key}")
                elif self.is_over(section, key, now, bound):
                    self.rose.append(self.rise(section, key, now, bound))
                elif self.is_over(section, key, bound, now):
                    self.fell.append(f"{' '.join(section)}: {key}: {shown(now)}, {shown(bound)} in the table")

    @staticmethod
    def is_over(section, key, now, bound):
        if key == "sizes":
            # By the sums of the largest: a circle that falls into two adds a size, which is no loss.
            return any(sum(now[: n + 1]) > sum(bound[: n + 1]) for n in range(len(now)))
        return now > bound * (1 + TOLERANCE if key == "lines" else 1)

    def was(self, file, what, where=0):
        return what in self.before.get(file, ((), ()))[where]

    def rise(self, section, key, now, bound):
        """A message that names the places."""
        kind, name = section[0], section[-1]
        says = {
            ("capability", "files"): f"{name}: {now} files outside its own mention it, {bound} in the table",
            ("capability", "path"): f"{name}: {now} files on the path of a request mention it, {bound} in the table",
            ("capability", "folders"): f"{name}: its own code is in {now} folders, {bound} in the table",
            ("closure", "files"): f"reading {name}: {now} files, {bound} in the table",
            ("closure", "lines"): f"reading {name}: {now} lines of code, {bound} in the table",
            ("circle", "files"): f"the largest circle of {name}: {now} files, {bound} in the table",
            ("circles", "sizes"): f"the circles have {shown(now)} files, {shown(bound)} in the table",
            ("instructions", "count"): f"instructions, {name}: {now} recorded, {bound} in the table",
        }[kind, key]
        places = list(getattr(self, f"{kind}_places")(name, key))
        more = [f"... and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
        return "\n    ".join([says, *places[:SHOWN], *more])

    def capability_places(self, name, key):
        house = self.house
        if key == "folders":
            return [f"new: {file}" for file in sorted(house.own[name]) if not self.was(file, f"own of {name}")]
        files = house.mentions[name] if key == "files" else house.mentions[name].keys() & house.path
        return [house.how_mentioned(name, file) for file in sorted(files) if not self.was(file, name, 1)]

    def closure_places(self, name, _):
        """The arrows that lead out of what was there, each with the number of files behind it."""
        house, reached = self.house, self.house.closures[name]
        new = [file for file in reached if not self.was(file, name)]
        first = {}
        for file in new:
            by = reached[file] and reached[file][0]
            first[file] = first.get(by, file)
        behind = collections.Counter(first.values())
        for file, count in behind.most_common():
            user, table = reached[file] or (file, None)
            more = f", and {count - 1} more behind it" if count > 1 else ""
            yield f"{house.code.place(user, file, table) if table else 'the first file'}: {file} ({house.lines([file])} lines{more})"
        if not new:
            yield "no file is new: the code in its files grew"

    def circle_places(self, _, __):
        return self.circles_places(None, None)

    def circles_places(self, _, __):
        """For each circle that has new files, or files of several former circles: the way through one that joined."""
        house = self.house
        for circle in house.circles:
            parts = collections.defaultdict(set)
            for file in circle:
                former = next((word for word in self.before.get(file, ((), ()))[0] if word.startswith("circle of ")), None)
                parts[former].add(file)
            known = [files for former, files in parts.items() if former]
            old = max(known, key=len, default=set())
            new = circle - old
            if old and new:
                for file in sorted(new)[:3]:
                    begin, after = house.way(file, old, circle), min(old)
                    yield f"{file} joined a circle of {len(old)} files: {'; '.join([*house.way(after, {file}, circle), *begin])}"
            elif new:
                yield f"a new circle of {len(circle)} files: {'; '.join(house.way(min(circle), {min(circle)}, circle))}"

    def instructions_places(self, name, _):
        return [f"{self.house.bounds['instructions'][name]['in']}: find what the change added"]

    def stale(self):
        """The generated texts that are not what is there."""
        house = self.house
        record = house.root / FILES
        if not record.exists() or record.read_text() != house.record():
            yield FILES
        if (house.root / GUIDE).read_text() != with_table(house.root):
            yield GUIDE


def shown(number):
    if isinstance(number, list):
        return f"{', '.join(map(str, number[:LARGEST]))} and {sum(number[LARGEST:])} in {len(number[LARGEST:])} more"
    return str(number)


def table(bounds, numbers):
    """The numbers as tables of Markdown."""
    lines = ["| capability | files outside that mention it | … on the path of a request | folders of its own |", "|---|---|---|---|"]
    rows = {name: numbers["capability", name] for name in bounds["capability"]}
    lines += [f"| {name} | {row['files']} | {row['path']} | {row['folders']} |" for name, row in rows.items()]
    own = [row for name, row in rows.items() if "own" in bounds["capability"][name]]
    means = [f"{sum(row[key] for row in own) / max(len(own), 1):.1f}" for key in ("files", "path", "folders")]
    lines += [f"| **mean of those with code** | {' | '.join(means)} |", "", "| reading | files | lines of code |", "|---|---|---|"]
    for name, closure in bounds["closure"].items():
        row = numbers["closure", name]
        lines.append(f"| {name}, from `{closure['from']}` | {row['files']} | {row['lines']} |")
    lines += ["", "| circles of files | files |", "|---|---|"]
    for name, circle in bounds["circle"].items():
        lines.append(f"| the largest in `{circle['within'].rstrip('/*')}` | {numbers['circle', name]['files']} |")
    sizes = numbers["circles",]["sizes"]
    lines += [f"| the {LARGEST} largest | {', '.join(map(str, sizes[:LARGEST]))} |", f"| all {len(sizes)} | {sum(sizes)} |"]
    lines += ["", "| a request with a cached token | instructions |", "|---|---|"]
    lines += [f"| {name} | {numbers['instructions', name]['count']} |" for name in bounds["instructions"]]
    return "".join(f"{line}\n" for line in lines)


def with_table(root):
    """CONTRIBUTING.md with the numbers of the table. The lines of a closure may be others today."""
    bounds = tomllib.loads((root / BOUNDS).read_text())
    numbers = {("circles",): bounds["circles"]}
    numbers |= {(kind, name): row for kind in ("capability", "closure", "circle", "instructions") for name, row in bounds[kind].items()}
    before, rest = (root / GUIDE).read_text().split(BEGIN)
    return f"{before}{BEGIN}{table(bounds, numbers)}{END}{rest.split(END)[1]}"


def write(house, compared):
    """Writes what fell. Returns what rose, and then nothing was written."""
    lines, section, new = [], (), {}
    for at, numbers in house.numbers.items():
        for key, now in numbers.items():
            bound = house.bound(at, key)
            # A closure may have more files, if they do not have more lines: a file was divided.
            is_divided = at[0] == "closure" and key == "files" and house.numbers[at]["lines"] <= (house.bound(at, "lines") or 0)
            new[at, key] = now if bound is None or is_divided or key == "sizes" else min(now, bound)
            if bound is not None and not is_divided and compared.is_over(at, key, now, bound):
                return compared.rose
    for line in (house.root / BOUNDS).read_text().splitlines():
        if header := re.fullmatch(r"\[(.*)\]", line):
            add_missing(lines, new, section)
            section = tuple(quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([\w-]+)', header[1]))
        key = re.match(r"(\w+) = ", line)
        value = new.pop((section, key[1]), None) if key else None
        lines.append(line if value is None else f"{key[1]} = {value}")
    add_missing(lines, new, section)
    (house.root / BOUNDS).write_text("".join(f"{line}\n" for line in lines))
    (house.root / FILES).write_text(house.record())
    (house.root / GUIDE).write_text(with_table(house.root))
    return []


def add_missing(lines, new, section):
    """Adds the numbers of a section that the table did not have, before the empty line at the section's end."""
    end = len(lines) - (bool(lines) and not lines[-1])
    lines[end:end] = [f"{key} = {new.pop((section, key))}" for at, key in list(new) if at == section]


def check(root, writes=False):
    """What is wrong with a checkout, in words."""
    house = House(root)
    compared = Comparison(house)
    if house.wrong or (writes and (problems := write(house, compared))):
        return house, house.wrong or [*problems, "--write does not raise a number"]
    if writes:
        return house, []
    problems = list(compared.rose)
    if compared.fell:
        problems.append("\n    ".join(["what fell stays so, by python3 tests/house.py --write:", *compared.fell]))
    if not problems:
        problems = [f"{file} is not what is there: python3 tests/house.py --write" for file in compared.stale()]
    return house, problems


def show(house, name, file=None):
    if file:
        if file not in house.closures.get(name, {}):
            sys.exit(f"tests/house.py: {name} does not reach {file}")
        print(*house.chain(name, file), sep="\n")
    elif name in house.mentions:
        for place in sorted(house.mentions[name]):
            print("*" if place in house.path else " ", house.how_mentioned(name, place))
    elif name in house.closures:
        sizes = sorted(((house.lines([each]), each) for each in house.closures[name]), reverse=True)
        print(*(f"{lines:6} {each}" for lines, each in sizes), sep="\n")
    elif name in house.bounds["circle"]:
        print(*sorted(house.circle_in(house.bounds["circle"][name]["within"])), sep="\n")
    else:
        sys.exit(f"tests/house.py: no such number: {name}")


def main(arguments):
    if arguments == ["--self-test"]:
        return planted.self_test(check, rust.Unreadable)
    if arguments and arguments != ["--write"]:
        return show(House(ROOT), *arguments[:2])
    try:
        house, problems = check(ROOT, bool(arguments))
        print(table(house.bounds, house.numbers), end="")
    except rust.Unreadable as error:
        problems = [error]
    for problem in problems:
        print(f"tests/house.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
