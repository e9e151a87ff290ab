# %% exercise 1, wrong: NumPy's tanh of the numbers
# says: not a Tensor
def softcap(x, c):
    return np.tanh(x.data / c) * c


# %% exercise 1, wrong: PyTorch's function
# says: raised
def softcap(x, c):
    return c * torch.tanh(x / c)


# %% exercise 1, wrong: wrapped again, without a graph
# says: has no graph
def softcap(x, c):
    values = np.tanh(lab.as_array(x) / c) * c
    return Tensor(values) if isinstance(x, Tensor) else torch.tensor(values)


# %% exercise 1, wrong: clipped
# says: the values are wrong
def softcap(x, c):
    return x.clip(-c, c)


# %% exercise 1, wrong: multiplied inside
# says: the values are wrong
def softcap(x, c):
    return (x * c).tanh() / c


# %% exercise 1, wrong: the graph of PyTorch's side is cut
# says: has no graph
def softcap(x, c):
    if isinstance(x, Tensor):
        return (x / c).tanh() * c
    return torch.tanh(x.detach() / c) * c


# %% exercise 1, right: by the sigmoid
def softcap(x, c):
    return (x * (2 / c)).sigmoid() * (2 * c) - c


# %% exercise 1, right: asks whose tensor it is
def softcap(x, c):
    if ops.backend(x) is torch_ops:
        return torch.tanh(x / c).mul(c)
    return (x / c).tanh() * c


# %% exercise 1, right: by exponentials
def softcap(x, c):
    e = (x * (-2 / c)).exp()
    return (1 - e) / (1 + e) * c


# %% exercise 2, wrong: as if r did not depend on x
# says: dx is wrong. r depends on x too
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        return grad * w * r, (grad * xhat).sum(dim=(0, 1)), None


# %% exercise 2, wrong: dw of each row
# says: dw has shape (2, 3, 5)
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        h = grad * w
        return r * (h - xhat * (h * xhat).mean(dim=-1, keepdim=True)), grad * xhat, None


# %% exercise 2, wrong: dw as a mean
# says: dw is wrong
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        h = grad * w
        dx = r * (h - xhat * (h * xhat).mean(dim=-1, keepdim=True))
        return dx, (grad * xhat).mean(dim=(0, 1)), None


# %% exercise 2, wrong: without the weight in h
# says: Does h hold the weight
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        dx = r * (grad - xhat * (grad * xhat).mean(dim=-1, keepdim=True))
        return dx, (grad * xhat).sum(dim=(0, 1)), None


# %% exercise 2, wrong: a mean over everything
# says: mean over the last axis only
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        h = grad * w
        return r * (h - xhat * (h * xhat).mean()), (grad * xhat).sum(dim=(0, 1)), None


# %% exercise 2, wrong: only two results
# says: returns three things
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        h = grad * w
        return r * (h - xhat * (h * xhat).mean(dim=-1, keepdim=True)), (grad * xhat).sum(dim=(0, 1))


# %% exercise 2, right: the library's own
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        from minillm.numpy_ops.rms_norm import rms_norm

        xhat, r, w = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        x, weight = Tensor(xhat / r, requires_grad=True), Parameter(w.copy())
        eps = (1 / r**2 - (x.data**2).mean(axis=-1, keepdims=True)).mean()
        rms_norm(x, weight, eps).backward(grad.numpy())
        return torch.from_numpy(x.grad), torch.from_numpy(weight.grad), None


# %% exercise 2, right: in terms of x, and as products
class RMSNorm(RMSNorm):
    @staticmethod
    def backward(ctx, grad):
        xhat, r, w = ctx.saved_tensors
        rows = xhat.reshape(-1, w.numel())
        h = grad.reshape(rows.shape) * w
        projected = torch.einsum("nd,nd->n", h, rows) / w.numel()
        dx = (h - rows * projected[:, None]).reshape(xhat.shape) * r
        return dx, torch.einsum("nd,nd->d", grad.reshape(rows.shape), rows), None


# %% exercise 3, wrong: everything in 16 bits
# says: of two types the wider one wins
types = dict.fromkeys(["y", "a", "s", "m", "w.grad"], "bfloat16")

# %% exercise 3, wrong: nothing changes
# says: a matrix product is what autocast is there for
types = dict.fromkeys(["y", "a", "s", "m", "w.grad"], "float32")

# %% exercise 3, wrong: GELU is cast back
# says: GELU takes what comes
types = {"y": "bfloat16", "a": "float32", "s": "float32", "m": "float32", "w.grad": "float32"}

# %% exercise 3, wrong: the gradient is as the product was
# says: a gradient has the type of what
types = {"y": "bfloat16", "a": "bfloat16", "s": "float32", "m": "float32", "w.grad": "bfloat16"}

# %% exercise 3, right: PyTorch's own names
low, high = torch.bfloat16, torch.float32
types = {"y": low, "a": low, "s": high, "m": high, "w.grad": high}

# %% exercise 3, right: names written in full
types = {key: "torch.float32" for key in ("s", "m", "w.grad")}
types |= {key: "torch.bfloat16" for key in ("y", "a")}

# %% exercise 4, wrong: where the gap is largest
# says: an earlier module than norm differs already
fault = {"1": "norm", "2": "norm", "3": "none"}

# %% exercise 4, wrong: rounding taken for a fault
# says: Port 3 is right
fault = {"1": "blocks.0.attn.proj", "2": "blocks.1.norm_2", "3": "blocks.0.norm_1"}

# %% exercise 4, wrong: the outer module
# says: an earlier module than blocks.0 differs already
fault = {"1": "blocks.0", "2": "blocks.1.norm_2", "3": "none"}

# %% exercise 4, wrong: the one before the fault
# says: still gives the right numbers
fault = {"1": "blocks.0.attn.qkv", "2": "blocks.1.norm_2", "3": "none"}

# %% exercise 4, wrong: a small gap taken for rounding
# says: such a gap is no rounding in float64
fault = {"1": "blocks.0.attn.proj", "2": "none", "3": "none"}

# %% exercise 4, wrong: a name of Python's
# says: No module is called
fault = {"1": "blocks[0].attn.proj", "2": "blocks.1.norm_2", "3": "none"}

# %% exercise 4, right: halved, from both ends
fault = {}
for key, ported in ports.items():
    with lab.outputs_by_name(ported) as found:
        ported(t_ids)
    order = list(expected_outputs)
    low, high = 0, len(order)  # all before `low` are right; `high` and all after it are wrong
    while low < high:
        middle = (low + high) // 2
        if np.allclose(found[order[middle]], expected_outputs[order[middle]], rtol=0, atol=1e-12):
            low = middle + 1
        else:
            high = middle
    fault[key] = order[low] if low < len(order) else "none"

# %% exercise 4, right: weights compared, and settings
fault = {key: "none" for key in ports}
for key, ported in ports.items():
    for (name, ours), theirs in zip(right.named_parameters(), ported.parameters()):
        if not np.array_equal(ours.data, theirs.detach().numpy()):
            fault[key] = name.removesuffix(".weight")
    for name, module in right.named_modules():
        if getattr(module, "eps", None) != getattr(ported.get_submodule(name), "eps", None):
            fault[key] = name
fault = {int(key): name for key, name in fault.items()}
