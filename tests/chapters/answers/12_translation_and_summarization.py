# %% exercise 1, wrong: no shift
# says: it would only copy
def decoder_batch(texts, start, end, pad):
    T = max(len(text) for text in texts) + 1
    ids, targets = np.full((len(texts), T), pad), np.full((len(texts), T), -100)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 1] = [start, *text]
        targets[row, : len(text) + 1] = [start, *text]
    return ids, targets


# %% exercise 1, wrong: padding is a target
# says: Padding in targets would be learned
def decoder_batch(texts, start, end, pad):
    T = max(len(text) for text in texts) + 1
    ids, targets = np.full((len(texts), T), pad), np.full((len(texts), T), pad)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 1] = [start, *text]
        targets[row, : len(text) + 1] = [*text, end]
    return ids, targets


# %% exercise 1, wrong: start and end on both sides
# says: The shapes must be (2, 4)
def decoder_batch(texts, start, end, pad):
    T = max(len(text) for text in texts) + 2
    ids, targets = np.full((len(texts), T), pad), np.full((len(texts), T), -100)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 2] = [start, *text, end]
        targets[row, : len(text) + 1] = [*text, end]
    return ids, targets


# %% exercise 1, wrong: no end, so that it never stops
# says: the model must learn to stop
def decoder_batch(texts, start, end, pad):
    T = max(len(text) for text in texts) + 1
    ids, targets = np.full((len(texts), T), pad), np.full((len(texts), T), -100)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 1] = [start, *text]
        targets[row, : len(text)] = text
    return ids, targets


# %% exercise 1, wrong: the end at the edge of the batch
# says: right behind the text
def decoder_batch(texts, start, end, pad):
    T = max(len(text) for text in texts) + 1
    ids, targets = np.full((len(texts), T), pad), np.full((len(texts), T), -100)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 1] = [start, *text]
        targets[row, : len(text)] = text
        targets[row, -1] = end
    return ids, targets


# %% exercise 1, wrong: padding on the left
# says: Every row of ids begins with start
def decoder_batch(texts, start, end, pad):
    T = max(len(text) for text in texts) + 1
    ids, targets = np.full((len(texts), T), pad), np.full((len(texts), T), -100)
    for row, text in enumerate(texts):
        ids[row, T - len(text) - 1 :] = [start, *text]
        targets[row, T - len(text) - 1 :] = [*text, end]
    return ids, targets


# %% exercise 1, right: lists
def decoder_batch(texts, start, end, pad):
    T = max(map(len, texts)) + 1
    ids = [([start] + list(text) + [pad] * T)[:T] for text in texts]
    targets = [(list(text) + [end] + [-100] * T)[:T] for text in texts]
    return ids, targets


# %% exercise 1, right: the targets are the ids moved by one
def decoder_batch(texts, start, end, pad):
    from itertools import zip_longest

    whole = [[start, *text, end] for text in texts]
    rows = np.array(list(zip_longest(*whole, fillvalue=-100))).T  # (B, T + 1)
    ids = np.where((rows == -100) | (rows == end), pad, rows)[:, :-1]
    return ids, rows[:, 1:]


# %% exercise 2, wrong: not clipped
# says: is not perfect
def clipped_precision(hypothesis, references, n):
    known = set().union(*(grams(reference, n) for reference in references))
    ours = [tuple(hypothesis[i : i + n]) for i in range(len(hypothesis) - n + 1)]
    return sum(gram in known for gram in ours) / max(len(ours), 1)


# %% exercise 2, wrong: recall
# says: divide by the n-grams of the hypothesis
def clipped_precision(hypothesis, references, n):
    allowed = Counter()
    for reference in references:
        allowed |= grams(reference, n)
    return (grams(hypothesis, n) & allowed).total() / max(allowed.total(), 1)


# %% exercise 2, wrong: each different n-gram once
# says: may count twice
def clipped_precision(hypothesis, references, n):
    known = set().union(*(grams(reference, n) for reference in references))
    ours = grams(hypothesis, n)
    return sum(gram in known for gram in ours) / max(ours.total(), 1)


# %% exercise 2, wrong: the references' counts are added
# says: are not added
def clipped_precision(hypothesis, references, n):
    allowed = Counter()
    for reference in references:
        allowed += grams(reference, n)
    ours = grams(hypothesis, n)
    return (ours & allowed).total() / max(ours.total(), 1)


# %% exercise 2, wrong: only what stands in all references
# says: has it most often
def clipped_precision(hypothesis, references, n):
    allowed = grams(references[0], n)
    for reference in references[1:]:
        allowed &= grams(reference, n)
    ours = grams(hypothesis, n)
    return (ours & allowed).total() / max(ours.total(), 1)


# %% exercise 2, wrong: the best single reference
# says: do not choose one for all
def clipped_precision(hypothesis, references, n):
    ours = grams(hypothesis, n)
    return max((ours & grams(reference, n)).total() for reference in references) / max(ours.total(), 1)


# %% exercise 2, wrong: a text without n-grams is perfect
# says: has precision 0
def clipped_precision(hypothesis, references, n):
    ours = grams(hypothesis, n)
    if not ours:
        return 1.0
    allowed = Counter()
    for reference in references:
        allowed |= grams(reference, n)
    return (ours & allowed).total() / ours.total()


# %% exercise 2, right: loops
def clipped_precision(hypothesis, references, n):
    ours = [" ".join(hypothesis[i : i + n]) for i in range(len(hypothesis) - n + 1)]
    hits = 0
    for gram in set(ours):
        most = max([" ".join(r[i : i + n]) for i in range(len(r) - n + 1)].count(gram) for r in references)
        hits += min(ours.count(gram), most)
    return hits / len(ours) if ours else 0


# %% exercise 2, right: by the library's counts
def clipped_precision(hypothesis, references, n):
    row = metrics.bleu_counts([" ".join(hypothesis)], [[" ".join(r) for r in references]], tokenize="none")[0]
    return row[1 + n] / max(row[5 + n], 1)


# %% exercise 3, wrong: search and model changed round
# says: changed round
def faults(found, right, p_found, p_right):
    correct = np.array([a == b for a, b in zip(found, right)])
    missed = ~correct & (np.array(p_found) >= np.array(p_right))
    return {"right": correct.mean(), "search": missed.mean(), "model": (~correct & ~missed).mean()}


# %% exercise 3, wrong: counts
# says: Shares, not counts
def faults(found, right, p_found, p_right):
    correct = np.array([a == b for a, b in zip(found, right)])
    missed = ~correct & (np.array(p_found) < np.array(p_right))
    return {"right": correct.sum(), "search": missed.sum(), "model": (~correct & ~missed).sum()}


# %% exercise 3, wrong: equal chances count for the search
# says: ties count for the search
def faults(found, right, p_found, p_right):
    correct = np.array([a == b for a, b in zip(found, right)])
    missed = ~correct & (np.array(p_found) <= np.array(p_right))
    return {"right": correct.mean(), "search": missed.mean(), "model": (~correct & ~missed).mean()}


# %% exercise 3, wrong: right is what is at least as likely
# says: the texts are equal
def faults(found, right, p_found, p_right):
    p_found, p_right = np.array(p_found), np.array(p_right)
    correct = p_found == p_right
    return {"right": correct.mean(), "search": (p_found < p_right).mean(), "model": (p_found > p_right).mean()}


# %% exercise 3, wrong: shares of the mistakes
# says: search: wrong, and the right one is likelier
def faults(found, right, p_found, p_right):
    correct = np.array([a == b for a, b in zip(found, right)])
    missed = (np.array(p_found) < np.array(p_right))[~correct]
    return {"right": correct.mean(), "search": missed.mean(), "model": 1 - missed.mean()}


# %% exercise 3, right: a loop
def faults(found, right, p_found, p_right):
    counts = {"right": 0, "search": 0, "model": 0}
    for a, b, p, q in zip(found, right, p_found, p_right):
        counts["right" if a == b else "search" if q > p else "model"] += 1
    return {name: count / len(found) for name, count in counts.items()}


# %% exercise 3, right: what is left over, as arrays
def faults(found, right, p_found, p_right):
    wrong = np.array(found) != np.array(right)
    search = np.array([np.mean(wrong & (np.subtract(p_right, p_found) > 0))])
    return {"model": wrong.mean() - search[0], "search": search[0], "right": np.float64(1 - wrong.mean())}


# %% exercise 4, wrong: each index is added once
# says: adds each index once
def with_copying(p_vocab, attention, source_ids, g):
    p = g * p_vocab
    p[source_ids] += (1 - g) * attention
    return p


# %% exercise 4, wrong: the gate the wrong way round
# says: The gate the wrong way round
def with_copying(p_vocab, attention, source_ids, g):
    copied = np.bincount(source_ids, weights=attention, minlength=len(p_vocab))
    return (1 - g) * p_vocab + g * copied


# %% exercise 4, wrong: the copies are not weighed
# says: weigh both parts
def with_copying(p_vocab, attention, source_ids, g):
    return g * p_vocab + np.bincount(source_ids, weights=attention, minlength=len(p_vocab))


# %% exercise 4, wrong: in place
# says: You changed p_vocab itself
def with_copying(p_vocab, attention, source_ids, g):
    p_vocab *= g
    np.add.at(p_vocab, source_ids, (1 - g) * attention)
    return p_vocab


# %% exercise 4, wrong: only as long as the largest id in the source
# says: one probability for each token of the vocabulary
def with_copying(p_vocab, attention, source_ids, g):
    copied = np.bincount(source_ids, weights=attention)
    return g * p_vocab[: len(copied)] + (1 - g) * copied


# %% exercise 4, wrong: by position instead of token
# says: Not the formula's values
def with_copying(p_vocab, attention, source_ids, g):
    copied = np.zeros(len(p_vocab))
    copied[: len(attention)] = attention
    return g * p_vocab + (1 - g) * copied


# %% exercise 4, right: a matrix of ones where a token stands
def with_copying(p_vocab, attention, source_ids, g):
    stands = np.asarray(source_ids)[None] == np.arange(len(p_vocab))[:, None]  # (V, S)
    return g * p_vocab + (1 - g) * stands @ attention


# %% exercise 4, right: a loop, as a list
def with_copying(p_vocab, attention, source_ids, g):
    p = [g * value for value in p_vocab]
    for weight, token in zip(attention, source_ids):
        p[int(token)] += (1 - g) * weight
    return p
