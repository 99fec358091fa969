"""Unmodified models of `transformers`, small and randomly initialised."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import random, testing
from torchpure.errors import TransformError

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


def _plain_gpt2():
    config = transformers.GPT2Config(
        n_embd=8, n_layer=2, n_head=2, n_positions=6, vocab_size=11, use_cache=False, attn_pdrop=0.0, embd_pdrop=0.0,
        resid_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).train()


CHECKPOINTED = {
    "grad": lambda f, p: tp.grad(f)(p),
    "vmap(grad)": lambda f, p: tp.vmap(tp.grad(f))(tp.tree.map(lambda leaf: torch.stack([leaf, leaf * 1.1]), p)),
    "jvp": lambda f, p: tp.jvp(f, (p,), (p,)),
    "jit(grad)": lambda f, p: tp.jit(tp.grad(f))(p),
}


@pytest.mark.parametrize(
    "call", [pytest.param(call, marks=[pytest.mark.compile] * ("jit" in call)) for call in CHECKPOINTED]
)
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_model_has_the_derivatives_of_the_plain_one(reentrant, call):
    torch.manual_seed(0)
    model = _plain_gpt2()
    plain = tp.functional(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    net = tp.functional(model)

    def derivative(net, call):
        return CHECKPOINTED[call](lambda p: net(p, WORDS, labels=WORDS).loss, plain.params)

    torch.testing.assert_close(derivative(net, call), derivative(plain, call.replace("jit(grad)", "grad")))


ROWS = torch.tensor([[[1, 4, 2, 8]], [[3, 3, 9, 7]], [[5, 1, 1, 2]]])
PADDED = torch.tensor([[[1, 1, 1, 0]], [[1, 1, 0, 0]], [[1, 1, 1, 1]]])


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_each_member_has_a_mask_of_its_own(name):
    torch.manual_seed(0)
    model = (_plain_gpt2 if name == "gpt2" else MODELS[name][0])().eval()
    net = tp.functional(model)
    pairs = PADDED.bool()[:, :, None, None, :] & torch.ones(4, 4, dtype=torch.bool).tril()

    def loss(p, words, mask):
        return net(p, words, attention_mask=mask).logits[:, :2].square().mean()  # rows 0 and 1 are words

    def of_member(i):
        logits = model(ROWS[i], attention_mask=pairs[i]).logits[:, :2]
        return dict(
            zip(
                net.params,
                torch.autograd.grad(logits.square().mean(), list(model.parameters()), allow_unused=True),
                strict=True,
            )
        )

    got = tp.vmap(tp.grad(loss), in_dims=(None, 0, 0))(net.params, ROWS, pairs)
    for i in range(3):
        for path, leaf in of_member(i).items():
            torch.testing.assert_close(got[path][i], torch.zeros_like(got[path][i]) if leaf is None else leaf)
    with pytest.raises(
        TransformError, match=r"reads the values of a mapped attention mask .* shape \(rows, 1, queries"
    ):
        tp.vmap(loss, in_dims=(None, 0, 0))(net.params, ROWS, PADDED)
