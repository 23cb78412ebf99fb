#!/usr/bin/env python3
"""Writes values of personal data and secrets, one JSON object a line: kind, value, context, locale.

    python3 -m venv target/pii && target/pii/bin/pip install -r benches/pii/requirements.txt
    target/pii/bin/python benches/pii/generate.py --seed 1 --count 1000 --out values.jsonl

`context` is a text with {} where the value stands. `value` is a text, or a list of its pieces. Lines whose kind begins with
"not-" hold something that must stay. The same seed and versions give the same file.
"""

import argparse
import json
import random
import sys

HOW = "python3 -m venv target/pii && target/pii/bin/pip install -r benches/pii/requirements.txt"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=1000, help="values of each kind")
    parser.add_argument("--decoys", type=int, default=200, help="near misses of each kind")
    parser.add_argument("--out", default="-")
    arguments = parser.parse_args()
    try:
        import faker
        import people
        import secrets_by_shape
    except ImportError as error:
        print(f"generate.py: the package {error.name} is missing. {HOW}", file=sys.stderr)
        return 3
    import decoys

    fakes = {}
    for locale in people.LOCALES:
        fakes[locale] = faker.Faker(locale)
        fakes[locale].seed_instance(arguments.seed * 7919 + len(fakes))
    out = sys.stdout if arguments.out == "-" else open(arguments.out, "w", encoding="utf-8")
    kinds = people.KINDS | secrets_by_shape.KINDS
    for number, (kind, make) in enumerate(kinds.items()):
        r = random.Random(arguments.seed * 1000003 + number)
        for _ in range(arguments.count):
            context, value, locale = make(r, fakes)
            write(out, kind, value, context, locale)
    for number, (kind, make) in enumerate(decoys.KINDS.items()):
        r = random.Random(arguments.seed * 999983 + number)
        for _ in range(arguments.decoys):
            write(out, "not-" + kind, make(r), "{}", "")
    return 0


def write(out, kind, value, context, locale):
    line = {"kind": kind, "value": value, "context": context, "locale": locale}
    print(json.dumps(line, ensure_ascii=False), file=out)


if __name__ == "__main__":
    sys.exit(main())
