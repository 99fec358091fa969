"""Every module of the table against every law of models."""

import sys
from pathlib import Path

import pytest

import torchpure as tp
from torchpure import testing

sys.path.insert(0, str(Path(__file__).parents[1]))
from models import MODELS, net_of


@pytest.mark.parametrize(
    ("law", "name"), [(law, name) for law in testing.MODEL_LAWS for name in MODELS if law not in MODELS[name].skip]
)
def test_law(law, name):
    model = MODELS[name]
    testing.MODEL_LAWS[law](net_of(tp.functional, model), model.inputs())
