# %% exercise 1, wrong: without the root
# says: what does the formula divide them by
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    return (q.data @ k.data.swapaxes(-1, -2)).std()

# %% exercise 1, wrong: each query with its own key only
# says: is not the spread of all scores
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    return float((q.data * k.data).sum(axis=-1).std() / np.sqrt(q.shape[-1]))

# %% exercise 1, wrong: reshape in place of swapping axes
# says: is not the spread of all scores
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    B, H, t, d = k.shape
    return float((q.data @ k.data.reshape(B, H, d, t)).std() / np.sqrt(d))

# %% exercise 1, wrong: a mean of the heads' spreads per sequence
# says: is not the spread of all scores
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    scores = q.data @ k.data.swapaxes(-1, -2) / 4
    return scores.std(axis=(-1, -2)).mean()

# %% exercise 1, wrong: with the causal mask
# says: without a causal mask
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    scores = q.data @ k.data.swapaxes(-1, -2) / 4
    scores[..., ~np.tri(T, dtype=bool)] = -np.inf
    with np.errstate(invalid="ignore"):
        return scores.std()

# %% exercise 1, wrong: divided by d
# says: is not the spread of all scores
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    return float((q.data @ k.data.swapaxes(-1, -2)).std() / q.shape[-1])

# %% exercise 1, right: einsum, from the variance, as an array of no axes
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    scores = np.einsum("bhid,bhjd->bhij", q.data / q.shape[-1] ** 0.25, k.data / q.shape[-1] ** 0.25)
    return np.array(np.sqrt(((scores - scores.mean()) ** 2).mean()))

# %% exercise 1, right: with the library's Tensors
def spread_of_scores(model):
    block = model.blocks[0]
    x = model.token_embedding(held_out.ids) + model.position_embedding.weight[:T]
    q, k, _ = block.attn.heads(block.norm_1(x))
    scores = (q @ k.transpose(-1, -2)) * (1 / 4)
    centred = scores - scores.mean()
    return (centred * centred).mean() ** 0.5

# %% exercise 2, wrong: one too many
# says: out of their window
def window_mask(T, window):
    query, key = np.arange(T)[:, None], np.arange(T)[None, :]
    return (key <= query) & (key >= query - window)

# %% exercise 2, wrong: one too few
# says: how many before it should it be
def window_mask(T, window):
    query, key = np.arange(T)[:, None], np.arange(T)[None, :]
    return (key <= query) & (key > query - max(1, window - 1))

# %% exercise 2, wrong: to both sides
# says: Some position sees the future
def window_mask(T, window):
    query, key = np.arange(T)[:, None], np.arange(T)[None, :]
    return np.abs(query - key) < window

# %% exercise 2, wrong: blocks of positions
# says: out of their window
def window_mask(T, window):
    query, key = np.arange(T)[:, None], np.arange(T)[None, :]
    return (key <= query) & ((query // window == key // window) | (key == 0) | (query < 4))

# %% exercise 2, wrong: transposed
# says: Some position sees the future
def window_mask(T, window):
    return np.array([[0 <= s - t < window for s in range(T)] for t in range(T)])

# %% exercise 2, wrong: true where it may not look
# says: sees the future
def window_mask(T, window):
    query, key = np.arange(T)[:, None], np.arange(T)[None, :]
    return (key > query) | (key <= query - window)

# %% exercise 2, wrong: the sizes of the first example only
# says: the mask has shape
def window_mask(T, window):
    return np.tri(6, dtype=bool) & ~np.tri(6, k=-3, dtype=bool)

# %% exercise 2, right: ones and zeros
def window_mask(T, window):
    return np.tri(T, dtype=int) - np.tri(T, k=-window, dtype=int)

# %% exercise 2, right: lists of lists
def window_mask(T, window):
    rows = []
    for t in range(T):
        first = max(0, t - window + 1)
        rows.append([False] * first + [True] * (t + 1 - first) + [False] * (T - t - 1))
    return rows

# %% exercise 2, wrong: sees the window before itself, not itself
# says: Each position sees itself
def window_mask(T, window):
    query, key = np.arange(T)[:, None], np.arange(T)[None, :]
    return (key < query) & (key >= query - window)


# %% exercise 2, right: a difference of two triangles, as numbers
def window_mask(T, window):
    return np.tri(T) - np.tri(T, k=-window)


# %% exercise 3, wrong: the first query at the first key
# says: it sees all keys
def decoding_mask(t_q, t_k):
    return np.tri(t_q, t_k, dtype=bool)

# %% exercise 3, wrong: all keys for all
# says: its result differs from full attention
def decoding_mask(t_q, t_k):
    return np.ones((t_q, t_k), dtype=bool)

# %% exercise 3, wrong: without the query's own key, but for the last
# says: its result differs from full attention
def decoding_mask(t_q, t_k):
    mask = np.tri(t_q, t_k, k=t_k - t_q - 1, dtype=bool)
    mask[-1] = True
    mask[:, 0] = True
    return mask

# %% exercise 3, wrong: counted from the wrong end
# says: the last query stands at the last key
def decoding_mask(t_q, t_k):
    mask = np.tri(t_q, t_k, k=t_k - t_q, dtype=bool)
    return mask[::-1]

# %% exercise 3, wrong: only the new keys
# says: it sees all keys
def decoding_mask(t_q, t_k):
    position = np.arange(t_q)[:, None] + t_k - t_q
    key = np.arange(t_k)[None, :]
    return (key <= position) & (key >= t_k - t_q)

# %% exercise 3, right: the last rows of the full mask, as integers
def decoding_mask(t_q, t_k):
    return np.tril(np.ones((t_k, t_k), dtype=int))[t_k - t_q :]

# %% exercise 3, right: tuples
def decoding_mask(t_q, t_k):
    return tuple(tuple(key + t_q <= query + t_k for key in range(t_k)) for query in range(t_q))

# %% exercise 3, right: the other triangle, turned by half a turn
def decoding_mask(t_q, t_k):
    return np.rot90(np.triu(np.ones((t_k, t_k), dtype=int)), 2)[-t_q:]


# %% exercise 4, wrong: nothing is rescaled
# says: what do the sums so far have to become
def attention_in_blocks(q, K, V, block=4):
    m, total, out = -np.inf, 0.0, np.zeros(V.shape[1])
    for start in range(0, len(K), block):
        scores = K[start : start + block] @ q / np.sqrt(len(q))
        new_m = max(m, scores.max())
        terms = np.exp(scores - new_m)
        total += terms.sum()
        out = out + terms @ V[start : start + block]
        m = new_m
    return out / total

# %% exercise 4, wrong: only the sum is rescaled
# says: what do the sums so far have to become
def attention_in_blocks(q, K, V, block=4):
    m, total, out = -np.inf, 0.0, np.zeros(V.shape[1])
    for start in range(0, len(K), block):
        scores = K[start : start + block] @ q / np.sqrt(len(q))
        new_m = max(m, scores.max())
        terms = np.exp(scores - new_m)
        total = total * np.exp(m - new_m) + terms.sum()
        out = out + terms @ V[start : start + block]
        m = new_m
    return out / total

# %% exercise 4, wrong: the factor turned over
# says: Is some exponent
def attention_in_blocks(q, K, V, block=4):
    m, total, out = -np.inf, 0.0, np.zeros(V.shape[1])
    with np.errstate(all="ignore"):
        for start in range(0, len(K), block):
            scores = K[start : start + block] @ q / np.sqrt(len(q))
            new_m = max(m, scores.max())
            terms = np.exp(scores - new_m)
            total = total * np.exp(new_m - m) + terms.sum()
            out = out * np.exp(new_m - m) + terms @ V[start : start + block]
            m = new_m
        return out / total

# %% exercise 4, wrong: no maximum is subtracted
# says: Overflow with large scores
def attention_in_blocks(q, K, V, block=4):
    total, out = 0.0, np.zeros(V.shape[1])
    for start in range(0, len(K), block):
        terms = np.exp(K[start : start + block] @ q / np.sqrt(len(q)))
        total += terms.sum()
        out = out + terms @ V[start : start + block]
    return out / total

# %% exercise 4, wrong: the mean of the blocks' results
# says: Right in one block, wrong in several
def attention_in_blocks(q, K, V, block=4):
    results = []
    for start in range(0, len(K), block):
        results.append(softmax(K[start : start + block] @ q / np.sqrt(len(q))) @ V[start : start + block])
    return np.mean(results, axis=0)

# %% exercise 4, wrong: not divided by the sum
# says: Wrong in one block already
def attention_in_blocks(q, K, V, block=4):
    m, out = -np.inf, np.zeros(V.shape[1])
    for start in range(0, len(K), block):
        scores = K[start : start + block] @ q / np.sqrt(len(q))
        new_m = max(m, scores.max())
        out = out * np.exp(m - new_m) + np.exp(scores - new_m) @ V[start : start + block]
        m = new_m
    return out

# %% exercise 4, right: the sum kept as a logarithm, the result kept normalised
def attention_in_blocks(q, K, V, block=4):
    log_total, out = -np.inf, np.zeros(V.shape[1])
    for start in range(0, len(K), block):
        scores = K[start : start + block] @ q / np.sqrt(len(q))
        of_block = scores.max() + np.log(np.exp(scores - scores.max()).sum())
        both = np.logaddexp(log_total, of_block)
        out = np.exp(log_total - both) * out + np.exp(scores - both) @ V[start : start + block]
        log_total = both
    return out

# %% exercise 4, right: one key after the other, a list of numbers
def attention_in_blocks(q, K, V, block=4):
    m, total, out = float("-inf"), 0.0, [0.0] * V.shape[1]
    for key, value in zip(K, V):
        score = float(key @ q) / len(q) ** 0.5
        new_m = max(m, score)
        old, new = float(np.exp(m - new_m)), float(np.exp(score - new_m))
        total, m = total * old + new, new_m
        out = [o * old + new * float(v) for o, v in zip(out, value)]
    return [o / total for o in out]
