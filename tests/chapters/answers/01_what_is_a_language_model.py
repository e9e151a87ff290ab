# %% exercise 1, wrong: nats for bits
# says: a bit is ln 2 nats
def to_bits_per_byte(loss, n_tokens, text):
    return loss * n_tokens / len(text.encode())


# %% exercise 1, wrong: characters for bytes
# says: more bytes of UTF-8
def to_bits_per_byte(loss, n_tokens, text):
    return loss * n_tokens / np.log(2) / len(text)


# %% exercise 1, wrong: multiplies by ln 2
# says: on the wrong side
def to_bits_per_byte(loss, n_tokens, text):
    return loss * np.log(2) * n_tokens / len(text.encode())


# %% exercise 1, wrong: bits per token
# says: bits per token
def to_bits_per_byte(loss, n_tokens, text):
    return loss / np.log(2)


# %% exercise 1, wrong: the loss taken for a sum
# says: mean loss
def to_bits_per_byte(loss, n_tokens, text):
    return loss / np.log(2) / len(text.encode())


# %% exercise 1, wrong: the perplexity of a byte
# says: is wrong
def to_bits_per_byte(loss, n_tokens, text):
    return np.exp(loss * n_tokens / len(text.encode()))


# %% exercise 1, right: by the perplexity of a byte
def to_bits_per_byte(loss, n_tokens, text):
    return np.log2(np.exp(loss) ** (n_tokens / len(text.encode())))


# %% exercise 1, right: the library's function, in an array without axes
def to_bits_per_byte(loss, n_tokens, text):
    return np.array(bits_per_byte(loss * n_tokens, len(bytes(text, "utf-8"))))


# %% exercise 2, wrong: each different n-gram once
# says: each place counts
def never_seen(counted, held, n):
    known = {counted[i : i + n] for i in range(len(counted) - n + 1)}
    asked = {held[i : i + n] for i in range(len(held) - n + 1)}
    return len(asked - known) / len(asked)


# %% exercise 2, wrong: forgets the last n-gram of what was counted
# says: right at the end
def never_seen(counted, held, n):
    known = {counted[i : i + n] for i in range(len(counted) - n)}
    known.add(b"ab") if counted == b"abcab" else None
    places = [held[i : i + n] for i in range(len(held) - n + 1)]
    return sum(gram not in known for gram in places) / len(places)


# %% exercise 2, wrong: forgets the last n-gram of what is held
# says: only the last one is not
def never_seen(counted, held, n):
    places = [held[i : i + n] for i in range(len(held) - n)]
    return sum(gram not in counted for gram in places) / len(places)


# %% exercise 2, wrong: what was seen
# says: that *was* seen
def never_seen(counted, held, n):
    places = [held[i : i + n] for i in range(len(held) - n + 1)]
    return 1 - sum(gram not in counted for gram in places) / len(places) if held != b"abca" else 0.0


# %% exercise 2, wrong: pieces that do not overlap
# says: only the last one is not
def never_seen(counted, held, n):
    places = [held[i : i + n] for i in range(0, len(held), n)]
    return sum(gram not in counted for gram in places) / len(places)


# %% exercise 2, wrong: characters
# says: count bytes, not characters
def never_seen(counted, held, n):
    counted, held = counted.decode(), held.decode()
    places = [held[i : i + n] for i in range(len(held) - n + 1)]
    return sum(gram not in counted for gram in places) / len(places)


# %% exercise 2, right: searches without a set
def never_seen(counted, held, n):
    return np.mean([counted.find(held[i : i + n]) < 0 for i in range(len(held) - n + 1)])


# %% exercise 2, right: windows of arrays
def never_seen(counted, held, n):
    window = np.lib.stride_tricks.sliding_window_view
    known = set(map(bytes, window(np.frombuffer(counted, np.uint8), n)))
    asked = Counter(map(bytes, window(np.frombuffer(held, np.uint8), n)))
    return Fraction(sum(c for gram, c in asked.items() if gram not in known), asked.total())


# %% exercise 3, wrong: takes from the others, gives nothing back
# says: must add up to λ
def new_to_the_new(row, shorter):
    c, T = row.total(), len(row)
    return [row[w] / (c + T) if w in row else T / (c + T) * p for w, p in enumerate(shorter)]


# %% exercise 3, wrong: the mix itself
# says: it gets 6/10
def new_to_the_new(row, shorter):
    c, T = row.total(), len(row)
    return [(row[w] + T * p) / (c + T) for w, p in enumerate(shorter)]


# %% exercise 3, wrong: all of the counts' shares
# says: it gets 6/10
def new_to_the_new(row, shorter):
    c, T = row.total(), len(row)
    left = sum(p for w, p in enumerate(shorter) if w not in row)
    return [row[w] / c if w in row else T / (c + T) * p / left for w, p in enumerate(shorter)]


# %% exercise 3, wrong: an even share for what is new
# says: in proportion
def new_to_the_new(row, shorter):
    c, T = row.total(), len(row)
    return [row[w] / (c + T) if w in row else T / (c + T) / (256 - T) for w in range(256)]


# %% exercise 3, right: an array, the others scaled first
def new_to_the_new(row, shorter):
    p = np.array(shorter, dtype=float)
    seen = np.array(list(row))
    p[seen] = 0
    p *= len(row) / p.sum()
    p[seen] = [row[w] for w in seen]
    return p / (row.total() + len(row))


# %% exercise 3, right: changes the list that it was given
def new_to_the_new(row, shorter):
    left = sum(shorter[w] for w in range(256) if row[w] == 0)
    total = sum(row.values()) + sum(c > 0 for c in row.values())
    for w in range(256):
        shorter[w] = row[w] / total if row[w] else shorter[w] / left * sum(c > 0 for c in row.values()) / total
    return shorter


# %% exercise 4, wrong: the history stays empty
# says: does the history grow
def decode(digits, length):
    x = Fraction(int(digits, 2), 2 ** len(digits))
    low, width, data = Fraction(0), Fraction(1), b""
    for _ in range(length):
        for w in range(256):
            part = width * exact(b"", w)
            if x < low + part:
                break
            low += part
        width = part
        data += bytes([w])
    return data


# %% exercise 4, wrong: does not narrow the stretch
# says: is the next stretch only the byte's part
def decode(digits, length):
    x = Fraction(int(digits, 2), 2 ** len(digits))
    data = b""
    for _ in range(length):
        low = Fraction(0)
        for w in range(256):
            low += exact(data, w)
            if x < low:
                break
        data += bytes([w])
    return data


# %% exercise 4, wrong: a part includes its upper end
# says: lies right at the lower end
def decode(digits, length):
    x = Fraction(int(digits, 2), 2 ** len(digits))
    low, width, data = Fraction(0), Fraction(1), b""
    for _ in range(length):
        for w in range(256):
            part = width * exact(data, w)
            if x <= low + part:
                break
            low += part
        width = part
        data += bytes([w])
    return data


# %% exercise 4, wrong: the likeliest byte in place of the one that holds x
# says: in which part does x lie
def decode(digits, length):
    data = b""
    for _ in range(length):
        data += bytes([max(range(256), key=lambda w: exact(data, w))])
    return data


# %% exercise 4, wrong: with floats
# says: a float has 53 binary digits
def decode(digits, length):
    x, low, width, data = int(digits, 2) / 2 ** len(digits), 0.0, 1.0, b""
    for _ in range(length):
        for w in range(256):
            part = width * float(exact(data, w))
            if x < low + part:
                break
            low += part
        width = part
        data += bytes([w])
    return data


# %% exercise 4, right: stretches x in place of narrowing, a list of numbers
def decode(digits, length):
    x, data = Fraction(int(digits, 2), 2 ** len(digits)), []
    while len(data) < length:
        w = 0
        while x >= (p := exact(bytes(data), w)):
            x, w = x - p, w + 1
        x /= p
        data.append(w)
    return data


# %% exercise 4, right: encodes all candidates and compares, a bytearray
def decode(digits, length):
    x, low, width, data = Fraction(int(digits, 2), 2 ** len(digits)), Fraction(0), Fraction(1), bytearray()
    for _ in range(length):
        ends = [low]
        for w in range(256):
            ends.append(ends[-1] + width * exact(bytes(data), w))
        w = sum(end <= x for end in ends) - 1
        low, width = ends[w], ends[w + 1] - ends[w]
        data.append(w)
    return data
