"""bin/chaos --simulate N --seed S: seeds S to S + N - 1, each a run of its own; of one alone the whole story."""

import argparse
import sys
import time

from tests.simulation.process import prepare


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bin/chaos", description=__doc__)
    parser.add_argument("--simulate", type=int, required=True, metavar="N", help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the first one (0)")
    given = parser.parse_args(arguments)
    if given.simulate < 1 or given.seed < 0:
        parser.error("--simulate takes 1 or more, --seed 0 or more")
    prepare()
    from tests.simulation import many
    from tests.simulation.coverage import reachable, table

    if given.simulate == 1:
        print(many.story(given.seed))
    started = time.monotonic()
    findings = many.run(range(given.seed, given.seed + given.simulate))
    print(findings.summary())
    if given.simulate > 1:
        print(table(findings.cells))
        empty = [" / ".join(part for part in cell if part) for cell in reachable() if not findings.cells[cell]]
        print(f"{len(empty)} of {len(reachable())} cells empty" + (": " + ", ".join(empty) if empty else ""))
        print(f"{time.monotonic() - started:.0f} s")
    if findings.broken:
        seed = findings.broken[0].seed
        print(f"bin/chaos --simulate 1 --seed {seed} tells the story of the first")
    return 1 if findings.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
