# Daily work. Each recipe is one command; CI calls the scripts behind them.

# List the recipes
default:
    @just --list --unsorted

# Format all Rust code
fmt:
    cargo fmt --all

# Check formatting and lints
check:
    bash tests/fast.sh format lints

# The fast level: all checks that need Rust alone, or the named parts of it
test *parts:
    bash tests/fast.sh {{ parts }}

# The tests of the real binary: those of the edge, or those whose name contains FILTER
edge filter="edge::":
    cargo test --all-features --test gate -- {{ filter }}

# Everything that CI runs, within an hour; as root on Debian it installs missing programs
ci:
    bash tests/all.sh

# The long runs, or the named ones: soak kills fuzz simulation overload attacks
long *parts:
    bash tests/long.sh {{ parts }}

# The criterion benches; for one: just bench --bench layer
bench *options:
    cargo bench {{ options }}

# Check dependencies: advisories, licences, banned crates, sources (needs cargo-deny)
deny:
    cargo deny check

# Build the documentation; a broken link is an error
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --lib --examples

# Build the site of docs/ into target/book, and check that it needs no network
book:
    python3 tests/book.py

# Check links, snippets and references of the documentation, after `cargo build`
prose:
    python3 tests/docs.py --gate target/debug/rotogate
