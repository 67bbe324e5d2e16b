"""One of several processes of a learner in a database.

python several.py learn URL                       learns, or stands by until it may; says if it no longer may
python several.py store URL ACKNOWLEDGED RUN      stores without end, and writes down what was acknowledged
python several.py predict URL                     for each line, a task: what it predicts, once all is learned
"""

import math
import os
import sys
import time
from itertools import count

import numpy as np
from living import points

from metaleader.errors import UserError
from metaleader.live import Live, Pace

PACE = Pace(refresh=0.05, snapshot=0.1, lease=1.5)
X = points(50, 5)[0]


def learn(url: str) -> None:
    with Live.open(url, wait=math.inf, pace=PACE) as live:
        print("learns", flush=True)
        try:
            while True:
                live.save()
                time.sleep(0.2)
        except UserError as error:
            print(f"ended: {error}", flush=True)
            time.sleep(60)


def store(url: str, acknowledged: str, run: str) -> None:
    file = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Live.follow(url, pace=PACE) as live:
        print("stores", flush=True)
        for i in count():
            ids = [f"{run}-{i}-{j}" for j in range(i % 3 + 1)]
            live.learn(f"t{i % 4}", *points(i, len(ids)), ids=ids)
            os.write(file, "".join(f"{name}\n" for name in ids).encode())
            if i % 7 == 3:
                live.learn(f"t{i % 4}", *points(i, len(ids)), ids=ids)  # again
            live.predict(f"t{i % 5}", X)


def predict(url: str) -> None:
    with Live.follow(url, pace=PACE) as live:
        print("predicts", flush=True)
        for line in sys.stdin:
            live.wait(60)
            print(np.asarray(live.predict(line.strip(), X)).tobytes().hex(), flush=True)


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "store":
        store(*arguments)
    else:
        (learn if verb == "learn" else predict)(*arguments)
