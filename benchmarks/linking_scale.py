"""A million regions of 64 features: the default mapper fitted and mapped, beside ferns and searches."""

import json
import resource
import subprocess
import sys
import time

import numpy as np
from linking_retrieval import COLUMNS, ROWS, TERMS, scale

OF_IMAGE = 200  # regions


def measure():
    """Seconds of one CPU thread, and MB of memory on top of the regions themselves."""
    found = scale()["scale"]
    ended = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    return found | json.loads(ended.stdout)


def main():
    """Fit and map the default mapper, in a process of its own: its peak of memory is no other's."""
    from phenotype.linking.mapper import Bag
    from phenotype.linking.mappers import DEFAULT, build

    rng = np.random.default_rng(0)
    regions = np.empty((ROWS, COLUMNS), np.float32)
    for start in range(0, ROWS, 10_000):
        regions[start : start + 10_000] = rng.normal(0, 1, (10_000, COLUMNS))
    present = rng.random((ROWS // OF_IMAGE, TERMS)) < 0.1
    bags = []
    for i, own in enumerate(present):
        block = regions[OF_IMAGE * i : OF_IMAGE * (i + 1)]
        for term in np.flatnonzero(own):
            block[rng.integers(OF_IMAGE, size=4), term] += 4.0  # four regions show it
        bags.append(Bag(block, np.where(own, 0, 2).astype(np.int8), np.where(own, 0.9, 0.05).astype(np.float32)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    mapper = build(DEFAULT).fit(bags)
    fitted = time.process_time()
    for bag in bags:
        mapper.score(bag.regions)
    mapped = time.process_time()
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    sys.stdout.write(
        json.dumps(
            {
                "default": DEFAULT,
                "default_fit": {"cpu_s": fitted - begin, "memory_mb": memory},
                "default_map": {"cpu_s": mapped - fitted},
            }
        )
    )


if __name__ == "__main__":
    main()
