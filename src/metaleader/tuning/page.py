"""The page of a search: what was tried, what was best, and how far it can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaleader.errors import writing
from metaleader.files import write_text
from metaleader.results import provenance, report
from metaleader.results.figures import style
from metaleader.results.formats import significant
from metaleader.tuning import figure as tuning_figure

HEADINGS = ("learner", "trials", "preset", "best", "which", "gradients", "time")
AROUND = ("learner", "setting", "searched", "best", "this alone changed", "nearest tried", "")
RANKS = ("learner", "rung", "reached", "with the next rung", "with the final score")
NOTED = "by-hand.md"


def write(tuned: Mapping[str, Any], out: Path) -> Path:
    """Write `tune.md` and `figures/tune.*` into `out`, from what `tune.json` holds, and return the page.

    Raises:
        UserError: a file cannot be written.
    """
    with writing(out):
        figure, caption = tuning_figure.search(tuned)
        report.save_figure(figure, report.figures_folder(out) / "tune")
        noted = out / NOTED
        by_hand = noted.read_text().strip() if noted.exists() else f"Nothing was noted in `{NOTED}`."
        parts = [
            f"# {title(tuned)}",
            note(tuned),
            report.markdown_table(HEADINGS, rows(tuned)),
            "With the best of every learner:",
            f"```\n{run_command(tuned)}\n```",
            f"![Score against settings](figures/tune.png)\n\n{caption}",
            "## Around the best",
            around_note(tuned),
            report.markdown_table(AROUND, around(tuned)),
            "## Whether ranks hold",
            ranks_note(tuned),
            report.markdown_table(RANKS, ranks(tuned)),
            "## Tried by hand",
            by_hand,
            "## How this was made",
            *provenance.blocks(made(tuned)),
            "`tune.json` has the commit, the machine and the checksums of the records of every trial that noted them.",
        ]
        page = out / "tune.md"
        write_text(page, "\n\n".join(part.strip("\n") for part in parts) + "\n")
    return page


def made(tuned: Mapping[str, Any]) -> dict[str, str]:
    """What it takes to make the trials again."""
    trials = [trial for of_learner in tuned["learners"].values() for trial in of_learner["trials"]]
    known = [trial.get("made", {}) for trial in trials]  # trials of earlier versions do not say
    machines = dict.fromkeys(provenance.pairs(each.get("machine", {})) or "not recorded" for each in known)
    seconds = sum(trial["seconds"] for trial in trials)
    return {
        "command": tuned["command"],
        "commit of the source": provenance.counted((each.get("commit") for each in known), "trials"),
        "time": f"{len(trials)} trials, {significant(seconds / 3600)} hours of learning and judging, one after another",
        "versions": provenance.pairs(tuned["versions"]),
        "machine": "\n\n".join(machines),
    }


def run_command(tuned: Mapping[str, Any]) -> str:
    """The command that runs every learner with its best settings, a line for each whose best is not the preset."""
    return " \\\n    ".join(tuned["run"])


def title(tuned: Mapping[str, Any]) -> str:
    """What the table is called."""
    shown = [text for text in tuned["set"] if not text.startswith("stream.held-out=")]
    return ", ".join([f"Tuning {tuned['experiment']} ({tuned['preset']})", *shown])


def note(tuned: Mapping[str, Any]) -> str:
    """What the table says, and what it rests on."""
    seeds, score = tuned["seeds"], tuned["score"]
    judged = {
        "validation": "a validation split of the training images, which results are not judged on",
        "test": "the test images, which results are judged on as well",
        None: "data that the streams of these seeds hold out",
    }.get(tuned["held_out"], f"the {tuned['held_out']} data")
    return (
        f"Every learner had {tuned['trials']} trials, the preset first. Objective: {score['name']} "
        f"({'higher' if score['higher_is_better'] else 'lower'} is better) on {judged}, mean over all sizes and the "
        f"last third of the {tuned['rounds']} rounds, on seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: "
        "task orders, splits and weights that results, on seeds 0, 1, ..., never use. "
        f"{_pruning(tuned)} Trials that diverged or failed count as the worst. "
        "Gradients and time are those of all trials; gradients are per-example gradient evaluations, a "
        "Hessian-vector product counting as two."
    )


def _pruning(tuned: Mapping[str, Any]) -> str:
    if not tuned["rungs"]:
        return "No trial was pruned: each took the whole stream."
    at = " and ".join(map(str, tuned["rungs"]))
    return (
        f"After {at} rounds, a trial went on only if its score so far, over the last third of these rounds, was among "
        f"the best 1/{tuned['reduction']} of the learner's trials that had come there (ASHA); the preset was never "
        "pruned."
    )


def rows(tuned: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for every learner, under `HEADINGS`."""
    table = []
    for name, of_learner in tuned["learners"].items():
        best, trials = of_learner["best"], of_learner["trials"]
        ended = Counter(_ended(trial) for trial in trials)
        numbers = ", ".join(f"{count} {outcome}" for outcome, count in ended.items() if outcome != "finished")
        preset = trials[0]["score"] if trials else None
        table.append(
            [
                style(name).short,
                f"{len(trials)}" + (f" ({numbers})" if numbers else ""),
                "-" if preset is None else significant(preset),
                significant(best["score"]) if best else "-",
                "-" if not best else f"trial {best['trial']}" if best["trial"] else "the preset",
                report.readable(of_learner["gradient_evaluations"]),
                report.minutes(of_learner["seconds"]),
            ]
        )
    return table


def _ended(trial: Mapping[str, Any]) -> str:
    """`finished`, `pruned`, `diverged` or `failed`."""
    return str(trial["outcome"]).partition(":")[0].partition(" ")[0]


def around_note(tuned: Mapping[str, Any]) -> str:
    """What the table of what lies around the best says."""
    counts = [sum(trial["around"] for trial in each["trials"]) for each in tuned["learners"].values()]
    made = (
        "After the trials that were drawn, a single setting of the best one was changed at a time, a number by a "
        "factor of 3 either way, a choice to each other one, and what was better took its place: "
        f"{', '.join(map(str, counts))} trials. In brackets: the best one's score until then. "
        if any(counts)
        else ""
    )
    return (
        f"{made}Scores of trials that were pruned are those of the round at which they were, and so are the best one's "
        "beside them. Nearest tried: the trials with the next values of each setting; other settings differ, too. "
        "Where the best lies at an end of its range, what is better may lie beyond."
    )


def around(tuned: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for every setting searched, under `AROUND`."""
    flags = {
        "low": "at the low end of the range: widen it",
        "high": "at the high end of the range: widen it",
        "outside": "outside of what was searched",
        "": "",
    }
    table = []
    for name, of_learner in tuned["learners"].items():
        for option, entry in tuned["spaces"][name].items() if of_learner["best"] else ():
            trials, best = of_learner["trials"], of_learner["best"]
            pairs = {
                "changed": of_learner["changed"][option],
                "neighbours": [[number, best["trial"]] for number in of_learner["neighbours"][option]],
            }
            beside = {
                kind: "; ".join(
                    f"{shown(trials[number]['settings'][option])}: {_against(trials[number], trials[other])}"
                    for number, other in numbers
                )
                for kind, numbers in pairs.items()
            }
            table.append(
                [
                    style(name).short,
                    f"`--{option}`",
                    " or ".join(entry["choices"]) if "choices" in entry else f"{entry['low']:g} to {entry['high']:g}",
                    f"{shown(of_learner['best']['settings'][option])}: {significant(of_learner['best']['score'])}",
                    beside["changed"] or "-",
                    beside["neighbours"] or "-",
                    flags[of_learner["ends"][option]],
                ]
            )
    return table


def _against(trial: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """The score of a trial, with another's; if it was pruned, both at its last rung."""
    if trial["score"] is not None:
        return f"{significant(trial['score'])} ({significant(best['score'])})"
    rung, score = list(trial["rungs"].items())[-1] if trial["rungs"] else ("", None)
    if score is None or not trial["outcome"].startswith("pruned"):
        return str(trial["outcome"]).partition(":")[0]
    bests = best["rungs"].get(rung)  # none, where it was not finite or not judged that early
    return f"{significant(score)} ({'-' if bests is None else significant(bests)}) at round {rung}"


def ranks_note(tuned: Mapping[str, Any]) -> str:
    """What the table of ranks says."""
    selected = (
        " Pruning leaves trials that are alike, which makes the correlations smaller than over all trials."
        if tuned["rungs"]
        else ""
    )
    return (
        "Spearman's rank correlation, over the trials of a learner, of the score after so many rounds with what came "
        f"later; in brackets, over how many trials. At least three are needed.{selected}"
    )


def ranks(tuned: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for every learner and rung, under `RANKS`."""

    def cell(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return "-"
        return f"{'-' if found['spearman'] is None else format(found['spearman'], '.2f')} ({found['trials']})"

    return [
        [style(name).short, f"{rung['round']}", f"{rung['reached']}", cell(rung["next"]), cell(rung["final"])]
        for name, of_learner in tuned["learners"].items()
        for rung in of_learner["ranks"]
    ]


def shown(value: Any) -> str:
    """A setting's value, as short as can be."""
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
