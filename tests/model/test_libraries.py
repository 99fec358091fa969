"""Unmodified models of `transformers`, small and randomly initialised."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import random, testing

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 11}
WORDS = torch.tensor([[1, 4, 2, 8], [3, 3, 9, 7]])
IMAGE = torch.sin(torch.arange(2 * 3 * 8 * 8, dtype=torch.float64)).reshape(2, 3, 8, 8)


class Logits(nn.Module):
    """Returns the logits only, because the library's output classes are no trees."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs, **options):
        result = self.model(inputs, **options)
        return result.loss if options else result.logits


def _bert(dropout=0.1):
    config = transformers.BertConfig(
        **SIZES, max_position_embeddings=6, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    return transformers.BertForMaskedLM(config)


def _gpt2():
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=6, vocab_size=11, use_cache=False)
    return transformers.GPT2LMHeadModel(config)


def _llama():
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=1, max_position_embeddings=6, use_cache=False)
    return transformers.LlamaForCausalLM(config)


def _vit():
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, image_size=8, patch_size=4,
        hidden_dropout_prob=0.1,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def _resnet():
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic", hidden_act="silu"
    )
    return transformers.ResNetForImageClassification(config)


MODELS = {
    "bert": (_bert, WORDS),
    "gpt2": (_gpt2, WORDS),
    "llama": (_llama, WORDS),
    "vit": (_vit, IMAGE),
    "resnet": (_resnet, IMAGE),
}


def _net(name):
    make, inputs = MODELS[name]

    return tp.functional(lambda: Logits(make()).double().train()), inputs


SKIPPED = {
    ("gpt2", "traced_equals_eager"),  # the model reads positions to detect packed sequences
    ("llama", "traced_equals_eager"),
    ("llama", "gradients_are_finite_differences"),  # it normalises in float32
}


@pytest.mark.parametrize(
    ("name", "law"), [(name, law) for name in MODELS for law in testing.MODEL_LAWS if (name, law) not in SKIPPED]
)
def test_law(name, law):
    net, inputs = _net(name)
    testing.MODEL_LAWS[law](net, (inputs,))


def test_a_model_of_the_library_can_be_trained():
    net, words = _net("gpt2")
    params, state = net.init(random.key(0))
    optimizer = tp.optim.adamw(1e-2)

    def loss(params, key):
        return net.apply(params, state, words, labels=words, key=key)[0]

    moments, first = optimizer.init(params), loss(params, random.key(2))
    for key in random.split(random.key(1), 20):
        value, grads = tp.value_and_grad(loss)(params, key)
        params, moments = optimizer.step(grads, moments, params)
    assert value < 0.7 * first
