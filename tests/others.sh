#!/usr/bin/env bash
# Runs a program of tests, unless it is that of the gate's program, which has a lane of its own in tests/all.sh.
case ${1##*/} in
gate-*) echo "The tests of $1 run beside these." ;;
*) exec "$@" ;;
esac
