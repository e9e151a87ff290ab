# %% exercise 1, wrong: the biased twin
# says: That is the biased twin
def estimate(n, c, k):
    return 1 - (1 - c / n) ** k


# %% exercise 1, wrong: the chance that none passes
# says: chance that none passes
def estimate(n, c, k):
    return comb(n - c, k) / comb(n, k)


# %% exercise 1, wrong: all k must pass
# says: one is enough
def estimate(n, c, k):
    return comb(c, k) / comb(n, k)


# %% exercise 1, wrong: a product from n − c on, without a look at how many failed
# says: Fewer than k samples failed
def estimate(n, c, k):
    if k > n - c:
        return c / n
    return 1 - np.prod([1 - k / i for i in range(n - c + 1, n + 1)])


# %% exercise 1, wrong: binomials in floats
# says: raised
def estimate(n, c, k):
    def choose(a, b):
        result = 1.0
        for i in range(b):
            result *= (a - i) / (i + 1)
        return int(result) if a >= b else 0

    return 1 - choose(n - c, k) / choose(n, k)


# %% exercise 1, right: failing k times in a row, nothing put back
def estimate(n, c, k):
    fail = 1.0
    for i in range(k):
        fail *= max(n - c - i, 0) / (n - i)
    return 1 - fail


# %% exercise 1, right: the library's, as an array
def estimate(n, c, k):
    return pass_at_k([n], [c], k)


# %% exercise 2, wrong: those without a value vote, too
# says: have no vote
def vote(outputs):
    sizes = [outputs.count(mine) for mine in outputs]
    return sizes.index(max(sizes))


# %% exercise 2, wrong: an index into those that gave a value
# says: have no vote
def vote(outputs):
    ran = [mine for mine in outputs if mine is not None]
    sizes = [ran.count(mine) for mine in ran]
    return sizes.index(max(sizes)) if ran else 0


# %% exercise 2, wrong: the last of equal groups
# says: Of groups of the same size
def vote(outputs):
    sizes = [0 if mine is None else outputs.count(mine) for mine in outputs]
    best = max(range(len(sizes)), key=lambda i: (sizes[i], i))
    return outputs.index(outputs[best])


# %% exercise 2, wrong: sorted lists
# says: do not sort them
def vote(outputs):
    keys = [None if mine is None else str([sorted(v) if isinstance(v, list) else v for v in mine]) for mine in outputs]
    sizes = [0 if key is None else keys.count(key) for key in keys]
    return sizes.index(max(sizes))


# %% exercise 2, wrong: the first value only
# says: not only the first
def vote(outputs):
    keys = [None if mine is None else str(mine[0]) for mine in outputs]
    sizes = [0 if key is None else keys.count(key) for key in keys]
    return sizes.index(max(sizes))


# %% exercise 2, right: a counter of texts
def vote(outputs):
    from collections import Counter

    counts = Counter(repr(mine) for mine in outputs if mine is not None)
    return [repr(mine) for mine in outputs].index(counts.most_common(1)[0][0]) if counts else 0


# %% exercise 2, right: groups grown one by one, as NumPy's number
def vote(outputs):
    groups = []
    for i, mine in enumerate(outputs):
        for group in groups:
            if mine is not None and outputs[group[0]] == mine:
                group.append(i)
                break
        else:
            groups.append([i] if mine is not None else [])
            groups = [group for group in groups if group]
    best = max(groups, key=len, default=[0])
    return np.int64(best[0])


# %% exercise 3, wrong: chances added up
# says: do not add up
def tries(p, target):
    return round(target / p)


# %% exercise 3, wrong: rounded down
# says: one too few
def tries(p, target):
    return int(np.log(1 - target) / np.log(1 - p))


# %% exercise 3, wrong: not rounded
# says: whole
def tries(p, target):
    return np.log(1 - target) / np.log(1 - p)


# %% exercise 3, wrong: the quotient turned over
# says: which logarithm
def tries(p, target):
    return int(np.ceil(np.log(1 - p) / np.log(1 - target)))


# %% exercise 3, wrong: more than the target, not at least
# says: exactly
def tries(p, target):
    k = 1
    while 1 - (1 - p) ** k <= target:
        k += 1
    return k


# %% exercise 3, right: the failures left over, multiplied down
def tries(p, target):
    left, k = 1.0, 0
    while 1 - left < target:
        left, k = left * (1 - p), k + 1
    return k


# %% exercise 3, right: by the logarithms, as a float
def tries(p, target):
    return np.ceil(np.log(1 - target) / np.log(1 - p))
