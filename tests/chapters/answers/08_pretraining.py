# %% exercise 1, wrong: begins at 0
# says: The first step does not move
def rate(step, total, warmup, final):
    if step < warmup:
        return step / warmup
    return 1 + (final - 1) * (step - warmup) / (total - 1 - warmup)


# %% exercise 1, wrong: ends one step too late
# says: its factor must be
def rate(step, total, warmup, final):
    if step < warmup:
        return (step + 1) / warmup
    return 1 + (final - 1) * (step - warmup) / (total - warmup)


# %% exercise 1, wrong: falls to 0, whatever `final`
# says: its factor must be
def rate(step, total, warmup, final):
    if step < warmup:
        return (step + 1) / warmup
    return 1 - (step - warmup) / (total - 1 - warmup)


# %% exercise 1, wrong: has fallen during the warmup already
# says: begins with the full rate
def rate(step, total, warmup, final):
    if step < warmup:
        return (step + 1) / warmup
    return 1 + (final - 1) * step / (total - 1)


# %% exercise 1, wrong: reaches the full rate a step after the warmup
# says: the climb is done at step
def rate(step, total, warmup, final):
    if step <= warmup:
        return (step + 1) / (warmup + 1)
    return 1 + (final - 1) * (step - warmup) / (total - 1 - warmup)


# %% exercise 1, wrong: a cosine
# says: no straight line
def rate(step, total, warmup, final):
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * (1 + np.cos(np.pi * (step - warmup) / (total - 1 - warmup))) / 2


# %% exercise 1, right: the smaller of two lines
def rate(step, total, warmup, final):
    left = total - 1 - step
    return min((step + 1) / warmup, final + (1 - final) * left / (total - 1 - warmup))


# %% exercise 1, right: interpolated, as an array of no axes
def rate(step, total, warmup, final):
    return np.asarray(np.interp(step, [-1, warmup - 1, warmup, total - 1], [0.0, 1.0, 1.0, final]))


# %% exercise 2, wrong: each array by itself
# says: Is the norm taken over all arrays together
def clipped(gradients, limit):
    return [g * min(1.0, limit / max(np.linalg.norm(g), 1e-12)) for g in gradients]


# %% exercise 2, wrong: each entry by itself
# says: Is the norm taken over all arrays together
def clipped(gradients, limit):
    return [np.clip(g, -limit, limit) for g in gradients]


# %% exercise 2, wrong: in place
# says: have changed
def clipped(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    for g in gradients:
        g *= min(1.0, limit / (norm + 1e-12))
    return gradients


# %% exercise 2, wrong: always to the limit
# says: must stay as they are
def clipped(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * limit / (norm + 1e-12) for g in gradients]


# %% exercise 2, wrong: the sum of the norms instead of the joint norm
# says: must not make it smaller than that
def clipped(gradients, limit):
    norm = sum(np.linalg.norm(g) for g in gradients)
    return [g * min(1.0, limit / (norm + 1e-12)) for g in gradients]


# %% exercise 2, wrong: divides by the norm first, which may be 0
# says: without a division by 0
def clipped(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    with np.errstate(invalid="ignore"):
        return [g / norm * min(norm, limit) for g in gradients]


# %% exercise 2, wrong: to norm 1, whatever the limit
# says: must not make it smaller than that
def clipped(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g / norm if norm > limit else g for g in gradients]


# %% exercise 2, wrong: squares the sum of each array, not each entry
# says: Is the norm taken over all arrays together
def clipped(gradients, limit):
    norm = np.sqrt(sum(g.sum() ** 2 for g in gradients))
    return [g * min(1.0, limit / (norm + 1e-12)) for g in gradients]


# %% exercise 2, right: all in one vector, returned as a tuple
def clipped(gradients, limit):
    norm = np.linalg.norm(np.concatenate([np.ravel(g) for g in gradients]))
    return tuple(g / max(1.0, norm / limit) for g in gradients)


# %% exercise 2, right: as the library does it, with its 1e-6
def clipped(gradients, limit):
    norm = np.linalg.norm([np.linalg.norm(g) for g in gradients])
    factor = limit / (norm + 1e-6)
    return [g * factor if factor < 1 else g.copy() for g in gradients]


# %% exercise 3, wrong: the mean of means
# says: Each target must weigh the same
def combined(gradients, targets):
    return np.mean(gradients, axis=0)


# %% exercise 3, wrong: counts padding as well
# says: Each target must weigh the same
def combined(gradients, targets):
    counts = [t.size for t in targets]
    return sum(n * g for n, g in zip(counts, gradients)) / sum(counts)


# %% exercise 3, wrong: counts rows
# says: Each target must weigh the same
def combined(gradients, targets):
    counts = [len(t) for t in targets]
    return sum(n * g for n, g in zip(counts, gradients)) / sum(counts)


# %% exercise 3, wrong: the sum
# says: Wrong even for two micro-batches
def combined(gradients, targets):
    return sum(gradients)


# %% exercise 3, wrong: takes the id 0 for padding
# says: like any other
def combined(gradients, targets):
    counts = [int((t > 0).sum()) for t in targets]
    return sum(n * g for n, g in zip(counts, gradients)) / sum(counts)


# %% exercise 3, wrong: NaN of an empty micro-batch
# says: NaN times 0 is NaN
def combined(gradients, targets):
    counts = [int((t != -100).sum()) for t in targets]
    return sum(n * g for n, g in zip(counts, gradients)) / sum(counts)


# %% exercise 3, right: a weighted average of those that count
def combined(gradients, targets):
    pairs = [(np.count_nonzero(t != -100), g) for t, g in zip(targets, gradients)]
    counts, kept = zip(*[(n, g) for n, g in pairs if n > 0])
    return np.average(kept, axis=0, weights=counts)


# %% exercise 3, right: running mean, returned as a list
def combined(gradients, targets):
    mean, seen = np.zeros_like(gradients[0]), 0
    for g, t in zip(gradients, targets):
        n = int(np.sum(np.asarray(t) >= 0))
        if n:
            seen += n
            mean = mean + (g - mean) * n / seen
    return mean.tolist()


# %% exercise 4, wrong: takes the lowest training loss for health
# says: Not all four are right
diagnosis = {"1": "short", "2": "healthy", "3": "high", "4": "shifted"}


# %% exercise 4, wrong: takes the rising held-out loss for a high rate
# says: Not all four are right
diagnosis = {"1": "high", "2": "shifted", "3": "short", "4": "healthy"}


# %% exercise 4, wrong: one word twice
# says: Each of the four words is used once
diagnosis = {"1": "short", "2": "shifted", "3": "high", "4": "high"}


# %% exercise 4, wrong: other words
# says: Each of the four words is used once
diagnosis = {"1": "overfits", "2": "leak", "3": "high", "4": "healthy"}


# %% exercise 4, right: numbers as keys
diagnosis = {1: "short", 2: "shifted", 3: "high", 4: "healthy"}


# %% exercise 4, right: capitals and spaces
diagnosis = {"4": "Healthy", "3": " high", "2": "Shifted ", "1": "SHORT"}
