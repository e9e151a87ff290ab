# %% exercise 1, wrong: the sign forgotten
# says: A probability lies between 0 and 1
def typical_probability(loss):
    return np.exp(loss)

# %% exercise 1, wrong: bits in place of nats
# says: guessing among 1024 tokens
def typical_probability(loss):
    return 2.0**-loss

# %% exercise 1, wrong: one over the loss
# says: guessing among 1024 tokens
def typical_probability(loss):
    return 1 / max(loss, 1)

# %% exercise 1, wrong: a loss is no probability's complement
# says: A probability lies between 0 and 1
def typical_probability(loss):
    return 1 - loss

# %% exercise 1, wrong: right for the first two cases
# says: A model that gives the right token p = 0.3
def typical_probability(loss):
    return 1 / 1024 if loss > 1.5 else 1 - loss / 2

# %% exercise 1, right: one over e to the loss
def typical_probability(loss):
    return 1 / np.e**loss

# %% exercise 1, right: by the logarithm to base 2, as an array of no axes
def typical_probability(loss):
    return np.array(np.exp2(-loss / np.log(2)))

# %% exercise 2, wrong: talk's own temperature
# says: Two seeds give two texts
def greedy(prompt, tokens, seed):
    return talk(prompt, tokens=tokens, seed=seed)

# %% exercise 2, wrong: one seed for all
# says: Is chance in it
def greedy(prompt, tokens, seed):
    return talk(prompt, tokens=tokens, seed=1, temperature=1.0)

# %% exercise 2, wrong: always 60 tokens
# says: another number of tokens
def greedy(prompt, tokens, seed):
    return talk(prompt, seed=seed, temperature=0)

# %% exercise 2, wrong: without the prompt
# says: must begin with the prompt
def greedy(prompt, tokens, seed):
    return talk(prompt, tokens, seed, 0)[len(prompt) :]

# %% exercise 2, wrong: the least likely token
# says: is not what comes of
def greedy(prompt, tokens, seed):
    ids = tokenizer.encode(prompt)
    for _ in range(tokens):
        ids.append(int(next_logits(model, np.array([ids]), cache=None)[0].argmin()))
    return tokenizer.decode(ids)

# %% exercise 2, right: token by token, by hand
def greedy(prompt, tokens, seed):
    ids = list(tokenizer.encode(prompt))
    while tokens > 0:
        best = max(range(tokenizer.vocab_size), key=next_logits(model, np.array([ids]), cache=None)[0].__getitem__)
        if best == tokenizer.eos_id:
            break
        ids, tokens = [*ids, best], tokens - 1
    return tokenizer.decode(ids)

# %% exercise 2, right: the seed left out, since it does not matter
def greedy(prompt, tokens, seed=None):
    return talk(prompt, tokens, temperature=0.0)

# %% exercise 3, wrong: counts arrays
# says: Count numbers (sizes), not arrays
def share_of_mlp(model):
    names = [name for name, _ in model.named_parameters()]
    return sum(".mlp." in name for name in names) / len(names)

# %% exercise 3, wrong: without biases
# says: biases are weights, too
def share_of_mlp(model):
    sizes = {name: p.data.size for name, p in model.named_parameters()}
    matrices = sum(size for name, size in sizes.items() if ".mlp." in name and name.endswith("weight"))
    return matrices / sum(sizes.values())

# %% exercise 3, wrong: of the blocks only
# says: too much
def share_of_mlp(model):
    sizes = {name: p.data.size for name, p in model.named_parameters() if name.startswith("blocks")}
    return sum(size for name, size in sizes.items() if ".mlp." in name) / sum(sizes.values())

# %% exercise 3, wrong: the number for this model
# says: Of a model with
def share_of_mlp(model):
    return 148224 / 328320

# %% exercise 3, wrong: per cent
# says: A share lies between 0 and 1
def share_of_mlp(model):
    sizes = {name: p.data.size for name, p in model.named_parameters()}
    return 100 * sum(size for name, size in sizes.items() if ".mlp." in name) / sum(sizes.values())

# %% exercise 3, wrong: the first layer only
# says: too little
def share_of_mlp(model):
    sizes = {name: p.data.size for name, p in model.named_parameters()}
    return sum(size for name, size in sizes.items() if "blocks.0.mlp." in name) / sum(sizes.values())

# %% exercise 3, right: block by block, by shapes
def share_of_mlp(model):
    own = sum(np.prod(p.shape) for block in model.blocks for p in block.mlp.parameters())
    return own / np.sum([np.prod(p.shape) for p in model.parameters()])

# %% exercise 3, right: one less what is not in it
def share_of_mlp(model):
    others = whole = 0
    for name, p in model.named_parameters():
        whole += p.data.size
        if "mlp" not in name.split("."):
            others += p.data.size
    return 1 - others / whole
