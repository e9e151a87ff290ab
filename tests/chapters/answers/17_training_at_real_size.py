# %% exercise 1, wrong: one moment
# says: two moments for each weight
def bytes_per_rank(n, ranks, stage):
    parts = [1, 1, 1]  # weights, gradients, moments
    divided = {0: 0, 1: 1, 2: 2, 3: 3}[stage]
    return 4 * n * (sum(parts[: 3 - divided]) + sum(parts[3 - divided :]) / ranks)


# %% exercise 1, wrong: everything from stage 1 on
# says: weights and gradients whole, two moments divided
def bytes_per_rank(n, ranks, stage):
    return 16 * n / (ranks if stage else 1)


# %% exercise 1, wrong: one moment divided, then the other
# says: Stage 1 divides both moments
def bytes_per_rank(n, ranks, stage):
    whole = {0: 4, 1: 3, 2: 1, 3: 0}[stage]
    return 4 * n * (whole + (4 - whole) / ranks)


# %% exercise 1, wrong: stage 2 leaves the gradients whole
# says: Stage 2: weights whole, gradients
def bytes_per_rank(n, ranks, stage):
    whole = {0: 4, 1: 2, 2: 2, 3: 0}[stage]
    return 4 * n * (whole + (4 - whole) / ranks)


# %% exercise 1, wrong: in numbers, not bytes
# says: four numbers of 4 bytes
def bytes_per_rank(n, ranks, stage):
    whole = {0: 4, 1: 2, 2: 1, 3: 0}[stage]
    return n * (whole + (4 - whole) / ranks)


# %% exercise 1, right: part by part
def bytes_per_rank(n, ranks, stage):
    total = 0.0
    for from_stage, bytes_each in ((3, 4), (2, 4), (1, 8)):  # weights, gradients, moments
        total += bytes_each * n / (ranks if stage >= from_stage else 1)
    return total


# %% exercise 1, right: as an array
def bytes_per_rank(n, ranks, stage):
    each = np.array([8, 4, 4])  # moments, gradients, weights
    return n * (each / np.where(np.arange(3) < stage, ranks, 1)).sum()


# %% exercise 2, wrong: the mean of the means
# says: mean of the means
def gradient_of_all(means, counts):
    return np.mean(means, axis=0)


# %% exercise 2, wrong: a sum
# says: A sum of means is no mean
def gradient_of_all(means, counts):
    return sum(means)


# %% exercise 2, wrong: not divided
# says: The gradient of the summed loss
def gradient_of_all(means, counts):
    return sum(mean * count for mean, count in zip(means, counts))


# %% exercise 2, wrong: nan times 0
# says: 0 times nan is nan
def gradient_of_all(means, counts):
    return sum(mean * count for mean, count in zip(means, counts)) / sum(counts)


# %% exercise 2, wrong: an empty rank counts as one target
# says: must not change the mean of the others
def gradient_of_all(means, counts):
    counts = [max(count, 1) for count in counts]
    return sum(np.nan_to_num(mean) * count for mean, count in zip(means, counts)) / sum(counts)


# %% exercise 2, right: NumPy's weighted average
def gradient_of_all(means, counts):
    return np.average(np.nan_to_num(np.stack(means)), axis=0, weights=counts)


# %% exercise 2, right: as a list, rank by rank
def gradient_of_all(means, counts):
    found, so_far = None, 0
    for mean, count in zip(means, counts):
        if count == 0:
            continue
        so_far += count
        found = mean if found is None else found + (mean - found) * count / so_far
    return found.tolist()


# %% exercise 3, wrong: in place
# says: half a file
def save(disk, name, data):
    disk.write(name, data)


# %% exercise 3, wrong: the old one removed first
# says: nothing called last
def save(disk, name, data):
    disk.write("new", data)
    if name in disk.files:
        disk.remove(name)
    disk.rename("new", name)


# %% exercise 3, wrong: the old one moved away first, and never looked for
# says: nothing called last
def save(disk, name, data):
    disk.write("new", data)
    if name in disk.files:
        disk.rename(name, "old")
    disk.rename("new", name)
    if "old" in disk.files:
        disk.remove("old")


# %% exercise 3, wrong: never renamed
# says: the name must hold the new data
def save(disk, name, data):
    disk.write(name + ".tmp", data)


# %% exercise 3, wrong: what was left behind is trusted
# says: the next save must work all the same
def save(disk, name, data):
    if name + ".tmp" not in disk.files:
        disk.write(name + ".tmp", data)
    disk.rename(name + ".tmp", name)


# %% exercise 3, wrong: a copy is kept
# says: nothing else should be left
def save(disk, name, data):
    disk.write("backup", data)
    disk.write("new", data)
    disk.rename("new", name)


# %% exercise 3, right: cleans up first
def save(disk, name, data):
    beside = "." + name
    if beside in disk.files:
        disk.remove(beside)
    disk.write(beside, data)
    disk.rename(beside, name)


# %% exercise 3, right: nothing to do where the content is there
def save(disk, name, data):
    if disk.files.get(name) != data:
        disk.write("almost", data)
        disk.rename("almost", name)


# %% exercise 4, wrong: serving forgotten
# says: must depend on how much is served
def cheapest_to_own(law, loss, served, sizes):
    sizes = sizes[law.E + law.A / sizes**law.alpha < loss]
    tokens = (law.B / (loss - law.E - law.A / sizes**law.alpha)) ** (1 / law.beta)
    best = np.argmin(6 * sizes * tokens)
    return sizes[best], tokens[best]


# %% exercise 4, wrong: served tokens cost a training step
# says: A served token costs a forward pass
def cheapest_to_own(law, loss, served, sizes):
    sizes = sizes[law.E + law.A / sizes**law.alpha < loss]
    tokens = (law.B / (loss - law.E - law.A / sizes**law.alpha)) ** (1 / law.beta)
    best = np.argmin(6 * sizes * (tokens + served))
    return sizes[best], tokens[best]


# %% exercise 4, wrong: sizes out of reach stay
# says: nan
def cheapest_to_own(law, loss, served, sizes):
    with np.errstate(invalid="ignore"):
        tokens = (law.B / (loss - law.E - law.A / sizes**law.alpha)) ** (1 / law.beta)
    best = np.argmin(6 * sizes * tokens + 2 * sizes * served)
    return sizes[best], tokens[best]


# %% exercise 4, wrong: the rest of the loss taken as positive
# says: can never reach the loss
def cheapest_to_own(law, loss, served, sizes):
    tokens = (law.B / abs(loss - law.E - law.A / sizes**law.alpha)) ** (1 / law.beta)
    best = np.argmin(6 * sizes * tokens + 2 * sizes * served)
    return sizes[best], tokens[best]


# %% exercise 4, wrong: the tokens of the optimum, not of the loss
# says: has another loss
def cheapest_to_own(law, loss, served, sizes):
    sizes = sizes[law.E + law.A / sizes**law.alpha < loss]
    best = np.argmin(6 * sizes * 20 * sizes + 2 * sizes * served)
    return sizes[best], 20 * sizes[best]


# %% exercise 4, right: size by size
def cheapest_to_own(law, loss, served, sizes):
    best = None
    for size in sizes.tolist():
        left = loss - law.E - law.A / size**law.alpha
        if left <= 0:
            continue
        tokens = (law.B / left) ** (1 / law.beta)
        cost = 2 * size * (3 * tokens + served)
        if best is None or cost < best[0]:
            best = cost, size, tokens
    return best[1:]


# %% exercise 4, right: by bisection, as an array
def cheapest_to_own(law, loss, served, sizes):
    sizes = sizes[law.loss(sizes, 1e300) < loss]
    low, high = np.zeros(len(sizes)), np.full(len(sizes), 300 * np.log(10))
    for _ in range(200):
        middle = (low + high) / 2
        too_high = law.loss(sizes, np.exp(middle)) > loss
        low, high = np.where(too_high, middle, low), np.where(too_high, high, middle)
    tokens = np.exp(high)
    best = np.argmin(6 * sizes * tokens + 2 * sizes * served)
    return np.array([sizes[best], tokens[best]])
