# %% [markdown]
# # A GPT as a pure function, and back to Hugging Face
#
# When to use this: you want functional training for a model of the `transformers` library, and afterwards a model that everybody can load.
#
# The model stays the class of the library. `tp.functional` gives its parameters as a value; at the end they go into a module.

# %%
import tempfile

import matplotlib.pyplot as plt
import torch
from torch import nn

import torchpure as tp

# %% tags=["parameters"]
steps, width, length = 1500, 64, 32

# %% [markdown]
# The text is made from a rule, so that we know what there is to learn: sums of two numbers below 50.

# %%
sums = [f"{a}+{b}={a + b};" for a in range(50) for b in range(50)]
order = tp.random.permutation(tp.random.key(0), len(sums)).tolist()
text = "".join(sums[index] for index in order)
letters = sorted({*text})
codes = torch.tensor([letters.index(letter) for letter in text])
train_codes, check_codes = codes[: -len(codes) // 10], codes[-len(codes) // 10 :]
print(text[:40], "  letters:", "".join(letters))

# %%
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()

config = GPT2Config(
    vocab_size=len(letters), n_positions=length, n_embd=width, n_layer=2, n_head=4, use_cache=False,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
net = tp.functional(GPT2LMHeadModel, config)  # a class: `init` calls it with draws from the key
params, _ = net.init(tp.random.key(1))
print(sum(leaf.numel() for leaf in params.values()), "parameters in", len(params), "leaves")


# %% [markdown]
# A step draws its rows from a key. The loss is that of a language model: each letter is predicted from those before it.


# %%
def loss(params, rows):
    logits = net(params, rows[:, :-1]).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def draw_rows(key, codes, count=32):
    begins = tp.random.randint(key, (count,), 0, len(codes) - length)
    return codes[begins[:, None] + torch.arange(length)]


rate = tp.optim.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10 + 1, steps)
optimizer = tp.optim.chain(tp.optim.clip_by_global_norm(1.0), tp.optim.adamw(rate, weight_decay=0.01))


@tp.jit
def train_step(params, opt_state, key):
    value, grads = tp.value_and_grad(loss)(params, draw_rows(key, train_codes))
    return (*optimizer.step(grads, opt_state, params), value)


opt_state, losses = optimizer.init(params), []
for key in tp.random.split(tp.random.key(2), steps):
    params, opt_state, value = train_step(params, opt_state, key)
    losses.append(value)
checked = float(loss(params, draw_rows(tp.random.key(3), check_codes, 100)))
print(
    f"loss {float(losses[0]):.2f} at the start, {float(losses[-1]):.2f} at the end, {checked:.2f} on text that was held back"
)

# %% alt="The loss of the GPT falls from 2.7 to about 1.05 nats per letter"
figure, axes = plt.subplots(figsize=(6.4, 3.2))
axes.plot(torch.stack(losses))
axes.axhline(checked, color="0.6", linestyle="--", label="held back")
axes.set(xlabel="step", ylabel="nats per letter")
axes.legend()
figure.tight_layout()

# %% [markdown]
# Back to the library: the parameters are a state dict. The folder is one that any program with `transformers` can load.

# %%
model = GPT2LMHeadModel(config).eval()
model.load_state_dict(params, strict=False)  # the output layer shares the weights of the embedding
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    loaded = GPT2LMHeadModel.from_pretrained(folder).eval()
rows = draw_rows(tp.random.key(4), check_codes, 4)
with torch.no_grad():
    same = torch.allclose(loaded(rows).logits, net(params, rows).logits, atol=1e-5)
print("the loaded model gives the same logits:", same)

# %%
start = "7;20+21="
prompt = torch.tensor([[letters.index(letter) for letter in start]])
with torch.no_grad():
    written = loaded.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=9, do_sample=False, pad_token_id=0
    )
print("".join(letters[code] for code in written[0]))
