#!/usr/bin/env python3
"""Builds the book of docs/ into target/book, and proves that it can be read and searched without a network.

    tests/book.py        part of tests/all.sh

- mdBook (PyPI has its program, pinned in tests/book) builds it without a warning.
- A file of the repository that a page links to is copied into the book, as text: a link leads nowhere outside.
- Each script, style, font and image is in the book.
- Chromium, which reaches no host, opens the built file with a search, and finds the page of each word.
"""

import html
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "target/book"
problems = []

# A word that a reader looks for, and the page that must be among the results.
SEARCHED = {
    "x-auth-subject": "start.html",
    "lost_response_window": "sessions.html",
    "insufficient_scope": "outcomes.html",
    "Keycloak": "issuers.html",
    "explain": "outcomes.html",
    "systemd": "install.html",
}


def built():
    cache = ROOT / "target/interop-cache/book"
    subprocess.run(["bash", ROOT / "tests/book/install.sh", cache], check=True)
    ran = subprocess.run([cache / "bin/mdbook", "build", ROOT / "docs", "-d", BOOK], capture_output=True, text=True)
    said = ran.stdout + ran.stderr
    if ran.returncode != 0 or "WARN" in said or "ERROR" in said:
        sys.exit(f"tests/book.py: mdbook: {said}")


LINK = re.compile(r'(<a [^>]*?href=")([^"#]+)((?:#[^"]*)?")')


def bring(page):
    """Links to the repository become links to copies of its files."""

    def copy(link):
        to = urllib.parse.unquote(html.unescape(link[2]))
        if re.match(r"[a-z]+:", to) or (BOOK / to).exists():
            return link[0]
        # mdBook has made .html of each .md.
        file = next((file for file in (ROOT / "docs" / to, (ROOT / "docs" / to).with_suffix(".md")) if file.resolve().is_file()), None)
        if file is None:
            problems.append(f"{page.name}: the link {to} leads nowhere")
            return link[0]
        copied = Path("repository", f"{file.resolve().relative_to(ROOT)}.txt")
        (BOOK / copied).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, BOOK / copied)
        return f'{link[1]}{copied}"'

    page.write_text(LINK.sub(copy, page.read_text()))


def resources(file):
    """What a browser loads by itself with this file."""
    text = file.read_text()
    if file.suffix == ".css":
        return re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", text)
    return re.findall(r"""<(?:script|img|iframe|source|video|audio)\b[^>]*?\ssrc="([^"]+)"|<link\b[^>]*?\shref="([^"]+)\"""", text)


def in_the_book(file):
    for found in resources(file):
        name = next(filter(None, found)).split("#")[0].split("?")[0]
        if name and not name.startswith("data:") and (re.match(r"[a-z]*:?//", name) or not (file.parent / name).exists()):
            problems.append(f"{file.relative_to(BOOK)} loads {name}, which is not in the book")


def searched(word):
    """The pages that the search names, in a browser that reaches no host."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        sys.exit("tests/book.py: chromium is missing: apt install chromium")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--virtual-time-budget=20000", "--dump-dom", f"{(BOOK / 'index.html').as_uri()}?search={urllib.parse.quote(word)}"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    results = re.search(r'(?s)id="mdbook-searchresults".*?</ul>', page)
    return set(re.findall(r'href="([\w-]+\.html)', results[0])) if results else set()


def main():
    built()
    pages = sorted(BOOK.glob("*.html"))
    for page in pages:
        bring(page)
    files = pages + sorted(BOOK.rglob("*.css"))
    for file in files:
        in_the_book(file)
    for word, page in SEARCHED.items():
        found = searched(word)
        if page not in found:
            problems.append(f"a search for {word} does not find {page}: {sorted(found)}")
    for problem in problems:
        print(f"tests/book.py: {problem}", file=sys.stderr)
    print(f"book: {len(pages)} pages, {len(files)} files without outside resources, {len(SEARCHED)} searches, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
