"""5-way CIFAR-100: when classes come, whose labels they are, and what is held out; archives sound and not."""

import io
import json
import tarfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from metaleader import FiveWayCifar100, Stream, UserError
from metaleader.commands import main as cli
from metaleader.streams import sources as data

NAMES = tuple(f"class{i:02d}" for i in range(100))


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A CIFAR-100 whose images say in their first pixels: class, number in the class, and 1 if for testing."""
    train, test = (np.zeros((100, n, 32, 32, 3), np.uint8) for n in (500, 100))
    for images, kind in ((train, 0), (test, 1)):
        number = np.arange(images.shape[1])
        images[..., 0, 0, 0] = np.arange(100)[:, None]
        images[..., 0, 1, 0], images[..., 0, 1, 1] = number // 256, number % 256
        images[..., 0, 2, 0] = kind
    (tmp_path / "archive").write_bytes(b"")
    monkeypatch.setattr(data, "locate", lambda *_: {"archive": tmp_path / "archive"})
    monkeypatch.setattr(data, "read_cifar100", lambda _: data.Cifar100(NAMES, train, test))


def classes(images: np.ndarray) -> np.ndarray:
    return images[:, 0, 0, 0]


def identities(images: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, image)) for image in images[:, 0, :3].reshape(len(images), -1)]


def small(rounds: int = 96) -> Stream:
    return FiveWayCifar100(rounds=rounds, examples_per_class=4, test_per_class=3).stream(0)


def test_every_task_introduces_one_class_and_no_class_precedes_its_introduction(marked: None) -> None:
    seen: set[int] = set()
    for i, task in enumerate(small()):
        its = set(map(int, classes(task.train.inputs)))
        assert len(its) == 5
        assert len(its - seen) == (5 if i == 0 else 1)
        assert set(map(int, classes(task.held_out.inputs))) == its
        if i > 0:
            (newest,) = its - seen
            assert task.name.startswith(f"{NAMES[newest]} among ")
        seen |= its
    assert len(seen) == 100


def test_images_for_testing_are_held_out_only_and_none_comes_twice_in_a_task(marked: None) -> None:
    for task in FiveWayCifar100(rounds=3).stream(1):
        train, test = identities(task.train.inputs), identities(task.held_out.inputs)
        assert len(set(train)) == len(train) == 2000
        assert len(set(test)) == len(test) == 500
        assert {kind for *_, kind, _, _ in train} == {0}  # from the official training set alone
        assert {kind for *_, kind, _, _ in test} == {1}  # from the official test set alone


def test_validation_images_are_the_last_of_the_training_images_of_each_class(marked: None) -> None:
    for task in FiveWayCifar100(rounds=2, held_out="validation").stream(1):
        for images, numbers in ((task.train.inputs, range(400)), (task.held_out.inputs, range(400, 500))):
            assert {kind for *_, kind, _, _ in identities(images)} == {0}  # none from the test set
            assert set(images[:, 0, 1, :2].astype(int) @ [256, 1]) <= set(numbers)
    with pytest.raises(UserError, match="examples_per_class must be from 1 to 400"):
        FiveWayCifar100(examples_per_class=401, held_out="validation")


def test_labels_are_permuted_for_every_task(marked: None) -> None:
    labels_of: dict[int, list[int]] = {}
    newest_labels = set()
    for task in small():
        meaning: dict[int, int] = {}
        for batch in (task.train, task.held_out):
            for image, label in zip(batch.inputs, batch.targets, strict=True):
                assert meaning.setdefault(int(label), int(image[0, 0, 0])) == image[0, 0, 0]
        assert sorted(meaning) == [0, 1, 2, 3, 4]
        for label, its in meaning.items():
            labels_of.setdefault(its, []).append(label)
            if task.name.startswith(f"{NAMES[its]} among"):
                newest_labels.add(label)
    assert newest_labels == {0, 1, 2, 3, 4}  # the newest class has no label of its own
    often = [labels for labels in labels_of.values() if len(labels) >= 8]
    assert len(often) > 5
    assert all(len(set(labels)) > 1 for labels in often)


def test_examples_of_the_five_classes_come_mixed_and_evenly(marked: None) -> None:
    task = FiveWayCifar100(rounds=1).stream(0)[0]
    assert np.bincount(task.train.targets).tolist() == [400] * 5
    assert len(set(task.train.targets[:50])) == 5


def test_the_same_seed_is_the_same_stream_and_fewer_rounds_are_the_first_ones(marked: None) -> None:
    whole, part, other = small(), small(2), FiveWayCifar100(rounds=2, examples_per_class=4).stream(1)
    for a, b in zip(whole[:2], part, strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.train.inputs, b.train.inputs)
        np.testing.assert_array_equal(a.held_out.targets, b.held_out.targets)
    assert part[0].name != other[0].name


@pytest.mark.parametrize("setting", [{"rounds": 97}, {"examples_per_class": 501}, {"test_per_class": 0}])
def test_impossible_streams_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(setting))} must be from 1 to"):
        FiveWayCifar100(**setting)


def archive(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name.replace('__', '.')}")
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


NAME_FILE = "\n".join(NAMES).encode()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"fine_label_names__txt": NAME_FILE, "train__bin": b"1" * 3074}, "it holds no test.bin"),
        ({"fine_label_names__txt": b"a b", "train__bin": b"", "test__bin": b""}, "has 2 names"),
        (
            {"fine_label_names__txt": NAME_FILE, "train__bin": b"1" * 3074, "test__bin": b""},
            "train.bin has 3,074 bytes, not 153,700,000",
        ),
    ],
)
def test_archives_that_are_not_sound_are_refused_in_one_line(
    tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(UserError) as error:
        data.read_cifar100(archive(tmp_path / "cifar.tar.gz", **files))
    assert reason in str(error.value)
    assert "delete it and run metaleader data cifar100" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    test = np.zeros((10_000, 3074), np.uint8)
    test[:, 1] = np.arange(10_000) % 100
    test[7, 1] = 8
    with pytest.raises(ValueError, match=r"test.bin has 99 images of class 7, not 100"):
        data._by_class("test.bin", test.tobytes(), 100)


def test_records_are_read_as_the_format_says() -> None:
    """Coarse label, fine label, then planes of red, green and blue, row by row."""
    records = np.zeros((100, 3074), np.uint8)
    records[:, 1] = np.arange(100)[::-1]
    records[2, 2 + 1024 + 32 * 4 + 9] = 77  # class 97: green, row 4, column 9
    images = data._by_class("one a class", records.tobytes(), 1)
    assert images[97, 0, 4, 9].tolist() == [0, 77, 0]
    assert images.sum() == 77


def test_a_truncated_archive_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0).integers(0, 256, 30_000).astype(np.uint8).tobytes()
    whole = archive(tmp_path / "whole", fine_label_names__txt=NAME_FILE, train__bin=random, test__bin=random)
    (tmp_path / "data" / "cifar100").mkdir(parents=True)
    (tmp_path / "data" / "cifar100" / "cifar-100-binary.tar.gz").write_bytes(whole.read_bytes()[:20_000])
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "cifar100", "--data-dir", str(tmp_path / "data"), "--out", str(out)])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cifar-100-binary.tar.gz is no sound archive of CIFAR-100" in said
    assert not out.exists()


def test_a_found_file_that_passes_the_check_is_admitted_and_another_is_not(tmp_path: Path) -> None:
    def check(path: Path) -> None:
        if path.read_bytes() != b"sound":
            raise UserError("not sound")

    data_set = data.DataSet("some", "http://127.0.0.1:9/", MappingProxyType({"file": "0" * 64}), check)
    (tmp_path / "some").mkdir()
    path = tmp_path / "some" / "file"
    path.write_bytes(b"sound")
    assert data.locate(data_set, tmp_path) == {"file": path}
    assert data._status(data_set, path, "0" * 64) == "sound, not as published"
    path.write_bytes(b"cut")
    with pytest.raises(UserError, match="not sound"):
        data.locate(data_set, tmp_path)
    assert data._status(data_set, path, "0" * 64) == "damaged"


def test_the_smoke_preset_runs_on_the_archive(data_dir: Path, tmp_path: Path) -> None:
    if not (data_dir / "cifar100").is_dir():
        pytest.skip(f"{data_dir} holds no cifar100/")
    arguments = ["--preset", "smoke", "--learner", "ftml", "toe", "--data-dir", str(data_dir)]
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "cifar100", *arguments, "--out", str(tmp_path)])
    assert end.value.code == 0
    (config,) = (json.loads(path.read_text()) for path in (tmp_path / "toe").rglob("config.json"))
    path = data_dir / "cifar100" / "cifar-100-binary.tar.gz"
    assert config["data"] == {f"cifar100/{path.name}": data.sha256(path)}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["learners"]) == {"ftml", "toe"}
    assert all(0 <= numbers["final_score"][0] <= 1 for numbers in summary["learners"].values())
