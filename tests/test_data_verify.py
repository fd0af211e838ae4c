"""A data folder is looked through: counts, missing and unreadable files, images that stand in two sets."""

import gzip
import shutil

import imagenet_folder
import numpy as np
import pytest
from image_files import class_folders, picture, save, truncate

from oodjax.data import DataError, ImageSet
from oodjax.data import __main__ as command
from oodjax.data.sources import Arrays, Files, unlabelled
from oodjax.data.verify import check_overlap, check_set, overlap


def image_set(source, name="x", role="ood_test", category="near"):
    return ImageSet(name, role, "id" if role in ("train", "id_val", "id_test") else category, source)


@pytest.fixture
def files(tmp_path):
    return Files.from_folder(class_folders(tmp_path / "images"))


def test_a_set_is_counted_opened_and_its_bad_files_named(files):
    files.path(3).unlink()
    truncate(files.path(7))
    truncate(files.path(11))
    ood = image_set(unlabelled(Files.from_list(write_list(files), files.root)))
    steps = []
    check = check_set(ood, 15, advance=steps.append)
    assert (check.expected, check.found, check.opened, sum(steps)) == (15, 15, 14, 14)
    assert check.missing == (files.name(3),) and [e.path for e in check.unreadable] == [files.name(7), files.name(11)]
    assert check.sha256 == ood.sha256 and not check.is_right


def write_list(files):
    path = files.root / "list.txt"
    path.write_text("".join(f"{p} {label}\n" for p, label in zip(files.paths, files.labels, strict=True)), "utf-8")
    return path


def test_a_right_set_is_right_and_another_count_is_not(files):
    ood = image_set(unlabelled(files))
    assert check_set(ood, 15).is_right and check_set(ood).is_right and not check_set(ood, 16).is_right


def test_a_sample_is_drawn_by_its_seed(files):
    for i in range(15):
        truncate(files.path(i))
    ood = image_set(unlabelled(files))
    drawn = [[e.path for e in check_set(ood, 15, 4, seed).unreadable] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and {len(paths) for paths in drawn} == {4}
    assert len(check_set(ood, 15, 15).unreadable) == len(check_set(ood, 15, 99).unreadable) == 15


@pytest.fixture
def three(tmp_path):
    """ID test; OOD validation, which holds two copies of its files; an OOD test set, which links to one of them."""
    first = class_folders(tmp_path / "id")
    for i in range(4):
        save(tmp_path / "val" / f"{i}.png", 100 + i)
        save(tmp_path / "test" / f"{i}.png", 200 + i)
    shutil.copy(first / "class_0" / "image 0.jpg", tmp_path / "val" / "copy.jpg")
    shutil.copy(first / "class_2" / "image 4.jpg", tmp_path / "val" / "again.jpg")
    (tmp_path / "test" / "link.jpg").symlink_to(tmp_path / "val" / "copy.jpg")
    return (
        image_set(Files.from_folder(first), "photos", "id_test"),
        image_set(Files.from_folder(tmp_path / "val"), "cats", "ood_val"),
        image_set(Files.from_folder(tmp_path / "test"), "foxes"),
    )


def pairs(found):
    return {(p.first.name, p.second.name): p.count for p in found}


def test_shared_images_are_found_by_content_or_by_place(three):
    assert pairs(overlap(three, content=True)) == {("photos", "cats"): 2, ("photos", "foxes"): 1, ("cats", "foxes"): 1}
    assert pairs(overlap(three, content=False)) == {("cats", "foxes"): 1}
    assert overlap(three) == overlap(three, content=True)


def test_files_are_read_no_further_than_they_agree(three, monkeypatch):
    from oodjax.data import verify

    read = []
    monkeypatch.setattr(verify, "digest_of_file", lambda path: read.append(path) or path.rpartition("/")[2])
    overlap(three, content=True)
    assert sorted(path.rpartition("/")[2] for path in read) == sorted(
        ["image 0.jpg", "image 4.jpg", "copy.jpg", "again.jpg", "link.jpg"]
    )


def test_equal_sizes_and_beginnings_are_not_equal_contents(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 6000, dtype=np.uint8)
    for name, change in (("a", None), ("b", 5000), ("c", 100)):
        (tmp_path / name).mkdir()
        content = noise.copy()
        if change is not None:
            content[change] ^= 1
        (tmp_path / name / "x.png").write_bytes(content.tobytes())
    sets = [image_set(Files.from_folder(tmp_path / name), name) for name in "abc"]
    assert overlap(sets, content=True) == []
    shutil.copy(tmp_path / "a" / "x.png", tmp_path / "b" / "y.png")
    sets[1] = image_set(Files.from_folder(tmp_path / "b"), "b")
    assert pairs(overlap(sets, content=True)) == {("a", "b"): 1}


def test_overlaps_between_roles_are_sentences(three):
    assert check_overlap(three) == [
        "photos (id_test) and cats (ood_val) share 2 images",
        "photos (id_test) and foxes (ood_test) share 1 images",
        "cats (ood_val) and foxes (ood_test) share 1 images",
    ]
    two_tests = [three[0], three[2], image_set(three[1].source, "cats")]
    assert len(check_overlap(two_tests)) == 2


@pytest.mark.parametrize("content", [True, False, None])
def test_a_whole_set_in_two_roles_is_an_error(three, tmp_path, content):
    copied = Files.from_folder(shutil.copytree(tmp_path / "val", tmp_path / "copied"))
    wrong = [
        [three[0], image_set(unlabelled(three[0].source), "same")],
        [three[1], image_set(three[1].source, "same")],
        [three[1], image_set(copied, "copied")],
    ]
    for sets in wrong:
        with pytest.raises(DataError, match=r"\((id_test|ood_val)\) and (same|copied) \(ood_test\) are the same"):
            check_overlap(sets, content)
    train_and_test = [image_set(three[0].source, "train", "train"), three[0]]
    assert check_overlap(train_and_test, content) == ["train (train) and photos (id_test) share 15 images"]


def test_arrays_are_compared_by_their_pixels():
    images = np.stack([picture(i, 4, 4) for i in range(5)])
    first, second = image_set(Arrays(images[:3]), "a", "ood_val"), image_set(Arrays(images[2:]), "b")
    for content in (True, False):
        assert pairs(overlap([first, second], content)) == {("a", "b"): 1}


# The command line


@pytest.fixture
def data(tmp_path, monkeypatch):
    from oodjax.data import imagenet

    made = imagenet_folder.make(tmp_path / "data")
    counts = {name: (24 if name == "imagenet_train" else 12) for name in (e.name for e in imagenet.ENTRIES)}
    entries = [e._replace(expected=counts[e.name]) for e in imagenet.ENTRIES if e.name != "unit_tests"]
    monkeypatch.setattr(imagenet, "ENTRIES", tuple(entries))
    return made


def run(capsys, *arguments):
    code = command.main([str(argument) for argument in arguments])
    return code, capsys.readouterr().out.splitlines()


def test_a_right_folder_ends_with_zero(data, capsys):
    code, lines = run(capsys, data)
    assert code == 0 and lines[-1] == "all right" and len(lines) == 13
    assert lines[5].startswith("ninco: 12 images, expected 12; list ")
    assert lines[5].endswith("; 0 missing; 0 unreadable of 12 decoded (all); list test_ninco.txt")
    assert lines[-2] == "imagenet_train is compared with the other sets with --all only"
    code, lines = run(capsys, data, "--datasets", "ninco,mnist", "--all")
    assert code == 0 and [line.partition(":")[0] for line in lines] == [
        "imagenet_train",
        "imagenet_val",
        "imagenet_test",
        "openimage_o_val",
        "ninco",
        "mnist",
        "all right",
    ]


def test_problems_are_named_and_end_with_one(data, capsys):
    large = data / "images_largescale"
    ninco = sorted((large / "ninco").iterdir())
    truncate(ninco[0])
    ninco[1].unlink()
    shutil.rmtree(data / "images_classic")
    shutil.copy(ninco[2], sorted((large / "openimage_o").glob("val 0*"))[0])
    mnist = data / "mnist" / "t10k-images-idx3-ubyte"
    mnist.with_name(mnist.name + ".gz").write_bytes(gzip.compress(mnist.read_bytes()))
    mnist.write_bytes(b"other")
    code, lines = run(capsys, data)
    assert code == 1 and lines[-1] == "problems found"
    text = "\n".join(lines)
    assert f"  missing {ninco[1]}" in lines and f"  unreadable {ninco[0]}: " in text
    assert "1 missing; 1 unreadable of 11 decoded" in text
    assert "textures: not found: no images_classic, which benchmark_imglist/imagenet/test_textures.txt names" in lines
    assert any(line.startswith("mnist: not found: ") and "begins with 6f746865" in line for line in lines)
    assert "openimage_o_val and ninco share 1 images" in lines


def test_another_count_is_a_problem(data, capsys):
    path = data / "benchmark_imglist" / "imagenet" / "test_ninco.txt"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    code, lines = run(capsys, data)
    assert code == 1 and any(line.startswith("ninco: 11 images, expected 12; ") for line in lines)


def test_all_and_sample_decide_how_many_are_decoded(data, capsys):
    for path in (data / "images_largescale" / "ninco").iterdir():
        truncate(path)

    def unreadable(*options):
        _, lines = run(capsys, data, "--datasets", "ninco", *options)
        return next(line for line in lines if line.startswith("ninco: ")), [li for li in lines if "  unreadable" in li]

    assert "3 unreadable of 3 decoded (a sample by seed 0)" in unreadable("--sample", 3)[0]
    assert unreadable("--sample", 3)[1] != unreadable("--sample", 3, "--seed", 1)[1]
    line, named = unreadable("--sample", 3, "--all")
    assert "12 unreadable of 12 decoded (all)" in line and len(named) == 10


def test_training_images_are_compared_with_all(data, capsys):
    train = sorted((data / "images_largescale" / "imagenet_1k" / "train" / "n00").iterdir())[0]
    shutil.copy(train, sorted((data / "images_largescale" / "ninco").iterdir())[0])
    assert run(capsys, data)[0] == 0
    code, lines = run(capsys, data, "--all")
    assert code == 1 and "imagenet_train and ninco share 1 images" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "oodjax.data: no such folder: {tmp}/nowhere"),
        (["{tmp}"], "oodjax.data: {tmp} holds no set of the study: expected benchmark_imglist/imagenet/*.txt"),
        (["{tmp}", "--datasets", "minst"], "oodjax.data: no data set minst; there are ssb_hard, "),
        (["{tmp}", "--sample", "0"], "oodjax.data: --sample and --seed: got 0 and 0"),
        ([], "oodjax.data: the following arguments are required: DATA"),
    ],
)
def test_wrong_use_is_one_line_and_code_two(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as raised:
        command.main([argument.format(tmp=tmp_path) for argument in arguments])
    err = capsys.readouterr().err
    assert raised.value.code == 2 and err.startswith(message.format(tmp=tmp_path)) and err.count("\n") == 1
