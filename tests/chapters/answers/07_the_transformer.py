# %% exercise 1, wrong: keys and values of all heads
# says: how many heads do they make?
def llama_parameters(V, D, L, H, Hkv, F):
    return V * D + L * (4 * D * D + 3 * D * F + 2 * D) + D


# %% exercise 1, wrong: forgets the last norm
# says: Which gains of norms are missing?
def llama_parameters(V, D, L, H, Hkv, F):
    return V * D + L * (2 * D * D + 2 * D * Hkv * (D // H) + 3 * D * F + 2 * D)


# %% exercise 1, wrong: a head of its own
# says: which of your matrices is the same one twice?
def llama_parameters(V, D, L, H, Hkv, F):
    return 2 * V * D + L * (2 * D * D + 2 * D * Hkv * (D // H) + 3 * D * F + 2 * D) + D


# %% exercise 1, wrong: two matrices in the feed-forward network
# says: a feed-forward network with a gate
def llama_parameters(V, D, L, H, Hkv, F):
    return V * D + L * (2 * D * D + 2 * D * Hkv * (D // H) + 2 * D * F + 2 * D) + D


# %% exercise 1, wrong: layer norms, with a bias
# says: What does an RMS norm have
def llama_parameters(V, D, L, H, Hkv, F):
    return V * D + L * (2 * D * D + 2 * D * Hkv * (D // H) + 3 * D * F + 4 * D) + 2 * D


# %% exercise 1, wrong: GPT's formula
# says: list what has weights
def llama_parameters(V, D, L, H, Hkv, F):
    return V * D + L * (12 * D**2 + 13 * D) + 2 * D


# %% exercise 1, wrong: the matrix that mixes the heads shrinks, too
# says: list what has weights
def llama_parameters(V, D, L, H, Hkv, F):
    return V * D + L * (D * D + 3 * D * Hkv * (D // H) + 3 * D * F + 2 * D) + D


# %% exercise 1, right: from the arrays of a model
def llama_parameters(V, D, L, H, Hkv, F):
    shape = {"n_layers": L, "n_heads": H, "n_kv_heads": Hkv, "d_model": D, "d_ff": F}
    model = Llama(LlamaConfig(V, 16, tie_embeddings=True, **shape))
    return np.sum([p.data.size for p in model.parameters()])


# %% exercise 1, right: a float
def llama_parameters(V, D, L, H, Hkv, F):
    return float(V * D + L * (2 * D * D * (1 + Hkv / H) + 3 * D * F + 2 * D) + D)


# %% exercise 2, wrong: tiles
# says: neighbours should share
def share(k, n_heads):
    return np.tile(k, (n_heads // len(k), 1, 1))


# %% exercise 2, wrong: repeats positions
# says: the result must be
def share(k, n_heads):
    return np.repeat(k, n_heads // len(k), axis=1)


# %% exercise 2, wrong: by reshape alone, which mixes heads
# says: copy whole heads, unmixed
def share(k, n_heads):
    return np.repeat(k, n_heads // len(k), axis=1).reshape(n_heads, *k.shape[1:])[:, ::-1]


# %% exercise 2, wrong: the first key head for all
# says: are used
def share(k, n_heads):
    return np.stack([k[0]] * n_heads)


# %% exercise 2, wrong: the other way round
# says: neighbours should share
def share(k, n_heads):
    return np.repeat(k, n_heads // len(k), axis=0)[::-1]


# %% exercise 2, right: a view without a copy
def share(k, n_heads):
    groups = np.broadcast_to(k[:, None], (len(k), n_heads // len(k), *k.shape[1:]))
    return groups.reshape(n_heads, *k.shape[1:])


# %% exercise 2, right: by indices
def share(k, n_heads):
    return k[np.arange(n_heads) * len(k) // n_heads]


# %% exercise 2, right: a list of arrays
def share(k, n_heads):
    return [k[h // (n_heads // len(k))] for h in range(n_heads)]


# %% exercise 3, wrong: σ is taken for a constant
# says: z stands in z σ(z) twice
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    return g * u * sigma, g * z * sigma


# %% exercise 3, wrong: the slope of σ alone
# says: z stands in z σ(z) twice
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    return g * u * sigma * (1 - sigma), g * z * sigma


# %% exercise 3, wrong: forgets what the gate multiplies
# says: SiLU(z) is multiplied by something, too
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    return g * (sigma + z * sigma * (1 - sigma)), g * z * sigma


# %% exercise 3, wrong: σ in place of SiLU beside u
# says: what is u multiplied by
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    return g * u * (sigma + z * sigma * (1 - sigma)), g * sigma


# %% exercise 3, wrong: the other order
# says: in the other order
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    return g * z * sigma, g * u * (sigma + z * sigma * (1 - sigma))


# %% exercise 3, wrong: summed over the positions, as if it were a weight's
# says: must have the shape of u
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    return g * u * (sigma + z * sigma * (1 - sigma)), (g * z * sigma).sum(axis=0)


# %% exercise 3, right: by SiLU itself, as lists
def swiglu_backward(g, z, u):
    sigma = 1 / (1 + np.exp(-z))
    silu = z * sigma
    return [(g * u * (silu + sigma * (1 - silu))).tolist(), list(g * silu)]


# %% exercise 3, right: in place, on the arrays that it was given
def swiglu_backward(g, z, u):
    e = np.exp(-z)
    u *= g * (1 + e + z * e) / (1 + e) ** 2
    g *= z / (1 + e)
    return u, g


# %% exercise 4, wrong: leaves it as it is
# says: which two does `rotate` pair?
def reorder_rows(W, n_heads):
    return W


# %% exercise 4, wrong: the way back
# says: which two does `rotate` pair?
def reorder_rows(W, n_heads):
    return W.reshape(n_heads, 2, -1, W.shape[1]).swapaxes(1, 2).reshape(W.shape)


# %% exercise 4, wrong: across the heads
# says: Rows must stay in their heads
def reorder_rows(W, n_heads):
    return np.concatenate([W[0::2], W[1::2]])


# %% exercise 4, wrong: columns in place of rows
# says: All rows must be there once, unchanged
def reorder_rows(W, n_heads):
    return np.concatenate([W[:, 0::2], W[:, 1::2]], axis=1)


# %% exercise 4, wrong: odd features first
# says: which two does `rotate` pair?
def reorder_rows(W, n_heads):
    return W.reshape(n_heads, -1, 2, W.shape[1])[:, :, ::-1].swapaxes(1, 2).reshape(W.shape)


# %% exercise 4, wrong: the odd features from the last to the first
# says: which two does `rotate` pair?
def reorder_rows(W, n_heads):
    heads = W.reshape(n_heads, -1, W.shape[1])
    return np.concatenate([heads[:, 0::2], heads[:, ::-1][:, 0::2]], axis=1).reshape(W.shape)


# %% exercise 4, right: by a list of row numbers
def reorder_rows(W, n_heads):
    d = len(W) // n_heads
    order = [*range(0, d, 2), *range(1, d, 2)]
    return [W[head * d + i] for head in range(n_heads) for i in order]


# %% exercise 4, right: head by head, in place
def reorder_rows(W, n_heads):
    for head in np.split(W, n_heads):
        head[:] = np.concatenate([head[::2], head[1::2]])
    return W
