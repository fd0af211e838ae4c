"""The store: found by key, believed after a check, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from oodjax.store import LOCK, PARTIAL, RECORD, SNAPSHOT, Store, StoreHeld, key_of

KEY, OTHER = key_of(weights="a"), key_of(weights="b")
GROUP = "outputs/baseline/letters"


@pytest.fixture
def lines():
    return []


@pytest.fixture
def store(tmp_path, lines):
    return Store(tmp_path, warn=lines.append)


@pytest.fixture
def array():
    return np.arange(12, dtype=np.float32).reshape(4, 3)


def file_of(store, name="logits"):
    return store.path(GROUP, name, KEY)


@pytest.mark.parametrize(
    "value", [np.arange(6.0).reshape(3, 2), np.float64(3.5), np.zeros((0, 3), np.float32), np.array([True, False])]
)
def test_what_is_put_comes_back(store, value):
    store.put(GROUP, {"x": (KEY, value)}, {"facts": (KEY, {"a": [1, None]})})
    again = Store(store.folder)
    np.testing.assert_array_equal(again.read(GROUP, "x", KEY), value)
    assert again.read(GROUP, "x", KEY).dtype == np.asarray(value).dtype
    assert again.value(GROUP, "facts", KEY) == {"a": [1, None]}
    assert again.read(GROUP, "x", OTHER) is None and again.value(GROUP, "facts", OTHER) is None


def test_rows_come_in_any_order(store, array):
    writer = store.writer(GROUP, {"logits": (KEY, array.shape, array.dtype)})
    for rows in ([3, 0], [1, 2]):
        writer.write("logits", np.array(rows), array[rows])
    assert store.read(GROUP, "logits", KEY) is None  # not before the commit
    writer.commit()
    np.testing.assert_array_equal(store.read(GROUP, "logits", KEY), array)


def test_a_new_key_takes_the_place_of_the_old_and_the_rest_stays(store, array):
    store.put(GROUP, {"logits": (KEY, array), "features": (KEY, array + 1)})
    old = file_of(store)
    store.put(GROUP, {"logits": (OTHER, array + 2)})
    assert not old.exists() and store.read(GROUP, "logits", KEY) is None
    np.testing.assert_array_equal(store.read(GROUP, "logits", OTHER), array + 2)
    np.testing.assert_array_equal(store.read(GROUP, "features", KEY), array + 1)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "flipped bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "another shape": lambda path: np.save(path, np.zeros((2, 2), np.float32)),
    "no array": lambda path: path.write_text("hello"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_array_counts_as_missing(store, array, lines, damage):
    store.put(GROUP, {"logits": (KEY, array), "features": (KEY, array)})
    damage(file_of(store))
    again = Store(store.folder, warn=lines.append)
    assert again.read(GROUP, "logits", KEY) is None and not again.has(GROUP, {"logits": KEY})
    assert again.has(GROUP, {"features": KEY})
    assert len(lines) == 1 and "made anew" in lines[0] and "logits" in lines[0]
    again.put(GROUP, {"logits": (KEY, array)})
    np.testing.assert_array_equal(again.read(GROUP, "logits", KEY), array)


def test_damage_under_a_running_process_is_seen(store, array):
    store.put(GROUP, {"logits": (KEY, array)})
    assert store.has(GROUP, {"logits": KEY})
    file_of(store).write_bytes(b"other")
    assert not store.has(GROUP, {"logits": KEY})


RECORDS = {
    "not JSON": lambda text: text[:-5],
    "a list": lambda text: "[]",
    "deeply nested": lambda text: "[" * 100_000,
    "another checksum": lambda text: text.replace('"sha256": "', '"sha256": "0', 1),
    "a value changed": lambda text: text.replace(KEY, OTHER),
    "empty": lambda text: "",
}


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_counts_as_missing(store, array, lines, change):
    store.put(GROUP, {"logits": (KEY, array)})
    path = store.root / GROUP / RECORD
    path.write_text(change(path.read_text()))
    assert store.read(GROUP, "logits", KEY) is None and store.read(GROUP, "logits", OTHER) is None
    assert len(lines) == 1 and RECORD in lines[0]


def test_a_record_of_another_group_is_not_believed(store, array, lines):
    store.put(GROUP, {"logits": (KEY, array)})
    other = store.root / "outputs/mixup/letters"
    other.parent.mkdir(parents=True)
    (store.root / GROUP).rename(other)
    assert store.read("outputs/mixup/letters", "logits", KEY) is None
    assert len(lines) == 1


def test_a_second_run_is_told_who_holds_the_folder(store):
    code = (
        f"import time; from oodjax.store import Store; from pathlib import Path\n"
        f"with Store(Path({str(store.folder)!r})).claim(): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreHeld, match=f"process {process.pid} on "), store.claim():
            pass
    finally:
        process.kill()
        process.communicate()
    with store.claim():  # a killed process holds nothing
        assert (store.folder / LOCK).read_text().startswith("process ")


def test_half_written_arrays_go_unless_a_snapshot_goes_on_with_them(store, array):
    store.writer(GROUP, {"logits": (KEY, array.shape, array.dtype)}).close()
    writer = store.writer("statistics/baseline", {"features": (KEY, array.shape, array.dtype)})
    writer.write("features", 0, array[:2])
    writer.close()
    store.put("statistics/baseline/host-0", {}, {SNAPSHOT: (KEY, {"done": 1})})
    foreign = store.root / GROUP / f"thesis{PARTIAL}"
    foreign.write_text("precious")
    with store.claim():
        left = {p.name for p in store.root.rglob(f"*{PARTIAL}")}
    assert left == {f".features-{KEY[:16]}.npy{PARTIAL}", foreign.name}
    again = store.writer("statistics/baseline", {"features": (KEY, array.shape, array.dtype)}, resume=True)
    again.write("features", 2, array[2:])
    again.commit()
    np.testing.assert_array_equal(store.read("statistics/baseline", "features", KEY), array)


def test_a_discarded_group_leaves_what_is_not_its_own(store, array):
    store.put(GROUP, {"logits": (KEY, array)})
    notes = store.root / GROUP / "notes.txt"
    notes.write_text("precious")
    store.discard(GROUP)
    assert [p.name for p in (store.root / GROUP).iterdir()] == ["notes.txt"]
    assert store.read(GROUP, "logits", KEY) is None


def test_a_record_holds_the_checksum_of_every_file(store, array):
    import hashlib

    store.put(GROUP, {"logits": (KEY, array)})
    entry = json.loads((store.root / GROUP / RECORD).read_text())["entries"]["logits"]
    assert entry["sha256"] == hashlib.sha256(file_of(store).read_bytes()).hexdigest()


def test_a_commit_that_was_cut_off_after_its_record_is_finished(store, array, lines):
    store.put(GROUP, {"logits": (OTHER, array), "features": (KEY, array)})
    store.put(GROUP, {"logits": (KEY, array + 1)})
    final = file_of(store)
    final.rename(final.with_name(f".{final.name}{PARTIAL}"))  # where a run is killed before it has given the name
    former = final.with_name(f"logits-{OTHER[:16]}.npy")
    np.save(former, array)  # and before it has removed what the record does not name any more
    with store.claim():
        pass
    np.testing.assert_array_equal(store.read(GROUP, "logits", KEY), array + 1)
    assert not former.exists() and lines == []


def test_a_half_written_array_is_not_taken_for_the_one_of_the_same_key(store, array, lines):
    store.put(GROUP, {"logits": (KEY, array)})
    flip(file_of(store))
    writer = store.writer(GROUP, {"logits": (KEY, array.shape, array.dtype)})
    writer.write("logits", 0, array[:2])
    writer.close()
    with store.claim():
        pass
    assert store.read(GROUP, "logits", KEY) is None and len(lines) == 1


def test_snapshots_go_with_the_rows_that_they_go_on_from(store, array):
    store.put("statistics/baseline/host-0", {"sums": (KEY, array)}, {SNAPSHOT: (KEY, {"done": 1})})
    store.put("outputs/baseline/host-0", {"logits": (KEY, array)})  # a set of that name is no snapshot
    with store.claim():
        pass
    assert not (store.root / "statistics/baseline/host-0").exists()
    np.testing.assert_array_equal(store.read("outputs/baseline/host-0", "logits", KEY), array)


def test_values_are_those_that_are_current(tmp_path):
    store = Store(tmp_path)
    store.put("a", {"array": ("k", np.arange(3))}, {"one": ("k1", [1]), "two": ("k2", 2)})
    assert store.values("a", {"one": "k1", "two": "other", "array": "k", "none": "k"}) == {"one": [1]}
    assert store.values("b", {"one": "k1"}) == {}
    store.put("a", {}, {"two": ("other", 3)})
    assert store.values("a", {"one": "k1", "two": "other"}) == {"one": [1], "two": 3}
