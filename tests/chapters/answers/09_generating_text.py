# %% exercise 1, wrong: measured from the mean
# says: The likeliest token must stay
def top_n_sigma(z, n):
    return z >= z.mean() + 3 * n * z.std()


# %% exercise 1, wrong: everything near the mean, and the likeliest with it
# says: where do you measure
def top_n_sigma(z, n):
    return (z >= z.mean() - n * z.std()) | (z == z.max())


# %% exercise 1, wrong: the variance
# says: With another temperature other tokens stay
def top_n_sigma(z, n):
    return z >= z.max() - n * z.var()


# %% exercise 1, wrong: of probabilities
# says: yours cuts some off
def top_n_sigma(z, n):
    p = softmax(z)
    return p >= p.max() / n


# %% exercise 1, wrong: within n of the largest, without the deviation
# says: With another temperature other tokens stay
def top_n_sigma(z, n):
    return z >= z.max() - n


# %% exercise 1, wrong: the mean absolute deviation
# says: in which unit
def top_n_sigma(z, n):
    return z >= z.max() - n * np.abs(z - z.mean()).mean()


# %% exercise 1, right: the sample's standard deviation, as a Tensor library computes it
def top_n_sigma(z, n):
    return (z.max() - z) / z.std(ddof=1) <= n


# %% exercise 1, right: a list of 0 and 1
def top_n_sigma(z, n):
    return [int((z.max() - x) <= n * np.sqrt(((z - z.mean()) ** 2).mean())) for x in z]


# %% exercise 1, right: standardised first, and changed in place
def top_n_sigma(z, n):
    z -= z.max()
    z /= z.std()
    return z >= -n


# %% exercise 2, wrong: the last place only
# says: look at all of them
def banned_next(ids, n):
    if len(ids) < n:
        return set()
    end = ids[len(ids) - n + 1 :]
    for i in reversed(range(len(ids) - n + 1)):
        if ids[i : i + n - 1] == end:
            return {ids[i + n - 1]}
    return set()


# %% exercise 2, wrong: the last n ids instead of n − 1
# says: After 5 6 7 5 6
def banned_next(ids, n):
    return {ids[i + n] for i in range(len(ids) - n) if ids[i : i + n] == ids[-n:]}


# %% exercise 2, wrong: what followed the last id, whatever n
# says: which tokens followed the same two before
def banned_next(ids, n):
    return {b for a, b in zip(ids, ids[1:]) if a == ids[-1]}


# %% exercise 2, wrong: forgets n = 1
# says: With n = 1
def banned_next(ids, n):
    end = ids[-(n - 1) :]
    return {ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == end}


# %% exercise 2, wrong: occurrences may not overlap
# says: two occurrences may overlap
def banned_next(ids, n):
    if n > 1 and len(ids) < n:
        return set()
    end = ids[len(ids) - n + 1 :]
    last = max(len(ids) - 2 * (n - 1) + 1, 0) if n > 1 else len(ids)
    return {ids[i + n - 1] for i in range(last) if ids[i : i + n - 1] == end}


# %% exercise 2, right: a list with doubles
def banned_next(ids, n):
    found = []
    for i in range(n - 1, len(ids)):
        if all(ids[i - 1 - j] == ids[len(ids) - 1 - j] for j in range(n - 1)):
            found.append(ids[i])
    return found


# %% exercise 2, right: an array, from a table of all n-grams
def banned_next(ids, n):
    table = {}
    for i in range(len(ids) - n + 1):
        table.setdefault(tuple(ids[i : i + n - 1]), []).append(ids[i + n - 1])
    key = tuple(ids[len(ids) - n + 1 :]) if len(ids) >= n - 1 else None
    return np.array(table.get(key, []), dtype=int)


# %% exercise 3, wrong: everything at the end
# says: Yield while the pieces come
def stream_until(pieces, stops):
    yield until("".join(pieces), stops)


# %% exercise 3, wrong: looks at each piece alone
# says: holds a part of a stop string or what comes after it
def stream_until(pieces, stops):
    for piece in pieces:
        yield until(piece, stops)
        if until(piece, stops) != piece:
            break


# %% exercise 3, wrong: keeps one character too few
# says: holds a part of a stop string or what comes after it
def stream_until(pieces, stops):
    keep = max((len(stop) for stop in stops), default=2) - 2
    text = ""
    for piece in pieces:
        text += piece
        if any(stop in text for stop in stops):
            break
        safe = max(len(text) - keep, 0)
        yield text[:safe]
        text = text[safe:]
    yield until(text, stops)


# %% exercise 3, wrong: forgets what is left at the end
# says: in the end
def stream_until(pieces, stops):
    keep = max((len(stop) for stop in stops), default=1) - 1
    text = ""
    for piece in pieces:
        text += piece
        if any(stop in text for stop in stops):
            yield until(text, stops)
            return
        safe = max(len(text) - keep, 0)
        yield text[:safe]
        text = text[safe:]


# %% exercise 3, wrong: the first of the list in place of the earliest in the text
# says: holds a part of a stop string or what comes after it
def stream_until(pieces, stops):
    keep = max((len(stop) for stop in stops), default=1) - 1
    text = ""
    for piece in pieces:
        text += piece
        for stop in stops:
            if stop in text:
                yield text[: text.index(stop)]
                return
        safe = max(len(text) - keep, 0)
        yield text[:safe]
        text = text[safe:]
    yield text


# %% exercise 3, wrong: goes on reading after the stop string
# says: yours asked for more
def stream_until(pieces, stops):
    keep = max((len(stop) for stop in stops), default=1) - 1
    text, over = "", False
    for piece in pieces:
        text += "" if over else piece
        over = over or any(stop in text for stop in stops)
        if over:
            continue
        safe = max(len(text) - keep, 0)
        yield text[:safe]
        text = text[safe:]
    yield until(text, stops)


# %% exercise 3, right: keeps only what is the beginning of a stop string
def stream_until(pieces, stops):
    text = ""
    for piece in pieces:
        text += piece
        before = until(text, stops)
        if before != text:
            yield before
            return
        kept = 0
        for stop in stops:
            for n in range(1, len(stop)):
                if text.endswith(stop[:n]):
                    kept = max(kept, n)
        yield text[: len(text) - kept]
        text = text[len(text) - kept :]
    yield text


# %% exercise 3, right: character by character
def stream_until(pieces, stops):
    waiting = ""
    longest = max([1, *map(len, stops)])
    for piece in pieces:
        for character in piece:
            waiting += character
            if any(waiting.endswith(stop) for stop in stops):
                yield until(waiting, stops)
                return
            if len(waiting) >= longest:
                yield waiting[0]
                waiting = waiting[1:]
    yield from waiting


# %% exercise 4, wrong: everything again
# says: would do
def answer_from(cache, held, ids):
    cache.length = 0
    return next_logits(double, np.array([ids]), cache)[0]


# %% exercise 4, wrong: all that is the same, wherever it stands
# says: other logits than without a cache
def answer_from(cache, held, ids):
    same = sum(a == b for a, b in zip(held, ids[:-1]))
    cache.length = same
    return next_logits(double, np.array([ids[same:]]), cache)[0]


# %% exercise 4, wrong: forgets to set the length back
# says: other logits than without a cache
def answer_from(cache, held, ids):
    same = 0
    while same < min(len(held), len(ids) - 1) and held[same] == ids[same]:
        same += 1
    return next_logits(double, np.array([ids[same:]]), cache)[0]


# %% exercise 4, wrong: keeps all, and has nothing left to read
# says: T at least 1
def answer_from(cache, held, ids):
    same = 0
    while same < min(len(held), len(ids)) and held[same] == ids[same]:
        same += 1
    cache.length = same
    return next_logits(double, np.array([ids[same:]], dtype=int), cache)[0]


# %% exercise 4, wrong: does not use the cache
# says: afterwards the cache should hold
def answer_from(cache, held, ids):
    return next_logits(double, np.array([ids]), None)[0]


# %% exercise 4, right: (1, V), from the model itself
def answer_from(cache, held, ids):
    differs = [i for i, (a, b) in enumerate(zip(held, ids)) if a != b]
    cache.length = min([*differs, len(held), len(ids) - 1])
    with no_grad():
        return double(np.array([ids[cache.length :]]), cache=cache)[:, -1]


# %% exercise 4, right: one token at a time
def answer_from(cache, held, ids):
    cache.length = 0
    while cache.length < min(len(held), len(ids) - 1) and held[cache.length] == ids[cache.length]:
        cache.length += 1
    for token in ids[cache.length :]:
        z = next_logits(double, np.array([[token]]), cache)
    return z.tolist()


# %% exercise 5, wrong: each guess counts on its own
# says: all before it were accepted
def speed_up(alpha, guesses, cost):
    return (1 + guesses * alpha) / (1 + guesses * cost)


# %% exercise 5, wrong: without the large model's own token
# says: brings the large model's own token
def speed_up(alpha, guesses, cost):
    return sum(alpha**i for i in range(1, guesses + 1)) / (1 + guesses * cost)


# %% exercise 5, wrong: the draft is free
# says: Is the draft paid
def speed_up(alpha, guesses, cost):
    return sum(alpha**i for i in range(guesses + 1))


# %% exercise 5, wrong: no token where all are accepted
# says: If all 4 are accepted
def speed_up(alpha, guesses, cost):
    return max(1, sum(alpha**i for i in range(guesses))) / (1 + guesses * cost)


# %% exercise 5, wrong: the closed form where it divides by 0
# says: raised ZeroDivisionError
def speed_up(alpha, guesses, cost):
    return (1 - alpha ** (guesses + 1)) / (1 - alpha) / (1 + guesses * cost)


# %% exercise 5, right: the closed form
def speed_up(alpha, guesses, cost):
    tokens = guesses + 1 if alpha == 1 else (1 - alpha ** (guesses + 1)) / (1 - alpha)
    return np.array(tokens / (1 + guesses * cost))


# %% exercise 5, right: over what may happen
def speed_up(alpha, guesses, cost):
    ends = [alpha**k * (1 - alpha) * (k + 1) for k in range(guesses)]
    return (sum(ends) + alpha**guesses * (guesses + 1)) / (1 + guesses * cost)
