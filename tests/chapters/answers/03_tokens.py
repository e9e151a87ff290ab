# %% exercise 1, wrong: turned over
# says: which is divided by which
def price_ratio(tokenizer, a, b):
    return (len(tokenizer.encode(a)) / len(a)) / (len(tokenizer.encode(b)) / len(b))

# %% exercise 1, wrong: tokens of the whole text, not for each character
# says: must be divided by the number of characters
def price_ratio(tokenizer, a, b):
    return len(tokenizer.encode(b)) / len(tokenizer.encode(a))

# %% exercise 1, wrong: tokens for each byte
# says: bytes are something else
def price_ratio(tokenizer, a, b):
    return (len(tokenizer.encode(b)) / len(b.encode())) / (len(tokenizer.encode(a)) / len(a.encode()))

# %% exercise 1, wrong: a difference in place of a ratio
# says: For equal texts the ratio must be 1
def price_ratio(tokenizer, a, b):
    return len(tokenizer.encode(b)) / len(b) - len(tokenizer.encode(a)) / len(a)

# %% exercise 1, right: by characters per token
def price_ratio(tokenizer, a, b):
    per_token = np.array([len(text) / len(tokenizer.encode(text)) for text in (a, b)])
    return per_token[0] / per_token[1]

# %% exercise 1, right: as an array of no axes
def price_ratio(tokenizer, a, b):
    ids = np.array([len(tokenizer.encode(b)) * len(a), len(tokenizer.encode(a)) * len(b)])
    return np.divide(*ids).reshape(())

# %% exercise 2, wrong: the longest token that fits, from the left
# says: but not with these merges
def encode_word(word, merges):
    known = {a + b for a, b in merges} | {bytes([i]) for i in range(256)}
    data, pieces = word.encode(), []
    while data:
        piece = next(data[:n] for n in range(len(data), 0, -1) if data[:n] in known)
        pieces.append(piece)
        data = data[len(piece) :]
    return pieces

# %% exercise 2, wrong: the first pair of the word that is a merge
# says: not the first that you meet
def encode_word(word, merges):
    known, pieces = set(merges), [bytes([byte]) for byte in word.encode()]
    while True:
        pair = next((pair for pair in pairwise(pieces) if pair in known), None)
        if pair is None:
            return pieces
        pieces = join(pieces, pair)

# %% exercise 2, wrong: the latest merge first
# says: Join the pair that comes first in `merges`
def encode_word(word, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    pieces = [bytes([byte]) for byte in word.encode()]
    while known := [pair for pair in pairwise(pieces) if pair in rank]:
        pieces = join(pieces, max(known, key=rank.get))
    return pieces

# %% exercise 2, wrong: the pair that makes the longest piece
# says: nor what makes the longest piece
def encode_word(word, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    pieces = [bytes([byte]) for byte in word.encode()]
    while known := [pair for pair in pairwise(pieces) if pair in rank]:
        pieces = join(pieces, max(known, key=lambda pair: (len(pair[0] + pair[1]), -rank[pair])))
    return pieces

# %% exercise 2, wrong: characters in place of bytes
# says: Without merges a word stays in single bytes
def encode_word(word, merges):
    rank = {(a.decode(errors="ignore"), b.decode(errors="ignore")): i for i, (a, b) in enumerate(merges)}
    pieces = list(word)
    while known := [pair for pair in pairwise(pieces) if pair in rank]:
        pieces = join(pieces, min(known, key=rank.get))
    return pieces

# %% exercise 2, wrong: only one merge
# says: then look at all pairs anew
def encode_word(word, merges):
    pieces = [bytes([byte]) for byte in word.encode()]
    for pair in merges:
        if pair in list(pairwise(pieces)):
            return join(pieces, pair)
    return pieces

# %% exercise 2, wrong: from right to left
# says: Where two places overlap, the left one is joined
def encode_word(word, merges):
    pieces = [bytes([byte]) for byte in word.encode()]
    for pair in merges:
        i = len(pieces) - 2
        while i >= 0:
            if tuple(pieces[i : i + 2]) == pair:
                pieces[i : i + 2] = [pair[0] + pair[1]]
                i -= 1
            i -= 1
    return pieces

# %% exercise 2, wrong: each merge at its first place only
# says: but not with these merges
def encode_word(word, merges):
    pieces = [bytes([byte]) for byte in word.encode()]
    for pair in merges:
        found = list(pairwise(pieces))
        if pair in found:
            i = found.index(pair)
            pieces[i : i + 2] = [pair[0] + pair[1]]
    return pieces

# %% exercise 2, right: looks for joined bytes among the tokens, not for pairs among the merges
def encode_word(word, merges):
    rank, pieces = {a + b: i for i, (a, b) in enumerate(merges)}, [bytes([byte]) for byte in word.encode()]
    while known := [a + b for a, b in pairwise(pieces) if a + b in rank]:
        best = min(known, key=rank.get)
        i = [a + b for a, b in pairwise(pieces)].index(best)
        pieces[i : i + 2] = [best]
    return np.array(pieces, dtype=object)

# %% exercise 2, right: every merge in its order, as a tuple
def encode_word(word, merges):
    pieces = [bytes([byte]) for byte in word.encode()]
    for pair in merges:
        pieces = join(pieces, pair)
    return tuple(pieces)

# %% exercise 2, right: one place at a time, the leftmost
def encode_word(word, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    pieces = [bytes([byte]) for byte in word.encode()]
    while True:
        ranks = [rank.get(pair, len(merges)) for pair in pairwise(pieces)]
        if not ranks or min(ranks) == len(merges):
            return pieces
        i = ranks.index(min(ranks))
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]

# %% exercise 3, wrong: just the first n
# says: still ends in half a character
def cut_safely(tokenizer, ids, n):
    return ids[:n]

# %% exercise 3, wrong: up from 0, to the first that is not whole
# says: would still be whole
def cut_safely(tokenizer, ids, n):
    length = 0
    while length < min(n, len(ids)):
        try:
            tokenizer.decode_bytes(ids[: length + 1]).decode()
        except UnicodeDecodeError:
            break
        length += 1
    return ids[:length]

# %% exercise 3, wrong: looks for the sign of broken text
# says: A text may itself hold the sign
def cut_safely(tokenizer, ids, n):
    n = min(n, len(ids))
    while "\ufffd" in tokenizer.decode(ids[:n]):
        n -= 1
    return ids[:n]

# %% exercise 3, wrong: takes one token off at most
# says: still ends in half a character
def cut_safely(tokenizer, ids, n):
    try:
        tokenizer.decode_bytes(ids[:n]).decode()
    except UnicodeDecodeError:
        return ids[: n - 1]
    return ids[:n]

# %% exercise 3, right: by the first byte of the last character, as an array
def cut_safely(tokenizer, ids, n):
    ids = np.array(ids[:n], dtype=int)
    text = tokenizer.decode_bytes([int(i) for i in ids]).decode(errors="ignore").encode()
    while len(tokenizer.decode_bytes([int(i) for i in ids])) > len(text) or not text.startswith(
        tokenizer.decode_bytes([int(i) for i in ids])
    ):
        ids = ids[:-1]
        text = tokenizer.decode_bytes([int(i) for i in ids]).decode(errors="ignore").encode()
    return ids

# %% exercise 3, right: recursion
def cut_safely(tokenizer, ids, n):
    kept = tuple(ids[:n])
    try:
        tokenizer.decode_bytes(list(kept)).decode()
        return kept
    except UnicodeDecodeError:
        return cut_safely(tokenizer, list(kept), len(kept) - 1)

# %% exercise 4, wrong: only the pair itself
# says: Count the pairs of both by hand
def changes_of_counts(pieces, pair):
    occurs = list(pairwise(pieces)).count(pair)
    return {pair: -occurs} if occurs else {}

# %% exercise 4, wrong: each place on its own, as if joined pieces never stood together
# says: Count the pairs of both by hand
def changes_of_counts(pieces, pair):
    changes, new = Counter(), pair[0] + pair[1]
    for i, found in enumerate(pairwise(pieces)):
        if found == pair:
            changes[pair] -= 1
            if i > 0:
                changes[pieces[i - 1], pair[0]] -= 1
                changes[pieces[i - 1], new] += 1
            if i + 2 < len(pieces):
                changes[pair[1], pieces[i + 2]] -= 1
                changes[new, pieces[i + 2]] += 1
    return {p: change for p, change in changes.items() if change}

# %% exercise 4, wrong: only what disappears
# says: Count the pairs of both by hand
def changes_of_counts(pieces, pair):
    before, after = Counter(pairwise(pieces)), Counter(pairwise(join(pieces, pair)))
    return {p: after[p] - before[p] for p in before if after[p] < before[p]}

# %% exercise 4, wrong: keeps pairs that do not change
# says: Leave out pairs whose change is 0
def changes_of_counts(pieces, pair):
    before, after = Counter(pairwise(pieces)), Counter(pairwise(join(pieces, pair)))
    return {p: after[p] - before[p] for p in {**before, **after, ("x", "y"): 0}}

# %% exercise 4, wrong: the other sign
# says: occurs twice
def changes_of_counts(pieces, pair):
    before, after = Counter(pairwise(pieces)), Counter(pairwise(join(pieces, pair)))
    return {p: before[p] - after[p] for p in {**before, **after} if after[p] != before[p]}

# %% exercise 4, right: a Counter, counted down and up
def changes_of_counts(pieces, pair):
    changes = Counter(pairwise(join(pieces, pair)))
    changes.subtract(pairwise(pieces))
    return Counter({p: change for p, change in changes.items() if change})

# %% exercise 4, right: NumPy's numbers, only where the word changes
def changes_of_counts(pieces, pair):
    after = join(pieces, pair)
    all_pairs = sorted({*pairwise(pieces), *pairwise(after)})
    counts = np.array([[list(pairwise(p)).count(q) for q in all_pairs] for p in (pieces, after)])
    changes = {}
    for pair, change in zip(all_pairs, np.diff(counts, axis=0)[0] if all_pairs else []):
        if change != 0:
            changes[pair] = change
    return changes
