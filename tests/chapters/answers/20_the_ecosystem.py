# %% exercise 1, wrong: counts from the beginning of the file
# says: add 8 + n
def tensor_in(raw, name):
    (n,) = struct.unpack("<Q", raw[:8])
    entry = json.loads(raw[8 : 8 + n])[name]
    begin, end = entry["data_offsets"]
    return np.frombuffer(raw[begin:end], dtype={"F32": "<f4", "F64": "<f8"}[entry["dtype"]]).reshape(entry["shape"])


# %% exercise 1, wrong: forgets the eight bytes before the header
# says: add 8 + n
def tensor_in(raw, name):
    (n,) = struct.unpack("<Q", raw[:8])
    entry = json.loads(raw[8 : 8 + n])[name]
    begin, end = entry["data_offsets"]
    data = raw[n + begin : n + end]
    return np.frombuffer(data, dtype={"F32": "<f4", "F64": "<f8"}[entry["dtype"]]).reshape(entry["shape"])


# %% exercise 1, wrong: no shape
# says: has shape (2, 3) in the header
def tensor_in(raw, name):
    (n,) = struct.unpack("<Q", raw[:8])
    entry = json.loads(raw[8 : 8 + n])[name]
    begin, end = entry["data_offsets"]
    return np.frombuffer(raw[8 + n + begin : 8 + n + end], dtype={"F32": "<f4", "F64": "<f8"}[entry["dtype"]])


# %% exercise 1, wrong: all numbers are float32
# says: has shape
def tensor_in(raw, name):
    (n,) = struct.unpack("<Q", raw[:8])
    entry = json.loads(raw[8 : 8 + n])[name]
    begin, end = entry["data_offsets"]
    values = np.frombuffer(raw[8 + n + begin : 8 + n + end], dtype="<f4")
    return values.reshape(entry["shape"]) if values.size == np.prod(entry["shape"]) else values


# %% exercise 1, wrong: turns everything into float32
# says: read its dtype
def tensor_in(raw, name):
    from safetensors.numpy import load

    return load(raw)[name].astype(np.float32)


# %% exercise 1, right: by a view of the bytes
def tensor_in(raw, name):
    n = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + n].decode())[name]
    data = memoryview(raw)[8 + n :]
    begin, end = entry["data_offsets"]
    kind = np.dtype("float" + entry["dtype"][1:])
    return np.ndarray(tuple(entry["shape"]), kind, data[begin:end])


# %% exercise 1, right: number by number, with struct
def tensor_in(raw, name):
    (n,) = struct.unpack_from("<Q", raw)
    entry = json.loads(raw[8 : 8 + n])[name]
    letter, kind = {"F32": ("f", np.float32), "F64": ("d", np.float64)}[entry["dtype"]]
    count = int(np.prod(entry["shape"]))
    values = struct.unpack_from(f"<{count}{letter}", raw, 8 + n + entry["data_offsets"][0])
    return np.array(values, dtype=kind).reshape(entry["shape"])


# %% exercise 2, wrong: without the scale
# says: The scale s = alpha / r is missing
def merged(W, A, B, r, alpha, fan_in_fan_out):
    change = B @ A
    return W + (change.T if fan_in_fan_out else change)


# %% exercise 2, wrong: alpha alone as the scale
# says: Check s
def merged(W, A, B, r, alpha, fan_in_fan_out):
    change = alpha * B @ A
    return W + (change.T if fan_in_fan_out else change)


# %% exercise 2, wrong: GPT-2's matrices the usual way round
# says: the change must be turned as W is
def merged(W, A, B, r, alpha, fan_in_fan_out):
    change = alpha / r * B @ A
    return W + change if W.shape == change.shape else W + change.T


# %% exercise 2, wrong: the change turned always
# says: Beside the layer and merged
def merged(W, A, B, r, alpha, fan_in_fan_out):
    change = alpha / r * (B @ A)
    return W + (change.T if W.shape != change.shape or W.shape[0] == W.shape[1] else change)


# %% exercise 2, wrong: into W itself
# says: W itself has changed
def merged(W, A, B, r, alpha, fan_in_fan_out):
    change = alpha / r * B @ A
    W += change.T if fan_in_fan_out else change
    return W


# %% exercise 2, wrong: the result always as (out, in)
# says: With fan_in_fan_out, W is (in, out)
def merged(W, A, B, r, alpha, fan_in_fan_out):
    return (W.T if fan_in_fan_out else W) + alpha / r * B @ A


# %% exercise 2, right: rank by rank
def merged(W, A, B, r, alpha, fan_in_fan_out):
    result = np.array(W, dtype=float)
    for k in range(r):
        result += alpha / r * (np.outer(A[k], B[:, k]) if fan_in_fan_out else np.outer(B[:, k], A[k]))
    return result


# %% exercise 2, right: by einsum, the axes named
def merged(W, A, B, r, alpha, fan_in_fan_out):
    axes = "ri,or->io" if fan_in_fan_out else "ri,or->oi"
    return (np.einsum(axes, A, B) * (alpha / r) + W).tolist()


# %% exercise 3, wrong: loads it and looks at the types
# says: has loaded the pickle
def imports_of(data):
    value = pickle.loads(data)
    return {f"{type(v).__module__}.{type(v).__name__}" for v in np.ravel(value)}


# %% exercise 3, wrong: only the old instruction
# says: The new kind (STACK_GLOBAL)
def imports_of(data):
    return {a.replace(" ", ".") for i, a, _ in pickletools.genops(data) if i.name == "GLOBAL"}


# %% exercise 3, wrong: only the new instruction
# says: The old kind (GLOBAL)
def imports_of(data):
    found, texts = set(), []
    for instruction, argument, _ in pickletools.genops(data):
        if "UNICODE" in instruction.name:
            texts.append(argument)
        if instruction.name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
    return found


# %% exercise 3, wrong: searches for dangerous words
# says: imports nothing
def imports_of(data):
    found = set()
    for instruction, argument, _ in pickletools.genops(data):
        if isinstance(argument, str) and any(word in argument for word in ("exec", "eval", "system")):
            found.add(argument)
    return found


# %% exercise 3, wrong: the first two texts instead of the last
# says: The new kind (STACK_GLOBAL)
def imports_of(data):
    texts, found = [], set()
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name.endswith("UNICODE"):
            texts.append(argument)
        elif "GLOBAL" in instruction.name:
            found.add(argument.replace(" ", ".") if argument else ".".join(texts[:2]))
    return found


# %% exercise 3, right: a list with repetitions, two texts remembered
def imports_of(data):
    before, last, found = "", "", []
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"):
            before, last = last, argument
        if instruction.name == "GLOBAL":
            found.append(".".join(argument.split(" ")))
        if instruction.name == "STACK_GLOBAL":
            found.append(f"{before}.{last}")
    return found


# %% exercise 3, right: by an unpickler that imports nothing and stops there
def imports_of(data):
    import io

    found = set()

    class Nothing(dict):
        def __init__(self, *arguments):
            super().__init__()

        def __setstate__(self, state):
            pass

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            found.add(f"{module}.{name}")
            return Nothing

    Reader(io.BytesIO(data)).load()
    return found


# %% exercise 4, wrong: kilograms
# says: Grams, not kilograms
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    return 6 * parameters * tokens / reached * watts / 3.6e6 * grams_per_kwh / 1000


# %% exercise 4, wrong: the forward pass only
# says: 6 operations, not 2
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    return 2 * parameters * tokens / reached * watts / 3.6e6 * grams_per_kwh


# %% exercise 4, wrong: joules taken for kilowatt-hours
# says: Watts times seconds are joules
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    return 6 * parameters * tokens / reached * watts * grams_per_kwh


# %% exercise 4, wrong: watts taken for kilowatts
# says: Watts are not kilowatts
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    hours = 6 * parameters * tokens / reached / 3600
    return hours * watts * grams_per_kwh


# %% exercise 4, right: in exact fractions
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    from fractions import Fraction

    hours = Fraction(6) * int(parameters) * int(tokens) / int(reached) / 3600
    return float(hours * int(watts) / 1000 * int(grams_per_kwh))


# %% exercise 4, right: as an array of one
def grams_of_co2(parameters, tokens, reached, watts, grams_per_kwh):
    kwh = np.prod([6.0, parameters, tokens, watts]) / reached / (1000 * 60 * 60)
    return np.float64(kwh) * np.asarray(grams_per_kwh)
