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


# %% exercise 2, right: by indices
def share(k, n_heads):
    return k[np.arange(n_heads) * len(k) // n_heads]


# %% exercise 2, right: a list of arrays
def share(k, n_heads):
    return [k[h // (n_heads // len(k))] for h in range(n_heads)]


# %% exercise 3, wrong: takes r for a constant
# says: so dL/dx · x must be about 0
def rms_norm_backward(g, x, w, eps=1e-6):
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return r * g * w, (g * x * r).sum(axis=0)


# %% exercise 3, wrong: a sum in place of the mean
# says: so dL/dx · x must be about 0
def rms_norm_backward(g, x, w, eps=1e-6):
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    h = g * w
    return r * (h - x * r * (h * x * r).sum(axis=-1, keepdims=True)), (g * x * r).sum(axis=0)


# %% exercise 3, wrong: layer norm's backward
# says: dL/dx is wrong
def rms_norm_backward(g, x, w, eps=1e-6):
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    h, xhat = g * w, x * r
    along = xhat * (h * xhat).mean(axis=-1, keepdims=True)
    return r * (h - h.mean(axis=-1, keepdims=True) - along), (g * xhat).sum(axis=0)


# %% exercise 3, wrong: forgets the gain
# says: where does the gain come in?
def rms_norm_backward(g, x, w, eps=1e-6):
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    xhat = x * r
    return r * (g - xhat * (g * xhat).mean(axis=-1, keepdims=True)), (g * xhat).sum(axis=0)


# %% exercise 3, wrong: the gain's gradient with x in place of x̂
# says: what is the slope of y along w?
def rms_norm_backward(g, x, w, eps=1e-6):
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    h, xhat = g * w, x * r
    return r * (h - xhat * (h * xhat).mean(axis=-1, keepdims=True)), (g * x).sum(axis=0)


# %% exercise 3, wrong: a gradient of the gain for each position
# says: all positions share the gain
def rms_norm_backward(g, x, w, eps=1e-6):
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    h, xhat = g * w, x * r
    return r * (h - xhat * (h * xhat).mean(axis=-1, keepdims=True)), g * xhat


# %% exercise 3, right: through the whole Jacobian
def rms_norm_backward(g, x, w, eps=1e-6):
    r = 1 / np.sqrt((x**2).mean(axis=-1) + eps)
    rows = []
    for h, row, scale in zip(g * w, x, r):
        xhat = row * scale
        rows.append(scale * (np.eye(len(row)) - np.outer(xhat, xhat) / len(row)) @ h)
    return rows, np.einsum("td,td->d", g, x * r[:, None])


# %% exercise 3, right: x instead of x̂, r to the third power
def rms_norm_backward(g, x, w, eps=1e-6):
    r = (np.mean(x * x, axis=1, keepdims=True) + eps) ** -0.5
    h = g * w
    dx = r * h - r**3 * x * np.sum(h * x, axis=1, keepdims=True) / x.shape[1]
    return [dx, list((g * x * r).sum(axis=0))]


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
