# %% exercise 1, wrong: sums added as they are
# says: each part's sum is relative to its own m
def merge(m1, l1, acc1, m2, l2, acc2):
    return np.maximum(m1, m2), l1 + l2, acc1 + acc2


# %% exercise 1, wrong: only l is scaled
# says: acc is wrong: it is scaled by the same factors
def merge(m1, l1, acc1, m2, l2, acc2):
    m = np.maximum(m1, m2)
    return m, np.exp(m1 - m) * l1 + np.exp(m2 - m) * l2, acc1 + acc2


# %% exercise 1, wrong: divided at the end
# says: acc is the sum before the division
def merge(m1, l1, acc1, m2, l2, acc2):
    m = np.maximum(m1, m2)
    a1, a2 = np.exp(m1 - m), np.exp(m2 - m)
    l = a1 * l1 + a2 * l2
    return m, l, (a1[:, None] * acc1 + a2[:, None] * acc2) / l[:, None]


# %% exercise 1, wrong: the factor upside down
# says: the part with the smaller m shrinks
def merge(m1, l1, acc1, m2, l2, acc2):
    m = np.maximum(m1, m2)
    a1, a2 = np.exp(m - m1), np.exp(m - m2)
    return m, a1 * l1 + a2 * l2, a1[:, None] * acc1 + a2[:, None] * acc2


# %% exercise 1, wrong: the later part's maximum
# says: m is the larger of the two
def merge(m1, l1, acc1, m2, l2, acc2):
    a1 = np.exp(m1 - m2)
    return m2, a1 * l1 + l2, a1[:, None] * acc1 + acc2


# %% exercise 1, right: row by row, in plain numbers
def merge(m1, l1, acc1, m2, l2, acc2):
    m, l, acc = [], [], []
    for i in range(len(m1)):
        top = max(m1[i], m2[i])
        f, g = float(np.exp(m1[i] - top)), float(np.exp(m2[i] - top))
        m.append(top)
        l.append(f * l1[i] + g * l2[i])
        acc.append([f * a + g * b for a, b in zip(acc1[i], acc2[i])])
    return m, l, acc


# %% exercise 1, right: l as one more column of acc
def merge(m1, l1, acc1, m2, l2, acc2):
    m = np.where(m1 > m2, m1, m2)
    both = np.exp(m1 - m)[:, None] * np.c_[acc1, l1] + np.exp(m2 - m)[:, None] * np.c_[acc2, l2]
    return [m, both[:, -1], both[:, :-1]]


# %% exercise 2, wrong: the window is left out
# says: is visited in vain
def key_blocks(i0, M, N, T, w):
    return list(range(0, min(T, i0 + M), N))


# %% exercise 2, wrong: the window of the tile's last query
# says: is left out
def key_blocks(i0, M, N, T, w):
    return list(range(max(0, i0 + M - w) // N * N, min(T, i0 + M), N))


# %% exercise 2, wrong: one key too far back
# says: is visited in vain
def key_blocks(i0, M, N, T, w):
    return list(range(max(0, i0 - w) // N * N, min(T, i0 + M), N))


# %% exercise 2, wrong: blocks that begin where the window does
# says: blocks begin at multiples of N
def key_blocks(i0, M, N, T, w):
    return list(range(max(0, i0 - w + 1), min(T, i0 + M), N))


# %% exercise 2, wrong: the text's end is forgotten
# says: is visited in vain
def key_blocks(i0, M, N, T, w):
    return list(range(max(0, i0 - w + 1) // N * N, i0 + M, N))


# %% exercise 2, right: each pair looked at
def key_blocks(i0, M, N, T, w):
    pairs = [(i, j) for i in range(i0, min(i0 + M, T)) for j in range(T) if i - w < j <= i]
    return sorted({j - j % N for _, j in pairs})


# %% exercise 2, right: blocks that overlap, as an array
def key_blocks(i0, M, N, T, w):
    starts = np.arange(0, T, N)
    return starts[(starts + N > i0 - w + 1) & (starts < min(T, i0 + M))]


# %% exercise 3, wrong: a softmax within the block
# says: Your P sums to 1 within the block
def block_gradients(Q, K, V, dO, L, D):
    S = Q @ K.T / np.sqrt(Q.shape[1])
    P = np.exp(S) / np.exp(S).sum(axis=1, keepdims=True)
    dS = P * (dO @ V.T - D[:, None])
    return dS.T @ Q / np.sqrt(Q.shape[1]), P.T @ dO


# %% exercise 3, wrong: dK without the scale
# says: dK lacks the 1/√d
def block_gradients(Q, K, V, dO, L, D):
    P = np.exp(Q @ K.T / np.sqrt(Q.shape[1]) - L[:, None])
    return (P * (dO @ V.T - D[:, None])).T @ Q, P.T @ dO


# %% exercise 3, wrong: D is left out
# says: dS lacks D
def block_gradients(Q, K, V, dO, L, D):
    scale = 1 / np.sqrt(Q.shape[1])
    P = np.exp(scale * Q @ K.T - L[:, None])
    return scale * (P * (dO @ V.T)).T @ Q, P.T @ dO


# %% exercise 3, wrong: D of the block alone
# says: D belongs to the rows
def block_gradients(Q, K, V, dO, L, D):
    scale = 1 / np.sqrt(Q.shape[1])
    P = np.exp(scale * Q @ K.T - L[:, None])
    dP = dO @ V.T
    return scale * (P * (dP - (P * dP).sum(axis=1, keepdims=True))).T @ Q, P.T @ dO


# %% exercise 3, wrong: the scores are not scaled
# says: dV = Pᵀ dO, with P = e^(S − L)
def block_gradients(Q, K, V, dO, L, D):
    P = np.exp(Q @ K.T - L[:, None])
    return (P * (dO @ V.T - D[:, None])).T @ Q / np.sqrt(Q.shape[1]), P.T @ dO


# %% exercise 3, right: key by key
def block_gradients(Q, K, V, dO, L, D):
    dK, dV = [], []
    for key, value in zip(K, V):
        p = np.exp(Q @ key / len(key) ** 0.5 - L)
        dV.append(p @ dO)
        dK.append(p * (dO @ value - D) @ Q / len(key) ** 0.5)
    return dK, dV


# %% exercise 3, right: in base 2, by einsum
def block_gradients(Q, K, V, dO, L, D):
    scale = Q.shape[1] ** -0.5
    P = np.exp2((np.einsum("td,nd->tn", Q, K) * scale - L[:, None]) * np.log2(np.e))
    dS = P * np.einsum("td,nd->tn", dO, V) - P * D[:, None]
    return np.einsum("tn,td->nd", dS * scale, Q), np.einsum("tn,td->nd", P, dO)
