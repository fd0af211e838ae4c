"""What the command lines open: models, images, and the share of them that is held out."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from oodjax.command_line import UsageError
from oodjax.data.arrays import Arrays
from oodjax.opening import check_labels, class_names, hold_out, open_images, open_network

COUNTS = {0: 1, 1: 2, 2: 3, 3: 10, 4: 41, 5: 7}
LABELS = np.random.default_rng(1).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
SOURCE = Arrays(np.arange(len(LABELS) * 12, dtype=np.int64).astype(np.uint8).reshape(-1, 2, 2, 3), LABELS)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.04])
@pytest.mark.parametrize("seed", range(5))
def test_each_class_gives_its_share_and_the_whole_too(share, seed):
    rest, held = hold_out(SOURCE, share, seed)
    both = np.concatenate([rest.indices, held.indices])
    assert sorted(both) == list(range(len(SOURCE))) and (np.diff(held.indices) > 0).all()
    assert abs(len(held) - share * (len(SOURCE) - 1)) < 1  # one class has one image
    for label, count in COUNTS.items():
        assert abs((held.labels == label).sum() - share * count) < 1 and (rest.labels == label).any()
    np.testing.assert_array_equal(held.labels, LABELS[held.indices])


def test_the_seed_decides_which():
    first, same, other = (hold_out(SOURCE, 0.2, seed)[1].indices for seed in (0, 0, 1))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_images_without_a_class_are_one_class():
    rest, held = hold_out(Arrays(SOURCE.images), 0.25, 3)
    assert (len(rest), len(held)) == (48, 16)


def test_each_image_is_as_likely_as_any_other():
    times = sum(np.bincount(hold_out(SOURCE, 0.25, seed)[1].indices, minlength=len(SOURCE)) for seed in range(400))
    several = np.isin(LABELS, [3, 4, 5])
    assert times[LABELS == 0] == 0 and abs(times[several].mean() - 100) < 4
    assert np.abs(times[several] - 100).max() < 45  # 5 standard deviations of 400 draws with probability 1/4


def test_a_model_is_a_function_or_a_checkpoint():
    network = open_network("tiny:build_second")
    images = tiny.pixels(3, 0, False)[0]
    np.testing.assert_array_equal(network(images).logits, tiny.build_second()(images).logits)
    for text, said in (("tiny:nothing", "no function nothing"), ("nowhere", "nowhere is no checkpoint")):
        with pytest.raises(ValueError, match=said):
            open_network(text)
    with pytest.raises(UsageError, match="computes in its own precision"):
        open_network("tiny:build", "bfloat16")
    with pytest.raises(UsageError, match="--precision must be float32 or bfloat16, got 'half'"):
        open_network("tiny:build", "half")


def test_images_come_with_the_names_of_their_classes(tmp_path):
    tiny.write_study(tmp_path)
    source = open_images(str(tmp_path / "test"), "--id")
    assert class_names(source) == ("class_0", "class_1", "class_2", "class_3") and len(source) == 60
    check_labels(source, tiny.build(), "--id")
    (tmp_path / "list.txt").write_text("test/class_1/001.png 4\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--id: list list.txt has images of class 4, but the model has 4 classes"):
        check_labels(open_images(str(tmp_path / "list.txt"), "--id"), tiny.build(), "--id")
    loose = open_images(str(tmp_path / "near" / "class_0"), "--id")
    with pytest.raises(UsageError, match="--id: folder class_0 has images without a class; expected a folder of"):
        check_labels(loose, tiny.build(), "--id")
    with pytest.raises(UsageError, match="--ood: .*nowhere is not there"):
        open_images(str(tmp_path / "nowhere"), "--ood")
