# %% exercise 1, wrong: the sign
# says: The sign
def distance_to_output(log_probs):
    last = log_probs[-1]
    return (np.exp(last) * (log_probs - last)).sum(axis=1)


# %% exercise 1, wrong: the other way round
# says: the other way round
def distance_to_output(log_probs):
    return (np.exp(log_probs) * (log_probs - log_probs[-1])).sum(axis=1)


# %% exercise 1, wrong: the cross-entropy alone
# says: subtract the output's own entropy
def distance_to_output(log_probs):
    return -(np.exp(log_probs[-1]) * log_probs).sum(axis=1)


# %% exercise 1, wrong: bits
# says: These are bits
def distance_to_output(log_probs):
    last = log_probs[-1]
    return (np.exp(last) * (last - log_probs)).sum(axis=1) / np.log(2)


# %% exercise 1, wrong: a mean over the vocabulary
# says: no mean of V numbers
def distance_to_output(log_probs):
    last = log_probs[-1]
    return (np.exp(last) * (last - log_probs)).mean(axis=1)


# %% exercise 1, wrong: unweighted differences
# says: Not the sum of
def distance_to_output(log_probs):
    return (log_probs[-1] - log_probs).sum(axis=1)


# %% exercise 1, wrong: one number for all layers
# says: one number for each of the 4 rows
def distance_to_output(log_probs):
    last = log_probs[-1]
    return (np.exp(last) * (last - log_probs)).sum()


# %% exercise 1, right: loops over plain lists
def distance_to_output(log_probs):
    rows = log_probs.tolist()
    return [sum(np.exp(q) * (q - p) for p, q in zip(row, rows[-1])) for row in rows]


# %% exercise 1, right: a matrix product, cross-entropy less entropy
def distance_to_output(log_probs):
    cross = -log_probs @ np.exp(log_probs[-1])
    return cross - cross[-1]


# %% exercise 2, wrong: the first layer on the left
# says: The order
def roll_out(attention):
    T = attention.shape[-1]
    rolled = np.eye(T)
    for layer in attention:
        rolled = rolled @ (0.5 * np.eye(T) + 0.5 * layer.mean(axis=0))
    return rolled


# %% exercise 2, wrong: no residual
# says: The residual is missing
def roll_out(attention):
    rolled = np.eye(attention.shape[-1])
    for layer in attention:
        rolled = layer.mean(axis=0) @ rolled
    return rolled


# %% exercise 2, wrong: the mean over layers
# says: multiply them
def roll_out(attention):
    return 0.5 * np.eye(attention.shape[-1]) + 0.5 * attention.mean(axis=(0, 1))


# %% exercise 2, wrong: heads are summed
# says: Rows must sum to 1
def roll_out(attention):
    T = attention.shape[-1]
    rolled = np.eye(T)
    for layer in attention:
        rolled = (0.5 * np.eye(T) + 0.5 * layer.sum(axis=0)) @ rolled
    return rolled


# %% exercise 2, wrong: the residual counts once, not half
# says: Rows must sum to 1
def roll_out(attention):
    T = attention.shape[-1]
    rolled = np.eye(T)
    for layer in attention:
        rolled = (np.eye(T) + layer.mean(axis=0)) @ rolled
    return rolled


# %% exercise 2, wrong: one head only
# says: the shares differ
def roll_out(attention):
    T = attention.shape[-1]
    rolled = np.eye(T)
    for layer in attention:
        rolled = (0.5 * np.eye(T) + 0.5 * layer[0]) @ rolled
    return rolled


# %% exercise 2, wrong: every layer's rollout
# says: Return the last layer's rollout
def roll_out(attention):
    T = attention.shape[-1]
    rolled = [np.eye(T)]
    for layer in attention:
        rolled.append((0.5 * np.eye(T) + 0.5 * layer.mean(axis=0)) @ rolled[-1])
    return np.stack(rolled[1:])


# %% exercise 2, right: the residual as a sum of two
def roll_out(attention):
    rolled = np.eye(attention.shape[-1])
    for layer in attention:
        rolled = (rolled + layer.mean(axis=0) @ rolled) / 2
    return rolled


# %% exercise 2, right: from the last layer down, row by row
def roll_out(attention):
    L, H, T, _ = attention.shape
    rows = []
    for t in range(T):
        share = np.zeros(T)
        share[t] = 1
        for layer in range(L - 1, -1, -1):
            share = share / 2 + share @ attention[layer].sum(axis=0) / (2 * H)
        rows.append(share.tolist())
    return rows


# %% exercise 3, wrong: the earlier occurrences themselves
# says: the earlier occurrences themselves
def behind_earlier(ids):
    T = len(ids)
    return (ids[:, None] == ids[None, :]) & np.tri(T, k=-1, dtype=bool)


# %% exercise 3, wrong: the future, too
# says: to the right
def behind_earlier(ids):
    before = np.concatenate([[-1], ids[:-1]])
    return before[None, :] == ids[:, None]


# %% exercise 3, wrong: np.roll lets the last token stand before the first
# says: no token before it
def behind_earlier(ids):
    return (np.roll(ids, 1)[None, :] == ids[:, None]) & np.tri(len(ids), dtype=bool)


# %% exercise 3, wrong: only strictly before
# says: s = t counts
def behind_earlier(ids):
    before = np.concatenate([[-1], ids[:-1]])
    return (before[None, :] == ids[:, None]) & np.tri(len(ids), k=-1, dtype=bool)


# %% exercise 3, wrong: the latest one only
# says: all earlier ones count
def behind_earlier(ids):
    T = len(ids)
    mask = np.zeros((T, T), dtype=bool)
    for t in range(T):
        for s in range(t, 0, -1):
            if ids[s - 1] == ids[t]:
                mask[t, s] = True
                break
    return mask


# %% exercise 3, right: lists of 0 and 1
def behind_earlier(ids):
    T = len(ids)
    return [[int(0 < s <= t and ids[s - 1] == ids[t]) for s in range(T)] for t in range(T)]


# %% exercise 3, right: the mask of earlier occurrences, moved by one
def behind_earlier(ids):
    T = len(ids)
    same = (ids[:, None] == ids[None, :]) & np.tri(T, k=-1, dtype=bool)
    return np.concatenate([np.zeros((T, 1), dtype=bool), same[:, :-1]], axis=1)


# %% exercise 4, wrong: drawn for each position
# says: Draw once for each id
def control_task(ids, labels, rng):
    return rng.choice(labels, len(ids))


# %% exercise 4, wrong: the labels shuffled
# says: Draw once for each id
def control_task(ids, labels, rng):
    return rng.permutation(labels)


# %% exercise 4, wrong: each kind of label as often as the others
# says: draw from `labels`
def control_task(ids, labels, rng):
    drawn = {i: rng.choice(np.unique(labels)) for i in np.unique(ids)}
    return np.array([drawn[i] for i in ids])


# %% exercise 4, wrong: one draw for all
# says: the same label
def control_task(ids, labels, rng):
    return np.full(len(ids), rng.choice(labels))


# %% exercise 4, wrong: the most frequent true label of each id, which is true
# says: Nothing may be true
def control_task(ids, labels, rng):
    found = {i: 3 * int((labels[ids == i] == 3).mean() > 0.5) for i in np.unique(ids)}
    return np.array([found[i] for i in ids])


# %% exercise 4, wrong: a number for each id
# says: none of the true ones
def control_task(ids, labels, rng):
    _, places = np.unique(ids, return_inverse=True)
    return rng.permutation(places.max() + 1)[places]


# %% exercise 4, wrong: the same in every draw
# says: use `rng`
def control_task(ids, labels, rng):
    fixed = np.random.default_rng(7)
    drawn = {i: fixed.choice(labels) for i in np.unique(ids)}
    return np.array([drawn[i] for i in ids])


# %% exercise 4, wrong: a label for each id, not for each position
# says: Return one label for each
def control_task(ids, labels, rng):
    return rng.choice(labels, len(np.unique(ids)))


# %% exercise 4, right: drawn as the ids come
def control_task(ids, labels, rng):
    drawn, found = {}, []
    for i in ids.tolist():
        if i not in drawn:
            drawn[i] = int(labels[rng.integers(len(labels))])
        found.append(drawn[i])
    return found


# %% exercise 4, right: the places of unique ids
def control_task(ids, labels, rng):
    kinds, places = np.unique(ids, return_inverse=True)
    return rng.permutation(labels)[: len(kinds)][places]
