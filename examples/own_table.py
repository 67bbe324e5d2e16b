"""A table as a stream: the rows of each shop are a task. Run: `python examples/own_table.py`."""

from typing import Any

import numpy as np
import pandas as pd

import metaleader as ml


def sales(shops: int = 12, days: int = 40) -> Any:
    """Shops that open one after another; each sells more or less of what is cheap, and its own share at weekends."""
    random, rows = np.random.default_rng(0), []
    for shop in range(shops):
        slope, share = random.uniform(2, 10), random.uniform(0, 40)
        for day in pd.date_range("2024-01-01", periods=days) + pd.Timedelta(days=30 * shop):
            price, weekend = random.uniform(5, 15), day.weekday() >= 5
            sold = 200 - slope * price + share * weekend + random.normal()
            known = price if random.uniform() < 0.95 else None  # the others were not written down
            rows.append((f"shop {shop}", day, known, "weekend" if weekend else "weekday", sold))
    return pd.DataFrame(rows, columns=["shop", "day", "price", "kind of day", "sold"])


table = ml.streams.from_table(sales(), group="shop", target="sold", order="day")
if __name__ == "__main__":
    print(table.describe())
    learner = ml.FTML(ml.GradientDescent(steps=3, step_size=0.1), optimizer=ml.Adam(3e-3))
    results = ml.run(table.problem(), table.stream, learner, protocol=ml.OnlineProtocol(chunk=14))
    print(results.table())
    print(f"in {table.score.name}, {table.score.note}")
