# %% exercise 1, wrong: forbids the queries that are padding instead of the keys
# says: A token looks at padding
def visible(lengths, T, causal):
    is_token = np.arange(T) < np.array(lengths)[:, None]
    mask = np.repeat(is_token[:, :, None], T, axis=2)
    return mask & np.tri(T, dtype=bool) if causal else mask


# %% exercise 1, wrong: queries that are padding see nothing
# says: only keys are forbidden
def visible(lengths, T, causal):
    is_token = np.arange(T) < np.array(lengths)[:, None]
    mask = is_token[:, None, :] & is_token[:, :, None]
    return mask & np.tri(T, dtype=bool) if causal else mask


# %% exercise 1, wrong: causal in both cases
# says: Without `causal`
def visible(lengths, T, causal):
    is_token = np.arange(T) < np.array(lengths)[:, None]
    return is_token[:, None, :] & np.tri(T, dtype=bool)


# %% exercise 1, wrong: a mask for all heads, not yet for each query
# says: the shape must be
def visible(lengths, T, causal):
    return (np.arange(T) < np.array(lengths)[:, None])[:, None, :]


# %% exercise 1, wrong: the triangle the wrong way round
# says: nothing may be True above
def visible(lengths, T, causal):
    is_token = np.arange(T) < np.array(lengths)[:, None]
    mask = np.repeat(is_token[:, None, :], T, axis=1)
    return mask & np.triu(np.ones((T, T), dtype=bool)) if causal else mask


# %% exercise 1, wrong: a token may not look at itself
# says: still look at itself
def visible(lengths, T, causal):
    is_token = np.arange(T) < np.array(lengths)[:, None]
    mask = np.repeat(is_token[:, None, :], T, axis=1)
    return mask & np.tri(T, k=-1, dtype=bool) if causal else mask


# %% exercise 1, right: loops, and 1 and 0 in lists
def visible(lengths, T, causal):
    return [[[int(s < n and (not causal or s <= t)) for s in range(T)] for t in range(T)] for n in lengths]


# %% exercise 1, right: padding's share of the forbidden, as NOT OR
def visible(lengths, T, causal):
    padding = np.arange(T) >= np.asarray(lengths)[:, None, None]  # (B, 1, T)
    later = np.triu(np.ones((T, T), dtype=int), 1) * bool(causal)
    return 1 - (padding | later)


# %% exercise 1, right: compares three ranges at once
def visible(lengths, T, causal):
    _, t, s = np.ogrid[: len(lengths), :T, :T]
    shown = s < np.reshape(lengths, (-1, 1, 1))
    return (shown & (s <= t)) if causal else np.broadcast_to(shown, (len(lengths), T, T))


# %% exercise 2, wrong: the sign
# says: The sign
def masked_loss(log_p, targets):
    asked = targets != -100
    return log_p[asked][np.arange(asked.sum()), targets[asked]].mean()


# %% exercise 2, wrong: divides by all positions
# says: over the hidden ones only
def masked_loss(log_p, targets):
    asked = targets != -100
    return -log_p[asked][np.arange(asked.sum()), targets[asked]].sum() / targets.size


# %% exercise 2, wrong: a mean of means
# says: mean of the rows' means
def masked_loss(log_p, targets):
    rows = []
    for b in range(len(targets)):
        asked = np.flatnonzero(targets[b] != -100)
        if len(asked):
            rows.append(-log_p[b, asked, targets[b, asked]].mean())
    return np.mean(rows)


# %% exercise 2, wrong: the targets that are not asked for are taken as class 0
# says: Are −100s left out
def masked_loss(log_p, targets):
    wanted = np.maximum(targets, 0)
    return -np.take_along_axis(log_p, wanted[..., None], axis=-1).mean()


# %% exercise 2, wrong: leaves out the token with id 0
# says: Are −100s left out
def masked_loss(log_p, targets):
    asked = targets > 0
    return -log_p[asked][np.arange(asked.sum()), targets[asked]].mean()


# %% exercise 2, wrong: every hidden position with every target
# says: paired with every target
def masked_loss(log_p, targets):
    asked = targets != -100
    return -log_p[asked][:, targets[asked]].mean()


# %% exercise 2, wrong: the loss of each row
# says: Are −100s left out
def masked_loss(log_p, targets):
    asked = targets != -100
    return -log_p[asked][np.arange(asked.sum()), targets[asked]].sum() / len(targets)


# %% exercise 2, right: a loop over positions
def masked_loss(log_p, targets):
    found = [log_p[b, t, targets[b, t]] for b, t in np.ndindex(*targets.shape) if targets[b, t] != -100]
    return -sum(found) / len(found)


# %% exercise 2, right: a weighted average, 0 where nothing is asked
def masked_loss(log_p, targets):
    chosen = np.take_along_axis(log_p, targets.clip(0)[..., None], axis=-1).squeeze(-1)  # (B, T)
    return np.average(-chosen, weights=targets >= 0)


# %% exercise 2, right: the library's loss, whose softmax leaves log-probabilities as they are
def masked_loss(log_p, targets):
    from minillm import ops
    from minillm.tensor import Tensor

    return ops.cross_entropy(Tensor(log_p.reshape(-1, log_p.shape[-1])), targets.reshape(-1)).item()


# %% exercise 3, wrong: the formula of the text, with V in place of u
# says: how likely is it that this very token
def trust(q, u, replaced, kept):
    return q * (kept + replaced / 50) / (q * kept + replaced / 50)


# %% exercise 3, wrong: a replacement is never the original
# says: can be the original by chance
def trust(q, u, replaced, kept):
    return q * kept / (q * kept + replaced * u)


# %% exercise 3, wrong: kept and replaced change places
# says: how likely is it that this very token
def trust(q, u, replaced, kept):
    return q * (replaced + kept * u) / (q * replaced + kept * u)


# %% exercise 3, wrong: the context's probability alone
# says: it must be the formula of the text
def trust(q, u, replaced, kept):
    return q


# %% exercise 3, wrong: the share of kept ones, without the context
# says: it must be the formula of the text
def trust(q, u, replaced, kept):
    return (kept + replaced * u) / (kept + replaced)


# %% exercise 3, wrong: the random token counts among the wrong ones only
# says: it must be the formula of the text
def trust(q, u, replaced, kept):
    right = q * (kept + replaced * u)
    return right / (right + replaced * u)


# %% exercise 3, right: by odds
def trust(q, u, replaced, kept):
    wrong = (1 - q) * replaced * u
    right = q * (kept + replaced * u)
    return 1 / (1 + wrong / right)


# %% exercise 3, right: as an array
def trust(q, u, replaced, kept):
    q = np.array([q])
    return (q * kept + q * replaced * u) / (q * kept + replaced * u)


# %% exercise 4, wrong: nothing is hidden
# says: Nothing is hidden
def hidden_scores(model, ids, mask_id):
    scores = np.zeros(len(ids))
    scores[1:-1] = np.log(bert.visible_chances(model, ids[None])[0])
    return scores


# %% exercise 4, wrong: all are hidden at once
# says: only position t may be mask_id
def hidden_scores(model, ids, mask_id):
    masked = ids.copy()
    masked[1:-1] = mask_id
    with no_grad():
        logits = model(masked[None]).data[0]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    scores = log_p[np.arange(len(ids)), ids].astype(float)
    scores[[0, -1]] = 0
    return scores


# %% exercise 4, wrong: the edges are scored, too
# says: The first and the last position get 0
def hidden_scores(model, ids, mask_id):
    batch = np.tile(ids, (len(ids), 1))
    np.fill_diagonal(batch, mask_id)
    with no_grad():
        logits = model(batch).data[np.arange(len(ids)), np.arange(len(ids))]
    return logits[np.arange(len(ids)), ids] - np.log(np.exp(logits).sum(axis=1))


# %% exercise 4, wrong: probabilities
# says: take its logarithm
def hidden_scores(model, ids, mask_id):
    scores = np.zeros(len(ids))
    scores[1:-1] = bert.at_each_place(model, ids[None], mask_id)[0]
    return scores


# %% exercise 4, wrong: a place stays hidden when the next one's turn comes
# says: only position t may be mask_id
def hidden_scores(model, ids, mask_id):
    scores, text = np.zeros(len(ids)), ids.copy()
    for t in range(1, len(ids) - 1):
        text[t] = mask_id
        with no_grad():
            logits = model(text[None]).data[0, t]
        scores[t] = logits[ids[t]] - np.log(np.exp(logits).sum())
    return scores


# %% exercise 4, wrong: reads the place before, as for a GPT
# says: read row t of the batch at position t
def hidden_scores(model, ids, mask_id):
    scores = np.zeros(len(ids))
    for t in range(1, len(ids) - 1):
        text = ids.copy()
        text[t] = mask_id
        with no_grad():
            logits = model(text[None]).data[0, t - 1]
        scores[t] = logits[ids[t]] - np.log(np.exp(logits).sum())
    return scores


# %% exercise 4, right: one copy after the other, as a list
def hidden_scores(model, ids, mask_id):
    scores = [0.0]
    for t in range(1, len(ids) - 1):
        copy = ids.copy()
        copy[t] = mask_id
        with no_grad():
            logits = model(copy[None]).data[0, t].astype(float)
        scores.append(logits[ids[t]] - np.log(np.exp(logits).sum()))
    return [*scores, 0.0]


# %% exercise 4, right: the loss of the library, one position at a time
def hidden_scores(model, ids, mask_id):
    scores = np.zeros(len(ids))
    for t in range(1, len(ids) - 1):
        copy, targets = ids[None].copy(), np.full((1, len(ids)), -100)
        copy[0, t], targets[0, t] = mask_id, ids[t]
        scores[t] = -model(copy, targets=targets).item()
    return scores
