# %% exercise 1, wrong: forgets what arrives
# says: what does a slope do with the dL/dy that arrives
def relu_backward(grad, x):
    return ((x > 0).astype(float),)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, wrong: cuts the gradient at zero, not x
# says: The numbers differ
def relu_backward(grad, x):
    return (np.maximum(grad, 0),)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, wrong: multiplies by the output
# says: The numbers differ
def relu_backward(grad, x):
    return (grad * np.maximum(x, 0),)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, wrong: writes into what arrives
# says: Do not write into grad
def relu_backward(grad, x):
    grad[x < 0] = 0
    return (grad,)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, wrong: writes into the parent's array
# says: Do not write into x
def relu_backward(grad, x):
    x[x < 0] = 0
    return (grad * np.sign(x),)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, wrong: not a tuple
# says: The comma makes it a tuple
def relu_backward(grad, x):
    return grad * (x > 0)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, right: a list, by np.where
def relu_backward(grad, x):
    return [np.where(x >= 0, grad, 0.0)]


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, right: the mean of two slopes
def relu_backward(grad, x):
    return (0.5 * (1 + np.sign(x)) * grad,)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))

# %% exercise 1, wrong: the sign in place of the slope
# says: What is the slope of relu at -1
def relu_backward(grad, x):
    return (grad * np.sign(x),)


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))


# %% exercise 1, right: a step function, as a list of an array
def relu_backward(grad, x):
    return [np.heaviside(x, 0.5) * grad]


def relu(x):
    return Value(np.maximum(x.data, 0), Node((x,), relu_backward, (x.data,)))


# %% exercise 2, wrong: runs in the same direction
# says: then only x₀ matters
def cumsum_backward(grad):
    return (np.cumsum(grad),)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))

# %% exercise 2, wrong: not turned back
# says: then only x₀ matters
def cumsum_backward(grad):
    return (np.cumsum(grad[::-1]),)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))

# %% exercise 2, wrong: without its own place, but for the first
# says: The numbers differ from finite differences
def cumsum_backward(grad):
    sums = np.cumsum(grad[::-1])[::-1] - grad
    sums[0] += grad[0]
    return (sums,)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))

# %% exercise 2, wrong: counts the outputs
# says: then only x₀ matters
def cumsum_backward(grad):
    return (grad.sum() * np.arange(len(grad), 0, -1),)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))

# %% exercise 2, wrong: sums up in place
# says: Do not write into grad
def cumsum_backward(grad):
    for i in range(len(grad) - 2, -1, -1):
        grad[i] += grad[i + 1]
    return (grad,)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))

# %% exercise 2, right: the whole less what stands before
def cumsum_backward(grad):
    return (grad.sum() - np.cumsum(grad) + grad,)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))

# %% exercise 2, right: a matrix of ones, a list
def cumsum_backward(grad):
    return [np.tri(len(grad)).T @ grad]


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))

# %% exercise 2, wrong: what stands before in place of what comes after
# says: differ from finite differences
def cumsum_backward(grad):
    return (grad[0] + grad.sum() - np.cumsum(grad[::-1])[::-1],) if len(grad) > 1 and grad[1] else (grad * 1,)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))


# %% exercise 2, right: sums of slices, one after the other
def cumsum_backward(grad):
    return (np.array([grad[j:].sum() for j in range(len(grad))]),)


def cumsum(x):
    return Value(np.cumsum(x.data), Node((x,), cumsum_backward, ()))


# %% exercise 3, wrong: tries it with the identity matrix
# says: wrong ones for right
def is_right(colleague):
    return largest_error(matmul_of(colleague), rng.standard_normal((3, 3)), np.eye(3)) < 1e-7

# %% exercise 3, wrong: a row times a column
# says: wrong ones for right
def is_right(colleague):
    try:
        return largest_error(matmul_of(colleague), rng.standard_normal((1, 4)), rng.standard_normal((4, 1))) < 1e-7
    except (ValueError, AssertionError):
        return False

# %% exercise 3, wrong: takes every error of Python for a right answer
# says: wrong ones for right
def is_right(colleague):
    try:
        return largest_error(matmul_of(colleague), rng.standard_normal((3, 4)), rng.standard_normal((4, 2))) < 1e-7
    except Exception:
        return True

# %% exercise 3, wrong: does not catch what a wrong one raises
# says: take that for a verdict
def is_right(colleague):
    return largest_error(matmul_of(colleague), rng.standard_normal((3, 4)), rng.standard_normal((4, 2))) < 1e-7

# %% exercise 3, wrong: only looks at shapes
# says: wrong ones for right
def is_right(colleague):
    A, B = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    try:
        da, db = colleague(rng.standard_normal((3, 2)), A, B)
    except ValueError:
        return False
    return da.shape == A.shape and db.shape == B.shape

# %% exercise 3, wrong: all are right
# says: wrong ones for right
def is_right(colleague):
    return True

# %% exercise 3, wrong: the limit is below rounding
# says: Your test refuses the chapter's own
def is_right(colleague):
    return largest_error(matmul_of(colleague), rng.standard_normal((3, 3)), rng.standard_normal((3, 3))) == 0

# %% exercise 3, right: compares with the formula
def is_right(colleague):
    A, B, G = rng.standard_normal((3, 3)), rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    try:
        da, db = colleague(G, A, B)
    except ValueError:
        return False
    return np.allclose(da, G @ B.T) and np.allclose(db, A.T @ G)

# %% exercise 3, right: several sizes, 0 or 1
def is_right(colleague):
    worst = 0
    for n, k, m in ((2, 2, 2), (4, 4, 4), (2, 3, 4)):
        try:
            error = largest_error(matmul_of(colleague), rng.standard_normal((n, k)), rng.standard_normal((k, m)))
        except Exception:
            error = np.inf
        worst = max(worst, error)
    return int(worst < 1e-6)

# %% exercise 4, wrong: writes into what arrives
# says: Do not write into grad
def rms_norm_backward(grad, xhat, r, w):
    dw = (grad * xhat).sum(axis=0)
    grad *= w
    return r * (grad - xhat * (grad * xhat).mean(axis=1, keepdims=True)), dw


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))


# %% exercise 4, wrong: layer norm's formula
# says: Which paths lead from x
def rms_norm_backward(grad, xhat, r, w):
    h = grad * w
    dx = r * (h - h.mean(axis=1, keepdims=True) - xhat * (h * xhat).mean(axis=1, keepdims=True))
    return dx, (grad * xhat).sum(axis=0)


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))

# %% exercise 4, wrong: r taken for a constant
# says: Which paths lead from x
def rms_norm_backward(grad, xhat, r, w):
    return grad * w * r, (grad * xhat).sum(axis=0)


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))

# %% exercise 4, wrong: means over all rows
# says: Which paths lead from x
def rms_norm_backward(grad, xhat, r, w):
    h = grad * w
    return r * (h - xhat * (h * xhat).mean()), (grad * xhat).sum(axis=0)


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))

# %% exercise 4, wrong: the scales' gradient not summed
# says: sum over the rows
def rms_norm_backward(grad, xhat, r, w):
    h = grad * w
    return r * (h - xhat * (h * xhat).mean(axis=1, keepdims=True)), grad * xhat


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))

# %% exercise 4, wrong: the scales' gradient as a mean
# says: Each w_i meets
def rms_norm_backward(grad, xhat, r, w):
    h = grad * w
    return r * (h - xhat * (h * xhat).mean(axis=1, keepdims=True)), (grad * xhat).mean(axis=0)


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))

# %% exercise 4, right: row by row, with the matrix of slopes, as a list
def rms_norm_backward(grad, xhat, r, w):
    D = len(w)
    rows = []
    for g, x, scale in zip(grad, xhat, r):
        slopes = scale * (np.eye(D) - np.outer(x, x) / D)
        rows.append(slopes @ (g * w))
    return [np.array(rows), np.einsum("nd,nd->d", grad, xhat)]


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))

# %% exercise 4, right: from x itself
def rms_norm_backward(grad, xhat, r, w):
    x = xhat / r
    h = grad * w
    dx = h * r - x * r**3 * (h * x).sum(axis=1, keepdims=True) / len(w)
    return dx, np.diag(grad.T @ xhat)


def rms_norm(x, w, eps=1e-6):
    r = 1 / np.sqrt((x.data**2).mean(axis=1, keepdims=True) + eps)
    xhat = x.data * r
    return Value(xhat * w.data, Node((x, w), rms_norm_backward, (xhat, r, w.data)))
