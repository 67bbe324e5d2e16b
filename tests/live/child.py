"""A process to be killed: it learns, predicts and saves in many threads, and writes down what was acknowledged.

python child.py FOLDER ACKNOWLEDGED RUN            datapoints without end, in four threads
python child.py FOLDER ACKNOWLEDGED forget STEPS   a plan of so many steps, tasks to forget among them
"""

import os
import sys
import threading
from itertools import count
from pathlib import Path

from living import LEARNER, PROBLEM, example, points

from metaleader.live import Live, Pace

BUSY = Pace(refresh=0.0, snapshot=0.01)


def opened(folder: Path, pace: Pace = BUSY) -> Live:
    if (folder / "log.sqlite").exists():
        try:
            return Live.open(folder, pace=pace)
        except ValueError as error:
            if "holds no learner" not in str(error):  # killed before there was one
                raise
    return Live.create(folder, PROBLEM, LEARNER, example=example(), pace=pace)


def without_end(folder: Path, written: int, run: str) -> None:
    with opened(folder) as live:
        print("opened", flush=True)

        def work(k: int) -> None:
            for i in count():
                n = i % 3 + 1
                ids = [f"{run}-{k}-{i}-{j}" for j in range(n)]
                live.learn(f"t{i % 4}", *points(97 * k + i, n), ids=ids)
                os.write(written, "".join(f"{name}\n" for name in ids).encode())
                if i % 7 == 3:
                    live.learn(f"t{i % 4}", *points(97 * k + i, n), ids=ids)  # again

        for k in range(4):
            threading.Thread(target=work, args=(k,), daemon=True).start()
        for i in count():
            live.predict(f"t{i % 5}", points(i, 2)[0])


def steps(live: Live, number: int) -> None:
    """Step `number` of the plan, in which every ninth forgets a task."""
    if number % 9 == 8:
        if f"u{number // 9}" in live.tasks():  # else it was forgotten before the process was killed
            live.forget(f"u{number // 9}")
    else:
        task = f"u{number // 9}" if number % 3 == 0 else f"t{number % 2}"
        live.learn(task, *points(number, 2), ids=[f"{number}-{j}" for j in range(2)])


def planned(folder: Path, written: int, end: int) -> None:
    done = os.fstat(written).st_size
    with opened(folder) as live:
        print("opened", flush=True)
        for number in range(done, end):
            steps(live, number)
            os.write(written, b".")


if __name__ == "__main__":
    folder, acknowledged, *rest = sys.argv[1:]
    file = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if rest[0] == "forget":
        planned(Path(folder), file, int(rest[1]))
    else:
        without_end(Path(folder), file, rest[0])
