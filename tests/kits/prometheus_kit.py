"""A small reader of Prometheus' text format 0.0.4, as strict as promtool: what it reads, others
do."""

from __future__ import annotations

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|\Z)')
UNITS = ("milliseconds", "ms", "minutes", "hours", "days", "percent", "kilobytes")


def read(text):
    """{name of a family: (its type, {labels as sorted pairs: value})}; AssertionError where the
    text is not valid."""
    assert text.endswith("\n") and "\r" not in text
    families, helped, current = {}, set(), None
    for line in text.splitlines():
        assert line.strip() == line and line, f"blank space: {line!r}"
        if line.startswith("# HELP "):
            _, _, current, words = line.split(" ", 3)
            assert current not in helped and words.strip(), f"help twice or empty: {line}"
            assert current not in families, f"the help comes after: {line}"
            helped.add(current)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and name not in families, f"a type out of place: {line}"
            assert kind in ("counter", "gauge")
            families[name] = (kind, {})
        else:
            _sample(line, families, current)
    for name, (kind, samples) in families.items():
        assert samples, f"{name} has no sample"
        assert (kind == "counter") == name.endswith("_total"), (
            f"counters, and they only, end in _total: {name}"
        )
        assert not any(unit in name.split("_") for unit in UNITS), (
            f"seconds and bytes are the units: {name}"
        )
    return families


def _sample(line, families, current):
    match = SAMPLE.match(line)
    assert match, f"not a sample: {line!r}"
    name, labels, value = match.groups()
    assert name == current and name in families, (
        f"samples of one family stay together, after its type: {line}"
    )
    pairs, at = [], 0
    while labels and at < len(labels):
        label = LABEL.match(labels, at)
        assert label, f"not a label: {line!r}"
        pairs.append(
            (
                label[1],
                re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), label[2]),
            )
        )
        at = label.end()
    assert len({key for key, _ in pairs}) == len(pairs), f"a label twice: {line}"
    key, samples = tuple(sorted(pairs)), families[name][1]
    assert key not in samples, f"a sample twice: {line}"
    samples[key] = float(value)
    assert families[name][0] != "counter" or samples[key] >= 0, f"a counter below zero: {line}"
