# %% exercise 1, wrong: the likeliest has rank 0
# says: One place off
def exposure_of(scores, secret):
    with np.errstate(divide="ignore"):
        return np.log2(len(scores)) - np.log2((scores > scores[secret]).sum())


# %% exercise 1, wrong: counts from the least likely
# says: rank 1 is the likeliest
def exposure_of(scores, secret):
    return np.log2(len(scores)) - np.log2(1 + (scores < scores[secret]).sum())


# %% exercise 1, wrong: natural logarithms
# says: logarithm to base 2
def exposure_of(scores, secret):
    return np.log(len(scores)) - np.log(1 + (scores > scores[secret]).sum())


# %% exercise 1, wrong: the rank's bits alone
# says: to be taken from log₂ R
def exposure_of(scores, secret):
    return np.log2(1 + (scores > scores[secret]).sum())


# %% exercise 1, wrong: all spaces have a thousand candidates
# says: R is the number of scores
def exposure_of(scores, secret):
    return np.log2(1000) - np.log2(1 + (scores > scores[secret]).sum())


# %% exercise 1, right: sorts, and looks for its place
def exposure_of(scores, secret):
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return -np.log2((order.index(secret) + 1) / len(scores))


# %% exercise 1, right: the library's
def exposure_of(scores, secret):
    return exposure(scores, secret)


# %% exercise 2, wrong: 10 where the sum is whole
# says: 10 is no digit
def check_digit(digits):
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return 10 - total % 10


# %% exercise 2, wrong: forgets that places move
# says: Places moved
def check_digit(digits):
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 1 else 1)
        total += doubled // 10 + doubled % 10
    return -total % 10


# %% exercise 2, wrong: a doubled digit counts whole
# says: counts as 1 + 4
def check_digit(digits):
    return -sum(int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(digits))) % 10


# %% exercise 2, wrong: the rest instead of what is missing
# says: missing to the next multiple
def check_digit(digits):
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return total % 10


# %% exercise 2, wrong: counts from the left
# says: From which end
def check_digit(digits):
    total = 0
    for place, digit in enumerate(digits):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return -total % 10


# %% exercise 2, right: tries all ten, and returns a character
def check_digit(digits):
    return next(d for d in "0123456789" if luhn(digits + d))


# %% exercise 2, right: a table of what a doubled digit counts
def check_digit(digits):
    counts = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    backwards = [int(d) for d in digits[::-1]]
    total = sum(counts[d] for d in backwards[::2]) + sum(backwards[1::2])
    return (10 - total % 10) % 10


# %% exercise 3, wrong: clips the sum
# says: You clip the sum
def private_gradient(gradients, C, sigma, lot_size, rng):
    total = gradients.sum(axis=0)
    total = total * min(1, C / np.linalg.norm(total))
    return (total + rng.normal(0, sigma * C, total.shape)) / lot_size


# %% exercise 3, wrong: stretches what is short
# says: must stay as they are
def private_gradient(gradients, C, sigma, lot_size, rng):
    norms = np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-12)
    return ((gradients * C / norms).sum(axis=0) + rng.normal(0, sigma * C, gradients.shape[1])) / lot_size


# %% exercise 3, wrong: clips each entry
# says: norm of the whole row
def private_gradient(gradients, C, sigma, lot_size, rng):
    noise = rng.normal(0, sigma * C, gradients.shape[1])
    return (np.clip(gradients, -C, C).sum(axis=0) + noise) / lot_size


# %% exercise 3, wrong: the mean over the rows
# says: B would tell
def private_gradient(gradients, C, sigma, lot_size, rng):
    norms = np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-12)
    clipped = gradients * np.minimum(1, C / norms)
    return clipped.mean(axis=0) + rng.normal(0, sigma * C, gradients.shape[1]) / lot_size


# %% exercise 3, wrong: noise for every row
# says: not once for each row
def private_gradient(gradients, C, sigma, lot_size, rng):
    norms = np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-12)
    clipped = gradients * np.minimum(1, C / norms) + rng.normal(0, sigma * C, gradients.shape)
    return clipped.sum(axis=0) / lot_size


# %% exercise 3, wrong: the noise forgets C
# says: not sigma
def private_gradient(gradients, C, sigma, lot_size, rng):
    norms = np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-12)
    clipped = gradients * np.minimum(1, C / norms)
    return (clipped.sum(axis=0) + rng.normal(0, sigma, gradients.shape[1])) / lot_size


# %% exercise 3, wrong: the noise is not divided
# says: divided with it
def private_gradient(gradients, C, sigma, lot_size, rng):
    norms = np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-12)
    clipped = gradients * np.minimum(1, C / norms)
    return clipped.sum(axis=0) / lot_size + rng.normal(0, sigma * C, gradients.shape[1])


# %% exercise 3, wrong: one number for all entries
# says: draw d numbers
def private_gradient(gradients, C, sigma, lot_size, rng):
    norms = np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-12)
    clipped = gradients * np.minimum(1, C / norms)
    return (clipped.sum(axis=0) + rng.normal(0, sigma * C)) / lot_size


# %% exercise 3, right: a loop over examples, a list
def private_gradient(gradients, C, sigma, lot_size, rng):
    total = np.zeros(gradients.shape[1])
    for g in gradients:
        norm = float(np.sqrt((g * g).sum()))
        total += g if norm <= C else g / norm * C
    return [(t + rng.normal() * sigma * C) / lot_size for t in total]


# %% exercise 3, right: weights for the rows, and a product
def private_gradient(gradients, C, sigma, lot_size, rng):
    weights = C / np.maximum(C, np.linalg.norm(gradients, axis=1))
    return weights @ gradients / lot_size + rng.normal(0, sigma * C / lot_size, gradients.shape[1])


# %% exercise 4, wrong: forgets to square
# says: then square
def tokens_needed(s, gamma, z_min, e):
    return int(np.ceil(z_min * np.sqrt(gamma * (1 - gamma)) / ((1 - e) ** 2 * (s - gamma))))


# %% exercise 4, wrong: the variance of the marked text
# says: the variance without a mark
def tokens_needed(s, gamma, z_min, e):
    return int(np.ceil(z_min**2 * s * (1 - s) / ((1 - e) ** 4 * (s - gamma) ** 2)))


# %% exercise 4, wrong: rounds down
# says: not enough
def tokens_needed(s, gamma, z_min, e):
    return int(z_min**2 * gamma * (1 - gamma) / ((1 - e) ** 4 * (s - gamma) ** 2) + 1e-9)


# %% exercise 4, wrong: no edits
# says: The edits are left out
def tokens_needed(s, gamma, z_min, e):
    return int(np.ceil(z_min**2 * gamma * (1 - gamma) / (s - gamma) ** 2 - 1e-9))


# %% exercise 4, wrong: a pair dies with its second token only
# says: since a pair has two tokens
def tokens_needed(s, gamma, z_min, e):
    return int(np.ceil(z_min**2 * gamma * (1 - gamma) / ((1 - e) * (s - gamma)) ** 2 - 1e-9))


# %% exercise 4, wrong: not rounded
# says: Round up
def tokens_needed(s, gamma, z_min, e):
    return 0.4 + z_min**2 * gamma * (1 - gamma) / ((1 - e) ** 2 * (s - gamma)) ** 2


# %% exercise 4, right: counts up until it is enough
def tokens_needed(s, gamma, z_min, e):
    T = 1
    while (1 - e) ** 2 * (s - gamma) * T / (T * gamma * (1 - gamma)) ** 0.5 < z_min - 1e-12:
        T += 1
    return T


# %% exercise 4, right: the share of green that is left after the edits
def tokens_needed(s, gamma, z_min, e):
    left = (1 - e) ** 2
    share = left * s + (1 - left) * gamma
    return np.ceil(round(gamma * (1 - gamma) * (z_min / (share - gamma)) ** 2, 9))
