# %% exercise 1, wrong: only the runs of the copy that are new are left out of the union
# says: Count the union again
def shortest(threshold):
    n = 9
    while (n - 9) / (n - 4) < threshold:
        n += 1
    return n


# %% exercise 1, wrong: one word costs one run
# says: Count the union again
def shortest(threshold):
    n = 5
    while (n - 5) / (n - 3) < threshold:
        n += 1
    return n


# %% exercise 1, wrong: the union has all runs of both
# says: one word fewer is enough
def shortest(threshold):
    n = 9
    while (n - 9) / (2 * (n - 4)) < threshold / 2 or (n - 9) / (n + 1) < threshold:
        n += 1
    return n + 1


# %% exercise 1, wrong: a fraction of a word
# says: is whole
def shortest(threshold):
    return (9 + threshold) / (1 - threshold)


# %% exercise 1, wrong: rounded down
# says: Count the union again
def shortest(threshold):
    return int((9 + threshold) / (1 - threshold))


# %% exercise 1, wrong: always one more than rounded down
# says: one word fewer is enough
def shortest(threshold):
    return int((9 + threshold) / (1 - threshold)) + 1


# %% exercise 1, right: solved, as a float
def shortest(threshold):
    return np.ceil((9 + threshold) / (1 - threshold))


# %% exercise 1, right: by trying texts
def shortest(threshold):
    n = 11
    while True:
        words = [str(i) for i in range(n)]
        other = [*words[: n // 2], "x", *words[n // 2 + 1 :]]
        if jaccard(runs_of(" ".join(words)), runs_of(" ".join(other))) >= threshold:
            return np.int64(n)
        n += 1


# %% exercise 2, wrong: bands and rows exchanged in the formula
# says: then meets with probability
def bands_for(k, threshold, sure):
    for rows in range(k, 0, -1):
        bands = k // rows
        if 1 - (1 - threshold**bands) ** rows >= sure:
            return bands, rows


# %% exercise 2, wrong: the fewest rows
# says: more rows would be, too
def bands_for(k, threshold, sure):
    for rows in range(1, k + 1):
        bands = k // rows
        if 1 - (1 - threshold**rows) ** bands >= sure:
            return bands, rows


# %% exercise 2, wrong: only rows that divide k
# says: more rows would be, too
def bands_for(k, threshold, sure):
    for rows in range(k, 0, -1):
        if k % rows == 0 and 1 - (1 - threshold**rows) ** (k // rows) >= sure:
            return k // rows, rows


# %% exercise 2, wrong: rows before bands
# says: then meets with probability
def bands_for(k, threshold, sure):
    for rows in range(k, 0, -1):
        bands = k // rows
        if 1 - (1 - threshold**rows) ** bands >= sure:
            return rows, bands


# %% exercise 2, wrong: the step of the curve at the threshold
# says: then meets with probability
def bands_for(k, threshold, sure):
    rows = min(range(1, k + 1), key=lambda r: abs((r / k) ** (1 / r) - threshold))
    return k // rows, rows


# %% exercise 2, right: all choices, then the largest; a list
def bands_for(k, threshold, sure):
    rows = np.arange(1, k + 1)
    meet = 1 - (1 - threshold**rows) ** (k // rows)
    most = rows[meet >= sure].max()
    return [k // most, most]


# %% exercise 2, right: an array
def bands_for(k, threshold, sure):
    best = 1
    for rows in range(1, k + 1):
        if (1 - threshold**rows) ** (k // rows) <= 1 - sure:
            best = rows
    return np.array([k // best, best])


# %% exercise 3, wrong: by the text
# says: what do the parts have in common
def side_of(document, fraction, seed):
    return "val" if split_place(document.text, seed) < fraction else "train"


# %% exercise 3, wrong: whole documents have no name left
# says: Their sources have no #
def side_of(document, fraction, seed):
    return "val" if split_place(document.source.rpartition("#")[0], seed) < fraction else "train"


# %% exercise 3, wrong: cut at the first mark
# says: is more than the part's number gone
def side_of(document, fraction, seed):
    return "val" if split_place(document.source.split("#")[0], seed) < fraction else "train"


# %% exercise 3, wrong: two characters taken off
# says: on both sides
def side_of(document, fraction, seed):
    name = document.source[:-2] if "#" in document.source else document.source
    return "val" if split_place(name, seed) < fraction else "train"


# %% exercise 3, wrong: the seed is forgotten
# says: Another seed must give another split
def side_of(document, fraction, seed):
    file, mark, number = document.source.rpartition("#")
    name = file if mark and number.isdecimal() else document.source
    return "val" if split_place(name) < fraction else "train"


# %% exercise 3, wrong: random
# says: no random numbers
def side_of(document, fraction, seed):
    return "val" if np.random.default_rng().random() < fraction else "train"


# %% exercise 3, wrong: all that stands behind the last mark
# says: none of which was cut
def side_of(document, fraction, seed):
    return "val" if split_place(document.source.rsplit("#", 1)[0], seed) < fraction else "train"


# %% exercise 3, wrong: any number at the end
# says: none of which was cut
def side_of(document, fraction, seed):
    return "val" if split_place(document.source.rstrip("0123456789"), seed) < fraction else "train"


# %% exercise 3, right: by a pattern
def side_of(document, fraction, seed):
    import re

    return "val" if split_place(re.sub(r"#\d+$", "", document.source), seed) < fraction else "train"


# %% exercise 3, right: the other end of the line, as a NumPy string
def side_of(document, fraction, seed):
    name, digits = document.source.rstrip("0123456789"), document.source[-1].isdigit()
    name = name[:-1] if name.endswith("#") and digits else document.source
    return np.array(["train", "val"])[int(split_place(name, seed) >= 1 - fraction)]


# %% exercise 4, wrong: the last run is forgotten
# says: not right
def overlap(train, held_out, n=13):
    def runs(text):
        words = text.lower().split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n)]

    known = {run for text in train for run in runs(text)}
    asked = runs(held_out)
    return sum(run in known for run in asked) / len(asked) if asked else 0.0


# %% exercise 4, wrong: the training texts are one text
# says: do not go on from one training text into the next
def overlap(train, held_out, n=13):
    def runs(text):
        words = text.lower().split()
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    known = set(runs(" ".join(train)))
    asked = runs(held_out)
    return sum(run in known for run in asked) / len(asked) if asked else 0.0


# %% exercise 4, wrong: each run counts once
# says: three times
def overlap(train, held_out, n=13):
    def runs(text):
        words = text.lower().split()
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    known = set().union(*map(runs, train))
    asked = runs(held_out)
    return len(asked & known) / len(asked) if asked else 0.0


# %% exercise 4, wrong: found as text within text
# says: words are whole
def overlap(train, held_out, n=13):
    words = held_out.lower().split()
    asked = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return sum(any(run in text for text in train) for run in asked) / len(asked) if asked else 0.0


# %% exercise 4, wrong: words glued together
# says: words are whole
def overlap(train, held_out, n=13):
    def runs(text):
        words = text.lower().split()
        return ["".join(words[i : i + n]) for i in range(len(words) - n + 1)]

    known = {run for text in train for run in runs(text)}
    asked = runs(held_out)
    return sum(run in known for run in asked) / len(asked) if asked else 0.0


# %% exercise 4, wrong: capitals of the training texts stay
# says: On a help page
def overlap(train, held_out, n=13):
    def runs(words):
        return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

    known = {run for text in train for run in runs(text.split())}
    asked = runs(held_out.lower().split())
    return sum(run in known for run in asked) / len(asked) if asked else 0.0


# %% exercise 4, right: joined by a space, the mean of an array
def overlap(train, held_out, n=13):
    def runs(text):
        words = text.lower().split()
        return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]

    known = set()
    for text in train:
        known.update(runs(text))
    asked = runs(held_out)
    return np.isin(asked, list(known)).mean() if asked else np.float32(0)


# %% exercise 4, right: as text within text, with spaces around
def overlap(train, held_out, n=13):
    texts = [" " + " ".join(text.lower().split()) + " " for text in train]
    words = held_out.lower().split()
    asked = [" " + " ".join(words[i : i + n]) + " " for i in range(len(words) - n + 1)]
    return sum(any(run in text for text in texts) for run in asked) / max(1, len(asked))
