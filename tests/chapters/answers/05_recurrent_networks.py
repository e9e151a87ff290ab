# %% exercise 1, wrong: the gate itself, not its bias
# says: Put your bias into σ
def forget_bias(k):
    return 0.5 ** (1 / k)


# %% exercise 1, wrong: the bias that halves at each step, whatever k
# says: the more open must the gate be
def forget_bias(k):
    return 0.0


# %% exercise 1, wrong: the sign
# says: the more open must the gate be
def forget_bias(k):
    return np.log(2 ** (1 / k) - 1)


# %% exercise 1, wrong: the approximation for large k
# says: After a single step your gate leaves
def forget_bias(k):
    return np.log(k / np.log(2))


# %% exercise 1, wrong: the power forgotten: half of σ(b)·k
# says: what must a single step leave
def forget_bias(k):
    f = 1 - 1 / (2 * k)
    return np.log(f / (1 - f))


# %% exercise 1, right: the logit of the root, as a NumPy scalar
def forget_bias(k):
    f = np.power(0.5, np.float64(1) / k)
    return np.log(f) - np.log1p(-f)


# %% exercise 1, right: by bisection
def forget_bias(k):
    low, high = -50.0, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        if sigmoid(middle) ** k < 0.5:
            low = middle
        else:
            high = middle
    return np.array([low])


# %% exercise 2, wrong: two tables
# says: stands in it twice
def lstm_weights(V, D):
    return 2 * V * D + 8 * D**2 + 8 * D


# %% exercise 2, wrong: no table
# says: table is missing
def lstm_weights(V, D):
    return 8 * D**2 + 8 * D


# %% exercise 2, wrong: one bias
# says: how many biases
def lstm_weights(V, D):
    return V * D + 8 * D**2 + 4 * D


# %% exercise 2, wrong: an RNN's maps
# says: How many maps
def lstm_weights(V, D):
    return V * D + 2 * D**2 + 2 * D


# %% exercise 2, wrong: no biases
# says: the biases are missing
def lstm_weights(V, D):
    return V * D + 8 * D**2


# %% exercise 2, right: as an array
def lstm_weights(V, D):
    return np.array(V * D + 4 * D * (D + D) + 4 * (D + D))


# %% exercise 2, right: counted on a model
def lstm_weights(V, D):
    model = LSTM(LSTMConfig(V, context=2, n_layers=1, d_model=D, tie_embeddings=True))
    return sum(p.data.size for _, p in model.named_parameters())


# %% exercise 3, wrong: a new state for each piece
# says: does each call know
def loss_in_pieces(model, ids, targets, piece):
    total = 0.0
    for start in range(0, ids.shape[1], piece):
        part = slice(start, start + piece)
        total += model(ids[:, part], targets[:, part], cache=model.new_cache(), reduction="sum").item()
    return total


# %% exercise 3, wrong: means added up
# says: a sum; you have
def loss_in_pieces(model, ids, targets, piece):
    state, total = model.new_cache(), 0.0
    for start in range(0, ids.shape[1], piece):
        part = slice(start, start + piece)
        total += model(ids[:, part], targets[:, part], cache=state).item()
    return total


# %% exercise 3, wrong: the last, shorter piece is left out
# says: is it read, and once
def loss_in_pieces(model, ids, targets, piece):
    state, total = model.new_cache(), 0.0
    for start in range(0, ids.shape[1] - piece + 1, piece):
        part = slice(start, start + piece)
        total += model(ids[:, part], targets[:, part], cache=state, reduction="sum").item()
    return total


# %% exercise 3, wrong: no state at all
# says: does each call know
def loss_in_pieces(model, ids, targets, piece):
    total = 0.0
    for start in range(0, ids.shape[1], piece):
        part = slice(start, start + piece)
        total += model(ids[:, part], targets[:, part], reduction="sum").item()
    return total


# %% exercise 3, wrong: all in one go, whatever `piece`
# says: tokens at a time
def loss_in_pieces(model, ids, targets, piece):
    return model(ids, targets, reduction="sum").item()


# %% exercise 3, right: a Tensor, from a list of pieces
def loss_in_pieces(model, ids, targets, piece):
    state = model.new_cache()
    cuts = range(piece, ids.shape[1], piece)
    pairs = zip(np.split(ids, cuts, axis=1), np.split(targets, cuts, axis=1))
    return sum(model(x, y, cache=state, reduction="sum") for x, y in pairs)


# %% exercise 3, right: means times their number of tokens
def loss_in_pieces(model, ids, targets, piece):
    state, total, start = model.new_cache(), 0.0, 0
    while start < ids.shape[1]:
        y = targets[:, start : start + piece]
        total += y.size * model(ids[:, start : start + piece], y, cache=state).item()
        start += piece
    return np.array([total])


# %% exercise 4, wrong: the second place of f forgotten
# says: f stands in c' in two places
def coupled_backward(dc_new, f, g, c):
    df, dg = dc_new * c, dc_new * (1 - f)
    return np.concatenate([df * f * (1 - f), dg * (1 - g**2)], axis=1), dc_new * f


# %% exercise 4, wrong: the slope of σ forgotten
# says: σ has a slope
def coupled_backward(dc_new, f, g, c):
    df, dg = dc_new * (c - g), dc_new * (1 - f)
    return np.concatenate([df, dg * (1 - g**2)], axis=1), dc_new * f


# %% exercise 4, wrong: dc and its gate exchanged
# says: What multiplies c
def coupled_backward(dc_new, f, g, c):
    df, dg = dc_new * (c - g), dc_new * f
    return np.concatenate([df * f * (1 - f), dg * (1 - g**2)], axis=1), dc_new * (1 - f)


# %% exercise 4, wrong: the slope of tanh forgotten
# says: slope of tanh
def coupled_backward(dc_new, f, g, c):
    df, dg = dc_new * (c - g), dc_new * (1 - f)
    return np.concatenate([df * f * (1 - f), dg], axis=1), dc_new * f


# %% exercise 4, wrong: halves side by side on the wrong axis
# says: dz must be
def coupled_backward(dc_new, f, g, c):
    df, dg = dc_new * (c - g), dc_new * (1 - f)
    return np.concatenate([df * f * (1 - f), dg * (1 - g**2)]), dc_new * f


# %% exercise 4, right: lists
def coupled_backward(dc_new, f, g, c):
    dz_f = dc_new * c * f * (1 - f) - dc_new * g * f * (1 - f)
    dz_g = dc_new * (1 - f) * (1 - g * g)
    return np.hstack([dz_f, dz_g]).tolist(), (dc_new * f).tolist()


# %% exercise 4, right: by autograd
def coupled_backward(dc_new, f, g, c):
    z = Parameter(np.hstack([np.log(f / (1 - f)), np.arctanh(g)]))
    cell, H = Parameter(c.copy()), f.shape[1]
    gate, new = z[:, :H].sigmoid(), z[:, H:].tanh()
    (gate * cell + (1 - gate) * new).backward(dc_new)
    return z.grad, cell.grad


# %% exercise 5, wrong: the forget gate half open
# says: what does f do
def counter():
    W_x, W_h, b = np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4)
    W_x[2] = [20, -20, 0]
    b[0] = 20
    return W_x, W_h, b


# %% exercise 5, wrong: a bracket writes, and “a” too
# says: leave alone
def counter():
    W_x, W_h, b = np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4)
    W_x[2] = [20, -20, 20]
    b[:2] = 20
    return W_x, W_h, b


# %% exercise 5, wrong: the closing bracket forgotten
# says: takes one away
def counter():
    W_x, W_h, b = np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4)
    W_x[2] = [20, 0, 0]
    b[:2] = 20
    return W_x, W_h, b


# %% exercise 5, wrong: gates that are only nearly open
# says: small errors add up
def counter():
    W_x, W_h, b = np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4)
    W_x[2] = [20, -20, 0]
    b[:2] = 5
    return W_x, W_h, b


# %% exercise 5, wrong: rows in the order of the formula of g
# says: leave alone
def counter():
    W_x, W_h, b = np.zeros((4, 3)), np.zeros((4, 1)), np.zeros(4)
    W_x[0] = [20, -20, 0]
    b[1:3] = 20
    return W_x, W_h, b


# %% exercise 5, right: lists, and i closed at “a”
def counter():
    W_x = [[40, 40, -40], [0, 0, 0], [30, -30, 0], [0, 0, 0]]
    return W_x, [[0], [0], [0], [0]], [0, 30, 0, 0]


# %% exercise 5, right: the biases in the columns of W_x, since one of them is always 1
def counter():
    W_x = np.array([[25, 25, 25], [25, 25, 25], [25, -25, 0], [7, 7, 7]], dtype=int)
    return W_x, np.zeros((4, 1)), np.zeros(4)
