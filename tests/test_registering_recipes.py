"""A user's own recipe: registered once, beside the study's."""

from __future__ import annotations

import dataclasses

import pytest

from oodjax.training import RECIPES, Recipe, register
from oodjax.training.recipes import STUDY

OWN = Recipe("noisy_mixup", "augmentation", augment=("noise", "mixup"))


@pytest.fixture
def free():
    """What a test registers is forgotten after it."""
    before = dict(RECIPES)
    yield
    RECIPES.clear()
    RECIPES.update(before)


def test_a_registered_recipe_stands_behind_the_study_s(free):
    assert len(STUDY) >= 17 and tuple(RECIPES) == STUDY
    assert register(OWN) is OWN
    assert tuple(RECIPES) == (*STUDY, "noisy_mixup") and RECIPES["noisy_mixup"] is OWN


def test_a_recipe_s_name_twice_is_an_error_unless_it_is_to_be_replaced(free):
    register(OWN)
    longer = dataclasses.replace(OWN, epochs=30)
    for again in (OWN, longer):
        with pytest.raises(ValueError, match="a recipe 'noisy_mixup' is registered already: .* pass replace=True"):
            register(again)
    assert RECIPES["noisy_mixup"].epochs == 20
    register(longer, replace=True)
    assert RECIPES["noisy_mixup"].epochs == 30


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a.seed1", "ä", "x" * 200])
def test_a_recipe_s_name_is_a_word(name, free):
    with pytest.raises(ValueError, match="a recipe's name must be letters, digits, _ and -, got "):
        register(dataclasses.replace(OWN, name=name))
    assert tuple(RECIPES) == STUDY


def test_what_is_no_recipe_or_one_of_the_study_s_is_refused(free):
    with pytest.raises(TypeError, match=r"register takes a Recipe\(name, category, ...\), got 'mixup'|got str"):
        register("mixup")
    with pytest.raises(ValueError, match="'mixup' is a recipe of the study, which stays as it is"):
        register(dataclasses.replace(OWN, name="mixup"), replace=True)
    assert tuple(RECIPES) == STUDY
